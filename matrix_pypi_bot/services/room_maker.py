"""A room of our own: made, or found again under our alias, complete, in the directory; never more a minute than allowed."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

from aiolimiter import AsyncLimiter

from matrix_pypi_bot.services.constitution import Plan, lacking, plan_room, read_constitution
from matrix_pypi_bot.services.finder import Peer
from matrix_pypi_bot.services.homeserver import Homeserver, HomeserverRefused
from matrix_pypi_bot.wire.problems import Problem

log = logging.getLogger(__name__)


class TooManyRooms(Problem):
    """No room may be made now: `rooms.max_created_per_minute` of them were. Worth trying again after `retry_seconds`."""

    def __init__(self, key: str, retry_seconds: float) -> None:
        super().__init__(f"the room {key} must wait: rooms.max_created_per_minute are made already")
        self.retry_seconds = retry_seconds


@dataclass(frozen=True, slots=True)
class Made:
    """A room of our own and who created it. `old_alias`: our alias led somewhere before, perhaps to this very room (`found`)."""

    room_id: str
    creators: tuple[str, ...]
    old_alias: bool
    found: bool


class RoomMaker:
    """Makes rooms on `server` as the user `bot`; those of projects belong to the bots of `peers` as well. Make it in a running loop.

    `is_others(room id)` tells whether a room is one that others made and that we only read.
    """

    def __init__(
        self,
        homeserver: Homeserver,
        *,
        server: str,
        bot: str,
        peers: Sequence[Peer],
        max_created_per_minute: int,
        is_others: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._homeserver = homeserver
        self._server = server
        self._bot = bot
        self._peers = peers
        self._limiter = AsyncLimiter(max_created_per_minute, 60)
        self._is_others = is_others
        self._may_publish = True

    def plan(self, key: str, *, without: Collection[str] = ()) -> Plan:
        """The room as it would be made now, not belonging to the organisations `without`. Raises NoSuchRoom."""
        others = [peer.user for peer in self._peers if peer.org not in without]
        return plan_room(key, server=self._server, bot=self._bot, others=others)

    async def make(self, plan: Plan, *, keep_free: float = 0.0) -> Made:
        """The room, complete. One that was there before we made before a crash, or before our database was lost.

        `keep_free`: the share of the allowed rate that is left to others. Raises TooManyRooms, HomeserverAway and HomeserverRefused.
        """
        old_alias = found = False
        try:
            room_id = await self._create(plan, keep_free)
        except HomeserverRefused as refusal:
            if not refusal.alias_taken:
                raise
            old_alias = True
            room_id, found = await self._adopt(plan, keep_free)
        creators = await self._complete(plan, room_id)
        await self._publish(room_id)
        return Made(room_id, creators, old_alias, found)

    async def _create(self, plan: Plan, keep_free: float) -> str:
        rate = self._limiter.max_rate
        if not self._limiter.has_capacity(min(rate, 1 + keep_free * rate)):
            raise TooManyRooms(plan.key, self._limiter.time_period / rate)
        await self._limiter.acquire()
        return await self._homeserver.create_room(plan.request)

    async def _adopt(self, plan: Plan, keep_free: float) -> tuple[str, bool]:
        """The room that has the alias already, if it is one that we can be in and want to."""
        room_id = (await self._homeserver.resolve(plan.alias)).room_id
        if await self._is_others(room_id):  # we moved out, and died before the alias was taken along
            return await self._replace(plan, keep_free)
        try:
            await self._homeserver.join(room_id)
        except HomeserverRefused as refusal:
            if not refusal.no_access:
                raise
            # Nobody is in there: the homeserver died between giving the alias and making the room. Or it does not want us.
            log.warning(
                "room was never finished", extra={"room": plan.key, "room_id": room_id, "reason": refusal.detail}
            )
            return await self._replace(plan, keep_free)
        return room_id, True

    async def _replace(self, plan: Plan, keep_free: float) -> tuple[str, bool]:
        await self._homeserver.remove_alias(plan.alias)
        return await self._create(plan, keep_free), False

    async def _complete(self, plan: Plan, room_id: str) -> tuple[str, ...]:
        """Sets what the constitution needs and the state lacks, if the room is our own making. Who should have created it."""
        state = await self._homeserver.state(room_id)
        creators = tuple(read_constitution(state)["creators"])
        if self._bot not in creators:
            log.warning("room of somebody else alarm", extra={"room": plan.key, "creators": creators})
            return tuple(plan.constitution["creators"])
        for type, content in lacking(plan, state):
            await self._homeserver.put_state(room_id, type, "", json.dumps(content).encode())
        return creators

    async def _publish(self, room_id: str) -> None:
        if not self._may_publish:
            return
        try:
            await self._homeserver.publish(room_id)
        except HomeserverRefused as refusal:
            self._may_publish = False
            log.warning(
                "rooms are not listed in the homeserver's directory",
                extra={"reason": refusal.detail, "advice": "allow them in room_list_publication_rules"},
            )
