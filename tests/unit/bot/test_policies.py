"""The operator's policy, through what frontends ask: what it keeps back, when that ends, and who is never asked."""

from __future__ import annotations

import logging

import pytest

from matrix_pypi_bot.core.cooldown import Cooldown, Exemption
from matrix_pypi_bot.core.policy import Denial, NameRules, Versions
from matrix_pypi_bot.wire.messages import Override
from matrix_pypi_bot.wire.names import FileName
from matrix_pypi_bot.wire.problems import Problem, ProblemCode
from tests.support.bot_world import FRESH_SECONDS, MXA, ONE, START_MS, TWO, ManualClock, ScriptedIndex, World, report
from tests.support.dists import Dist, wheel
from tests.unit.bot.conftest import Live

DAY_SECONDS = 86_400
THREE_DAYS = Cooldown(seconds=3 * DAY_SECONDS)
TODAY = "2026-01-01T00:00:00Z"  # START_MS
SOON_MS = START_MS + 100_000
TINY = 20_000  # bytes of memory for what is known: two projects


async def reason(world: World, dist: Dist) -> str:
    """The line that whoever asks for the file gets."""
    return (await world.answers.decision(MXA, FileName(dist.filename), None)).reason


async def forgotten(world: World, index: ScriptedIndex) -> None:
    """MXA is not in memory any more."""
    for number in range(4):
        index.publish(wheel(f"mx-{number}"))
        await world.page(f"mx-{number}")
    assert world.projects.held(MXA) is None


# Cooldown ----------------------------------------------------------------------------------------------------------------


async def test_a_young_file_is_left_out_and_refused_until_it_is_old_enough(
    live: Live, index: ScriptedIndex, clock: ManualClock
) -> None:
    index.publish(ONE)
    index.publish(TWO, **{"upload-time": TODAY})
    async with live(cooldown=THREE_DAYS) as world:
        assert await world.rules("mxa") == {ONE.filename: "R8"}
        assert await world.rule(TWO) == ("R7", 403)
        assert await reason(world, TWO) == "matrix-pypi: R7 younger than the cooldown (until 2026-01-04T00:00:00Z)"
        clock.pass_seconds(3 * DAY_SECONDS - 1)
        await world.clockwork.tick()
        assert await world.rule(TWO) == ("R7", 403)
        before = world.projects.seq
        clock.pass_seconds(1)
        await world.clockwork.tick()
        assert [(change.project, change.withdrawn) for change in await world.changes(before)] == [("mxa", ())]
        assert await world.rules("mxa") == {ONE.filename: "R8", TWO.filename: "R8"}
        await world.clockwork.tick()
        assert len(await world.changes(before)) == 1


async def test_that_a_cooldown_is_over_is_told_also_of_a_project_that_is_not_in_memory(
    live: Live, index: ScriptedIndex, clock: ManualClock
) -> None:
    index.publish(ONE, **{"upload-time": TODAY})
    async with live(cooldown=THREE_DAYS, max_held_bytes=TINY) as world:
        await world.page("mxa")
        await forgotten(world, index)
        clock.pass_seconds(3 * DAY_SECONDS)
        before = world.projects.seq
        await world.clockwork.tick()
        assert "mxa" in [change.project for change in await world.changes(before)]
        assert await world.rules("mxa") == {ONE.filename: "R8"}


async def test_a_young_file_is_not_attested(live: Live, index: ScriptedIndex) -> None:
    async with live(cooldown=THREE_DAYS) as world:
        index.publish(ONE, **{"upload-time": TODAY})
        await world.page("mxa")
        await world.store_file(ONE)
        assert await world.attestations("mxa") == []


async def test_a_back_dated_upload_gains_nothing_and_raises_an_alarm(
    live: Live, index: ScriptedIndex, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    index.publish(ONE)
    async with live(cooldown=THREE_DAYS) as world:
        await world.page("mxa")
        clock.pass_seconds(DAY_SECONDS)
        await world.page("mxa")
        assert "back-dated" not in caplog.text
        world.later(TWO)  # with an upload-time of 2024
        assert await world.rules("mxa") == {ONE.filename: "R8"}
        assert "counted from when it was first seen" in await reason(world, TWO)
        [alarm] = [record for record in caplog.records if record.message == "upload-time back-dated alarm"]
        assert (alarm.levelno, alarm.__dict__["file"]) == (logging.WARNING, TWO.filename)
    async with live(cooldown=THREE_DAYS) as world:
        assert (await world.rule(TWO))[0] == "R7"
        clock.pass_seconds(3 * DAY_SECONDS)
        await world.clockwork.tick()
        assert (await world.rule(TWO))[0] == "R8"


async def test_that_a_page_lacked_a_file_is_remembered_over_a_restart(
    live: Live, index: ScriptedIndex, clock: ManualClock
) -> None:
    index.publish(ONE)
    async with live(cooldown=THREE_DAYS) as world:
        await world.page("mxa")
        clock.pass_seconds(10 * DAY_SECONDS)
        await world.page("mxa")  # 304: the same page, ten days later
    index.publish(TWO, **{"upload-time": "2026-01-05T00:00:00Z"})
    clock.pass_seconds(FRESH_SECONDS)
    async with live(cooldown=THREE_DAYS) as world:
        assert (await world.rules("mxa"), (await world.rule(TWO))[0]) == ({ONE.filename: "R8"}, "R7")


async def test_where_upstream_tells_no_times_the_first_sight_counts(
    live: Live, index: ScriptedIndex, clock: ManualClock
) -> None:
    index.publish(ONE, **{"upload-time": None})
    async with live(cooldown=THREE_DAYS) as world:
        assert await world.rules("mxa") == {}
        assert "upstream tells no upload-time" in await reason(world, ONE)
        clock.pass_seconds(3 * DAY_SECONDS)
        await world.clockwork.tick()
        assert await world.rules("mxa") == {ONE.filename: "R8"}


async def test_when_an_exemption_ends_its_young_files_are_withdrawn_whether_in_memory_or_not(
    live: Live, index: ScriptedIndex, clock: ManualClock
) -> None:
    index.publish(TWO, **{"upload-time": TODAY})
    exemption = Exemption(project=MXA, reason="mends a hole", versions=Versions.parse("==2.*"), until_ms=SOON_MS)
    async with live(cooldown=Cooldown(seconds=DAY_SECONDS, exemptions=(exemption,)), max_held_bytes=TINY) as world:
        assert await world.rules("mxa") == {TWO.filename: "R8"}
        told = (await world.explainer.explain(MXA)).evidence[TWO.filename]
        assert "exempt from the cooldown: mends a hole, until 2026-01-01T00:01:40Z" in [one.detail for one in told]
        await forgotten(world, index)
        clock.pass_seconds(100)
        before = world.projects.seq
        await world.clockwork.tick()
        [change] = [change for change in await world.changes(before) if change.project == "mxa"]
        assert change.withdrawn == (TWO.filename,)
        assert (await world.rule(TWO))[0] == "R7"


async def test_an_exemption_that_ended_while_the_bot_was_down_is_news_to_every_frontend(
    live: Live, index: ScriptedIndex, clock: ManualClock
) -> None:
    index.publish(TWO, **{"upload-time": TODAY})
    policy = Cooldown(seconds=DAY_SECONDS, exemptions=(Exemption(project=MXA, reason="r", until_ms=SOON_MS),))
    async with live(cooldown=policy) as world:
        await world.page("mxa")
        since = world.projects.since
    async with live(cooldown=policy) as world:
        assert world.projects.since == since, "nothing ended"
    clock.pass_seconds(100)
    async with live(cooldown=policy) as world:
        assert world.projects.since > since, "who was told before then forgets everything"


# Deny, allow, reserve ----------------------------------------------------------------------------------------------------


async def test_a_denial_of_some_versions_refuses_those_and_ends_when_it_says(
    live: Live, index: ScriptedIndex, clock: ManualClock
) -> None:
    index.publish(ONE)
    index.publish(TWO)
    denial = Denial(project=MXA, versions=Versions.parse("<2"), until_ms=SOON_MS, reason="broken")
    async with live(denials=[denial]) as world:
        assert await world.rules("mxa") == {ONE.filename: "R1", TWO.filename: "R8"}
        assert await reason(world, ONE) == "matrix-pypi: R1 denied by policy (broken, until 2026-01-01T00:01:40Z)"
        before = world.projects.seq
        clock.pass_seconds(100)
        await world.clockwork.tick()
        assert [change.project for change in await world.changes(before)] == ["mxa"]
        assert await world.rules("mxa") == {ONE.filename: "R8", TWO.filename: "R8"}


async def test_a_project_denied_for_a_while_is_asked_for_afterwards(
    live: Live, index: ScriptedIndex, clock: ManualClock
) -> None:
    index.publish(ONE)
    async with live(denials=[Denial(project=MXA, until_ms=SOON_MS, reason="not yet")]) as world:
        assert (await world.refused("mxa")).code is ProblemCode.REFUSED
        clock.pass_seconds(100)
        await world.clockwork.tick()
        assert await world.rules("mxa") == {ONE.filename: "R8"}


@pytest.mark.parametrize("names", [NameRules(reserved=("mx*",)), NameRules(allow_only=("flask",))])
async def test_upstream_never_hears_of_a_name_that_is_reserved_or_not_allowed(
    live: Live, index: ScriptedIndex, clock: ManualClock, names: NameRules
) -> None:
    index.off()
    async with live() as world:
        await world.store_file(ONE)  # a report that waits for upstream
        await world.settled()
    index.on()
    index.publish(ONE)
    index.asked.clear()
    async with live(names=names) as world:
        for refresh in (False, True):
            problem = await world.refused("mxa", refresh=refresh)
            assert (problem.code, "R1 denied by policy" in problem.detail) == (ProblemCode.REFUSED, True)
        assert await world.rule(ONE) == ("R1", 403)
        assert not await world.refresher.exists(MXA)
        with pytest.raises(Problem) as refused:
            await world.overrides.apply(Override(action="approve", target=ONE.filename, reason="mine"))
        assert refused.value.code is ProblemCode.REFUSED
        await world.refresher.read_again(MXA)
        await world.store_file(ONE)
        for _ in range(3):
            clock.pass_seconds(4_000)
            await world.clockwork.tick()
            await world.clockwork.go_round()
            await world.settled()
        [evidence] = (await world.explainer.explain(MXA)).evidence["mxa"]
        assert "R1" in evidence.detail
        assert index.asked == []
        assert await world.reports("mxa") == [report(ONE)], "what waits is kept for the day the name is free again"


async def test_a_page_known_from_before_a_name_was_reserved_is_not_shown(live: Live, index: ScriptedIndex) -> None:
    async with live() as world:
        await world.mirror(ONE, stored=[ONE])
    asked = len(index.asked)
    async with live(names=NameRules(reserved=("mxa",))) as world:
        assert (await world.refused("mxa")).code is ProblemCode.REFUSED
        assert await world.rule(ONE) == ("R1", 403)
        explained = await world.explainer.explain(MXA)
        assert explained.files[ONE.filename].rule == "R1"
        assert "the name is reserved here" in [one.detail for one in explained.evidence[ONE.filename]]
        assert len(index.asked) == asked


async def test_reports_of_reserved_projects_do_not_hold_up_those_of_others(live: Live, index: ScriptedIndex) -> None:
    others = [wheel(f"acme-{number}") for number in range(5)]
    index.off()
    async with live() as world:
        for dist in (*others, ONE):
            await world.store_file(dist)
        await world.settled()
    index.on()
    index.publish(ONE)
    async with live(names=NameRules(reserved=("acme-*",))) as world:
        await world.attester.try_again(1)
        await world.settled()
        assert await world.attestations("mxa") == [ONE.sha256]


# What upstream says ------------------------------------------------------------------------------------------------------


async def test_a_quarantine_outlasts_upstream_and_the_bot(live: Live, index: ScriptedIndex, clock: ManualClock) -> None:
    async with live() as world:
        await world.mirror(ONE, stored=[ONE])
        index.listings["mxa"].extra["project-status"] = {"status": "quarantined"}
        world.later()
        assert (await world.page("mxa"))["files"] == []
        assert (await world.changes())[-1].withdrawn == (ONE.filename,)
        index.off()
        world.later()
        assert (await world.page("mxa"))["_view"]["state"] == "quarantined"
        assert await world.rule(ONE) == ("R2", 403)
    async with live() as world:
        assert await world.rule(ONE) == ("R2", 403)


async def test_what_upstream_says_of_a_project_stands_on_page_and_decision(world: World, index: ScriptedIndex) -> None:
    index.publish(ONE)
    index.listings["mxa"].extra["project-status"] = {"status": "archived", "reason": "done"}
    assert (await world.page("mxa"))["project-status"] == {"status": "archived", "reason": "done"}
    assert (await world.answers.decision(MXA, FileName(ONE.filename), None)).project_status == "archived"


# Served lately -----------------------------------------------------------------------------------------------------------


async def test_a_project_in_use_is_read_again_also_when_it_is_not_in_memory(
    live: Live, index: ScriptedIndex, clock: ManualClock
) -> None:
    async with live(max_held_bytes=TINY) as world:
        await world.mirror(ONE, stored=[ONE])
        await forgotten(world, index)
        clock.pass_seconds(3_599)
        await world.clockwork.go_round()
        assert index.count("mxa") == 1
        index.listings["mxa"].extra["project-status"] = {"status": "quarantined"}
        clock.pass_seconds(1)
        await world.clockwork.go_round()
        assert index.count("mxa") == 2
        assert (ONE.filename,) in [change.withdrawn for change in await world.changes()]
