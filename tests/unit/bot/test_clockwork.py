"""What time alone changes."""

from __future__ import annotations

from matrix_pypi_bot.ports import Away
from matrix_pypi_bot.services.breaker import FAILURES
from matrix_pypi_bot.services.clockwork import BUDGET, KEPT_CHANGES
from matrix_pypi_bot.wire.names import ProjectName
from tests.support.bot_world import ManualClock, ScriptedIndex, World, report
from tests.support.dists import wheel
from tests.unit.bot.conftest import Live

ONE = wheel("mxa", "1.0")
OTHER_ONE = wheel("mxa", "1.0", salt="other")


async def test_pages_that_clients_with_lock_files_never_ask_for_are_read_again(
    world: World, index: ScriptedIndex, clock: ManualClock
) -> None:
    index.publish(ONE)
    await world.rule(ONE)
    await world.store_file(ONE)
    clock.pass_seconds(3_599)
    await world.clockwork.go_round()
    assert index.count("mxa") == 1
    index.publish(OTHER_ONE)
    clock.pass_seconds(1)
    await world.clockwork.go_round()
    assert index.count("mxa") == 2
    assert (await world.changes())[-1].withdrawn == (ONE.filename,)
    await world.clockwork.go_round()
    assert index.count("mxa") == 2


async def test_a_project_nobody_asked_for_in_a_week_is_left_alone(
    world: World, index: ScriptedIndex, clock: ManualClock
) -> None:
    index.publish(ONE)
    await world.page("mxa")
    clock.pass_seconds(8 * 86_400)
    await world.clockwork.go_round()
    assert index.count("mxa") == 1


async def test_a_round_has_a_budget(world: World, index: ScriptedIndex, clock: ManualClock) -> None:
    names = [f"mx-{number}" for number in range(BUDGET + 5)]
    for name in names:
        index.publish(wheel(name))
        await world.page(name)
    clock.pass_seconds(3_600)
    await world.clockwork.go_round()
    assert len(index.asked) == len(names) + BUDGET
    await world.clockwork.go_round()
    assert len(index.asked) == 2 * len(names)


async def test_when_upstream_is_back_pages_that_wait_for_it_are_told_without_anybody_asking(
    world: World, index: ScriptedIndex, clock: ManualClock
) -> None:
    names = [f"mx-{number}" for number in range(5)]
    for name in names:
        index.publish(wheel(name))
        await world.page(name)
        await world.store_file(wheel(name))
    index.off()
    clock.pass_seconds(601)
    for name in names:
        assert (await world.page(name))["_view"]["state"] == "down"
    asked = len(index.asked)
    clock.pass_seconds(6)
    await world.clockwork.go_round()
    assert len(index.asked) == asked + 1, "one finds out"
    index.on()
    clock.pass_seconds(6)
    await world.clockwork.go_round()
    newest = {change.project: change.revision for change in await world.changes()}
    for name in names:
        view = (await world.page(name))["_view"]
        assert (view["state"], view["revision"]) == ("live", newest[name])
    assert asked >= FAILURES


async def test_one_page_that_upstream_never_tells_hides_not_that_it_is_back(
    world: World, index: ScriptedIndex, clock: ManualClock
) -> None:
    names = ("mx-0", "mx-1")
    for name in names:
        index.publish(wheel(name))
        await world.page(name)
        await world.store_file(wheel(name))
    index.off()
    clock.pass_seconds(601)
    for name in names:
        assert (await world.page(name))["_view"]["state"] == "down"
    index.on()
    index.instead["mx-0"] = [Away("this one alone")] * 9
    for _ in range(2):
        clock.pass_seconds(60)
        await world.clockwork.go_round()
    states = {name: world.projects.held(ProjectName(name)).view.state for name in names}  # type: ignore[union-attr]
    assert states == {"mx-0": "down", "mx-1": "live"}


async def test_reports_that_wait_are_settled_without_anybody_asking(
    live: Live, index: ScriptedIndex, clock: ManualClock
) -> None:
    index.off()
    async with live() as world:
        await world.store_file(ONE)
        await world.settled()
        assert await world.reports("mxa") == [report(ONE)]
    index.on()
    index.publish(ONE)
    async with live() as world:
        await world.clockwork.go_round()
        await world.settled()
        assert (await world.reports("mxa"), await world.attestations("mxa")) == ([], [ONE.sha256])


async def test_once_a_day_old_rows_go_and_what_expires_is_renewed(world: World, clock: ManualClock) -> None:
    async with world.store.transaction() as tables:
        for number in range(KEPT_CHANGES // 100):
            await tables.views.change(ONE.project, str(number), (), 0)  # type: ignore[arg-type]
        await tables.ledger.sighted("1" * 64, room_id="!r", event_id="$e", sender="@eve:example.org", at_ms=0)
    await world.clockwork.go_round()
    assert world.days == 0
    clock.pass_seconds(86_400)
    await world.clockwork.go_round()
    await world.clockwork.go_round()
    assert world.days == 1
    assert len(await world.changes()) == KEPT_CHANGES // 100
