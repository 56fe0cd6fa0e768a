"""What others do to statements in rooms: noticed, told with the name of who did it, and our own said again, a few times.

Nothing of it touches the ledger: what was taken out of a room is known here for ever.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from matrix_pypi_bot.core.events import check_envelope, post_of
from matrix_pypi_bot.core.judge import Verdict
from matrix_pypi_bot.core.rejected import Rejected
from matrix_pypi_bot.core.signers import Keyid, Keys
from matrix_pypi_bot.core.statements import EVENT_KINDS
from matrix_pypi_bot.core.statements.common import keyid16
from matrix_pypi_bot.core.strict_json import parse_strict
from matrix_pypi_bot.ports import Clock, EnvelopeRow, RoomRow, Transaction
from matrix_pypi_bot.services.finder import Peer
from matrix_pypi_bot.services.homeserver import JsonObject
from matrix_pypi_bot.services.own import REDACTED, Own, raise_alarm
from matrix_pypi_bot.wire.names import FileName, InvalidName, parse_file_name
from matrix_pypi_bot.wire.problems import clean_line

log = logging.getLogger(__name__)

REDACTION: Final = "m.room.redaction"
MOST_TIMES: Final = 3  # of one statement: more would only feed whoever takes it out again
REMEMBERED: Final = 10_000  # events that were told of
OTHERS_REDACTED: Final = "statement of others redacted alarm"


class Reasserter:
    """`keys()` are the keys known now, `peers` the pinned organisations.

    `stands(row)` tells whether a statement of ours still counts.
    """

    def __init__(
        self,
        *,
        own: Own,
        clock: Clock,
        keys: Callable[[], Keys],
        peers: Sequence[Peer] = (),
        stands: Callable[[EnvelopeRow], bool] = lambda row: True,
    ) -> None:
        self._own = own
        self._clock = clock
        self._keys = keys
        self._bots = {peer.user: peer.org for peer in peers}
        self._stands = stands
        self._alarmed: set[str] = set()

    def is_taken(self, event: JsonObject) -> bool:
        """Whether the state event stands in a slot of ours and is not as we left it."""
        return self._own.slot_alarm(event) is not None

    async def look(self, t: Transaction, room: RoomRow, event: JsonObject) -> bool:
        """Whether the event, of the timeline or of the state, took a statement of ours away and it was queued to be said again."""
        if event.get("type") == REDACTION:
            return await self._redaction(t, room, event)
        alarm, event_id = self._own.slot_alarm(event), str(event.get("event_id"))
        if alarm is None:
            return False
        by = _redacted_by(event)
        if alarm == REDACTED and by == self._own.mxid:
            return False
        self._alarm(alarm, room, event, event_id, **({"by": by} if by else {}))
        return await self._say_again(t, room, str(event.get("type")), str(event.get("state_key")), event_id)

    async def _redaction(self, t: Transaction, room: RoomRow, event: JsonObject) -> bool:
        content = event.get("content")
        target = content.get("redacts") if isinstance(content, dict) else None
        target = target or event.get("redacts")  # room versions below 11 have it beside the content
        if not isinstance(target, str) or event.get("sender") == self._own.mxid:
            return False
        event_id = clean_line(target, 255)
        ours = await t.mail.sent_as(event_id)
        if ours is not None:
            self._alarm(REDACTED, room, event, event_id, redacted=event_id, redacted_type=ours.type)
            return ours.state_key is not None and await self._say_again(t, room, ours.type, ours.state_key, event_id)
        row = await t.ledger.carried_by(event_id)
        if row is not None and self._bots.get(str(event.get("sender"))) != row.org and not await _is_refuted(t, row):
            self._alarm(OTHERS_REDACTED, room, event, event_id, redacted=event_id, org=row.org, statement=row.id)
        return False

    async def _say_again(self, t: Transaction, room: RoomRow, type: str, slot: str, event_id: str) -> bool:
        row = await self._newest(t, room, type, slot)
        if row is None or not self._stands(row) or await _is_refuted(t, row) or await _is_withdrawn(t, row):
            return False
        try:
            post = post_of(check_envelope(parse_strict(row.envelope), self._keys()))
        except Rejected as rejected:
            log.warning("own statement cannot be said again", extra={"statement": row.id, "reason": str(rejected)})
            return False
        now_ms = self._clock.now_ms()
        times = await t.mail.said_again(event_id, row.id, now_ms)
        if times > MOST_TIMES:
            log.warning("own statement given up alarm", extra={"room": room.key, "statement": row.id, "times": times})
        if not 1 <= times <= MOST_TIMES or post.state_key is None:
            return False
        content = json.dumps(post.content, sort_keys=True, separators=(",", ":")).encode()
        await t.mail.send(room.key, post.type, post.state_key, content, now_ms)
        log.info("own statement is said again", extra={"room": room.key, "statement": row.id, "times": times})
        return True

    async def _newest(self, t: Transaction, room: RoomRow, type: str, slot: str) -> EnvelopeRow | None:
        """What our key said last in this slot."""
        kind, (key, _, name) = EVENT_KINDS.get(type), slot.partition("/")
        if kind is None or room.project is None:
            return None
        file: FileName | None = None
        try:
            file = parse_file_name(name) if name else None
        except InvalidName:
            return None
        said = await t.ledger.said(kind.NAME, room.project, file)
        ours = [row for row in said if row.keyid in self._own.keyids() and keyid16(Keyid(row.keyid)) == key]
        return max(ours, key=lambda row: row.seq or 0, default=None)

    def _alarm(self, alarm: str, room: RoomRow, event: JsonObject, about: str, **more: str) -> None:
        """Once for one event that was taken away, however often and wherever it is met."""
        if about not in self._alarmed:
            if len(self._alarmed) >= REMEMBERED:
                self._alarmed.clear()
            self._alarmed.add(about)
            raise_alarm(alarm, room.key, event, **more)


async def _is_refuted(t: Transaction, row: EnvelopeRow) -> bool:
    if row.project is None:
        return False
    newest = {
        verdict.fault: verdict.result
        for verdict in await t.ledger.verdicts(row.project)
        if verdict.statement_id == row.id
    }
    return Verdict.UPHELD.value in newest.values()


async def _is_withdrawn(t: Transaction, row: EnvelopeRow) -> bool:
    if row.project is None or row.kind != "attestation":
        return False
    return any(
        taken_back.sha256 == row.id and taken_back.keyid == row.keyid
        for taken_back in await t.ledger.said("withdrawal", row.project, row.file)
    )


def _redacted_by(event: JsonObject) -> str:
    """Who redacted the event, as the homeserver tells with it."""
    unsigned: Any = event.get("unsigned")
    because: Any = unsigned.get("redacted_because") if isinstance(unsigned, dict) else None
    return clean_line(str(because.get("sender")), 255) if isinstance(because, dict) else ""
