"""Logs of other organisations: nothing counts before a signed head bears it, what contradicts itself is proof, and nothing is lost."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from matrix_pypi_bot.core.envelope import seal
from matrix_pypi_bot.core.heads import read_head_of
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.judge import log_fork
from matrix_pypi_bot.core.notes import NoteKey, cosigned_at, parse_note
from matrix_pypi_bot.core.signers import SigningKey
from matrix_pypi_bot.core.tlog import leaf_hash, root_of
from matrix_pypi_bot.ports import Absent, Peer, StoreAway, Wrong
from matrix_pypi_bot.services import pull as pull_module
from matrix_pypi_bot.services.log_pages import PAGE_ENTRIES
from matrix_pypi_bot.services.pull import RELAY_AFTER
from matrix_pypi_bot.services.shown_copies import ShownCopies
from matrix_pypi_bot.services.signing import envelope_json
from matrix_pypi_bot.wire.cids import RAW, format_cid
from matrix_pypi_bot.wire.digests import Sha256
from tests.support.bot_world import ManualClock
from tests.support.peer_logs import LogOrg, ScriptedReader
from tests.unit.bot.conftest import NewNode

ONE, TWO, THREE, FOUR = (f"mxa-{number}.0-py3-none-any.whl" for number in range(1, 5))
ALARM = "log of another organisation contradicts itself alarm"


def now(clock: ManualClock) -> Instant:
    return Instant.of_ms(clock.now_ms())


async def test_a_newcomer_that_knows_a_root_key_alone_has_everything_after_one_round(
    node: NewNode, reader: ScriptedReader, orgb: LogOrg, clock: ManualClock
) -> None:
    orgb.attest(TWO, THREE)
    reader.serve("orgb", orgb, orgb.head(now(clock)))
    async with node(orgb) as bot:
        await bot.pull.pull("orgb")
        assert await bot.attested("orgb") == [ONE, TWO, THREE]
        assert bot.statements == [("mxa", "orgb")] * 3
        assert bot.followed == ["mxa"] * 3
        assert (bot.pull.heads, bot.pull.broken, bot.rounds) == ({"orgb": now(clock)}, frozenset(), 1)
        assert bot.members.head_times == {"orgb": now(clock)}


async def test_a_leaf_that_proves_its_own_falsehood_is_not_taken_and_its_signer_is_judged(
    node: NewNode, reader: ScriptedReader, orgb: LogOrg, clock: ManualClock
) -> None:
    payload = json.loads(orgb.attestation(TWO).payload)
    payload["predicate"]["cid"] = format_cid(RAW, Sha256("0" * 64))
    lie = seal(json.dumps(payload).encode(), orgb.organisation.mirror)
    orgb.leaves.append(lie)
    reader.serve("orgb", orgb, orgb.head(now(clock)))
    async with node(orgb) as bot:
        await bot.pull.pull("orgb")
        assert await bot.attested("orgb") == [ONE]
        assert [told.id for told in bot.lies] == [lie.id]


async def test_only_what_is_new_is_fetched_again(
    node: NewNode, reader: ScriptedReader, orgb: LogOrg, clock: ManualClock
) -> None:
    reader.serve("orgb", orgb, orgb.head(now(clock)))
    async with node(orgb) as bot:
        await bot.pull.pull("orgb")
    orgb.attest(TWO)
    clock.pass_seconds(60)
    reader.serve("orgb", orgb, orgb.head(now(clock)))
    reader.asked.clear()
    async with node(orgb) as bot:
        assert bot.pull.heads == {"orgb": now(clock) - 60}
        await bot.pull.pull("orgb")
        assert reader.asked == [("orgb", None, 2, 3)]
        assert await bot.attested("orgb") == [ONE, TWO]
        assert bot.pull.heads == {"orgb": now(clock)}
        await bot.pull.pull("orgb")
        assert len(reader.asked) == 1


async def test_before_a_signed_head_bears_them_leaves_do_not_count_and_manifests_do(
    node: NewNode, reader: ScriptedReader, orgb: LogOrg, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = LogOrg("orgb", 11).attestation(TWO)
    reader.serve("orgb", orgb, orgb.head(now(clock)), lines=[orgb.lines[0], envelope_json(wrong)])
    async with node(orgb) as bot:
        await bot.pull.pull("orgb")
        assert (await bot.attested("orgb"), bot.pull.heads) == ([], {})
        assert bot.members.manifest("orgb") is not None
        assert bot.pull.broken == {"orgb"}
        assert caplog.messages.count("log does not bear its own head alarm") == 1
        reader.asked.clear()
        await bot.pull.pull("orgb")
        assert reader.asked == []  # the same head will not fit tomorrow either
        orgb.attest(TWO)
        reader.serve("orgb", orgb, orgb.head(now(clock)))
        await bot.pull.pull("orgb")
        assert (await bot.attested("orgb"), bot.pull.broken) == ([ONE, TWO], frozenset())


async def test_a_head_that_does_not_extend_what_was_verified_stops_the_log(
    node: NewNode, reader: ScriptedReader, orgb: LogOrg, clock: ManualClock
) -> None:
    reader.serve("orgb", orgb, orgb.head(now(clock)))
    async with node(orgb) as bot:
        await bot.pull.pull("orgb")
        orgb.leaves[1] = orgb.attestation(ONE, salt="another")
        orgb.attest(TWO)
        reader.serve("orgb", orgb, orgb.head(now(clock)))
        await bot.pull.pull("orgb")
        assert (bot.pull.broken, await bot.attested("orgb")) == ({"orgb"}, [ONE])


async def test_two_roots_of_one_size_are_proof_and_nothing_new_counts_any_more(
    node: NewNode, reader: ScriptedReader, orgb: LogOrg, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    reader.serve("orgb", orgb, orgb.head(now(clock)))
    async with node(orgb) as bot:
        await bot.pull.pull("orgb")
        reader.serve("orgb", orgb, orgb.head(now(clock), root=bytes(32)))
        await bot.pull.pull("orgb")
        await bot.pull.pull("orgb")
        assert bot.pull.broken == {"orgb"}
        assert caplog.messages.count(ALARM) == 1
        notes = bot.forks[0].notes
        assert log_fork(*notes, bot.members.keyring.log_keys()) == bot.forks[0].key == orgb.note_key
        orgb.attest(TWO)
        reader.serve("orgb", orgb, orgb.head(now(clock)))
        await bot.pull.pull("orgb")
        assert await bot.attested("orgb") == [ONE]
    async with node(orgb) as later:
        assert (later.pull.broken, len(later.forks)) == ({"orgb"}, 1)


async def test_a_fork_is_found_in_a_peers_copy_and_in_a_trust_room_too(
    node: NewNode, reader: ScriptedReader, orgb: LogOrg, orgc: LogOrg, clock: ManualClock
) -> None:
    other = orgb.head(now(clock), root=bytes(32))
    for by_room in (False, True):
        reader.serve("orgb", orgb, orgb.head(now(clock)))
        reader.serve("orgc", orgc, orgc.head(now(clock)))
        if not by_room:
            reader.serve("orgc", orgb, other, copy=True)
        async with node(orgb, orgc, own=LogOrg("orga", 1)) as bot:
            await bot.pull.pull("orgb")
            if by_room:
                bot.pull.hear_note(other)
                await bot.pull.pull("orgb")
            else:
                await bot.pull.pull("orgc")
            assert [(fork.org, fork.key) for fork in bot.forks][:1] == [("orgb", orgb.note_key)]


async def test_forged_heads_wake_nobody_and_push_out_no_true_one(
    node: NewNode, reader: ScriptedReader, orgb: LogOrg, clock: ManualClock
) -> None:
    reader.serve("orgb", orgb, orgb.head(now(clock)))
    async with node(orgb) as bot:
        await bot.pull.pull("orgb")
        bot.pull.hear_note(orgb.head(now(clock), root=bytes(32)))
        origin, _, rest = orgb.head(now(clock)).split("\n", 2)
        for size in range(100, 120):
            bot.pull.hear_note(f"{origin}\n{size}\n{rest}")
        await bot.pull.pull("orgb")
        assert bot.pull.broken == {"orgb"}


async def test_a_head_that_was_shown_elsewhere_must_lie_on_the_way_of_the_log(
    node: NewNode, reader: ScriptedReader, orgb: LogOrg, clock: ManualClock
) -> None:
    reader.serve("orgb", orgb, orgb.head(now(clock)))
    async with node(orgb) as bot:
        await bot.pull.pull("orgb")
        bot.pull.hear_head("orgb", orgb.head(now(clock), 3, root=bytes(32)))
        orgb.attest(TWO, THREE)
        reader.serve("orgb", orgb, orgb.head(now(clock)))
        await bot.pull.pull("orgb")
        assert (bot.pull.broken, await bot.attested("orgb"), bot.forks) == ({"orgb"}, [ONE], [])
    async with node(orgb) as later:
        assert later.pull.broken == {"orgb"}


async def test_a_head_that_its_own_leaves_never_bore_is_not_forgotten_when_a_good_one_follows(
    node: NewNode, reader: ScriptedReader, orgb: LogOrg, clock: ManualClock
) -> None:
    reader.serve("orgb", orgb, orgb.head(now(clock), root=bytes(32)))
    async with node(orgb) as bot:
        await bot.pull.pull("orgb")
        assert bot.pull.broken == {"orgb"}
        orgb.attest(TWO)
        reader.serve("orgb", orgb, orgb.head(now(clock)))
        await bot.pull.pull("orgb")
        assert (await bot.attested("orgb"), bot.pull.broken) == ([], {"orgb"})


async def test_a_smaller_head_is_old_news_unless_it_contradicts_the_tree(
    node: NewNode, reader: ScriptedReader, orgb: LogOrg, clock: ManualClock
) -> None:
    reader.serve("orgb", orgb, orgb.head(now(clock)))
    async with node(orgb) as bot:
        await bot.pull.pull("orgb")
        reader.serve("orgb", orgb, orgb.head(now(clock), 1))
        await bot.pull.pull("orgb")
        assert (bot.pull.broken, bot.pull.heads) == (frozenset(), {"orgb": now(clock)})
        reader.serve("orgb", orgb, orgb.head(now(clock), 1, root=bytes(32)))
        await bot.pull.pull("orgb")
        assert bot.pull.broken == {"orgb"}


async def test_a_log_that_began_again_with_another_key_is_another_log(
    node: NewNode, reader: ScriptedReader, orgb: LogOrg, clock: ManualClock
) -> None:
    reader.serve("orgb", orgb, orgb.head(now(clock)))
    async with node(orgb) as bot:
        await bot.pull.pull("orgb")
        reader.serve("orgb", orgb, orgb.head(now(clock), root=bytes(32)))
        await bot.pull.pull("orgb")
        assert bot.pull.broken == {"orgb"}
        rotated = LogOrg("orgb", 11)
        rotated.organisation = type(orgb.organisation)(
            "orgb", orgb.organisation.root, orgb.organisation.mirror, SigningKey(bytes([99]) * 32)
        )
        held = bot.members.manifest("orgb")
        assert held is not None
        from matrix_pypi_bot.services import keys

        rotated.leaves = [
            *orgb.leaves,
            keys._signed(rotated.organisation, held, held.keys, 2, now(clock), ()).envelope,
        ]
        rotated.attest(TWO)
        reader.serve("orgb", rotated, rotated.head(now(clock)))
        await bot.pull.pull("orgb")
        assert (bot.pull.broken, await bot.attested("orgb")) == (frozenset(), [ONE, TWO])
        assert len(await ShownCopies(bot.store).entries("orgb", 0, 9)) == 4


@pytest.mark.parametrize(
    "note", ["", "<html>", "text\n\n\u2014 name AAAAAAAA\n", "orgb/matrix-pypi\n2\nAAAA\n\n\u2014 x AAAAAAAA\n"]
)
async def test_what_is_no_head_of_its_log_changes_nothing_and_is_told_once(
    node: NewNode, reader: ScriptedReader, orgb: LogOrg, note: str, caplog: pytest.LogCaptureFixture
) -> None:
    reader.serve("orgb", orgb, note)
    async with node(orgb) as bot:
        await bot.pull.pull("orgb")
        await bot.pull.pull("orgb")
        assert (bot.pull.heads, await bot.attested("orgb"), bot.rounds) == ({}, [], 2)


async def test_heads_by_the_wrong_key_without_time_or_too_long_are_none(orgb: LogOrg, clock: ManualClock) -> None:
    good = orgb.head(now(clock))
    assert read_head_of(good, [orgb.note_key]) is not None
    assert read_head_of(good, []) is None
    assert read_head_of(good, [NoteKey("orgc/matrix-pypi", orgb.note_key.public)]) is None
    lines = good.splitlines(keepends=True)
    assert read_head_of("".join(lines[:5]), [orgb.note_key]) is None  # the second line holds the time
    assert read_head_of(orgb.head(now(clock), by=orgb.organisation.mirror), [orgb.note_key]) is None


async def test_a_time_that_has_not_come_is_cut_to_now_and_a_renewed_head_is_a_sign_of_life(
    node: NewNode, reader: ScriptedReader, orgb: LogOrg, clock: ManualClock
) -> None:
    reader.serve("orgb", orgb, orgb.head(Instant(now(clock) + 10**6)))
    async with node(orgb) as bot:
        await bot.pull.pull("orgb")
        assert bot.pull.heads == {"orgb": now(clock)}
        clock.pass_seconds(3_600)
        reader.serve("orgb", orgb, orgb.head(now(clock)))
        await bot.pull.pull("orgb")
        assert bot.pull.heads == {"orgb": now(clock)}


async def test_a_leaf_that_does_not_count_is_told_of_and_holds_nothing_up(
    node: NewNode, reader: ScriptedReader, orgb: LogOrg, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    spoiled = json.loads(orgb.lines[1]) | {"payload": base64.b64encode(b"no statement").decode()}
    lines = [orgb.lines[0], json.dumps(spoiled).encode(), b'{"payload": "bm90IGFuIGVudmVsb3Bl", "x": 1}']
    orgb.attest(THREE)
    lines.append(orgb.lines[-1])
    payloads = [base64.b64decode(json.loads(line)["payload"]) for line in lines]
    reader.serve(
        "orgb", orgb, orgb.head(now(clock), 4, root=root_of([leaf_hash(each) for each in payloads])), lines=lines
    )
    async with node(orgb) as bot:
        await bot.pull.pull("orgb")
        assert await bot.attested("orgb") == [THREE]
        told = [record.__dict__ for record in caplog.records if "does not count" in record.message]
        assert [(each["leaf"], each["code"]) for each in told] == [(1, "E_SIG"), (2, "E_ENVELOPE")]
        shown = await ShownCopies(bot.store).entries("orgb", 0, 9)
        assert [base64.b64decode(json.loads(each)["payload"]) for each in shown] == payloads


async def test_a_leaf_by_an_unknown_key_counts_once_the_key_is_known(
    node: NewNode, reader: ScriptedReader, orgb: LogOrg, clock: ManualClock
) -> None:
    newer = SigningKey(bytes([77]) * 32)
    orgb.attest(TWO, key=newer)
    reader.serve("orgb", orgb, orgb.head(now(clock)))
    async with node(orgb) as bot:
        await bot.pull.pull("orgb")
        assert await bot.attested("orgb") == [ONE]
        held = bot.members.manifest("orgb")
        assert held is not None
        from matrix_pypi_bot.services import keys

        changed = type(orgb.organisation)("orgb", orgb.organisation.root, newer, orgb.organisation.log)
        orgb.leaves.append(keys._signed(changed, held, held.keys, 2, now(clock), ()).envelope)
        reader.serve("orgb", orgb, orgb.head(now(clock)))
        await bot.pull.pull("orgb")
        assert await bot.attested("orgb") == [ONE, TWO]


async def test_beyond_the_budget_of_a_day_the_rest_comes_the_next_day(
    node: NewNode, reader: ScriptedReader, orgb: LogOrg, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    orgb.attest(TWO, THREE, FOUR)
    reader.serve("orgb", orgb, orgb.head(now(clock)))
    reader.page = 2
    async with node(orgb, statements_per_day=4) as bot:
        await bot.pull.pull("orgb")  # two leaves were read for the manifest, two were staged
        await bot.pull.pull("orgb")
        assert await bot.attested("orgb") == []
        told = "log is pulled later, the budget of the day is spent alarm"
        assert caplog.messages.count(told) == 1
    async with node(orgb, statements_per_day=4) as bot:
        await bot.pull.pull("orgb")
        assert await bot.attested("orgb") == []
        clock.pass_seconds(86_400)
        await bot.pull.pull("orgb")
        assert await bot.attested("orgb") == [ONE, TWO, THREE, FOUR]


async def test_bytes_have_a_budget_too(node: NewNode, reader: ScriptedReader, orgb: LogOrg, clock: ManualClock) -> None:
    orgb.attest(TWO)
    reader.serve("orgb", orgb, orgb.head(now(clock)))
    reader.page = 1
    async with node(orgb, bytes_per_day=2_000) as bot:
        for _ in range(3):
            await bot.pull.pull("orgb")
        assert len(reader.asked) < 4


async def test_a_round_ends_after_so_many_pages_and_the_next_goes_on(
    node: NewNode, reader: ScriptedReader, orgb: LogOrg, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_module, "PAGES_PER_ROUND", 2)
    orgb.attest(TWO, THREE)
    reader.serve("orgb", orgb, orgb.head(now(clock)))
    reader.page = 1
    async with node(orgb) as bot:
        await bot.pull.pull("orgb")
        assert await bot.attested("orgb") == []
        await bot.pull.pull("orgb")
        assert await bot.attested("orgb") == [ONE, TWO, THREE]
        assert [start for _, _, start, _ in reader.asked] == [0, 0, 1, 2, 3]


async def test_who_is_cut_off_from_an_organisation_gets_its_log_from_another(
    node: NewNode, reader: ScriptedReader, orgb: LogOrg, orgc: LogOrg, clock: ManualClock
) -> None:
    reader.serve("orgc", orgc, orgc.head(now(clock)))
    reader.serve("orgc", orgb, orgb.head(now(clock)), copy=True)
    async with node(orgb, orgc) as bot:
        for rounds in range(1, RELAY_AFTER + 2):
            await bot.pull.pull("orgb")
            await bot.pull.pull("orgc")
            assert await bot.attested("orgb") == ([ONE] if rounds >= RELAY_AFTER else [])
        assert bot.pull.heads == {"orgb": now(clock), "orgc": now(clock)}


async def test_a_log_that_shows_us_less_than_others_is_read_at_the_others(
    node: NewNode, reader: ScriptedReader, orgb: LogOrg, orgc: LogOrg, clock: ManualClock
) -> None:
    reader.serve("orgb", orgb, orgb.head(now(clock)))
    orgb.attest(TWO)
    reader.serve("orgc", orgc, orgc.head(now(clock)))
    reader.serve("orgc", orgb, orgb.head(now(clock)), copy=True)
    async with node(orgb, orgc) as bot:
        for _ in range(RELAY_AFTER + 2):
            await bot.pull.pull("orgb")
            await bot.pull.pull("orgc")
        assert await bot.attested("orgb") == [ONE, TWO]


async def test_a_relay_that_lies_is_no_reason_to_doubt_the_log(
    node: NewNode,
    reader: ScriptedReader,
    orgb: LogOrg,
    orgc: LogOrg,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    liar = LogOrg("orgb", 11)
    liar.leaves = [orgb.leaves[0], orgb.attestation(ONE, salt="wrong")]
    reader.serve("orgc", orgc, orgc.head(now(clock)))
    reader.serve("orgc", orgb, orgb.head(now(clock)), copy=True, lines=liar.lines)
    async with node(orgb, orgc) as bot:
        for _ in range(RELAY_AFTER + 1):
            await bot.pull.pull("orgb")
            await bot.pull.pull("orgc")
        assert (await bot.attested("orgb"), bot.pull.broken) == ([], frozenset())
        assert "a peer's copy of a log does not bear the head it stands under alarm" in caplog.messages
        reader.serve("orgb", orgb, orgb.head(now(clock)))
        await bot.pull.pull("orgb")
        assert (await bot.attested("orgb"), bot.pull.broken) == ([ONE], frozenset())


async def test_leaves_that_a_relay_brought_and_that_do_not_fit_are_not_held_against_the_log(
    node: NewNode, reader: ScriptedReader, orgb: LogOrg, orgc: LogOrg, clock: ManualClock
) -> None:
    reader.serve("orgc", orgc, orgc.head(now(clock)))
    wrong = [orgb.lines[0], orgc.lines[0]]
    orgb.attest(TWO)
    reader.serve("orgc", orgb, orgb.head(now(clock)), copy=True, lines=wrong)
    async with node(orgb, orgc) as bot:
        for _ in range(RELAY_AFTER):
            await bot.pull.pull("orgb")
            await bot.pull.pull("orgc")
        reader.serve("orgb", orgb, orgb.head(now(clock)))
        await bot.pull.pull("orgb")
        assert (await bot.attested("orgb"), bot.pull.broken) == ([ONE, TWO], frozenset())


async def test_a_signature_that_a_relay_spoiled_is_mended_by_the_log_itself(
    node: NewNode, reader: ScriptedReader, orgb: LogOrg, orgc: LogOrg, clock: ManualClock
) -> None:
    spoiled = json.loads(orgb.lines[1])
    spoiled["signatures"][0]["keyid"] = "0" * 64
    reader.serve("orgc", orgc, orgc.head(now(clock)))
    reader.serve("orgc", orgb, orgb.head(now(clock)), copy=True, lines=[orgb.lines[0], json.dumps(spoiled).encode()])
    async with node(orgb, orgc) as bot:
        for _ in range(RELAY_AFTER):
            await bot.pull.pull("orgb")
            await bot.pull.pull("orgc")
        assert (await bot.attested("orgb"), bot.pull.heads["orgb"]) == ([], now(clock))
        reader.serve("orgb", orgb, orgb.head(now(clock)))
        await bot.pull.pull("orgb")
        assert await bot.attested("orgb") == [ONE]


async def test_a_verified_head_is_cosigned_and_shown_with_its_leaves(
    node: NewNode, reader: ScriptedReader, orgb: LogOrg, clock: ManualClock
) -> None:
    async with node(orgb) as bot:
        shown = ShownCopies(bot.store)
        assert (await shown.note("orgb"), await shown.entries("orgb", 0, 9)) == (None, [])
        await bot.pull.pull("orgb")
        assert bot.guard.is_open
        reader.serve("orgb", orgb, orgb.head(now(clock)))
        await bot.pull.pull("orgb")
        note = parse_note(await shown.note("orgb") or "")
        witness = NoteKey("orga/witness", bot.own.organisation.log.public)
        assert cosigned_at(note, witness) == now(clock)
        assert len(note.signatures) == 3
        assert await shown.entries("orgb", 0, 9) == orgb.lines
        assert await shown.entries("orgb", 1, 2) == orgb.lines[1:2]
        assert await shown.entries("orgb", 5, 9) == []


async def test_while_nothing_may_be_signed_heads_are_shown_without_our_cosignature(
    node: NewNode, reader: ScriptedReader, orgb: LogOrg, clock: ManualClock
) -> None:
    reader.serve("orgb", orgb, orgb.head(now(clock)))
    async with node(orgb) as bot:
        await bot.pull.pull("orgb")  # the first round: no peer was asked before
        assert len(parse_note(await ShownCopies(bot.store).note("orgb") or "").signatures) == 2


@pytest.mark.parametrize("step", ["see", "stage", "settle", "put_head", "kept", "spend"])
async def test_a_crash_between_two_steps_loses_nothing(
    node: NewNode, reader: ScriptedReader, orgb: LogOrg, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    from matrix_pypi_bot.adapters.database.peer_logs import PeerLogTables

    whole = getattr(PeerLogTables, step)
    calls = 0

    async def crash(self: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        result = await whole(self, *arguments, **options)
        if calls == 2:
            raise StoreAway("the power is gone")
        return result

    orgb.attest(TWO, THREE)
    reader.serve("orgb", orgb, orgb.head(now(clock), 2))
    monkeypatch.setattr(PeerLogTables, step, crash)
    for _ in range(3):
        async with node(orgb) as bot:
            with contextlib.suppress(StoreAway):
                await bot.pull.pull("orgb")
        reader.serve("orgb", orgb, orgb.head(now(clock)))
    async with node(orgb) as bot:
        await bot.pull.pull("orgb")
        assert sorted(await bot.attested("orgb")) == [ONE, TWO, THREE]
        assert await ShownCopies(bot.store).entries("orgb", 0, 9) == orgb.lines
        assert bot.pull.broken == frozenset()
    assert calls >= 2


async def test_a_statement_that_the_ledger_refuses_is_put_away_and_holds_nothing_up(
    node: NewNode, reader: ScriptedReader, orgb: LogOrg, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    orgb.attest(TWO, THREE)
    reader.serve("orgb", orgb, orgb.head(now(clock)))
    async with node(orgb) as bot:
        keep = bot.intake.keep

        async def choosy(tables: Any, checked: Any, **options: Any) -> bool:
            if checked.statement.subject.name == TWO:
                raise ZeroDivisionError
            return await keep(tables, checked, **options)

        monkeypatch.setattr(bot.intake, "keep", choosy)
        await bot.pull.pull("orgb")
        assert await bot.attested("orgb") == [ONE, THREE]
        assert await ShownCopies(bot.store).entries("orgb", 0, 9) == orgb.lines


@pytest.mark.parametrize("answer", [Absent(), Wrong("not text/plain but text/html")])
async def test_a_peer_without_a_log_is_asked_again_and_holds_nobody_up(
    node: NewNode, reader: ScriptedReader, orgb: LogOrg, answer: Any
) -> None:
    reader.notes["orgb", None] = answer
    async with node(orgb) as bot:
        await bot.pull.pull("orgb")
        await bot.pull.pull("nobody")
        assert (bot.rounds, bot.guard.is_open) == (2, True)


async def test_pages_are_asked_for_in_their_usual_size(
    node: NewNode, reader: ScriptedReader, orgb: LogOrg, clock: ManualClock
) -> None:
    reader.serve("orgb", orgb, orgb.head(now(clock), 10**6, root=bytes(32)))
    async with node(orgb) as bot:
        await bot.pull.pull("orgb")
        assert {end - start for _, _, start, end in reader.asked} == {PAGE_ENTRIES}
        assert (bot.pull.broken, bot.pull.heads) == (frozenset(), {})


async def test_pulling_goes_on_whatever_a_peer_does_and_follows_a_hint_at_once(
    node: NewNode, reader: ScriptedReader, orgb: LogOrg, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_module, "HINT_SECONDS", 0.0)
    whole = ScriptedReader.note

    async def failing(*arguments: Any) -> Any:
        raise ZeroDivisionError

    async def becomes(condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(0.001)

    monkeypatch.setattr(ScriptedReader, "note", failing)
    async with node(orgb) as bot:
        running = asyncio.create_task(bot.pull.run())
        await becomes(lambda: "orgb" in bot.pull._asked)
        monkeypatch.setattr(ScriptedReader, "note", whole)
        reader.serve("orgb", orgb, orgb.head(now(clock)))
        bot.pull.hear_head("nobody", "a note")
        bot.pull.hear_head("orgb", "x" * 70_000)
        bot.pull.hear_head("orgb", orgb.head(now(clock)))
        await becomes(lambda: bot.pull.heads == {"orgb": now(clock)})
        bot.pull.keys_changed()
        await becomes(lambda: bot.rounds > 1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await bot.attested("orgb") == [ONE]


async def test_where_the_operator_wrote_no_address_the_announced_one_is_asked_as_one_of_outside(
    node: NewNode, orgb: LogOrg
) -> None:
    async with node(orgb) as bot:
        assert bot.pull._peers() == [Peer("orgb", "https://orgb.example/log/v1", configured=True)]
        bot.members.pinned = (replace(orgb.pinned, log_url=""),)
        assert bot.pull._peers() == [Peer("orgb", "https://announced.example/orgb", configured=False)]
