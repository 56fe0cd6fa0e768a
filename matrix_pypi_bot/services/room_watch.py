"""A room's current state, looked at: is it still what it was made to be, do our statements stand, may we be and speak there?"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Sequence

from matrix_pypi_bot.core.statements.common import EVENT_PREFIX
from matrix_pypi_bot.ports import Clock, RoomRow, Store
from matrix_pypi_bot.services.constitution import POWER_LEVELS, constitution_hash, deviations, read_constitution
from matrix_pypi_bot.services.homeserver import JsonObject
from matrix_pypi_bot.services.powers import grants, membership, shuts_out
from matrix_pypi_bot.services.reassert import Reasserter
from matrix_pypi_bot.services.rooms import Rooms
from matrix_pypi_bot.wire.problems import Problem

log = logging.getLogger(__name__)


class RoomWatch:
    """`bot` is our own user id. `on_mail()` hears that something was queued, `on_put_out()` that we are no longer in a room."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        rooms: Rooms,
        reasserter: Reasserter,
        bot: str,
        on_mail: Callable[[], None] = lambda: None,
        on_put_out: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._rooms = rooms
        self._reasserter = reasserter
        self._bot = bot
        self._server = bot.partition(":")[2]
        self._on_mail = on_mail
        self._on_put_out = on_put_out
        self._reported: dict[str, str] = {}

    async def look(self, row: RoomRow, state: Sequence[JsonObject]) -> None:
        """Notices and answers what the state of the room says. Raises StoreAway, and what `Rooms.ensure` raises."""
        self._compare(row, state)
        if row.made_by and membership(state, self._bot) in ("leave", "ban"):
            await self.put_out(row)
            return
        await self._watch_slots(row, state)
        await self._grant(row, state)
        if row.made_by and not row.is_read_only and shuts_out(state, self._server):
            await self._rooms.move_out(row.key, lost=False)

    async def put_out(self, row: RoomRow) -> None:
        """We are in the room no longer. Raises StoreAway."""
        log.warning("put out of a room alarm", extra={"room": row.key, "room_id": row.room_id})
        await self._rooms.others.lose(row.room_id)
        self._on_put_out()

    def _compare(self, row: RoomRow, state: Sequence[JsonObject]) -> None:
        actual = read_constitution(state)
        found = constitution_hash(actual)
        if found == row.constitution:
            if self._reported.pop(row.room_id, None):
                log.info("constitution restored", extra={"room": row.key, "room_id": row.room_id})
        elif self._reported.get(row.room_id) != found:
            self._reported[row.room_id] = found
            parts: tuple[str, ...] = ()
            with contextlib.suppress(Problem):
                parts = deviations(self._rooms.expected(row, actual), actual) or ("creators",)
            log.warning("constitution changed alarm", extra={"room": row.key, "room_id": row.room_id, "parts": parts})

    async def _watch_slots(self, row: RoomRow, state: Sequence[JsonObject]) -> None:
        suspects = [event for event in state if self._reasserter.is_taken(event)]
        if not suspects:
            return
        async with self._store.transaction() as t:
            queued = [await self._reasserter.look(t, row, event) for event in suspects]
        if any(queued):
            self._on_mail()

    async def _grant(self, row: RoomRow, state: Sequence[JsonObject]) -> None:
        """Pinned organisations may attest in a room in which we have a say. By mail, as everything that we write in a room."""
        if row.project is None:
            return
        users = [peer.user for peer in self._rooms.finder.peers]
        content = grants(state, bot=self._bot, users=users)
        if content is None:
            return
        async with self._store.transaction() as t:
            await t.mail.send(row.key, POWER_LEVELS, "", json.dumps(content).encode(), self._clock.now_ms())
        log.info("pinned organisations may attest", extra={"room": row.key, "room_id": row.room_id})
        self._on_mail()


def ours(state: Sequence[JsonObject]) -> list[JsonObject]:
    """The events of a state that carry statements."""
    return [event for event in state if str(event.get("type")).startswith(EVENT_PREFIX)]
