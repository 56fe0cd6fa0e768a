"""Our own log at others: their cosignatures, and what an old copy of the database gets back from them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from matrix_pypi_bot.core.events import sign_statement
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.notes import NoteKey, cosign, cosigned_at, parse_note
from matrix_pypi_bot.core.signers import SigningKey
from matrix_pypi_bot.core.statements.common import SignedBy
from matrix_pypi_bot.core.statements.keys import Manifest
from matrix_pypi_bot.core.statements.override import Override
from matrix_pypi_bot.core.tlog import leaf_hash
from matrix_pypi_bot.ports import Store
from matrix_pypi_bot.services.own_copies import put_back
from matrix_pypi_bot.services.resume import LogBehind
from matrix_pypi_bot.wire.digests import sha256_of
from matrix_pypi_bot.wire.names import FileName, ProjectName
from tests.support.bot_world import ManualClock
from tests.support.peer_logs import LogOrg, Node, ScriptedReader
from tests.unit.bot.conftest import NewNode
from tests.unit.bot.test_pull import ONE, TWO, now

PROJECT = ProjectName("mxa")


@pytest.fixture
def orga(clock: ManualClock) -> LogOrg:
    """Ourselves, with a log of four statements."""
    org = LogOrg("orga", 1)
    org.introduce(now(clock))
    org.attest(ONE, TWO)
    predicate = Override(
        action="quarantine", scope="project", project="mxa", file=None, index="pypi", reason="looked at it", expires=None,
        signer=SignedBy(org="orga", key=org.organisation.mirror.keyid), seq=4, prev=None, issued=now(clock),
    )  # fmt: skip
    org.leaves.append(sign_statement({"mxa": sha256_of(b"mxa")}, predicate, org.organisation.mirror))
    return org


async def remember(bot: Node, count: int) -> None:
    """The database holds the first leaves of our log."""
    async with bot.store.transaction() as tables:
        for envelope in bot.own.leaves[:count]:
            checked = bot.intake.check(envelope.to_json())
            await put_back(tables, checked, org="orga", now_ms=1)
            if isinstance(checked.statement.predicate, Manifest):
                bot.members.learn_own(checked.statement.predicate)


async def size(store: Store) -> int:
    async with store.transaction() as tables:
        return await tables.log.size()


async def test_a_peers_cosignature_stands_on_our_head_until_the_log_grows_and_after_a_restart(
    node: NewNode,
    reader: ScriptedReader,
    orga: LogOrg,
    orgb: LogOrg,
    clock: ManualClock,
) -> None:
    reader.serve("orgb", orgb, orgb.head(now(clock)))
    witness = NoteKey("orgb/witness", orgb.organisation.log.public)
    async with node(orgb, own=orga) as bot:
        await remember(bot, 2)
        await bot.pull.pull("orgb")
        await bot.keeper.sign_if_due()
        assert bot.keeper.note is not None
        assert bot.keeper.head is not None
        assert bot.keeper.note == bot.keeper.head.note
        note = parse_note(bot.keeper.note)
        line = cosign(note, witness.name, orgb.organisation.log, now(clock))
        stranger = cosign(note, "orgc/witness", SigningKey(bytes([66]) * 32), now(clock))
        reader.serve("orgb", orga, str(note.with_signature(line).with_signature(stranger)), copy=True)
        await bot.pull.pull("orgb")
        shown = parse_note(bot.keeper.note)
        assert (cosigned_at(shown, witness), len(shown.signatures)) == (now(clock), 3)
        clock.pass_seconds(3_601)  # the head is signed anew with the time; what others cosigned is the text
        await bot.keeper.sign_if_due()
        assert cosigned_at(parse_note(bot.keeper.note), witness) is not None
    async with node(orgb, own=orga) as bot:
        bot.members.learn_own(_manifest(orga))
        assert cosigned_at(parse_note(bot.keeper.note or ""), witness) is not None
        await bot.pull.pull("orgb")
        async with bot.store.transaction() as tables:
            await put_back(tables, bot.intake.check(orga.leaves[2].to_json()), org="orga", now_ms=1)
        clock.pass_seconds(601)
        await bot.keeper.sign_if_due()
        assert len(parse_note(bot.keeper.note or "").signatures) == 2


async def test_nothing_may_be_signed_before_every_peer_was_asked(
    node: NewNode,
    reader: ScriptedReader,
    orgb: LogOrg,
    orgc: LogOrg,
) -> None:
    async with node(orgb, orgc) as bot:
        assert not bot.guard.is_open
        await bot.pull.pull("orgb")
        assert not bot.guard.is_open
        await bot.pull.pull("orgc")  # it does not answer, but it was asked
        assert bot.guard.is_open


@pytest.mark.parametrize("held", [0, 1, 3])
async def test_an_old_copy_of_the_database_gets_its_leaves_back_from_a_peer(
    node: NewNode, reader: ScriptedReader, orga: LogOrg, orgb: LogOrg, clock: ManualClock, held: int,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    reader.serve("orgb", orgb, orgb.head(now(clock)))
    reader.serve("orgb", orga, orga.head(now(clock)), copy=True)
    reader.page = 2
    async with node(orgb, own=orga) as bot:
        await remember(bot, held)
        await bot.pull.pull("orgb")
        assert (await size(bot.store), bot.guard.is_open) == (4, True)
        assert "log alarm: nothing is signed any more" in caplog.messages
        async with bot.store.transaction() as tables:
            assert await tables.log.entries(0, 9) == orga.lines
            mirror = orga.organisation.mirror.keyid
            for file in (ONE, TWO):
                digest = sha256_of(file.encode())
                assert await tables.ledger.signed(mirror, FileName(file)) == digest
                assert (await tables.ledger.accepted(PROJECT))[FileName(file)].sha256 == digest
            assert [row.action for row in await tables.ledger.overrides(PROJECT)] == ["quarantine"]
            assert await tables.ledger.chain(mirror, PROJECT) == (4, orga.leaves[3].id)
        assert len(bot.restored) == 4 - held
        assert await bot.keeper.sign_if_due()
        assert bot.keeper.head is not None
        assert bot.keeper.head.size == 4


async def test_what_the_trust_room_shows_counts_too_and_a_smaller_copy_does_not_open_the_guard(
    node: NewNode,
    reader: ScriptedReader,
    orga: LogOrg,
    orgb: LogOrg,
    clock: ManualClock,
) -> None:
    reader.serve("orgb", orgb, orgb.head(now(clock)))
    reader.serve("orgb", orga, orga.head(now(clock), 2), copy=True)
    bot_id = "@pypi:orga.example"
    published = {
        "type": "io.matrix_pypi.head.v1", "state_key": bot_id, "sender": bot_id,
        "content": {"v": 1, "note": orga.head(now(clock))},
    }  # fmt: skip
    async with node(orgb, own=orga) as bot:
        assert not await bot.guard.compare([published])
        await bot.pull.pull("orgb")
        assert (await size(bot.store), bot.guard.is_open) == (2, False)
        with pytest.raises(LogBehind, match="the database holds fewer"):
            bot.guard.check()
        reader.serve("orgb", orga, orga.head(now(clock)), copy=True)
        await bot.pull.pull("orgb")
        assert (await size(bot.store), bot.guard.is_open) == (4, True)


async def test_a_copy_that_contradicts_our_log_closes_the_guard_for_good(
    node: NewNode,
    reader: ScriptedReader,
    orga: LogOrg,
    orgb: LogOrg,
    clock: ManualClock,
) -> None:
    reader.serve("orgb", orgb, orgb.head(now(clock)))
    async with node(orgb, own=orga) as bot:
        await remember(bot, 3)
        reader.serve("orgb", orga, orga.head(now(clock), 2, root=bytes(32)), copy=True)
        await bot.pull.pull("orgb")
        reader.serve("orgb", orga, orga.head(now(clock)), copy=True)
        await bot.pull.pull("orgb")
        assert (await size(bot.store), bot.guard.is_open) == (3, False)


@pytest.mark.parametrize("how", ["another key", "other leaves", "short", "spoiled", "not a leaf", "changes its mind"])
async def test_nobody_can_put_anything_into_our_log(
    node: NewNode,
    reader: ScriptedReader,
    orga: LogOrg,
    orgb: LogOrg,
    clock: ManualClock,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head, lines = orga.head(now(clock)), list(orga.lines)
    if how == "another key":
        head = orga.head(now(clock), by=orgb.organisation.log)
    if how == "other leaves":
        lines[2] = orgb.lines[1]
    if how == "short":
        lines = lines[:2]
    if how == "spoiled":
        lines[1] = json.dumps(json.loads(lines[1]) | {"signatures": []}).encode()
    if how == "not a leaf":
        lines[3] = b"[]"
    reader.serve("orgb", orgb, orgb.head(now(clock)))
    reader.serve("orgb", orga, head, copy=True, lines=lines)
    if how == "changes its mind":
        entries = reader.entries

        async def changing(peer: Any, of: Any, start: int, end: int) -> Any:
            found = await entries(peer, of, start, end)
            if of == "orga":
                reader.lines["orgb", "orga"] = [orgb.lines[1]] * 4
            return found

        monkeypatch.setattr(ScriptedReader, "entries", lambda _, *arguments: changing(*arguments))
    async with node(orgb, own=orga) as bot:
        await bot.pull.pull("orgb")
        expected = 1 if how == "spoiled" else 0  # what came before the spoiled one is ours
        assert (await size(bot.store), bot.guard.is_open) == (expected, how == "another key")


async def test_a_statement_said_meanwhile_is_not_overwritten(
    node: NewNode,
    reader: ScriptedReader,
    orga: LogOrg,
    orgb: LogOrg,
    clock: ManualClock,
) -> None:
    """An operator need not wait for the comparison; then the leaf stands in the place of one that was published."""
    reader.serve("orgb", orgb, orgb.head(now(clock)))
    reader.serve("orgb", orga, orga.head(now(clock)), copy=True)
    async with node(orgb, own=orga) as bot:
        async with bot.store.transaction() as tables:
            await tables.log.append("f" * 64, leaf_hash(b"said meanwhile"))
        await bot.pull.pull("orgb")
        assert (await size(bot.store), bot.guard.is_open) == (1, False)


def _manifest(org: LogOrg) -> Any:
    from matrix_pypi_bot.services.keys import _signed

    return _signed(org.organisation, None, (), 1, Instant(1_767_225_600), ()).statement.predicate
