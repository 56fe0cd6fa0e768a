"""Provenance as users meet it: asked about before a file is first served, remembered, and who may have built a project's files."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from matrix_pypi_bot.adapters.provenance.verify import SigstoreVerifier
from matrix_pypi_bot.core.evidence import Doubt, Proves
from matrix_pypi_bot.core.publisher import Publisher
from matrix_pypi_bot.ports import Away
from matrix_pypi_bot.services.provenance import INVALID_AGAIN_MS
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import Decision, Override
from matrix_pypi_bot.wire.names import FileName, ProjectName
from tests.support.bot_world import MXA, ONE, OTHER_ONE, TWO, ScriptedDocuments, Verification, World
from tests.support.dists import Dist, wheel
from tests.support.fake_sigstore import EVIL, GITHUB, FakeSigstore, later
from tests.unit.bot.conftest import Live

SIGSTORE = FakeSigstore()
RENAMED = Publisher(GITHUB.issuer, GITHUB.repository, "publish.yml")
THREE = wheel("mxa", "3.0")
Proved = Callable[..., AbstractAsyncContextManager[World]]


def address(dist: Dist) -> str:
    """Where upstream has the file's provenance."""
    return f"https://index.example/integrity/{dist.filename}"


def verified(sigstore: FakeSigstore, folder: Path) -> SigstoreVerifier:
    file = folder / f"{sigstore.name}.json"
    file.write_bytes(sigstore.trusted_root())
    return SigstoreVerifier(file)


@pytest.fixture
def documents() -> ScriptedDocuments:
    """What stands at upstream's addresses of provenance."""
    return ScriptedDocuments()


@pytest.fixture
def proved(live: Live, documents: ScriptedDocuments, tmp_path: Path) -> Proved:
    """`async with proved() as world:` is a life of a bot that verifies provenance."""

    @asynccontextmanager
    async def begin(sigstore: FakeSigstore = SIGSTORE, **options: Any) -> AsyncIterator[World]:
        verification = Verification(verifier=verified(sigstore, tmp_path), documents=documents, **options)
        async with live(verification=verification) as world:
            yield world

    return begin


async def publish(world: World, documents: ScriptedDocuments, dist: Dist, raw: object, **told: Any) -> None:
    """Upstream lists the file with provenance `raw`, and the bot has read the page."""
    if raw is not None:
        documents.answers[address(dist)] = raw  # type: ignore[assignment]
    world.later()
    world.index.publish(dist, provenance=address(dist), **told)
    await world.page("mxa")


def proof(dist: Dist, publisher: Publisher = GITHUB, sha256: str | None = None, **options: Any) -> bytes:
    return SIGSTORE.provenance(publisher, dist.filename, sha256 or dist.sha256, **options)


async def entry(world: World, dist: Dist) -> dict[str, Any]:
    """The file as the page lists it."""
    page = await world.page("mxa")
    return next(file for file in page["files"] if file["filename"] == dist.filename)


async def decide(world: World, dist: Dist) -> Decision:
    """The bot's answer to a frontend that wants the file."""
    return await world.answers.decision(MXA, FileName(dist.filename), None)


async def told(world: World, dist: Dist, kind: str) -> list[str]:
    explanation = await world.explainer.explain(MXA, FileName(dist.filename))
    return [one.detail for one in explanation.evidence[dist.filename] if one.kind == kind]


async def test_a_page_says_to_ask_and_asking_verifies_once(proved: Proved, documents: ScriptedDocuments) -> None:
    async with proved() as world:
        await publish(world, documents, ONE, proof(ONE))
        before = await world.page("mxa")
        assert (await entry(world, ONE))["_decision"]["ask"] is True
        assert documents.asked == []
        decision = await decide(world, ONE)
        assert (decision.rule, decision.sha256) == ("R8", ONE.sha256)
        after = await world.page("mxa")
        assert after["_view"]["revision"] != before["_view"]["revision"]
        assert "ask" not in (await entry(world, ONE))["_decision"]
        assert [change.revision for change in await world.changes()][-1] == after["_view"]["revision"]
        await decide(world, ONE)
        assert documents.asked == [address(ONE)]


async def test_what_was_verified_survives_a_restart(proved: Proved, documents: ScriptedDocuments) -> None:
    async with proved() as world:
        await publish(world, documents, ONE, proof(ONE))
        await decide(world, ONE)
    async with proved() as world:
        assert "ask" not in (await entry(world, ONE))["_decision"]
        assert await told(world, ONE, "publisher") == [f"of first sight: {GITHUB.home}"]
        assert len(documents.asked) == 1


async def test_under_another_root_our_own_copy_is_verified_anew(proved: Proved, documents: ScriptedDocuments) -> None:
    async with proved() as world:
        await publish(world, documents, ONE, proof(ONE))
        await decide(world, ONE)
    async with proved(FakeSigstore("elsewhere")) as world:
        assert (await entry(world, ONE))["_decision"]["ask"] is True
        assert (await decide(world, ONE)).rule == "R8"
        [detail] = await told(world, ONE, "provenance")
        assert detail.startswith("cannot be judged: the trusted root does not list")
        assert len(documents.asked) == 1


async def test_nothing_is_asked_where_nobody_verifies(world: World) -> None:
    world.index.publish(ONE, provenance=address(ONE))
    listed = await entry(world, ONE)
    assert "ask" not in listed["_decision"]
    assert listed["provenance"] == address(ONE)
    assert await told(world, ONE, "provenance") == []


async def test_a_file_without_provenance_is_not_asked_about(proved: Proved) -> None:
    async with proved() as world:
        await world.mirror(ONE)
        assert "ask" not in (await entry(world, ONE))["_decision"]
        assert await told(world, ONE, "provenance") == ["none"]


async def test_a_crowd_that_asks_at_once_fetches_once(proved: Proved, documents: ScriptedDocuments) -> None:
    async with proved() as world:
        await publish(world, documents, ONE, proof(ONE))
        decisions = await asyncio.gather(*(decide(world, ONE) for _ in range(10)))
        assert {decision.rule for decision in decisions} == {"R8"}
        assert len(documents.asked) == 1


async def test_r4_provenance_of_other_bytes_quarantines_the_file(
    proved: Proved, documents: ScriptedDocuments, caplog: pytest.LogCaptureFixture
) -> None:
    async with proved() as world:
        await publish(world, documents, ONE, proof(ONE, sha256=OTHER_ONE.sha256))
        decision = await decide(world, ONE)
        assert (decision.rule, decision.http) == ("R4", 403)
        assert decision.reason.endswith(f"(it proves {OTHER_ONE.sha256[:12]})")
        assert "provenance proves another digest alarm" in caplog.messages
        assert (await entry(world, ONE))["yanked"] == decision.reason
        assert [change.withdrawn for change in await world.changes()][-1] == (ONE.filename,)
        await world.store_file(ONE)
        assert await world.attestations("mxa") == []
        assert await told(world, ONE, "publisher") == []  # who lies about bytes is nobody's first publisher


async def test_r4_a_forged_document_quarantines_until_a_good_one_is_there(
    proved: Proved, documents: ScriptedDocuments, caplog: pytest.LogCaptureFixture
) -> None:
    forged = json.loads(proof(ONE))
    forged["attestation_bundles"][0]["publisher"]["repository"] = "somebody/else"
    async with proved() as world:
        await publish(world, documents, ONE, json.dumps(forged).encode())
        decision = await decide(world, ONE)
        assert (decision.rule, decision.http) == ("R4", 403)
        assert f"it states github somebody/else (release.yml) and was signed by {GITHUB}" in decision.reason
        assert "provenance invalid alarm" in caplog.messages
        assert (await entry(world, ONE))["_decision"]["ask"] is True
        documents.answers[address(ONE)] = proof(ONE)
        assert (await decide(world, ONE)).rule == "R4"  # nobody is asked again at once
        world.clock.pass_seconds(INVALID_AGAIN_MS / 1000)
        assert (await decide(world, ONE)).rule == "R8"
        assert len(documents.asked) == 2


async def test_r11_what_was_refused_for_its_provenance_is_not_served_while_upstream_is_away(
    proved: Proved, documents: ScriptedDocuments
) -> None:
    async with proved() as world:
        await world.mirror(ONE, stored=[ONE])
        await publish(world, documents, ONE, proof(ONE, sha256=OTHER_ONE.sha256))
        assert await world.rule(ONE) == ("R4", 403)
        world.later()
        world.index.off()
        await world.page("mxa")
        assert await world.rule(ONE) == ("R11", 403)


async def test_while_upstream_is_away_nobody_is_asked_for_documents(
    proved: Proved, documents: ScriptedDocuments
) -> None:
    async with proved() as world:
        await world.mirror(ONE, stored=[ONE])
        await publish(world, documents, ONE, proof(ONE))
        world.later()
        world.index.off()
        await world.page("mxa")
        assert await world.rule(ONE) == ("R13", 200)
        assert documents.asked == []


async def test_a_document_that_cannot_be_fetched_now_counts_as_none_for_now(
    proved: Proved, documents: ScriptedDocuments, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with proved() as world:
        await publish(world, documents, ONE, Away("nobody answers"))
        for answer in (Away("nobody answers"), b"<html>captive portal</html>"):
            documents.answers[address(ONE)] = answer
            assert await world.rule(ONE) == ("R8", 200)
            assert (await entry(world, ONE))["_decision"]["ask"] is True
            assert await world.rule(ONE) == ("R8", 200)
            world.clock.pass_seconds(61)
        assert len(documents.asked) == 2
        assert caplog.messages.count("provenance not fetched") == 2
        documents.answers[address(ONE)] = proof(ONE)
        assert await world.rule(ONE) == ("R8", 200)
        assert await told(world, ONE, "provenance") == [f"verified, by {GITHUB}"]


async def test_p5_a_missing_document_is_an_alarm_where_the_project_has_a_publisher(
    proved: Proved, documents: ScriptedDocuments, caplog: pytest.LogCaptureFixture
) -> None:
    async with proved() as world:
        await publish(world, documents, ONE, proof(ONE))
        await decide(world, ONE)
        await publish(world, documents, TWO, None)
        assert await world.rule(TWO) == ("R8", 200)
        assert "provenance missing alarm" in caplog.messages


async def test_r6_another_publisher_is_quarantined(
    proved: Proved, documents: ScriptedDocuments, caplog: pytest.LogCaptureFixture
) -> None:
    async with proved() as world:
        await publish(world, documents, ONE, proof(ONE))
        await decide(world, ONE)
        await publish(world, documents, TWO, proof(TWO, EVIL, signed=later(1)))
        decision = await decide(world, TWO)
        assert (decision.rule, decision.http) == ("R6", 403)
        assert decision.reason.endswith(f"(by {EVIL}, before {GITHUB.home})")
        assert "publisher changed alarm" in caplog.messages
        assert await told(world, TWO, "provenance") == [f"another publisher: {EVIL}"]
        assert await world.rule(ONE) == ("R8", 200)


async def test_the_same_repository_under_another_workflow_is_no_other_publisher(
    proved: Proved, documents: ScriptedDocuments
) -> None:
    async with proved() as world:
        await publish(world, documents, ONE, proof(ONE))
        await decide(world, ONE)
        await publish(world, documents, TWO, proof(TWO, RENAMED, signed=later(1)))
        assert await world.rule(TWO) == ("R8", 200)


async def test_p8_a_former_publisher_s_older_file_is_served(proved: Proved, documents: ScriptedDocuments) -> None:
    async with proved() as world:
        await publish(world, documents, TWO, proof(TWO))
        await decide(world, TWO)
        await publish(world, documents, ONE, proof(ONE, EVIL, signed=later(-365)))
        assert await world.rule(ONE) == ("R8", 200)


async def test_an_operator_s_approval_is_the_exit_from_r6_and_r4(proved: Proved, documents: ScriptedDocuments) -> None:
    async with proved() as world:
        await publish(world, documents, ONE, proof(ONE))
        await decide(world, ONE)
        await publish(world, documents, TWO, proof(TWO, EVIL, signed=later(1)))
        await publish(world, documents, THREE, proof(THREE, sha256=OTHER_ONE.sha256))
        assert [(await decide(world, dist)).rule for dist in (TWO, THREE)] == ["R6", "R4"]
        for dist in (TWO, THREE):
            await world.overrides.apply(Override(action="approve", target=dist.filename, reason="looked at it"))
        assert [(await decide(world, dist)).rule for dist in (TWO, THREE)] == ["R8", "R8"]
        await world.overrides.apply(Override(action="release", target=TWO.filename, reason="on second thoughts"))
        assert await world.rule(TWO) == ("R6", 403)


async def test_publisher_change_warn_serves_and_raises_the_alarm(
    proved: Proved, documents: ScriptedDocuments, caplog: pytest.LogCaptureFixture
) -> None:
    async with proved(quarantine=False) as world:
        await publish(world, documents, ONE, proof(ONE))
        await decide(world, ONE)
        await publish(world, documents, TWO, proof(TWO, EVIL, signed=later(1)))
        assert await world.rule(TWO) == ("R8", 200)
        assert "publisher changed alarm" in caplog.messages


async def test_the_operator_s_pin_overrides_first_sight(proved: Proved, documents: ScriptedDocuments) -> None:
    async with proved() as world:
        await publish(world, documents, ONE, proof(ONE, EVIL))
        assert await world.rule(ONE) == ("R8", 200)
    async with proved(pins={MXA: (GITHUB,)}) as world:
        assert await world.rule(ONE) == ("R6", 403)
        await publish(world, documents, TWO, proof(TWO, RENAMED))
        assert await world.rule(TWO) == ("R6", 403)  # this pin names a workflow
        await publish(world, documents, THREE, proof(THREE))
        assert await world.rule(THREE) == ("R8", 200)
        assert await told(world, THREE, "publisher") == [f"pinned by the operator: {GITHUB}"]


async def test_p10_a_release_without_provenance_after_three_with_it_is_told(
    proved: Proved, documents: ScriptedDocuments, caplog: pytest.LogCaptureFixture
) -> None:
    async with proved() as world:
        for dist in (ONE, TWO, THREE):
            world.index.publish(dist, provenance=address(dist))
        await world.page("mxa")
        assert "file without provenance alarm" not in caplog.messages
        bare = wheel("mxa", "4.0")
        world.later(bare)
        assert (await world.rules("mxa"))[bare.filename] == "R8"
        assert caplog.messages.count("file without provenance alarm") == 1


# Served on ---------------------------------------------------------------------------------------------------------------


async def test_the_page_names_our_copy_once_it_is_verified(proved: Proved, documents: ScriptedDocuments) -> None:
    raw, file = proof(ONE), FileName(ONE.filename)
    async with proved() as world:
        await publish(world, documents, ONE, raw)
        assert world.provenance is not None
        assert (await entry(world, ONE))["provenance"] == address(ONE)
        assert await world.provenance.document(MXA, file) is None
        await decide(world, ONE)
        assert (await entry(world, ONE))["provenance"] == f"../../provenance/mxa/{ONE.filename}"
        assert await world.provenance.document(MXA, file) == raw
        await world.store_file(ONE)
        world.later()
        world.index.off()
        assert (await entry(world, ONE))["provenance"] == f"../../provenance/mxa/{ONE.filename}"
        assert await world.provenance.document(MXA, file) == raw


async def test_where_clients_find_us_is_said_in_full_when_it_is_known(
    proved: Proved, documents: ScriptedDocuments
) -> None:
    local = wheel("mxa", "1.0+local.1")
    async with proved(served_at="https://pypi.example") as world:
        await publish(world, documents, local, proof(local))
        await decide(world, local)
        told = (await entry(world, local))["provenance"]
        assert told == "https://pypi.example/provenance/mxa/mxa-1.0%2Blocal.1-py3-none-any.whl"


async def test_what_could_not_be_verified_is_not_served_on(proved: Proved, documents: ScriptedDocuments) -> None:
    async with proved() as world:
        await publish(world, documents, ONE, FakeSigstore("elsewhere").provenance(GITHUB, ONE.filename, ONE.sha256))
        assert await world.rule(ONE) == ("R8", 200)
        assert world.provenance is not None
        assert (await entry(world, ONE))["provenance"] == address(ONE)
        assert await world.provenance.document(MXA, FileName(ONE.filename)) is None


# Accusations (F5) --------------------------------------------------------------------------------------------------------


async def checked(world: World, publisher: Publisher, sha256: str, file: Dist = TWO) -> object:
    assert world.provenance is not None
    bundle = SIGSTORE.bundle(publisher, file.filename, sha256)
    return await world.provenance.check_bundle(MXA, FileName(file.filename), bundle)


async def test_f5_a_bundle_of_the_project_s_publisher_proves_its_digest(
    proved: Proved, documents: ScriptedDocuments
) -> None:
    async with proved() as world:
        assert await checked(world, GITHUB, TWO.sha256) is None  # nobody knows yet whose word counts
        await publish(world, documents, ONE, proof(ONE))
        await decide(world, ONE)
        assert await checked(world, GITHUB, TWO.sha256) == Proves(Sha256(TWO.sha256))
        assert await checked(world, EVIL, TWO.sha256) is Doubt.PUBLISHER_CHANGED
        assert world.provenance is not None
        assert await world.provenance.check_bundle(MXA, FileName(TWO.filename), {}) is Doubt.INVALID
        assert await world.provenance.check_bundle(ProjectName("other"), FileName(TWO.filename), {}) is Doubt.INVALID


async def test_f5_a_publisher_that_signed_two_digests_of_one_file_convicts_nobody(
    proved: Proved, documents: ScriptedDocuments, caplog: pytest.LogCaptureFixture
) -> None:
    async with proved() as world:
        await publish(world, documents, ONE, proof(ONE))
        await decide(world, ONE)
        assert await checked(world, GITHUB, OTHER_ONE.sha256, ONE) is Doubt.INVALID
        assert "publisher signed two digests alarm" in caplog.messages
        assert await checked(world, GITHUB, ONE.sha256, ONE) == Proves(Sha256(ONE.sha256))
