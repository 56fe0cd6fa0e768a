"""Organisations judge one another's statements, each for itself: one honest one is enough, and accusing is not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from matrix_pypi_bot.core.envelope import Envelope, seal
from matrix_pypi_bot.core.events import check_envelope
from matrix_pypi_bot.core.evidence import Mode
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.list_document import read_list
from matrix_pypi_bot.core.notes import Checkpoint, sign_checkpoint
from matrix_pypi_bot.core.statements.common import SignedBy
from matrix_pypi_bot.core.statements.refutation import Evidence, Fault, Refutation
from matrix_pypi_bot.ports import RoomRow, Wrong
from matrix_pypi_bot.services import accusations
from matrix_pypi_bot.wire.cids import CidBuilder
from matrix_pypi_bot.wire.messages import Observed, Override
from matrix_pypi_bot.wire.names import FileName, ProjectName
from matrix_pypi_bot.wire.problems import Problem, ProblemCode
from tests.support.bot_world import MXA
from tests.support.dists import wheel
from tests.support.federation import Federation, Participant, federation

ONE = wheel("mxa", "1.0")
EVIL = wheel("mxa", "1.0", salt="evil")
OTHER = wheel("mxa", "2.0")
BAD = wheel("mxb", "1.0")


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[Federation]:
    async with federation(tmp_path, "orga", "orgb", "orgc") as made:
        yield made


async def test_a_file_that_two_others_verified_is_served_while_upstream_is_away_and_attested_by_nobody_else(
    three: Federation,
) -> None:
    three.publish(ONE)
    await three["orga"].serve(ONE)
    await three["orgb"].serve(ONE)
    three.upstream_off()
    await three.exchange()
    assert await three["orgc"].rule(ONE) == ("R19", ONE.sha256)
    attested = [e for e in await three["orgc"].said() if b"attestation:v1" in e.payload]
    assert attested == []


async def test_what_one_alone_verified_is_unavailable_and_the_answer_says_who_is_missing(three: Federation) -> None:
    three.publish(ONE)
    await three["orga"].serve(ONE)
    three.upstream_off()
    await three.exchange()
    decision = await three["orgc"].decide(ONE)
    assert (decision.rule, decision.reason) == (
        "R18",
        "matrix-pypi: R18 upstream is away and too few organisations have confirmed this file (1 of 2 needed: orga)",
    )


async def test_a_liar_is_refuted_by_whoever_reaches_upstream_and_has_no_weight_any_more(three: Federation) -> None:
    three.publish(ONE)
    lie = three["orga"].lie(EVIL)
    await three["orgb"].take(lie)
    assert await three["orgb"].verdicts(ONE) == [("orga", "pypi-digest", "UPHELD")]
    assert three["orgb"].outcasts == {"orga"}
    assert await three["orgb"].rule(ONE) == ("R8", ONE.sha256)
    refutations = [e for e in await three["orgb"].said() if b"refutation:v1" in e.payload]
    assert len(refutations) == 1
    # Who never saw the false statement in a room gets it with the refutation, and sees for himself.
    await three["orgc"].hear(three["orgb"])
    assert three["orgc"].outcasts == {"orga"}
    assert [e for e in await three["orgc"].said() if b"refutation:v1" in e.payload]


async def test_what_was_judged_is_explained_with_the_evidence(three: Federation) -> None:
    three.publish(ONE)
    await three["orgb"].take(three["orga"].lie(EVIL))
    explained = await three["orgb"].explainer.explain(ProjectName(ONE.project), FileName(ONE.filename))
    [verdict] = [one for one in explained.evidence[ONE.filename] if one.kind == "verdict"]
    told = f"pypi-digest: UPHELD, signed by orga: the digest is {ONE.sha256}; its key is suspended"
    assert (verdict.sha256, verdict.detail) == (EVIL.sha256, told)


async def test_a_file_that_upstream_does_not_list_is_explained_by_what_others_say_of_it(three: Federation) -> None:
    three.publish(wheel(ONE.project, "7.0"))
    await three["orgb"].take(three["orga"].lie(EVIL))
    explained = await three["orgb"].explainer.explain(ProjectName(ONE.project), FileName(ONE.filename))
    assert explained.files[ONE.filename].rule == "R10"
    assert [one.sha256 for one in explained.evidence[ONE.filename] if one.kind == "attestation"] == [EVIL.sha256]


@pytest.mark.parametrize(("room_id", "relates"), [("!ours", True), ("!theirs", False)])
async def test_a_refutation_stands_in_the_thread_of_what_it_accuses_if_that_was_said_in_the_same_room(
    three: Federation, room_id: str, relates: bool
) -> None:
    orgb = three["orgb"]
    three.publish(ONE)
    lie = orgb.intake.check(three["orga"].lie(EVIL).to_json())
    async with orgb.store.transaction() as tables:
        await tables.mail.keep_room(
            RoomRow(key=f"project:{ONE.project}", room_id="!ours", alias="#a:b", constitution="c", created_ms=1)
        )
        await orgb.intake.keep(tables, lie, via="room", at_ms=1)
        await tables.ledger.sighted(lie.statement.id, room_id=room_id, event_id="$lie", sender="@pypi:orga", at_ms=1)
    orgb.intake.tell(lie)
    await orgb.settle()
    async with orgb.store.transaction() as tables:
        mail = await tables.mail.next_to(f"project:{ONE.project}")
    assert mail is not None
    assert (mail.type, b'"event_id":"$lie"' in mail.content) == ("io.matrix_pypi.refutation.v1", relates)


async def test_a_liar_is_contested_while_upstream_is_away_and_judged_when_it_is_back(three: Federation) -> None:
    three.publish(ONE)
    await three["orgb"].serve(ONE)
    three.upstream_off()
    lie = three["orga"].lie(EVIL)
    for name in ("orgb", "orgc"):
        await three[name].take(lie)
    await three.exchange("orgb", "orgc")
    assert ("orga", "pypi-digest", "CONTESTED") in await three["orgc"].verdicts(ONE)
    rule, served = await three["orgc"].rule(ONE)
    assert (rule, served) == ("R18", None)
    assert three["orgb"].outcasts == {"orga"}
    three.upstream_on()
    await three["orgc"].serve(ONE)
    assert three["orgc"].outcasts == {"orga"}
    assert await three["orgc"].rule(ONE) == ("R8", ONE.sha256)


async def test_two_digests_by_one_key_are_proof_for_everybody_without_upstream(three: Federation) -> None:
    three.publish(ONE)
    await three["orga"].serve(ONE)
    await three.exchange()
    three.upstream_off()
    await three["orgc"].take(three["orga"].lie(EVIL))
    assert await three["orgc"].verdicts(ONE) == [("orga", "equivocation", "UPHELD")]
    assert three["orgc"].outcasts == {"orga"}
    await three["orgb"].hear(three["orgc"])
    assert three["orgb"].outcasts == {"orga"}


async def test_two_liars_against_upstream_on_first_contact_hold_the_file_up_until_one_more_speaks(
    tmp_path: Path,
) -> None:
    async with federation(tmp_path, "orga", "orgb", "orgc", "orgd", "orge") as five:
        five.publish(ONE)
        lies = [five[name].lie(EVIL) for name in ("orga", "orgb")]
        await five["orgc"].take(*lies)
        await five["orgd"].serve(ONE)
        await five["orgc"].hear(five["orgd"])
        decision = await five["orgc"].decide(ONE)
        assert decision.rule == "R5"
        assert "orga, orgb say" in decision.reason
        assert five["orgc"].outcasts == frozenset()
        await five["orge"].serve(ONE)
        await five["orgc"].hear(five["orge"])
        assert await five["orgc"].rule(ONE) == ("R8", ONE.sha256)
        assert five["orgc"].outcasts == {"orga", "orgb"}


async def test_an_operators_approval_is_the_exit_from_a_quorum_that_contradicts_upstream(tmp_path: Path) -> None:
    async with federation(tmp_path, "orga", "orgb", "orgc") as made:
        made.publish(ONE)
        await made["orgc"].take(made["orga"].lie(EVIL), made["orgb"].lie(EVIL))
        assert (await made["orgc"].decide(ONE)).rule == "R5"
        order = Override(action="approve", target=ONE.filename, reason="checked by hand", sha256=ONE.sha256)
        await made["orgc"].overrides.apply(order)
        assert await made["orgc"].rule(ONE) == ("R8", ONE.sha256)


async def test_a_false_accusation_costs_nobody_but_the_accuser(three: Federation) -> None:
    three.publish(ONE)
    await three["orga"].serve(ONE)
    await three["orgc"].hear(three["orga"])
    truth = next(e for e in await three["orga"].said() if b"attestation:v1" in e.payload)
    accusation = false_accusation(three, truth)
    await three["orgc"].take(accusation)
    assert await three["orgc"].verdicts(ONE) == [("orga", "pypi-digest", "DISMISSED")]
    assert three["orgc"].outcasts == frozenset()
    assert await three["orgc"].rule(ONE) == ("R8", ONE.sha256)


async def test_watchers_review_what_others_attest_and_their_reviews_are_acks(tmp_path: Path) -> None:
    async with federation(tmp_path, "orga", "orgb", "orgc", "orgd") as four:
        four.publish(ONE)
        await four["orga"].serve(ONE)
        await four["orgb"].serve(ONE)
        await four.exchange("orga", "orgb", "orgd")
        four.upstream_off()
        await four["orgd"].take(four["orga"].lie(OTHER))
        await four.exchange("orga", "orgb", "orgd")
        await four["orgd"].hear(*(four[name] for name in ("orga", "orgb")))
        decision = await four["orgd"].decide(ONE)
        assert (decision.rule, decision.serves) == ("R18", False)
        assert "missing: orgc" in decision.reason
        four.upstream_on("orgc")
        await four["orgc"].hear(four["orga"], four["orgb"])
        await four["orgd"].hear(four["orgc"])
        assert await four["orgd"].rule(ONE) == ("R19", ONE.sha256)


async def test_a_restart_changes_no_verdict_and_no_decision(tmp_path: Path) -> None:
    async with federation(tmp_path, "orga", "orgb", "orgc") as made:
        made.publish(ONE)
        await made["orgc"].take(made["orga"].lie(EVIL))
        before = await made["orgc"].verdicts(ONE)
    async with federation(tmp_path, "orga", "orgb", "orgc") as made:
        assert await made["orgc"].verdicts(ONE) == before
        assert made["orgc"].outcasts == {"orga"}


async def test_what_upstream_lists_is_said_once_and_again_when_it_changes_or_grows_old(three: Federation) -> None:
    async def lists() -> list[str]:
        said = [e for e in await three["orga"].said() if b"index:v1" in e.payload]
        async with three["orga"].store.transaction() as tables:
            row = await tables.ledger.last_index(three["orga"].voice.keyid, MXA)
            assert row is not None
            assert row.sha256 is not None
            body = await tables.ledger.document(row.sha256)
        assert body is not None
        return [str(len(said)), *read_list(body)]

    three.publish(ONE)
    for _ in range(3):  # said when upstream is read again after a file was accepted
        await three["orga"].serve(ONE)
        three.clock.pass_seconds(601)
    assert await lists() == ["1", ONE.filename]
    three.publish(OTHER)
    three.clock.pass_seconds(601)
    await three["orga"].serve(OTHER)
    assert await lists() == ["2", ONE.filename, OTHER.filename]
    three.clock.pass_seconds(49 * 3600)
    await three["orga"].serve(ONE)
    assert await lists() == ["3", ONE.filename, OTHER.filename]


async def test_who_attested_the_cid_of_other_bytes_is_convicted_by_what_was_found_under_it(three: Federation) -> None:
    """F7."""
    three.publish(ONE)
    await three["orga"].serve(ONE)
    await three["orgc"].hear(three["orga"])
    async with three["orgc"].store.transaction() as tables:
        [claim] = [c for c in await tables.ledger.claims(MXA) if c.kind == "attestation"]
    found = Observed(
        project="mxa", file=ONE.filename, expected_sha256=ONE.sha256, sha256=None, size=ONE.size, source="peer",
        reason="", kind="cid-content", cid=claim.facts.cid,
    )  # fmt: skip
    three["orgc"].docket.hear_observed(found)  # of the size that was attested: no proof
    await three["orgc"].settle()
    assert await three["orgc"].verdicts(ONE) == []
    three["orgc"].docket.hear_observed(msgspec.structs.replace(found, sha256=EVIL.sha256))
    await three["orgc"].settle()
    assert await three["orgc"].verdicts(ONE) == [("orga", "cid-content", "UPHELD")]


async def test_two_heads_of_one_size_suspend_the_log_and_its_organisation_everywhere(three: Federation) -> None:
    """F3: one participant who saw both is enough."""
    log_key = three["orga"].organisation.log
    notes = tuple(str(sign_checkpoint(Checkpoint("orga/matrix-pypi", 5, bytes([n]) * 32), log_key)) for n in (1, 2))
    assert await three["orgb"].forks.found((notes[0], notes[1]))
    assert three["orgb"].outcasts == {"orga"}
    await three["orgc"].hear(three["orgb"])
    assert three["orgc"].outcasts == {"orga"}
    assert not await three["orgb"].forks.found((notes[0], notes[0]))


async def test_who_cannot_look_hears_that_upstream_contradicts_a_quorum_before_anybody_can_judge_it(
    tmp_path: Path,
) -> None:
    """Two liars keep whoever looks for the first time from refuting them (R5); what it saw is an accusation for others all the same."""
    async with federation(tmp_path, "orga", "orgb", "orgc", "orgd", mode=Mode.KOFN) as made:
        made.publish(ONE)
        made.upstream_off("orgd")
        lies = [made[name].lie(EVIL) for name in ("orga", "orgb")]
        for name in ("orgc", "orgd"):
            await made[name].take(*lies)
        assert await made["orgd"].rule(ONE) == ("R19", EVIL.sha256)
        assert (await made["orgc"].decide(ONE)).rule == "R5"
        assert {(fault, result) for _, fault, result in await made["orgc"].verdicts(ONE)} == {
            ("pypi-digest", "CONFLICT")
        }
        await made["orgd"].hear(made["orgc"])
        assert {(fault, result) for _, fault, result in await made["orgd"].verdicts(ONE)} == {
            ("pypi-digest", "CONTESTED")
        }
        assert (await made["orgd"].rule(ONE))[1] is None
        assert not made["orgc"].outcasts | made["orgd"].outcasts


async def test_a_file_that_nobody_here_heard_of_may_exist_while_upstream_is_away(three: Federation) -> None:
    """R14: that is no 404, by which clients take it for gone; of a page that upstream shows it is one."""
    three.publish(ONE)
    await three["orgc"].serve(ONE)
    for code in (ProblemCode.NOT_FOUND, ProblemCode.UPSTREAM_AWAY):
        with pytest.raises(Problem) as raised:
            await three["orgc"].answers.decision(MXA, FileName(OTHER.filename), None)
        assert raised.value.code is code
        three.upstream_off()
    assert raised.value.detail.startswith("matrix-pypi: R14 upstream is away and nobody is known to have this file")


async def test_a_bad_accusation_settles_nothing_that_a_good_one_shows(three: Federation) -> None:
    """Else whoever is guilty accuses himself badly first. The second statement is none that anybody takes, and signed all the same."""
    liar, accuser = three["orga"], three["orgb"]
    said = liar.lie(ONE)
    other = seal(
        said.payload.replace(ONE.sha256.encode(), EVIL.sha256.encode()).replace(b'"bytes"', b'"guess"'),
        liar.organisation.mirror,
    )
    three.upstream_off()
    await three["orgc"].take(said, equivocation(three, liar, said, said))
    assert await three["orgc"].verdicts(ONE) == [("orga", "equivocation", "DISMISSED")]
    await three["orgc"].take(equivocation(three, accuser, said, other))
    assert three["orgc"].outcasts == {"orga"}


async def test_a_statement_that_is_never_taken_convicts_whoever_signed_it_and_everybody_hears_of_it(
    three: Federation,
) -> None:
    """F2 is arithmetic: nothing is fetched, and the statement counts for nothing and is kept nowhere."""
    liar, finder, told = three["orga"], three["orgc"], three["orgb"]
    wrong = CidBuilder()
    wrong.update(b"other bytes")

    def lie(seq: int) -> Envelope:
        payload = json.loads(liar.lie(ONE, seq=seq).payload)
        payload["predicate"]["cid"] = wrong.finish()
        return seal(json.dumps(payload).encode(), liar.organisation.mirror)

    three.upstream_off()
    await finder.take(lie(1), lie(2))
    assert await finder.verdicts(ONE) == [("orga", "cid-raw", "UPHELD")]
    assert finder.outcasts == {"orga"}
    async with finder.store.transaction() as tables:
        assert await tables.ledger.claims(ProjectName("mxa")) == []
    [refutation] = [e for e in await finder.said() if b"refutation:v1" in e.payload]
    assert told.outcasts == frozenset()
    await told.take(refutation)
    assert await told.verdicts(ONE) == [("orga", "cid-raw", "UPHELD")]
    assert told.outcasts == {"orga"}


async def test_a_lie_about_a_raw_cid_by_a_key_of_ours_convicts_nobody(three: Federation) -> None:
    here = three["orgc"]
    wrong = CidBuilder()
    wrong.update(b"other bytes")
    payload = json.loads(here.lie(ONE).payload)
    payload["predicate"]["cid"] = wrong.finish()
    await here.take(seal(json.dumps(payload).encode(), here.organisation.mirror))
    assert await here.verdicts(ONE) == []
    assert here.outcasts == frozenset()


async def test_an_accusation_that_is_settled_is_not_verified_again(
    three: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    three.publish(ONE)
    await three["orga"].serve(ONE)
    await three["orgc"].hear(three["orga"])
    truth = next(e for e in await three["orga"].said() if b"attestation:v1" in e.payload)
    await three["orgc"].take(false_accusation(three, truth))
    verified: list[object] = []
    real: Any = check_envelope

    def watched(*given: Any) -> Any:
        verified.append(given)
        return real(*given)

    monkeypatch.setattr(accusations, "check_envelope", watched)
    for _ in range(3):
        await three["orgc"].court.look(MXA)
    assert verified == []


async def test_a_project_that_upstream_never_answers_for_does_not_keep_others_from_being_asked_about(
    three: Federation,
) -> None:
    """One of those that wait finds out whether upstream is back: not always the same one."""
    three.publish(ONE, BAD, to=["orgc"])
    three["orgc"].index.instead["mxb"] = [Wrong("no page")] * 1_000
    three.upstream_off("orgc")
    for dist in (BAD, ONE):
        await three["orgc"].take(three["orga"].lie(dist))
    three["orgc"].index.everything = None
    three["orgc"].docket._round_seconds = 0.001
    running = asyncio.create_task(three["orgc"].docket.run())
    for _ in range(200):
        three.clock.pass_seconds(61)
        await asyncio.sleep(0.001)
    running.cancel()
    reviews = [e for e in await three["orgc"].said() if b"review:v1" in e.payload and b'"ok"' in e.payload]
    assert len(reviews) == 1


def equivocation(three: Federation, accuser: Participant, accused: Envelope, other: Envelope) -> Envelope:
    """That the key which signed the one signed the other too."""
    return accusation(
        three, accuser, accused, Fault.EQUIVOCATION, Evidence(envelopes=(accused.to_json(), other.to_json()))
    )


def accusation(three: Federation, accuser: Participant, accused: Envelope, fault: Fault, shown: Evidence) -> Envelope:
    """That a statement of orga about the file is false."""
    return accuser.sign(
        {"attestation": accused.id},
        Refutation(
            fault=fault,
            project="mxa",
            file=ONE.filename,
            accused=three["orga"].organisation.mirror.keyid,
            observed=Instant.of_ms(three.clock.now_ms()),
            reporter=SignedBy(org=accuser.name, key=accuser.organisation.mirror.keyid),
            evidence=shown,
        ),
    )


def false_accusation(three: Federation, truth: Envelope) -> Envelope:
    """By orgb, that orga's true attestation is false."""
    accuser, accused = three["orgb"], three["orga"]
    return accuser.sign(
        {"attestation": truth.id},
        Refutation(
            fault=Fault.PYPI_DIGEST,
            project="mxa",
            file=ONE.filename,
            accused=accused.organisation.mirror.keyid,
            observed=Instant.of_ms(three.clock.now_ms()),
            reporter=SignedBy(org="orgb", key=accuser.organisation.mirror.keyid),
            evidence=Evidence(
                envelopes=(truth.to_json(),),
                sha256=EVIL.sha256,
                at=Instant.of_ms(three.clock.now_ms()),
            ),
        ),
    )
