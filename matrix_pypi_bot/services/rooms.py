"""The room of each key in which we speak: a pinned organisation's, if it has one, else our own. Beside it those that we only read."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from matrix_pypi_bot.ports import PROJECT_ROOM, Clock, RoomRow, Store, Transaction
from matrix_pypi_bot.services.constitution import NoSuchRoom, Plan, constitution_hash, plan_room
from matrix_pypi_bot.services.finder import Finder, Found, Peer
from matrix_pypi_bot.services.flights import Flights
from matrix_pypi_bot.services.homeserver import Homeserver, HomeserverRefused, JsonObject
from matrix_pypi_bot.services.others_rooms import JOIN_PAUSES_SECONDS, OthersRooms, distinct, not_now
from matrix_pypi_bot.services.room_maker import Made, RoomMaker, TooManyRooms
from matrix_pypi_bot.wire.names import InvalidName, ProjectName, parse_project, probe_alias
from matrix_pypi_bot.wire.problems import Problem

__all__ = ["SPACE_CHILD", "NotGranted", "Rooms", "TooManyRooms"]

log = logging.getLogger(__name__)

SPACE_CHILD: Final = "m.space.child"
GRANT_SECONDS: Final = 10.0  # whoever made a room lets us speak there in less than one, if he is up and wants to


class NotGranted(Problem):
    """We are in a room of others and may not attest there yet."""


class Rooms:
    """Finds and makes rooms by their key (`trust`, `space`, `space:<letter>`, `project:<name>`). Must be made in a running loop.

    `peers` are the pinned organisations. `on_found(key)` hears of a room that was there before we knew it: something may have been
    said in it.
    """

    def __init__(
        self,
        *,
        store: Store,
        homeserver: Homeserver,
        clock: Clock,
        server_name: str,
        bot_mxid: str,
        max_created_per_minute: int,
        peers: Sequence[Peer] = (),
        on_found: Callable[[str], None] = lambda key: None,
        grant_seconds: float = GRANT_SECONDS,
        join_pauses_seconds: Sequence[float] = JOIN_PAUSES_SECONDS,
    ) -> None:
        self.finder = Finder(homeserver, peers, bot=bot_mxid)
        self.others = OthersRooms(
            store=store,
            homeserver=homeserver,
            clock=clock,
            server=server_name,
            bot=bot_mxid,
            on_found=on_found,
            join_pauses_seconds=join_pauses_seconds,
        )
        self._maker = RoomMaker(
            homeserver,
            server=server_name,
            bot=bot_mxid,
            peers=peers,
            max_created_per_minute=max_created_per_minute,
            is_others=self._is_read_only,
        )
        self._store = store
        self._homeserver = homeserver
        self._clock = clock
        self._server = server_name
        self._bot = bot_mxid
        self._on_found = on_found
        self._grant_ms = grant_seconds * 1000
        self._refused_since_ms: dict[str, int] = {}
        self._flights: Flights[RoomRow | None] = Flights()

    async def known(self, key: str) -> RoomRow | None:
        """The room, if we know it. Raises StoreAway."""
        async with self._store.transaction() as t:
            return await t.mail.room(key)

    async def ensure(self, key: str, *, keep_free: float = 0.0) -> RoomRow:
        """The room, found or made if there is none. `keep_free`: the share of the allowed rate that is left to others.

        Raises TooManyRooms, NoSuchRoom, HomeserverAway, HomeserverRefused, StoreAway.
        """
        row = await self.known(key)
        if row is None:
            return await self._fly(key, lambda: self._make(key, keep_free))
        return await self.regain(key) if row.lost else row

    async def regain(self, key: str) -> RoomRow:
        """The room after we were told that it is not ours to write: joined again, else found or made anew. Raises as `ensure`.

        Who was put out of a room speaks in one of his own from then on.
        """
        row = await self.known(key)
        if row is None:
            return await self.ensure(key)
        if not row.lost and await self._is_in(row):
            return row
        if row.is_read_only:
            await self.others.lose(row.room_id)
            raise NoSuchRoom(f"we are no longer in the room {key}")
        if row.made_by:
            return await self.move_out(key, lost=True)
        return await self._fly(key, lambda: self._make(key, 0.0))

    async def await_grant(self, row: RoomRow) -> RoomRow:
        """The room in which to speak, after we were refused in a room of others that we are in: soon one of our own.

        Raises NotGranted while who may let us speak may only not have got round to it; else as `ensure`.
        """
        now_ms = self._clock.now_ms()
        if now_ms - self._refused_since_ms.setdefault(row.key, now_ms) < self._grant_ms:
            raise NotGranted(f"we may not attest in the room of {row.made_by} yet")
        return await self.move_out(row.key, lost=False)

    async def move_out(self, key: str, *, lost: bool) -> RoomRow:
        """A room of our own in place of one of others that we may not speak in; that one is read as long as we are in it.

        Raises as `ensure`.
        """
        return await self._fly(key, lambda: self._move_out(key, lost))

    async def follow(self, project: ProjectName) -> bool:
        """Joins the rooms that pinned organisations have of the project; makes none. Whether there is one that we know.

        Raises HomeserverAway and StoreAway.
        """
        return await self._take(project, lambda: self.finder.look(project))

    async def take(self, project: ProjectName, found: Found) -> None:
        """The room is one of the project's from now on; the one in which we speak, if there was none. Raises as `follow`."""

        async def told() -> list[Found]:
            return [found]

        await self._take(project, told)

    async def restore_alias(self, row: RoomRow) -> None:
        """The room has its alias, also if somebody took it away. Raises HomeserverAway and HomeserverRefused."""
        await self._has_alias(row.alias, row.room_id)

    async def show(self, project: ProjectName) -> bool:
        """Whether we have a room of the project; then it is found by the alias that makes none. Raises as `restore_alias`."""
        row = await self.known(f"{PROJECT_ROOM}{project}")
        if row is None or row.lost:
            return False
        await self._has_alias(probe_alias(project, self._server), row.room_id)
        return True

    def expected(self, row: RoomRow, actual: JsonObject) -> JsonObject:
        """The constitution that a room should have, whose actual one is this. Who created it never changes. Raises NoSuchRoom."""
        plan = plan_room(row.about, server=self._server, bot=self._bot)
        return plan.constitution | {"creators": actual["creators"]}

    async def note_activity(self, t: Transaction, key: str) -> None:
        """Has the Space list a room in which something was said, as part of the transaction that says so."""
        row = await t.mail.room(key)
        if row is None or row.listed or row.is_read_only:
            return
        listed_in = self._maker.plan(key).listed_in
        if listed_in is None:
            return
        content = json.dumps({"via": [self._server]}).encode()
        await t.mail.send(listed_in, SPACE_CHILD, row.room_id, content, self._clock.now_ms())
        await t.mail.keep_room(replace(row, listed=True))

    async def stop(self) -> None:
        """No room is being made any more."""
        await self._flights.stop()

    async def _fly(self, key: str, work: Callable[[], Coroutine[Any, Any, RoomRow | None]]) -> RoomRow:
        while (row := await self._flights.join(key, work)) is None:
            pass  # somebody only looked; now it is our turn
        return row

    async def _is_in(self, row: RoomRow) -> bool:
        try:
            await self._homeserver.join(row.room_id, via=row.servers)
        except HomeserverRefused as refusal:
            if not refusal.no_access:
                raise
            log.warning("room lost alarm", extra={"room": row.key, "room_id": row.room_id, "reason": refusal.detail})
            return False
        return True

    async def _by_id(self, room_id: str) -> RoomRow | None:
        async with self._store.transaction() as t:
            return await t.mail.room_by_id(room_id)

    async def _is_read_only(self, room_id: str) -> bool:
        row = await self._by_id(room_id)
        return row is not None and row.is_read_only

    async def _make(self, key: str, keep_free: float) -> RoomRow:
        plan = self._maker.plan(key)
        if key.startswith(PROJECT_ROOM) and self.finder.peers:
            project = ProjectName(key.removeprefix(PROJECT_ROOM))
            row = await self._move_in(plan, await self.finder.look(project))
            if row is None and (made := await self.finder.have_made(project)):
                row = await self._move_in(plan, [made])
            if row is not None:
                return row
        return await self._make_own(plan, keep_free)

    async def _make_own(self, plan: Plan, keep_free: float) -> RoomRow:
        made = await self._maker.make(plan, keep_free=keep_free)
        if made.old_alias:
            await self._drop_probe(plan.key)
        row = await self._keep(plan, made)
        if made.found:
            self._on_found(plan.key)
        return row

    async def _take(self, project: ProjectName, look: Callable[[], Awaitable[list[Found]]]) -> bool:
        key, begun = f"{PROJECT_ROOM}{project}", False

        async def take() -> RoomRow | None:
            nonlocal begun
            begun = True
            row, plan, found = await self.known(key), self._maker.plan(key), await look()
            if row is None:
                return await self._move_in(plan, found)
            await self.others.read_all(key, found)
            return row

        while True:  # what others had under way for the room knows nothing of what is to be taken, nor does its failure
            try:
                row = await self._flights.join(key, take)
            except Problem:
                if begun:
                    raise
            else:
                if begun:
                    return row is not None

    async def _move_in(self, plan: Plan, found: Iterable[Found]) -> RoomRow | None:
        """The first of these rooms as the one in which we speak, the others as such that we read; None when we cannot be in any."""
        row: RoomRow | None = None
        for one in distinct(found):
            if row is not None:
                await self.others.read_all(row.key, [one])
            elif await self._by_id(one.place.room_id) is None:  # where we moved out we do not move in again
                with not_now(one):
                    row = await self._speak_in(plan, one)
        return row

    async def _speak_in(self, plan: Plan, found: Found) -> RoomRow | None:
        """The room, joined and under our alias too; None when our alias leads to one of our own, which a lost database knew."""
        await self.others.join(found)
        try:
            await self._homeserver.add_alias(plan.alias, found.place.room_id)
        except HomeserverRefused as refusal:
            if not refusal.alias_taken:
                raise
            if (await self._homeserver.resolve(plan.alias)).room_id != found.place.room_id:
                await self.others.read_too(plan.key, found)
                return None
        return await self.others.settle(plan.key, found, alias=plan.alias)

    async def _move_out(self, key: str, lost: bool) -> RoomRow | None:
        row = await self.known(key)
        if row is None or not row.made_by:
            return row
        log.warning(
            "own room instead of one of others", extra={"room": key, "org": row.made_by, "room_id": row.room_id}
        )
        await self.others.set_apart(row, lost=lost)
        await self._drop_probe(key)
        self._refused_since_ms.pop(key, None)
        # Who does not let us speak does not get our new room either.
        return await self._make_own(self._maker.plan(key, without=(row.made_by,)), 0.0)

    async def _has_alias(self, alias: str, room_id: str) -> None:
        try:
            await self._homeserver.add_alias(alias, room_id)
        except HomeserverRefused as refusal:
            if not refusal.alias_taken:
                raise

    async def _drop_probe(self, key: str) -> None:
        """The alias by which others look for the room leads nowhere, until it is asked for again."""
        with contextlib.suppress(HomeserverRefused, InvalidName):
            project = parse_project(key.removeprefix(PROJECT_ROOM))
            await self._homeserver.remove_alias(probe_alias(project, self._server))

    async def _keep(self, plan: Plan, made: Made) -> RoomRow:
        row = RoomRow(
            key=plan.key,
            room_id=made.room_id,
            alias=plan.alias,
            constitution=constitution_hash(plan.constitution | {"creators": list(made.creators)}),
            created_ms=self._clock.now_ms(),
        )
        async with self._store.transaction() as t:
            other = await t.mail.room_by_id(row.room_id)
            if other is not None and other.key != plan.key:
                raise Problem(f"{plan.alias} leads to the room {row.room_id}, which is the room {other.key}")
            await t.mail.keep_room(row)
            if not plan.key.startswith(PROJECT_ROOM):  # projects are listed once something was said in their room
                await self.note_activity(t, plan.key)
        log.info("room ready", extra={"room": plan.key, "room_id": row.room_id, "alias": plan.alias})
        return row
