"""What a pinned organisation may try against the others' judging: none of it stops them, silences anybody or frames anybody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from matrix_pypi_bot.adapters.database import claims as claim_tables
from matrix_pypi_bot.core.envelope import Envelope
from matrix_pypi_bot.core.events import sign_statement
from matrix_pypi_bot.core.evidence import Mode
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.statements import read_statement
from matrix_pypi_bot.core.statements.attestation import Attestation, Source
from matrix_pypi_bot.core.statements.common import SignedBy
from matrix_pypi_bot.core.statements.keys import ListedKey
from matrix_pypi_bot.core.statements.refutation import Evidence, Fault, Refutation
from matrix_pypi_bot.ports import StoreAway, Wrong
from matrix_pypi_bot.services import accusations
from matrix_pypi_bot.services.docket import Docket
from matrix_pypi_bot.services.keys import ensure_manifest, newest, publish
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import Override
from matrix_pypi_bot.wire.names import ProjectName
from tests.support.dists import Dist, wheel
from tests.support.federation import Federation, Participant, federation, key

ONE = wheel("mxa", "1.0")
EVIL = wheel("mxa", "1.0", salt="evil")


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[Federation]:
    async with federation(tmp_path, "orga", "orgb", "orgc") as made:
        yield made


def lie_with(liar: Participant, dist: Dist, **changed: object) -> Envelope:
    """The liar's attestation of the file, with other fields."""
    told = read_statement(liar.lie(dist).payload, Attestation).predicate
    assert isinstance(told, Attestation)
    return liar.sign({dist.filename: dist.sha256}, msgspec.structs.replace(told, **changed))


async def test_a_lie_too_large_to_be_refuted_counts_for_nothing_and_stops_nobody(three: Federation) -> None:
    three.publish(ONE)
    await three["orgb"].take(lie_with(three["orga"], EVIL, ext={"note": "x" * 15_000}))
    assert await three["orgb"].rule(ONE) == ("R8", ONE.sha256)
    three.upstream_off()
    await three["orgc"].take(lie_with(three["orga"], EVIL, ext={"note": "x" * 15_000}))
    async with three["orgc"].store.transaction() as tables:
        assert not await tables.ledger.claims(ProjectName("mxa"))


async def test_an_attestation_for_another_index_cannot_be_accused_by_what_this_one_says(three: Federation) -> None:
    three.publish(ONE)
    elsewhere = lie_with(three["orga"], EVIL, source=Source(kind="pypi", method="bytes", index="corp"))
    await three["orgb"].take(elsewhere)
    await three["orgb"].take(accusation(three, elsewhere, ONE.sha256, by="orgc"))
    assert three["orgb"].outcasts == frozenset()
    assert await three["orgb"].verdicts(ONE) == [("orga", "pypi-digest", "DISMISSED")]


def accusation(
    three: Federation, accused: Envelope, sha256: str, *, by: str, of: str = "orga", fault: Fault = Fault.PYPI_DIGEST
) -> Envelope:
    """By one organisation, that an attestation of another one, or by the key with this id, is false."""
    accuser, now = three[by], Instant.of_ms(three.clock.now_ms())
    shown = Evidence(envelopes=(accused.to_json(),))
    return accuser.sign(
        {"attestation": accused.id},
        Refutation(
            fault=fault,
            project="mxa",
            file=ONE.filename,
            accused=three[of].organisation.mirror.keyid if of in three.by_name else of,
            observed=now,
            reporter=SignedBy(org=by, key=accuser.organisation.mirror.keyid),
            evidence=shown if fault is Fault.CID_CONTENT else msgspec.structs.replace(shown, sha256=sha256, at=now),
        ),
    )


async def test_a_project_that_cannot_be_judged_keeps_no_other_one_waiting(
    three: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = wheel("mxb", "1.0")
    three.publish(ONE, two)
    here, look = three["orgc"], three["orgc"].court.look

    async def fails(project: ProjectName, *told: object) -> object:
        if project == "mxa":
            raise ValueError("whatever it is")
        return await look(project)

    monkeypatch.setattr(here.court, "look", fails)
    await here.take(three["orga"].lie(EVIL), three["orgb"].lie(wheel("mxb", "1.0", salt="evil")))
    assert await here.verdicts(two) == [("orgb", "pypi-digest", "UPHELD")]


async def lists_keys_of(liar: Participant, other: Participant) -> None:
    """A manifest of the liar that lists the other's mirror key and root among its own keys, as everybody can who read the other's."""
    now = Instant.of_ms(liar.clock.now_ms())
    foreign = [
        ListedKey(key=key.public.hex(), scheme="ed25519", roles=("mirror", "watcher"), added=now, revoked=None)
        for key in (other.organisation.mirror, other.organisation.root)
    ]
    async with liar.store.transaction() as tables:
        held, highest = await newest(tables, liar.organisation)
        assert held is not None
        await publish(
            tables,
            liar.organisation,
            held,
            [*held.keys, *foreign],
            highest + 1,
            now_ms=liar.clock.now_ms(),
            bot_mxid="@pypi:orga",
        )


async def test_who_lists_the_keys_of_another_organisation_does_not_silence_it(three: Federation) -> None:
    three.publish(ONE)
    await lists_keys_of(three["orga"], three["orgb"])
    await three["orgc"].hear(three["orga"])
    await three["orgb"].serve(ONE)
    renewed = three["orgb"]
    three.clock.pass_seconds(80 * 86_400)
    await ensure_manifest(renewed.store, renewed.clock, renewed.organisation, bot_mxid="@pypi:orgb")
    await three["orgc"].hear(three["orgb"])
    here = three["orgc"].members
    held = here.manifest("orgb")
    assert held is not None
    assert held.version == 2
    three.clock.pass_seconds(11 * 86_400)  # the liar's manifest ran out, and says nothing about the other's key
    async with three["orgc"].store.transaction() as tables:
        claims = await tables.ledger.claims(ProjectName("mxa"))
    [claim] = [one for one in claims if one.kind == "attestation"]
    assert claim.org == "orgb"
    assert here.standing().counts(claim)


async def test_who_lists_the_key_of_a_liar_is_a_liar_too(three: Federation) -> None:
    """Whoever holds a key speaks for every organisation that lists it."""
    three.publish(ONE)
    await lists_keys_of(three["orga"], three["orgb"])
    await three["orgc"].hear(three["orga"])
    await three["orgc"].take(three["orgb"].lie(EVIL))
    assert three["orgc"].outcasts == {"orga", "orgb"}


def settled(here: Participant) -> list[str]:
    """What was judged of the project, and is in memory."""
    held = here.projects.held(ProjectName("mxa"))
    return [] if held is None else [row.result for row in held.verdicts]


async def goes_round(docket: Docket, done: Callable[[], bool]) -> None:
    """The docket runs, with no pauses, until it is done."""
    docket._round_seconds = 0.001
    running = asyncio.create_task(docket.run())
    try:
        async with asyncio.timeout(20):
            while not done():
                await asyncio.sleep(0.001)
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_a_project_that_upstream_never_tells_anything_of_does_not_hide_that_it_is_back(three: Federation) -> None:
    broken = wheel("broken", "1.0")
    three.publish(ONE)
    here = three["orgc"]
    three.upstream_off()
    await here.take(three["orga"].lie(broken))
    await here.take(three["orga"].lie(EVIL))
    assert here.outcasts == frozenset()
    three.upstream_on()
    here.index.instead["broken"] = [Wrong("no page")] * 1_000
    await goes_round(here.docket, lambda: settled(here) == ["UPHELD"])
    assert await here.verdicts(ONE) == [("orga", "pypi-digest", "UPHELD")]


async def test_what_is_contested_is_judged_when_upstream_is_back_though_nobody_asks_and_the_bot_was_restarted(
    three: Federation,
) -> None:
    three.publish(ONE)
    here = three["orgc"]
    await three["orgb"].serve(ONE)
    await here.hear(three["orgb"])
    truth = next(e for e in await three["orgb"].said() if b"attestation:v1" in e.payload)
    three.upstream_off()
    assert (await here.decide(ONE)).rule == "R18"
    await here.take(accusation(three, truth, EVIL.sha256, by="orga", of="orgb"))
    assert await here.verdicts(ONE) == [("orgb", "pypi-digest", "CONTESTED")]
    here.docket = Docket(
        court=here.court,
        forks=here.forks,
        members=here.members,
        projects=here.projects,
        refresher=here.refresher,
        store=here.store,
        clock=here.clock,
    )
    three.upstream_on()
    await goes_round(here.docket, lambda: settled(here) == ["CONTESTED", "DISMISSED"])


async def test_whose_word_is_worth_another_is_decided_anew_although_the_database_was_away(
    three: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    three.publish(ONE)
    here = three["orgc"]
    for name in ("orga", "orgb"):
        await three[name].serve(ONE)
    three.upstream_off()
    await here.hear(three["orga"], three["orgb"])
    three.clock.pass_seconds(3_600)
    assert (await here.decide(ONE)).rule == "R19"
    redecide, fails = here.projects.redecide, [True]

    async def away_once(project: ProjectName) -> object:
        if fails.pop() if fails else False:
            raise StoreAway("the database is away")
        return await redecide(project)

    monkeypatch.setattr(here.projects, "redecide", away_once)
    other = wheel("mxb", "1.0")
    await here.take(three["orga"].lie(other))
    with pytest.raises(StoreAway):
        await here.take(three["orga"].lie(wheel("mxb", "1.0", salt="evil")))
    await here.settle()
    assert here.outcasts == {"orga"}
    held = here.projects.held(ProjectName("mxa"))
    assert held is not None
    assert held.finished is not None
    assert [one.rule for one in held.finished.decisions.values()] == ["R18"]


async def test_frontends_are_told_to_ask_again_when_others_are_believed_than_before_the_restart(tmp_path: Path) -> None:
    async def since(**trust: Any) -> int:
        async with federation(tmp_path, "orga", "orgb", "orgc", **trust) as made:
            here, since = made["orgc"], made["orgc"].projects.since
            made.publish(ONE)
            made.clock.pass_seconds(601)
            await here.serve(ONE)
            if trust.get("quorum") == 3:
                await here.take(made["orga"].lie(EVIL))
                assert here.outcasts == {"orga"}
            return since

    first = await since()
    second = await since()  # now the others' manifests are held
    assert await since() == second >= first
    other_quorum = await since(quorum=3)
    assert other_quorum > second
    assert await since(quorum=3) > other_quorum  # suspended since


async def contested(three: Federation, fault: Fault) -> Envelope:
    """While upstream is away orga accuses the true attestation of orgb at orgc, which never had the file."""
    three.publish(ONE)
    here = three["orgc"]
    await three["orgb"].serve(ONE)
    three.upstream_off()
    truth = next(e for e in await three["orgb"].said() if b"attestation:v1" in e.payload)
    await here.take(truth)
    await here.take(accusation(three, truth, EVIL.sha256, by="orga", of="orgb", fault=fault))
    assert await here.verdicts(ONE) == [("orgb", fault.value, "CONTESTED")]
    return truth


@pytest.mark.parametrize("fault", [Fault.PYPI_DIGEST, Fault.CID_CONTENT])
async def test_whoever_accuses_honest_organisations_does_not_clear_the_way_for_an_upstream_that_lies_to_us_alone(
    tmp_path: Path, fault: Fault
) -> None:
    """T4: two organisations know what the file is, and count against upstream although it was away when they were accused."""
    async with federation(tmp_path, "orga", "orgb", "orgc", "orgd") as made:
        made.publish(ONE)
        here = made["orgc"]
        made.upstream_off("orgc")
        for name in ("orga", "orgb"):
            await made[name].serve(ONE)
            truth = next(e for e in await made[name].said() if b"attestation:v1" in e.payload)
            await here.take(truth, accusation(made, truth, EVIL.sha256, by="orgd", of=name, fault=fault))
        assert {result for _, _, result in await here.verdicts(ONE)} == {"CONTESTED"}
        assert (await here.rule(ONE))[1] is None
        made.publish(EVIL, to=["orgc"])
        made.upstream_on("orgc")
        assert await here.rule(ONE) == ("R5", None)
        await here.settle()
        assert await here.rule(ONE) == ("R5", None)
        assert not here.outcasts


@pytest.mark.parametrize("accused", ["before upstream is back", "after it is back"])
async def test_what_is_in_conflict_is_not_served_when_upstream_is_away_again_whatever_was_heard_first(
    tmp_path: Path, accused: str
) -> None:
    async with federation(tmp_path, "orga", "orgb", "orgc", "orgd", mode=Mode.KOFN) as made:
        made.publish(ONE)
        here = made["orgc"]
        made.upstream_off("orgc")
        lies = {name: made[name].lie(EVIL) for name in ("orga", "orgb")}
        accusations = [accusation(made, lie, ONE.sha256, by="orgd", of=name) for name, lie in lies.items()]
        await here.take(*lies.values())
        if accused == "before upstream is back":
            await here.take(*accusations)
        made.upstream_on("orgc")
        assert (await here.decide(ONE)).rule == "R5"
        await here.settle()
        await here.take(*accusations)
        assert {result for _, _, result in (await here.verdicts(ONE))[-2:]} == {"CONFLICT"}
        made.upstream_off("orgc")
        made.clock.pass_seconds(3_600)
        assert (await here.rule(ONE))[1] is None
        await here.settle()
        assert (await here.rule(ONE))[1] is None
        many = len(await here.verdicts(ONE))
        made.upstream_on("orgc")
        assert (await here.decide(ONE)).rule == "R5"
        await here.settle()
        assert len(await here.verdicts(ONE)) == many


async def test_a_maintainers_word_is_not_taken_off_the_scales_by_an_accusation(tmp_path: Path) -> None:
    """J8: an accuser may keep a file from being served, and must not have another one served."""
    maintainer = key("maintainer")
    known = {ProjectName("mxa"): frozenset({maintainer.public.hex()})}
    async with federation(tmp_path, "orga", "orgb", "orgc", "orgd", mode=Mode.KOFN, maintainers=known) as made:
        here = made["orgc"]
        made.publish(ONE)
        made.upstream_off()
        told = read_statement(made["orga"].lie(ONE).payload, Attestation).predicate
        assert isinstance(told, Attestation)
        signer = SignedBy(org="maint", key=maintainer.keyid)
        own_build = msgspec.structs.replace(told, signer=signer, source=Source(kind="build", method="bytes"))
        built = sign_statement({ONE.filename: Sha256(ONE.sha256)}, own_build, maintainer)
        await here.take(built, made["orga"].lie(EVIL), made["orgb"].lie(EVIL))
        assert await here.rule(ONE) == ("R16", None)
        for fault in (Fault.CID_CONTENT, Fault.PYPI_DIGEST):
            await here.take(accusation(made, built, EVIL.sha256, by="orgd", of=maintainer.keyid, fault=fault))
            assert await here.rule(ONE) == ("R16", None)


async def test_liars_who_accuse_each_other_first_do_not_silence_whoever_looks(tmp_path: Path) -> None:
    async with federation(tmp_path, "orga", "orgb", "orgc", "orgd", mode=Mode.KOFN) as made:
        made.publish(ONE)
        here, other = made["orgc"], made["orgd"]
        made.upstream_off("orgc", "orgd")
        lies = {name: made[name].lie(EVIL) for name in ("orga", "orgb")}
        each_other = {"orga": "orgb", "orgb": "orga"}
        await here.take(*lies.values())
        await here.take(*(accusation(made, lie, ONE.sha256, by=each_other[of], of=of) for of, lie in lies.items()))
        made.upstream_on("orgc")
        assert (await here.decide(ONE)).rule == "R5"
        await here.settle()
        assert len([e for e in await here.said() if b"refutation:v1" in e.payload]) == 2
        await other.take(*lies.values())
        assert await other.rule(ONE) == ("R19", EVIL.sha256)
        await other.hear(here)
        assert (await other.rule(ONE))[1] is None


async def test_an_accusation_of_a_cid_holds_nothing_up_once_upstream_names_the_digest(three: Federation) -> None:
    truth = await contested(three, Fault.CID_CONTENT)
    here = three["orgc"]
    three.upstream_on()
    await here.decide(ONE)
    await here.settle()
    known = await here.projects.load(ProjectName("mxa"))
    assert truth.id not in known.out
    three.upstream_off()
    await here.decide(ONE)
    await here.take(accusation(three, truth, ONE.sha256, by="orga", of="orgb", fault=Fault.CID_CONTENT))
    assert len(await here.verdicts(ONE)) == 2


async def test_what_is_contested_is_settled_although_the_accusers_key_is_known_no_more(three: Federation) -> None:
    await contested(three, Fault.PYPI_DIGEST)
    accuser, here = three["orga"], three["orgc"]
    renewed = replace(accuser.organisation, mirror=key("another mirror key"))
    async with accuser.store.transaction() as tables:
        held, highest = await newest(tables, renewed)
        await publish(tables, renewed, held, (), highest + 1, now_ms=accuser.clock.now_ms(), bot_mxid="@pypi:orga")
    await here.hear(accuser)
    three.upstream_on()
    await here.decide(ONE)
    await here.settle()
    assert (await here.verdicts(ONE))[-1] == ("orgb", "pypi-digest", "DISMISSED")


async def test_who_was_convicted_by_what_upstream_showed_wrongly_is_acquitted_when_an_operator_approves_the_right_digest(
    three: Federation,
) -> None:
    three.publish(ONE, to=["orga", "orgb"])
    three.publish(EVIL, to=["orgc"])
    here = three["orgc"]
    await three["orgb"].serve(ONE)
    await here.hear(three["orgb"])
    assert here.outcasts == {"orgb"}
    here.index.publish(ONE)
    three.clock.pass_seconds(601)
    assert (await here.decide(ONE)).rule == "R3"
    order = Override(action="approve", target=ONE.filename, reason="checked by hand", sha256=ONE.sha256)
    await here.overrides.apply(order)
    three.clock.pass_seconds(601)
    assert await here.rule(ONE) == ("R8", ONE.sha256)
    await here.settle()
    assert here.outcasts == frozenset()
    assert [row[2] for row in await here.verdicts(ONE)] == ["UPHELD", "DISMISSED"]


async def test_a_page_of_yesterday_is_no_word_of_upstream_on_what_is_attested_today(three: Federation) -> None:
    """Upstream took the file off its page meanwhile, as it does with malware."""
    three.publish(ONE)
    here = three["orgc"]
    await here.decide(ONE)
    await three["orgb"].serve(ONE)
    three.clock.pass_seconds(86_400)
    here.index.remove(ONE)
    await here.hear(three["orgb"])
    assert [e for e in await here.said() if b"review:v1" in e.payload] == []


async def test_a_thousand_digests_of_one_file_are_answered_by_one_refutation(three: Federation) -> None:
    three.publish(ONE)
    here = three["orgc"]
    await here.take(*(three["orga"].lie(wheel("mxa", "1.0", salt=str(n))) for n in range(8)))
    said = [e for e in await here.said() if b"refutation:v1" in e.payload]
    assert len(said) <= 2  # by upstream, and by itself
    assert here.outcasts == {"orga"}


async def test_an_accusation_is_read_once_however_often_the_project_is_looked_at(
    three: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    three.publish(ONE)
    here = three["orgc"]
    await three["orgb"].serve(ONE)
    truth = next(e for e in await three["orgb"].said() if b"attestation:v1" in e.payload)
    await here.take(truth)
    for n in range(3):
        three.clock.pass_seconds(1)
        await here.take(accusation(three, truth, wheel("mxa", "1.0", salt=str(n)).sha256, by="orga", of="orgb"))
        await here.take(accusation(three, truth, ONE.sha256, by="orga", of="orgb", fault=Fault.CID_CONTENT))
    await here.court.look(ProjectName("mxa"))
    read: list[str] = []
    monkeypatch.setattr(accusations, "check_envelope", lambda *told: read.append("again"))
    await here.court.look(ProjectName("mxa"))
    assert read == []


async def test_what_an_organisation_says_of_a_project_beyond_all_measure_is_kept_and_not_weighed(
    three: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim_tables, "MAX_CLAIMS", 2)
    here = three["orgc"]
    lies = [three["orga"].lie(wheel("mxa", f"{n}.0")) for n in range(1, 5)]
    await here.take(*lies, three["orgb"].lie(ONE))
    async with here.store.transaction() as tables:
        claims = await tables.ledger.claims(ProjectName("mxa"))
        kept = await tables.ledger.attestations(ProjectName("mxa"))
    assert sorted(claim.org for claim in claims if claim.kind == "attestation") == ["orga", "orga", "orgb"]
    assert len(kept) == 5
