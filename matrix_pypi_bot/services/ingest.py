"""The inbox, worked off in order: every statement is checked, kept for ever and marked as seen; everything else is counted.

What an event causes and that it was read become durable together, so a crash repeats an event or does not, and loses none.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from matrix_pypi_bot.core.envelope import Envelope, read_envelope
from matrix_pypi_bot.core.events import HEAD_EVENT_TYPE, Checked, check_event
from matrix_pypi_bot.core.rejected import Code, Rejected
from matrix_pypi_bot.core.statements.common import EVENT_PREFIX
from matrix_pypi_bot.core.statements.refutation import Refutation
from matrix_pypi_bot.ports import (
    PROJECT_ROOM,
    TRUST_ROOM,
    Clock,
    InboxRow,
    RoomRow,
    Store,
    StoreAway,
    Transaction,
)
from matrix_pypi_bot.services.constitution import WATCHED
from matrix_pypi_bot.services.homeserver import JsonObject
from matrix_pypi_bot.services.intake import Intake, ledger_row
from matrix_pypi_bot.services.own import REDACTED, Own, raise_alarm
from matrix_pypi_bot.services.strangers import Strangers
from matrix_pypi_bot.wire.names import ProjectName
from matrix_pypi_bot.wire.problems import clean_line

log = logging.getLogger(__name__)

BATCH_EVENTS: Final = 50  # one commit for so many: each costs a sync of the disk
STORE_PAUSE_SECONDS: Final = 1.0
REDACTION: Final = "m.room.redaction"
MEMBER: Final = "m.room.member"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one event turned out to be. `outcome` is counted: `OK`, an error code, or what kind of other event it is.

    `carries` is a refutation by somebody nobody here knows: what it carries may be evidence.
    """

    row: InboxRow
    outcome: str
    type: str = ""
    event: JsonObject = field(default_factory=dict)
    room: RoomRow | None = None
    checked: Checked | None = None
    carries: Envelope | None = None


class Ingest:
    """The door by which everything from Matrix enters. Make it in a running loop and have `run()` run.

    `intake` keeps the statements and hears, after the commit, of new ones; `on_constitution(room key)` hears of rooms whose
    constitution may have changed, `on_invited(room id)` of invitations.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        intake: Intake,
        own: Own,
        on_constitution: Callable[[str], None],
        on_invited: Callable[[str], None],
    ) -> None:
        self.outcomes: collections.Counter[str] = collections.Counter()
        self._store = store
        self._clock = clock
        self._intake = intake
        self._own = own
        self._strangers = Strangers()
        self._on_constitution = on_constitution
        self._on_invited = on_invited
        self._wake = asyncio.Event()

    async def receive(self, txn_id: str, events: list[tuple[str, str, bytes]]) -> None:
        """Returns when the events, (id, room id, raw JSON), are in the database. Raises StoreAway."""
        if events:
            async with self._store.transaction() as t:
                await t.mail.receive(txn_id, events, self._clock.now_ms())
            self._wake.set()

    async def run(self) -> None:
        """Works the inbox off whenever there is something in it, until cancelled."""
        self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.drain()

    async def drain(self) -> None:
        """Returns when nothing is unread any more, however long the database takes to be there."""
        while True:
            try:
                rows, rooms = await self._unread()
                if not rows:
                    return
                await self._work_off([self._look(row, rooms.get(row.room_id)) for row in rows])
            except StoreAway as problem:
                log.warning("inbox must wait", extra={"reason": problem.detail, "retry_seconds": STORE_PAUSE_SECONDS})
                await asyncio.sleep(STORE_PAUSE_SECONDS)

    async def _unread(self) -> tuple[Sequence[InboxRow], dict[str, RoomRow | None]]:
        async with self._store.transaction() as t:
            rows = await t.mail.unread(BATCH_EVENTS)
            return rows, {room_id: await t.mail.room_by_id(room_id) for room_id in {row.room_id for row in rows}}

    async def _work_off(self, findings: Sequence[Finding]) -> None:
        """All in one transaction; when that fails, one by one, so that only what cannot be worked off is put away."""
        try:
            await self._commit(findings)
        except StoreAway:
            raise
        except Exception as error:
            if len(findings) > 1:
                for finding in findings:
                    await self._work_off([finding])
                return
            await self._put_away(findings[0].row, error)

    async def _commit(self, findings: Sequence[Finding]) -> None:
        news: set[int] = set()
        async with self._store.transaction() as t:
            for finding in findings:
                if await self._effect(t, finding):
                    news.add(finding.row.n)
                # Of a room that is not ours (yet: it may be found again after our database was lost) nothing is remembered,
                # so that what its state holds is new when the room is read; nor of a key that a later manifest may name.
                forgotten = finding.room is None or finding.outcome == Code.KEY_UNKNOWN
                await (t.mail.forget if forgotten else t.mail.read)(finding.row.n)
        for finding in findings:
            try:
                self._tell(finding, new=finding.row.n in news)
            except Exception:  # what was kept stays kept, whatever those do who hear of it
                log.exception("event kept, but not told of", extra={"event_id": finding.row.event_id})

    async def _put_away(self, row: InboxRow, error: Exception) -> None:
        log.error("event could not be worked off, put away", extra={"event_id": row.event_id}, exc_info=error)
        self.outcomes["unreadable"] += 1
        async with self._store.transaction() as t:
            await t.mail.unreadable(row.n, f"{type(error).__name__}: {error}")

    def _look(self, row: InboxRow, room: RoomRow | None) -> Finding:
        """What the event is. Total: nothing that arrives makes it raise."""
        try:
            return self._finding(row, room, json.loads(row.raw))
        except (ValueError, RecursionError) as error:
            return Finding(row=row, outcome=f"unreadable {type(error).__name__}", room=room)

    def _finding(self, row: InboxRow, room: RoomRow | None, event: JsonObject) -> Finding:
        told = event.get("type")
        type = told if isinstance(told, str) else ""
        finding = functools.partial(Finding, row=row, type=type, event=event, room=room)
        if room is None:
            invited = type == MEMBER and event.get("state_key") == self._own.mxid and _membership(event) == "invite"
            return finding(outcome="invitation" if invited else "elsewhere")
        if not type.startswith(EVENT_PREFIX) or type == HEAD_EVENT_TYPE:
            return finding(outcome="other")
        if not room.key.startswith(PROJECT_ROOM) and room.key != TRUST_ROOM:
            return finding(outcome="other")
        try:
            checked = check_event(event, _project(room), self._intake.keys)
        except Rejected as rejected:
            unknown = rejected.code is Code.KEY_UNKNOWN and type == Refutation.event_type()
            return finding(outcome=rejected.code, carries=_refutation(event) if unknown else None)
        return finding(outcome="OK", checked=checked)

    async def _effect(self, t: Transaction, finding: Finding) -> bool:
        """Keeps what is to be kept; whether it was new."""
        if finding.checked is None or finding.room is None:
            await self._watch_redaction(t, finding)
            return await self._look_at_carried(t, finding)
        row = ledger_row(finding.checked, via="room", at_ms=self._clock.now_ms())
        if row.keyid in self._own.keyids() and await t.ledger.envelope(row.id) is None:
            # Somebody has our key, or another process signs with it, or our database was lost. It counts like anybody's.
            raise_alarm("own key alarm", finding.room.key, finding.event, statement=row.id)
        new = await self._intake.keep(t, finding.checked, via="room", at_ms=row.first_seen_ms)
        await t.ledger.sighted(
            row.id,
            room_id=finding.row.room_id,
            event_id=finding.row.event_id,
            sender=clean_line(str(finding.event.get("sender")), 255),
            at_ms=row.first_seen_ms,
        )
        return new

    async def _look_at_carried(self, t: Transaction, finding: Finding) -> bool:
        """Whether a stranger's accusation carried a statement that is new here. Nobody may have us look at too many."""
        if finding.carries is None:
            return False
        now_ms = self._clock.now_ms()
        if not self._strangers.may(str(finding.event.get("sender")), now_ms):
            self.outcomes["strangers put off"] += 1
            return False
        return bool(await self._intake.keep_carried(t, finding.carries, via="room", at_ms=now_ms))

    async def _watch_redaction(self, t: Transaction, finding: Finding) -> None:
        event, room = finding.event, finding.room
        if room is None or finding.type != REDACTION:
            return
        content = event.get("content")
        target = content.get("redacts") if isinstance(content, dict) else None
        target = target or event.get("redacts")  # room versions below 11 have it beside the content
        if isinstance(target, str) and (ours := await t.mail.sent_as(clean_line(target, 255))) is not None:
            raise_alarm(REDACTED, room.key, event, redacted=clean_line(target, 255), redacted_type=ours.type)

    def _tell(self, finding: Finding, *, new: bool) -> None:
        self.outcomes[finding.outcome] += 1
        room, event = finding.room, finding.event
        if finding.outcome == "invitation":
            self._on_invited(finding.row.room_id)
        if room is None:
            return
        if finding.type in WATCHED and event.get("state_key") == "":
            self._on_constitution(room.key)
        if alarm := self._own.slot_alarm(event):
            raise_alarm(alarm, room.key, event)
        if new and finding.checked is not None:
            self._intake.tell(finding.checked)
        elif new and (project := _project(room)) is not None:
            self._intake.tell_of(project, "")
        log.debug("event read", extra={"room": room.key, "event_id": finding.row.event_id, "outcome": finding.outcome})


def _project(room: RoomRow) -> ProjectName | None:
    return ProjectName(room.key.removeprefix(PROJECT_ROOM)) if room.key.startswith(PROJECT_ROOM) else None


def _refutation(event: JsonObject) -> Envelope | None:
    content = event.get("content")
    try:
        return read_envelope(content.get("dsse") if isinstance(content, dict) else None)
    except Rejected:
        return None


def _membership(event: JsonObject) -> Any:
    content = event.get("content")
    return content.get("membership") if isinstance(content, dict) else None
