"""The organisation's log: checkpoints when there is something new, one root a size for ever, told in the trust room, read in pages."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from matrix_pypi_bot.core.envelope import seal
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.notes import NoteKey, cosigned_at, is_signed_by, parse_checkpoint, parse_note
from matrix_pypi_bot.core.signers import SigningKey
from matrix_pypi_bot.core.tlog import leaf_hash, root_of
from matrix_pypi_bot.ports import EnvelopeRow, Store
from matrix_pypi_bot.services import log as log_module
from matrix_pypi_bot.services.log import NEW_LEAVES, RENEW_SECONDS, LogKeeper
from matrix_pypi_bot.services.resume import ResumeGuard
from matrix_pypi_bot.services.signing import envelope_json
from tests.support.bot_world import KEY as MIRROR
from tests.support.bot_world import ManualClock, World

KEY, OTHER_KEY = SigningKey(bytes([5]) * 32), SigningKey(bytes([6]) * 32)
ORIGIN, BOT = "orga/matrix-pypi", "@pypi:org.example"
NOTE_KEY = NoteKey(ORIGIN, KEY.public)
EVERY_SECONDS = 600


def payload(number: int, filling: int = 0) -> bytes:
    """What statement `number` says."""
    return b"statement %d" % number + b"." * filling


async def say(store: Store, *numbers: int, filling: int = 0) -> None:
    """Statements of ours, kept and logged."""
    async with store.transaction() as tables:
        for number in numbers:
            envelope = seal(payload(number, filling), MIRROR)
            row = EnvelopeRow(
                id=envelope.id, kind="attestation", project=None, file=None, sha256=None, keyid=MIRROR.keyid, org="orga",
                seq=number, envelope=envelope_json(envelope), first_seen_ms=1, via="own",
            )  # fmt: skip
            await tables.ledger.keep(row)
            await tables.log.append(row.id, leaf_hash(envelope.payload))


def keeper_of(world: World, key: SigningKey = KEY) -> tuple[LogKeeper, ResumeGuard]:
    guard = ResumeGuard(store=world.store, key=NoteKey(ORIGIN, key.public), bot_mxid=BOT)
    keeper = LogKeeper(
        store=world.store,
        clock=world.clock,
        guard=guard,
        postman=world.postman,
        origin=ORIGIN,
        key=key,
        bot_mxid=BOT,
        checkpoint_seconds=EVERY_SECONDS,
    )
    return keeper, guard


@pytest.fixture
async def keeper(world: World) -> LogKeeper:
    """A keeper that may sign."""
    made, guard = keeper_of(world)
    await made.start()
    assert await guard.compare([])
    return made


def root(*numbers: int) -> bytes:
    return root_of([leaf_hash(payload(number)) for number in numbers])


async def test_nothing_said_is_no_checkpoint(keeper: LogKeeper, world: World) -> None:
    assert not await keeper.sign_if_due()
    assert (keeper.head, await world.mail(), await keeper.entries(0, 9)) == (None, [], [])


async def test_the_first_checkpoint_is_signed_with_its_time_and_told_in_the_trust_room(
    keeper: LogKeeper, world: World, clock: ManualClock
) -> None:
    await say(world.store, 1, 2, 3)
    assert await keeper.sign_if_due()
    assert keeper.head is not None
    note = parse_note(keeper.head.note)
    checkpoint = parse_checkpoint(note.text)
    assert (checkpoint.origin, checkpoint.size, checkpoint.root) == (ORIGIN, 3, root(1, 2, 3))
    assert is_signed_by(note, NOTE_KEY)
    assert cosigned_at(note, NOTE_KEY) == Instant.of_ms(clock.now_ms())
    content = {"v": 1, "note": keeper.head.note}
    assert await world.mail() == [
        {"room": "trust", "type": "io.matrix_pypi.head.v1", "state_key": BOT, "content": content}
    ]
    assert world.postman.pokes == 1


async def test_a_checkpoint_is_signed_when_there_is_something_new_and_it_is_time(
    keeper: LogKeeper, world: World, clock: ManualClock
) -> None:
    await say(world.store, 1)
    assert await keeper.sign_if_due()
    clock.pass_seconds(EVERY_SECONDS)
    assert not await keeper.sign_if_due()
    clock.pass_seconds(-1)
    await say(world.store, 2)
    assert not await keeper.sign_if_due()
    clock.pass_seconds(1)
    assert await keeper.sign_if_due()
    assert keeper.head is not None
    assert (keeper.head.size, keeper.head.root) == (2, root(1, 2))


async def test_many_new_statements_do_not_wait_for_the_time(keeper: LogKeeper, world: World) -> None:
    await say(world.store, 1)
    assert await keeper.sign_if_due()
    await say(world.store, *range(2, NEW_LEAVES + 1))
    assert not await keeper.sign_if_due()
    await say(world.store, NEW_LEAVES + 1)
    assert await keeper.sign_if_due()


async def test_a_clock_that_was_set_back_does_not_silence_the_log(
    keeper: LogKeeper, world: World, clock: ManualClock
) -> None:
    await say(world.store, 1)
    assert await keeper.sign_if_due()
    clock.pass_seconds(-86_400)
    await say(world.store, 2)
    assert await keeper.sign_if_due()


async def test_an_unchanged_head_is_signed_again_with_a_new_time(
    keeper: LogKeeper, world: World, clock: ManualClock
) -> None:
    await say(world.store, 1)
    assert await keeper.sign_if_due()
    first = keeper.head
    assert first is not None
    clock.pass_seconds(RENEW_SECONDS)
    assert await keeper.sign_if_due()
    assert keeper.head is not None
    assert replace(keeper.head, note=first.note, signed_ms=first.signed_ms) == first
    note = parse_note(keeper.head.note)
    assert (note.text, cosigned_at(note, NOTE_KEY)) == (parse_note(first.note).text, Instant.of_ms(clock.now_ms()))
    assert is_signed_by(note, NOTE_KEY)


async def test_nothing_is_signed_before_the_guard_is_open(world: World) -> None:
    keeper, guard = keeper_of(world)
    await keeper.start()
    await say(world.store, 1)
    assert not await keeper.sign_if_due()
    await guard.compare([])
    assert await keeper.sign_if_due()


async def test_what_one_life_promised_the_next_knows(keeper: LogKeeper, world: World) -> None:
    await say(world.store, 1, 2)
    await keeper.sign_if_due()
    later, _ = keeper_of(world)
    await later.start()
    assert later.head == keeper.head
    assert len(await later.entries(0, 9)) == 2


async def test_with_another_key_the_same_head_is_signed_anew(keeper: LogKeeper, world: World) -> None:
    await say(world.store, 1)
    await keeper.sign_if_due()
    later, guard = keeper_of(world, OTHER_KEY)
    await later.start()
    await guard.compare([])
    assert await later.sign_if_due()
    assert later.head is not None
    note = parse_note(later.head.note)
    assert is_signed_by(note, NoteKey(ORIGIN, OTHER_KEY.public))
    assert not is_signed_by(note, NOTE_KEY)


@pytest.mark.parametrize("step", ["promise", "put_head", "send"])
async def test_a_crash_between_two_steps_leaves_none_of_them(
    keeper: LogKeeper, world: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    from matrix_pypi_bot.adapters.database.log import LogTables
    from matrix_pypi_bot.adapters.database.mail import MailTables

    tables: Any = MailTables if step == "send" else LogTables
    whole = getattr(tables, step)

    async def crash(*arguments: Any) -> None:
        await whole(*arguments)
        raise ZeroDivisionError

    await say(world.store, 1)
    monkeypatch.setattr(tables, step, crash)
    with pytest.raises(ZeroDivisionError):
        await keeper.sign_if_due()
    monkeypatch.undo()
    assert (keeper.head, await world.mail()) == (None, [])
    await say(world.store, 2)  # what came meanwhile may change the root of the next attempt: nothing was promised
    assert await keeper.sign_if_due()
    assert keeper.head is not None
    assert (keeper.head.size, keeper.head.root, len(await world.mail())) == (2, root(1, 2), 1)


async def test_a_size_that_was_promised_with_another_root_is_never_signed_and_closes_the_guard(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    keeper, guard = keeper_of(world)
    await guard.compare([])
    async with world.store.transaction() as tables:
        await tables.log.promise(1, bytes(32), at_ms=1)
    await say(world.store, 1)
    assert not await keeper.sign_if_due()
    assert (keeper.head, guard.is_open, await world.mail()) == (None, False, [])
    assert "log alarm: nothing is signed any more" in caplog.messages


async def test_a_checkpoint_that_the_leaves_do_not_bear_closes_the_guard_at_the_start(world: World) -> None:
    await say(world.store, 1)
    async with world.store.transaction() as tables:
        await tables.log.promise(2, bytes(32), at_ms=1)
        await tables.log.put_head(2, "a note", at_ms=1)
    keeper, guard = keeper_of(world)
    await keeper.start()
    assert not await guard.compare([])


async def test_only_what_a_checkpoint_covers_is_shown(keeper: LogKeeper, world: World) -> None:
    await say(world.store, 1, 2)
    await keeper.sign_if_due()
    await say(world.store, 3)
    assert [_payload(entry) for entry in await keeper.entries(0, 9)] == [payload(1), payload(2)]
    assert [_payload(entry) for entry in await keeper.entries(1, 9)] == [payload(2)]
    assert await keeper.entries(2, 9) == []
    assert await keeper.entries(10**17, 10**17 + 1) == []


async def test_an_answer_holds_a_thousand_entries_and_four_mebibytes(
    keeper: LogKeeper, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await say(world.store, *range(1_100))
    await keeper.sign_if_due()
    assert len(await keeper.entries(0, 1_100)) == 1_000
    assert len(await keeper.entries(150, 1_100)) == 950
    line_bytes = len((await keeper.entries(0, 1))[0]) + 1
    monkeypatch.setattr(log_module, "MAX_ANSWER_BYTES", 5 * line_bytes)
    assert len(await keeper.entries(0, 1_100)) == 5
    monkeypatch.setattr(log_module, "MAX_ANSWER_BYTES", 1)
    assert len(await keeper.entries(0, 1_100)) == 1


async def test_the_entries_of_every_checkpoint_rebuild_its_root(
    keeper: LogKeeper, world: World, clock: ManualClock
) -> None:
    """Whoever reads the pages and holds a checkpoint needs nothing else to check it."""
    said = 0
    for batch in (1, 1, 5, 9, 16, 31, 64):
        await say(world.store, *range(said, said + batch))
        said += batch
        clock.pass_seconds(EVERY_SECONDS)
        assert await keeper.sign_if_due()
        assert keeper.head is not None
        leaves = [leaf_hash(_payload(entry)) for entry in await keeper.entries(0, said)]
        assert (len(leaves), root_of(leaves)) == (keeper.head.size, keeper.head.root)


def _payload(entry: bytes) -> bytes:
    return base64.b64decode(json.loads(entry)["payload"])
