"""The outbox, emptied into rooms: in order within a room, a few rooms side by side, for ever patient.

Two state events sent to one room at once fork its history, and every homeserver in it pays for the merge: so each room has one sender.
A crash between sending and noting it is harmless: the same state again is no new event, and a timeline event keeps its transaction id.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import logging
from collections.abc import Callable, Iterator
from typing import Final

from matrix_pypi_bot.core.statements.common import EVENT_PREFIX
from matrix_pypi_bot.ports import OutboxRow, RoomRow, Store, StoreAway
from matrix_pypi_bot.services.constitution import NoSuchRoom
from matrix_pypi_bot.services.homeserver import Homeserver, HomeserverAway, HomeserverRefused
from matrix_pypi_bot.services.pauses import Pauses
from matrix_pypi_bot.services.rooms import Rooms, TooManyRooms
from matrix_pypi_bot.wire.problems import Problem

log = logging.getLogger(__name__)

PARALLEL_ROOMS: Final = 4  # more only move the queue into the homeserver
TURN_EVENTS: Final = 50  # a room with much mail lets others in after so many
FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 60.0
_EVERY_ROOM: Final = ""


class Unsendable(Problem):
    """An event whose content the homeserver will never take."""


class Postman:
    """`ports.Postman`. Make it in a running loop and have `run()` run; it ends only by being cancelled.

    `on_sent(room key, type)` hears of every event that is in its room.
    """

    def __init__(
        self,
        *,
        store: Store,
        homeserver: Homeserver,
        rooms: Rooms,
        on_sent: Callable[[str, str], None] = lambda room, type: None,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
        longest_pause_seconds: float = LONGEST_PAUSE_SECONDS,
    ) -> None:
        self._on_sent = on_sent
        self._store = store
        self._homeserver = homeserver
        self._rooms = rooms
        self._pauses = Pauses(first_seconds=first_pause_seconds, longest_seconds=longest_pause_seconds)
        self._next_room_at = 0.0
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._new_mail = True
        self._waiting: list[str] = []
        self._senders: dict[str, asyncio.Task[None]] = {}

    def poke(self) -> None:
        """See `ports.Postman.poke`."""
        self._new_mail = True
        self._wake.set()

    def retry_now(self) -> None:
        """The homeserver is back: nothing waits any longer."""
        self._pauses.end_all()
        self.poke()

    def homeserver_spoke(self) -> None:
        """A sign of life. If it was thought away, it is back: an absence may be too short for the link to notice."""
        if self._pauses.left(_EVERY_ROOM, self._loop.time()):
            self.retry_now()

    async def run(self) -> None:
        """Sends whatever is queued, until cancelled."""
        try:
            while True:
                self._wake.clear()
                await self._scan()
                self._start_senders()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._seconds_to_wait()):
                        await self._wake.wait()
        finally:
            senders = list(self._senders.values())
            for sender in senders:
                sender.cancel()
            if senders:
                await asyncio.wait(senders)

    async def _scan(self) -> None:
        now = self._loop.time()
        if not self._new_mail or self._pauses.left(_EVERY_ROOM, now) or any(self._ready(now)):
            return
        try:
            async with self._store.transaction() as t:
                self._waiting = await t.mail.rooms_with_mail()
            self._new_mail = False
        except StoreAway as problem:
            self._pause(_EVERY_ROOM, problem)

    def _start_senders(self) -> None:
        now = self._loop.time()
        if self._pauses.left(_EVERY_ROOM, now):
            return
        for room in list(itertools.islice(self._ready(now), PARALLEL_ROOMS - len(self._senders))):
            self._senders[room] = asyncio.create_task(self._serve(room))
            self._senders[room].add_done_callback(functools.partial(self._served, room))
        self._waiting = [room for room in self._waiting if room not in self._senders]

    def _ready(self, now: float) -> Iterator[str]:
        return (room for room in self._waiting if room not in self._senders and not self._pauses.left(room, now))

    def _served(self, room: str, _: asyncio.Task[None]) -> None:
        del self._senders[room]
        self.poke()  # it may have more, have queued some for another room, or have become free for one that waits

    def _seconds_to_wait(self) -> float | None:
        """Until somebody's pause is over; None when only new mail can help."""
        now = self._loop.time()
        if every := self._pauses.left(_EVERY_ROOM, now):
            return every
        if len(self._senders) >= PARALLEL_ROOMS:
            return None
        return min((self._pauses.left(room, now) for room in self._waiting), default=None)

    async def _serve(self, room: str) -> None:
        """One turn of one room."""
        row: OutboxRow | None = None
        try:
            for _ in range(TURN_EVENTS):
                async with self._store.transaction() as t:
                    row = await t.mail.next_to(room)
                if row is None:
                    return
                await self._deliver(row)
                self._pauses.succeeded(room)
                self._pauses.succeeded(_EVERY_ROOM)
        except TooManyRooms as problem:
            self._next_room_at = max(self._loop.time(), self._next_room_at) + problem.retry_seconds
            self._pauses.wait_until(room, self._next_room_at)
        except HomeserverAway as problem:
            self._pause(_EVERY_ROOM if problem.unreachable else room, problem)
            await self._note_failure(row, problem)
        except Problem as problem:
            self._pause(room, problem)
            await self._note_failure(row, problem)
        except Exception:
            seconds = self._pauses.failed(room, self._loop.time())
            log.exception("sending failed unexpectedly", extra={"room": room, "retry_seconds": seconds})

    async def _deliver(self, row: OutboxRow) -> None:
        """The event is in its room and that is noted; or it can never be there, and that is noted."""
        try:
            event_id = await self._send(row)
        except (NoSuchRoom, Unsendable) as problem:
            await self._set_aside(row, problem)
            return
        async with self._store.transaction() as t:
            await t.mail.sent(row.n, event_id)
            await self._rooms.note_activity(t, row.room)
        self._on_sent(row.room, row.type)
        log.info("event sent", extra={"room": row.room, "type": row.type, "event_id": event_id})

    async def _send(self, row: OutboxRow) -> str:
        place = await self._rooms.ensure(row.room)
        try:
            return await self._send_to(place, row)
        except HomeserverRefused as refusal:
            if not refusal.no_access:
                raise
        place = await self._rooms.regain(row.room)
        try:
            return await self._send_to(place, row)
        except HomeserverRefused as again:
            if not again.no_access or not (place.made_by or _is_talk(row)):
                raise
            if place.is_read_only or not row.type.startswith(EVENT_PREFIX):
                raise Unsendable(again.detail) from again  # said in that room or nowhere
        return await self._send_to(await self._rooms.await_grant(place), row)

    async def _send_to(self, place: RoomRow, row: OutboxRow) -> str:
        try:
            if row.state_key is not None:
                return await self._homeserver.put_state(place.room_id, row.type, row.state_key, row.content)
            try:
                return await self._homeserver.send(place.room_id, row.type, row.content, row.txn_id)
            except HomeserverRefused as refusal:
                # The room may be another one than when this was written, and what it relates to stayed in that one.
                if refusal.status != 400 or (alone := _unrelated(row.content)) is None:
                    raise
                return await self._homeserver.send(place.room_id, row.type, alone, row.txn_id)
        except HomeserverRefused as refusal:
            if refusal.permanent or (refusal.status == 400 and _is_talk(row)):
                raise Unsendable(refusal.detail) from refusal
            raise

    async def _set_aside(self, row: OutboxRow, problem: Problem) -> None:
        log.error(
            "event can never be sent, set aside",
            extra={
                "room": row.room,
                "type": row.type,
                "state_key": row.state_key,
                "n": row.n,
                "reason": problem.detail,
            },
        )
        async with self._store.transaction() as t:
            await t.mail.set_aside(row.n, problem.detail)

    async def _note_failure(self, row: OutboxRow | None, problem: Problem) -> None:
        if row is None or isinstance(problem, StoreAway):
            return
        with contextlib.suppress(StoreAway):
            async with self._store.transaction() as t:
                await t.mail.failed(row.n, problem.detail)

    def _pause(self, room: str, problem: Problem) -> None:
        seconds = self._pauses.failed(room, self._loop.time())
        log.warning(
            "mail must wait", extra={"room": room or "every", "reason": problem.detail, "retry_seconds": seconds}
        )


def _is_talk(row: OutboxRow) -> bool:
    """Whether it is an answer, a notice or a redaction: others chose what it relates to."""
    return row.state_key is None and not row.type.startswith(EVENT_PREFIX)


def _unrelated(content: bytes) -> bytes | None:
    """The same content without what it relates to; None when it relates to nothing."""
    told = json.loads(content)
    if told.pop("m.relates_to", None) is None:
        return None
    return json.dumps(told, sort_keys=True, separators=(",", ":")).encode()
