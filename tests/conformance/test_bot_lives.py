"""One life of the bot after another, on every database: what was promised in one holds in the next."""

from __future__ import annotations

from pathlib import Path

import pytest

from matrix_pypi_bot.core.signers import SigningKey
from matrix_pypi_bot.services.keys import Organisation, ensure_manifest
from matrix_pypi_bot.wire.messages import Observed, Override
from matrix_pypi_bot.wire.names import FileName, ProjectName
from tests.support.bot_world import MIRROR_SEED, ManualClock, ScriptedIndex, living
from tests.support.dists import wheel

ONE, TWO = wheel("mxa", "1.0"), wheel("mxa", "2.0")
OTHER_ONE = wheel("mxa", "1.0", salt="other")
MXA = ProjectName("mxa")
ORGA = Organisation("orga", root=SigningKey(bytes(32)), mirror=SigningKey(MIRROR_SEED), log=SigningKey(bytes([5]) * 32))


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    return f"sqlite:{tmp_path}/bot.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


async def test_what_one_life_learnt_the_next_knows(url: str) -> None:
    index, clock = ScriptedIndex(), ManualClock()
    index.publish(ONE)
    index.publish(TWO)
    async with living(url, index, clock) as world:
        first = await ensure_manifest(world.store, clock, ORGA, bot_mxid="@pypi:org.example")
        revision = (await world.page("mxa"))["_view"]["revision"]
        await world.store_file(ONE)
        await world.overrides.apply(Override(action="quarantine", target=TWO.filename, reason="looked at it"))
        seq = world.projects.seq
    async with living(url, index, clock) as world:
        assert await ensure_manifest(world.store, clock, ORGA, bot_mxid="@pypi:org.example") == first
        assert world.projects.seq == seq
        assert await world.rules("mxa") == {ONE.filename: "R8", TWO.filename: "R1"}
        assert await world.attestations("mxa") == [ONE.sha256]
        assert (await world.changes())[0].revision == revision
        index.off()
        clock.pass_seconds(601)
        assert await world.rules("mxa") == {ONE.filename: "R13", TWO.filename: "R1"}
    async with living(url, index, clock) as world:
        assert await world.rules("mxa") == {ONE.filename: "R13", TWO.filename: "R1"}
        index.on()
        index.publish(OTHER_ONE)
        clock.pass_seconds(601)
        assert await world.rules("mxa") == {ONE.filename: "R3", TWO.filename: "R1"}
        assert (await world.changes())[-1].withdrawn == (ONE.filename,)
        async with world.store.transaction() as tables:
            assert len(await tables.log.leaves(0, 9)) == 3
            seen = Observed(
                project="mxa", file=ONE.filename, expected_sha256=ONE.sha256, sha256=None, size=1, source="s", reason="r"
            )  # fmt: skip
            await tables.ledger.observe(seen, clock.now_ms())


async def test_a_report_waits_through_lives_until_upstream_is_back(url: str) -> None:
    index, clock = ScriptedIndex(), ManualClock()
    index.publish(ONE)
    async with living(url, index, clock) as world:
        await world.page("mxa")
        index.off()
        clock.pass_seconds(601)
        await world.refused("mxa")
        await world.store_file(ONE)
        await world.settled()
    index.on()
    async with living(url, index, clock) as world:
        await world.clockwork.go_round()
        await world.settled()
        assert await world.attestations("mxa") == [ONE.sha256]
        decision = await world.answers.decision(MXA, FileName(ONE.filename), ONE.path)
        assert decision.attested_by == ("orga",)


async def test_a_project_that_is_gone_stays_gone(url: str) -> None:
    index, clock = ScriptedIndex(), ManualClock()
    index.publish(ONE)
    async with living(url, index, clock, keep_removed=True) as world:
        await world.page("mxa")
        await world.store_file(ONE)
        del index.listings["mxa"]
        clock.pass_seconds(601)
        assert await world.rules("mxa") == {ONE.filename: "R9"}
    async with living(url, index, clock) as world:
        index.off()
        clock.pass_seconds(601)
        assert await world.rule(ONE) == ("R10", 404)
