"""Our rooms: made once, found again, complete, listed in the Space, and never more of them a minute than allowed."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from aiolimiter import AsyncLimiter

from matrix_pypi_bot.ports import PROJECT_ROOM, Clock, RoomRow, Store, Transaction
from matrix_pypi_bot.services.constitution import Plan, constitution_hash, lacking, plan_room, read_constitution
from matrix_pypi_bot.services.flights import Flights
from matrix_pypi_bot.services.homeserver import Homeserver, HomeserverRefused, JsonObject
from matrix_pypi_bot.wire.problems import Problem

log = logging.getLogger(__name__)

SPACE_CHILD: Final = "m.space.child"


class TooManyRooms(Problem):
    """No room may be made now: `rooms.max_created_per_minute` of them were. Worth trying again after `retry_seconds`."""

    def __init__(self, key: str, retry_seconds: float) -> None:
        super().__init__(f"the room {key} must wait: rooms.max_created_per_minute are made already")
        self.retry_seconds = retry_seconds


class Rooms:
    """Finds and makes rooms by their key (`trust`, `space`, `space:<letter>`, `project:<name>`). Must be made in a running loop.

    `on_found(key)` hears of a room that was there before we knew it: something may have been said in it.
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
        on_found: Callable[[str], None] = lambda key: None,
    ) -> None:
        self._store = store
        self._homeserver = homeserver
        self._clock = clock
        self._server = server_name
        self._bot = bot_mxid
        self._limiter = AsyncLimiter(max_created_per_minute, 60)
        self._on_found = on_found
        self._flights: Flights[RoomRow] = Flights()
        self._may_publish = True

    async def known(self, key: str) -> RoomRow | None:
        """The room, if we know it. Raises StoreAway."""
        async with self._store.transaction() as t:
            return await t.mail.room(key)

    async def ensure(self, key: str, *, keep_free: float = 0.0) -> RoomRow:
        """The room, made if there is none. `keep_free`: the share of the allowed rate that is left to others.

        Raises TooManyRooms, NoSuchRoom, HomeserverAway, HomeserverRefused, StoreAway.
        """
        return await self.known(key) or await self._flights.join(key, lambda: self._make(key, keep_free))

    async def regain(self, key: str) -> RoomRow:
        """The room after we were told that it is not ours to write: joined again, else found or made anew. Raises as `ensure`."""
        row = await self.known(key)
        if row is None:
            return await self.ensure(key)
        try:
            await self._homeserver.join(row.room_id)
        except HomeserverRefused as refusal:
            if not refusal.no_access:
                raise
            log.warning("room lost alarm", extra={"room": key, "room_id": row.room_id, "reason": refusal.detail})
            return await self._flights.join(key, lambda: self._make(key, 0.0))
        return row

    async def restore_alias(self, row: RoomRow) -> None:
        """The room has its alias, also if somebody took it away. Raises HomeserverAway and HomeserverRefused."""
        try:
            await self._homeserver.add_alias(row.alias, row.room_id)
        except HomeserverRefused as refusal:
            if not refusal.alias_taken:
                raise

    def expected(self, key: str) -> JsonObject:
        """The constitution that a room made now would have."""
        return self._plan(key).constitution

    async def note_activity(self, t: Transaction, key: str) -> None:
        """Has the Space list a room in which something was said, as part of the transaction that says so."""
        row = await t.mail.room(key)
        listed_in = self._plan(key).listed_in
        if row is None or row.listed or listed_in is None:
            return
        content = json.dumps({"via": [self._server]}).encode()
        await t.mail.send(listed_in, SPACE_CHILD, row.room_id, content, self._clock.now_ms())
        await t.mail.keep_room(replace(row, listed=True))

    async def stop(self) -> None:
        """No room is being made any more."""
        await self._flights.stop()

    def _plan(self, key: str) -> Plan:
        return plan_room(key, server=self._server, bot=self._bot)

    async def _make(self, key: str, keep_free: float) -> RoomRow:
        plan, found = self._plan(key), False
        try:
            room_id = await self._create(plan, keep_free)
        except HomeserverRefused as refusal:
            if not refusal.alias_taken:
                raise
            room_id, found = await self._adopt(plan, keep_free), True
        await self._complete(plan, room_id)
        await self._publish(room_id)
        row = await self._keep(plan, room_id)
        if found:
            self._on_found(key)
        return row

    async def _create(self, plan: Plan, keep_free: float) -> str:
        rate = self._limiter.max_rate
        if not self._limiter.has_capacity(min(rate, 1 + keep_free * rate)):
            raise TooManyRooms(plan.key, self._limiter.time_period / rate)
        await self._limiter.acquire()
        return await self._homeserver.create_room(plan.request)

    async def _adopt(self, plan: Plan, keep_free: float) -> str:
        """The room that has the alias already: made by us before a crash, or before our database was lost."""
        room_id = await self._homeserver.resolve(plan.alias)
        try:
            await self._homeserver.join(room_id)
        except HomeserverRefused as refusal:
            if refusal.status != 404:
                raise
            # Nobody is in there: the homeserver died between giving the alias and making the room.
            log.warning("room was never finished", extra={"room": plan.key, "room_id": room_id})
            await self._homeserver.remove_alias(plan.alias)
            return await self._create(plan, keep_free)
        return room_id

    async def _complete(self, plan: Plan, room_id: str) -> None:
        """Sets what the constitution needs and the state lacks, if the room is our own making."""
        state = await self._homeserver.state(room_id)
        actual = read_constitution(state)
        if actual["creators"] != plan.constitution["creators"]:
            log.warning("room of somebody else alarm", extra={"room": plan.key, "creators": actual["creators"]})
            return
        for type, content in lacking(plan, state):
            await self._homeserver.put_state(room_id, type, "", json.dumps(content).encode())

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

    async def _keep(self, plan: Plan, room_id: str) -> RoomRow:
        now_ms = self._clock.now_ms()
        row = RoomRow(
            key=plan.key,
            room_id=room_id,
            alias=plan.alias,
            constitution=constitution_hash(plan.constitution),
            created_ms=now_ms,
        )
        async with self._store.transaction() as t:
            other = await t.mail.room_by_id(room_id)
            if other is not None and other.key != plan.key:
                raise Problem(f"{plan.alias} leads to the room {room_id}, which is the room {other.key}")
            await t.mail.keep_room(row)
            if not plan.key.startswith(PROJECT_ROOM):  # projects are listed once something was said in their room
                await self.note_activity(t, plan.key)
        log.info("room ready", extra={"room": plan.key, "room_id": room_id, "alias": plan.alias})
        return row
