"""A statement of ours that somebody takes out of a room is said again, three times; whoever took it is named."""

from __future__ import annotations

import pytest

from matrix_pypi_bot.core.events import Checked, check_envelope, post_of, sign_statement
from matrix_pypi_bot.core.statements.common import SignedBy
from matrix_pypi_bot.core.statements.withdrawal import Withdrawal
from matrix_pypi_bot.ports import EnvelopeRow, RoomRow, VerdictRow
from matrix_pypi_bot.services.finder import Peer
from matrix_pypi_bot.services.homeserver import JsonObject
from matrix_pypi_bot.services.intake import ledger_row
from matrix_pypi_bot.services.own import Own
from matrix_pypi_bot.services.reassert import MOST_TIMES, Reasserter
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName, ProjectName
from tests.support.homeserver import BOT
from tests.support.mailbox import MemoryStore
from tests.support.statements import NOON, Organisation

HOME, PEER = Organisation("home"), Organisation("peer")
WHEEL = "flask-3.1.3-py3-none-any.whl"
ROOM = RoomRow(key="project:flask@orgb", room_id="!flask", alias="", constitution="", created_ms=0, made_by="orgb")
MALLORY = "@mallory:evil.example"


class FixedClock:
    """It is always the same moment."""

    def now_ms(self) -> int:
        return 1_000


class Desk:
    """A ledger, a room, and who says again what was taken out of it."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.revoked = False
        self.reasserter = Reasserter(
            own=Own(mxid=BOT, keyids=lambda: frozenset({HOME.keyid})),
            clock=FixedClock(),
            keys=lambda: {**HOME.keys, **PEER.keys},
            peers=[Peer("peer", "@pypi:peer.example")],
            stands=lambda row: not self.revoked,
        )

    async def keep(self, checked: Checked, event_id: str | None = None) -> EnvelopeRow:
        """In the ledger; seen in the event, if one is named."""
        row = ledger_row(checked, via="own", at_ms=1)
        async with self.store.transaction() as t:
            await t.ledger.keep(row)
            if event_id is not None:
                await t.ledger.sighted(row.id, room_id="!flask", event_id=event_id, sender=BOT, at_ms=1)
        return row

    async def sent(self, checked: Checked, event_id: str) -> None:
        """The outbox knows that this event is ours."""
        post = post_of(checked)
        async with self.store.transaction() as t:
            await t.mail.send(ROOM.key, post.type, post.state_key, b"{}", 1)
            row = await t.mail.next_to(ROOM.key)
            assert row is not None
            await t.mail.sent(row.n, event_id)

    async def look(self, event: JsonObject) -> bool:
        async with self.store.transaction() as t:
            return await self.reasserter.look(t, ROOM, event)

    @property
    def queued(self) -> list[tuple[str, str, str | None]]:
        """(room, type, slot) of what is to be sent."""
        return [
            (letter.row.room, letter.row.type, letter.row.state_key)
            for letter in self.store.mail.letters.values()
            if letter.status == "queued"
        ]

    async def deliver(self) -> None:
        """What is queued is sent."""
        async with self.store.transaction() as t:
            while (row := await t.mail.next_to(ROOM.key)) is not None:
                await t.mail.sent(row.n, f"$sent{row.n}")


def in_slot(checked: Checked, event_id: str, **changes: object) -> JsonObject:
    post = post_of(checked)
    event = {"event_id": event_id, "sender": BOT, "type": post.type, "state_key": post.state_key, "content": {}}
    return event | changes


def redaction(target: str, sender: str = MALLORY) -> JsonObject:
    return {"event_id": f"$r-{target}", "type": "m.room.redaction", "sender": sender, "content": {"redacts": target}}


async def test_what_was_redacted_is_said_again_in_that_room_however_it_is_noticed_and_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk, ours = Desk(), HOME.attest(WHEEL)
    await desk.keep(ours)
    await desk.sent(ours, "$1")
    answers = [await desk.look(redaction("$1")), await desk.look(in_slot(ours, "$1")), await desk.look(redaction("$1"))]
    assert answers == [True, False, False]
    post = post_of(ours)
    assert desk.queued == [(ROOM.key, post.type, post.state_key)]
    assert caplog.messages == ["own statement redacted alarm"]
    assert caplog.records[0].__dict__["sender"] == MALLORY


async def test_what_was_overwritten_is_said_again() -> None:
    desk, ours = Desk(), HOME.attest(WHEEL)
    await desk.keep(ours)
    assert await desk.look(in_slot(ours, "$2", sender=MALLORY, content={"v": 1}))
    assert len(desk.queued) == 1


async def test_the_newest_of_our_statements_in_the_slot_is_said() -> None:
    desk, old, new = Desk(), HOME.attest(WHEEL, seq=1), HOME.attest(WHEEL, seq=2)
    await desk.keep(new)
    await desk.keep(old)
    await desk.look(in_slot(old, "$1"))
    [letter] = desk.store.mail.letters.values()
    assert new.envelope.to_json()["payload"] in letter.row.content.decode()


async def test_after_three_times_it_is_given_up_also_by_the_next_life(caplog: pytest.LogCaptureFixture) -> None:
    desk, ours = Desk(), HOME.attest(WHEEL)
    await desk.keep(ours)
    for n in range(MOST_TIMES):
        assert await desk.look(in_slot(ours, f"${n}"))
        await desk.deliver()
    again = Desk()
    again.store = desk.store
    assert not await again.look(in_slot(ours, "$last"))
    assert again.queued == []
    assert caplog.messages.count("own statement given up alarm") == 1
    assert not await again.look(in_slot(ours, "$last"))
    assert caplog.messages.count("own statement given up alarm") == 1


async def test_what_we_took_back_is_not_said_again() -> None:
    desk, ours = Desk(), HOME.attest(WHEEL)
    row = await desk.keep(ours)
    withdrawal = Withdrawal(
        signer=SignedBy(org="home", key=HOME.keyid),
        seq=2,
        prev=None,
        issued=NOON,
        project="flask",
        version="3.1.3",
        file=WHEEL,
        reason="error",
        scope="file",
    )
    envelope = sign_statement({"attestation": Sha256(row.id)}, withdrawal, HOME.key)
    taken_back = check_envelope(envelope.to_json(), HOME.keys, Withdrawal)
    await desk.keep(taken_back)
    assert not await desk.look(in_slot(ours, "$1"))
    assert await desk.look(in_slot(taken_back, "$2"))


async def test_what_was_refuted_or_signed_by_a_key_that_no_longer_counts_is_not_said_again() -> None:
    desk, ours = Desk(), HOME.attest(WHEEL)
    row = await desk.keep(ours)
    desk.revoked = True
    assert not await desk.look(in_slot(ours, "$1"))
    desk.revoked = False
    desk.store.ledger.judged.append(upheld(row))
    assert not await desk.look(in_slot(ours, "$2"))


def upheld(row: EnvelopeRow) -> VerdictRow:
    return VerdictRow(
        statement_id=row.id,
        fault="equivocation",
        result="UPHELD",
        project=ProjectName("flask"),
        file=FileName(WHEEL),
        keyid=row.keyid,
        org=row.org,
        evidence_id=None,
        reason="",
        suspends=True,
        at_ms=1,
    )


async def test_what_we_redact_ourselves_is_no_alarm(caplog: pytest.LogCaptureFixture) -> None:
    desk, ours = Desk(), HOME.attest(WHEEL)
    await desk.keep(ours)
    await desk.sent(ours, "$1")
    assert not await desk.look(redaction("$1", sender=BOT))
    assert not await desk.look(in_slot(ours, "$1", unsigned={"redacted_because": {"sender": BOT}}))
    assert (desk.queued, caplog.messages) == ([], [])


async def test_who_redacts_a_valid_statement_of_others_is_named_unless_it_is_their_own_or_was_refuted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk = Desk()
    row = await desk.keep(PEER.attest(WHEEL), "$peer")
    assert not await desk.look(redaction("$peer", sender="@pypi:peer.example"))
    assert not await desk.look(redaction("$nothing"))
    assert caplog.messages == []
    assert not await desk.look(redaction("$peer"))
    [record] = caplog.records
    assert (record.message, record.__dict__["sender"], record.__dict__["org"]) == (
        "statement of others redacted alarm",
        MALLORY,
        "peer",
    )
    caplog.clear()
    other = Desk()
    other.store.ledger.judged.append(upheld(row))
    await other.keep(PEER.attest(WHEEL), "$peer")
    await other.look(redaction("$peer"))
    assert caplog.messages == []


@pytest.mark.parametrize(
    "event",
    [
        {"type": "m.room.redaction", "sender": MALLORY, "content": {"redacts": ["$1"]}},
        {"type": "m.room.redaction", "sender": MALLORY},
        {"type": "io.matrix_pypi.attestation.v1", "state_key": f"{HOME.keyid[:16]}/../x", "content": {}, "sender": BOT},
        {"type": "io.matrix_pypi.attestation.v1", "state_key": HOME.keyid[:16], "content": {}, "sender": BOT},
        {"type": "io.matrix_pypi.index.v1", "state_key": HOME.keyid[:16], "content": {}, "sender": BOT, "unsigned": 5},
        {"type": ["m.room.redaction"], "content": 5},
        {},
    ],
)
async def test_events_of_any_shape_cause_nothing(event: JsonObject) -> None:
    desk = Desk()
    await desk.keep(HOME.attest(WHEEL))
    assert not await desk.look(event)
    assert desk.queued == []
