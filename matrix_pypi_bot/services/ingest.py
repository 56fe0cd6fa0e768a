"""The inbox, worked off in order: every statement is checked, kept for ever and marked as seen; everything else is counted.

What an event causes and that it was read become durable together, so a crash repeats an event or does not, and loses none.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from matrix_pypi_bot.core.envelope import Envelope, read_envelope
from matrix_pypi_bot.core.events import HEAD_EVENT_TYPE, Checked, check_event, read_head
from matrix_pypi_bot.core.rejected import Code, Rejected
from matrix_pypi_bot.core.statements.common import EVENT_PREFIX
from matrix_pypi_bot.core.statements.refutation import Refutation
from matrix_pypi_bot.ports import (
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
from matrix_pypi_bot.services.own import Own, raise_alarm
from matrix_pypi_bot.services.reassert import Reasserter
from matrix_pypi_bot.services.strangers import RoomBudgets, Strangers
from matrix_pypi_bot.wire.problems import clean_line

log = logging.getLogger(__name__)

BATCH_EVENTS: Final = 50  # one commit for so many: each costs a sync of the disk
STORE_PAUSE_SECONDS: Final = 1.0
MEMBER: Final = "m.room.member"
HEAD: Final = "head of a log"
MESSAGE: Final = "m.room.message"


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

    `intake` keeps the statements and hears, after the commit, of new ones; `bots` are the user ids of pinned organisations' bots. Told
    after the commit: `on_constitution(room key)` of rooms whose constitution may have changed or that such a bot joined;
    `on_bot(room key)` of the latter alone; `on_invited(room id, sender)` of invitations; `on_heard(room key, event)` of every event in
    a room of ours; `on_message(room key, event)` of what people write; `on_put_out()` when somebody put us out of a room; `on_mail()`
    when something was queued; `on_head(note)` of heads of logs, not verified.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        intake: Intake,
        own: Own,
        reasserter: Reasserter,
        on_constitution: Callable[[str], None],
        on_invited: Callable[[str, str], None],
        on_heard: Callable[[str, JsonObject], None] = lambda key, event: None,
        on_put_out: Callable[[], None] = lambda: None,
        on_mail: Callable[[], None] = lambda: None,
        on_message: Callable[[str, JsonObject], object] = lambda room, event: None,
        on_bot: Callable[[str], None] = lambda key: None,
        budgets: RoomBudgets | None = None,
        on_head: Callable[[str], None] = lambda note: None,
        bots: frozenset[str] = frozenset(),
    ) -> None:
        self.outcomes: collections.Counter[str] = collections.Counter()
        self._store = store
        self._clock = clock
        self._intake = intake
        self._own = own
        self._reasserter = reasserter
        self._bots = bots
        self._on_heard = on_heard
        self._on_bot = on_bot
        self._on_put_out = on_put_out
        self._on_mail = on_mail
        self._strangers = Strangers()
        self._budgets = budgets or RoomBudgets(clock)
        self._on_constitution = on_constitution
        self._on_invited = on_invited
        self._on_head = on_head
        self._on_message = on_message
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
                if await self._budgets.is_over(t, finding.checked, len(finding.row.raw)):
                    await t.mail.forget(finding.row.n)  # the log of who says so much brings it, when it is his turn
                    continue
                if await self._effect(t, finding):
                    news.add(finding.row.n)
                await (t.mail.forget if _is_forgotten(finding) else t.mail.read)(finding.row.n)
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
        if type == HEAD_EVENT_TYPE:
            return finding(outcome=HEAD)
        if not type.startswith(EVENT_PREFIX):
            return finding(outcome="other")
        if room.project is None and room.about != TRUST_ROOM:
            return finding(outcome="other")
        try:
            checked = check_event(event, room.project, self._intake.keys)
        except Rejected as rejected:
            unknown = rejected.code is Code.KEY_UNKNOWN and type == Refutation.event_type()
            lies = rejected.code is Code.CID_DIGEST
            return finding(outcome=rejected.code, carries=_envelope(event) if unknown or lies else None)
        return finding(outcome="OK", checked=checked)

    async def _effect(self, t: Transaction, finding: Finding) -> bool:
        """Keeps what is to be kept; whether it was new."""
        if finding.room is None:
            return False
        await self._watch(t, finding.room, finding)
        if finding.outcome == Code.CID_DIGEST:
            return False
        if finding.checked is None:
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

    async def _watch(self, t: Transaction, room: RoomRow, finding: Finding) -> None:
        """What the event does to us: takes away a statement of ours, or puts us out of the room."""
        event = finding.event
        if await self._reasserter.look(t, room, event):
            self._on_mail()
        if self._puts_us_out(finding):
            raise_alarm("put out of a room alarm", room.key, event)
            if (row := await t.mail.room_by_id(room.room_id)) is not None:
                await t.mail.keep_room(replace(row, lost=True))

    def _puts_us_out(self, finding: Finding) -> bool:
        event = finding.event
        return (
            finding.type == MEMBER
            and event.get("state_key") == self._own.mxid != event.get("sender")
            and _membership(event) in ("leave", "ban")
        )

    def _tell(self, finding: Finding, *, new: bool) -> None:
        self.outcomes[finding.outcome] += 1
        room, event = finding.room, finding.event
        if finding.outcome == "invitation":
            self._on_invited(finding.row.room_id, str(event.get("sender")))
        if finding.outcome == HEAD:
            with contextlib.suppress(Rejected):
                self._on_head(read_head(finding.event))
        if room is None:
            return
        if finding.outcome == Code.CID_DIGEST and finding.carries is not None:
            self._intake.tell_of_lie(finding.carries.to_json())
        if finding.type == MESSAGE:
            self._on_message(room.key, event)
        self._on_heard(room.key, event)
        if self._puts_us_out(finding):
            self._on_put_out()
        brings_a_bot = self._brings_a_bot(finding)
        if brings_a_bot:
            self._on_bot(room.key)
        if brings_a_bot or (finding.type in WATCHED and event.get("state_key") == ""):
            self._on_constitution(room.key)
        if new and finding.checked is not None:
            self._intake.tell(finding.checked)
        elif new and room.project is not None:
            self._intake.tell_of(room.project, "")
        log.debug("event read", extra={"room": room.key, "event_id": finding.row.event_id, "outcome": finding.outcome})

    def _brings_a_bot(self, finding: Finding) -> bool:
        return (
            finding.type == MEMBER
            and finding.event.get("state_key") in self._bots
            and _membership(finding.event) == "join"
        )


def _is_forgotten(finding: Finding) -> bool:
    """Whether nothing of the event is remembered, so that what a room's state holds is new when the room is read.

    That is right for a room that is not ours (yet: it may be found again after our database was lost), and for what a key signed that
    is not known (yet: the manifest that names it may come later).
    """
    return finding.room is None or finding.outcome == Code.KEY_UNKNOWN


def _envelope(event: JsonObject) -> Envelope | None:
    content = event.get("content")
    try:
        return read_envelope(content.get("dsse") if isinstance(content, dict) else None)
    except Rejected:
        return None


def _membership(event: JsonObject) -> Any:
    content = event.get("content")
    return content.get("membership") if isinstance(content, dict) else None
