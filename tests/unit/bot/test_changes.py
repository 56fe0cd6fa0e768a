"""The change stream: no gap, no change told twice, resumed where it was left, reset when that cannot be."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from matrix_pypi_bot.core.policy import Denial
from matrix_pypi_bot.ports import OverrideRow, StoreAway, Transaction
from matrix_pypi_bot.services.changes import follow
from matrix_pypi_bot.services.known import Known, orders_of
from matrix_pypi_bot.wire.messages import Change
from matrix_pypi_bot.wire.names import ProjectName
from matrix_pypi_bot.wire.problems import ProblemCode
from tests.support.bot_world import ManualClock, ScriptedIndex, World
from tests.support.dists import wheel
from tests.unit.bot.conftest import Live

HEARTBEAT_SECONDS = 0.01
MXA = ProjectName("mxa")


def stream(world: World, after: int | None) -> AsyncIterator[Change]:
    """A frontend's stream."""
    return follow(world.store, world.projects, after, heartbeat_seconds=HEARTBEAT_SECONDS)


async def next_change(changes: AsyncIterator[Change]) -> Change:
    """The next line that is no heartbeat."""
    async for change in changes:
        if not change.heartbeat:
            return change
    raise AssertionError("the stream ended")


async def test_a_new_stream_begins_now_with_a_sign_of_life(world: World, index: ScriptedIndex) -> None:
    index.publish(wheel("mxa"))
    await world.page("mxa")
    changes = stream(world, None)
    assert await anext(changes) == Change(seq=world.projects.seq, heartbeat=True)
    assert (await anext(changes)).heartbeat


async def test_a_change_is_told_when_it_happens(world: World, index: ScriptedIndex) -> None:
    changes = stream(world, None)
    await anext(changes)
    waiting = asyncio.create_task(next_change(changes))
    index.publish(wheel("mxa"))
    view = (await world.page("mxa"))["_view"]
    assert await waiting == Change(seq=view["seq"], project="mxa", revision=view["revision"])


async def test_whoever_holds_a_number_gets_everything_behind_it_once(
    live: Live, index: ScriptedIndex, clock: ManualClock
) -> None:
    async with live() as world:
        for name in ("mxa", "mxb", "mxc"):
            index.publish(wheel(name))
            await world.page(name)
        numbers = [change.seq for change in await world.changes()]
    async with live() as world:
        assert world.projects.seq == numbers[-1]
        changes = stream(world, numbers[0])
        assert await anext(changes) == Change(seq=numbers[0], heartbeat=True)
        assert [(await next_change(changes)).project for _ in range(2)] == ["mxb", "mxc"]
        assert await anext(changes) == Change(seq=numbers[2], heartbeat=True)


async def test_a_number_from_another_life_or_too_old_is_reset(world: World, index: ScriptedIndex) -> None:
    for name in ("mxa", "mxb", "mxc"):
        index.publish(wheel(name))
        await world.page(name)
    async with world.store.transaction() as tables:
        await tables.views.forget_changes(1)
    newest = world.projects.seq
    for after in (newest + 1, 0, newest - 2):
        changes = stream(world, after)
        assert await anext(changes) == Change(reset=True)
        assert await anext(changes) == Change(seq=newest, heartbeat=True)
    assert await anext(stream(world, newest - 1)) == Change(seq=newest - 1, heartbeat=True)


async def test_an_empty_bot_can_be_followed_from_nothing(world: World) -> None:
    assert await anext(stream(world, 0)) == Change(seq=0, heartbeat=True)


async def test_many_changes_come_in_order_and_whole(world: World, index: ScriptedIndex, clock: ManualClock) -> None:
    changes = stream(world, 0)
    names = [f"mx-{number}" for number in range(30)]
    for name in names:
        index.publish(wheel(name))
    await asyncio.gather(*(world.page(name) for name in names))
    told = [await next_change(changes) for _ in names]
    assert sorted(change.project or "" for change in told) == sorted(names)
    assert [change.seq for change in told] == sorted(change.seq for change in told)


async def test_two_streams_hear_the_same(world: World, index: ScriptedIndex) -> None:
    one, two = stream(world, 0), stream(world, 0)
    index.publish(wheel("mxa"))
    await world.page("mxa")
    assert await next_change(one) == await next_change(two)


async def test_rules_that_changed_while_the_bot_was_down_reach_frontends_that_hold_pages(
    live: Live, index: ScriptedIndex
) -> None:
    bad = wheel("mxa")
    index.publish(bad)
    async with live() as world:
        told = (await world.page("mxa"))["_view"]["seq"]
    async with live(denials=[Denial(project=ProjectName("mxa"))]) as world:
        changes = stream(world, told)
        assert await anext(changes) == Change(reset=True)
        new = await anext(changes)
        assert new == Change(seq=world.projects.seq, heartbeat=True)
        assert new.seq > told
        assert await anext(stream(world, new.seq)) == new
        assert await world.rule(bad) == ("R1", 403)
    async with live(denials=[Denial(project=ProjectName("mxa"))]) as world:
        assert await anext(stream(world, new.seq)) == new
    async with live() as world:
        assert await anext(stream(world, new.seq)) == Change(reset=True)


async def test_a_change_whose_commit_seemed_to_fail_is_told_once_the_database_can_be_asked(
    world: World, index: ScriptedIndex
) -> None:
    index.publish(wheel("mxa"))
    held = (await world.page("mxa"))["_view"]["seq"]
    commit = world.store.transaction

    @contextlib.asynccontextmanager
    async def answer_lost() -> AsyncIterator[Transaction]:
        async with commit() as tables:
            yield tables
        raise StoreAway("the answer to the commit was lost")

    async def deny(tables: Transaction, known: Known) -> Known:
        order = OverrideRow(
            statement_id="1" * 64, project=MXA, file=None, action="quarantine", sha256=None, reason="bad", at_ms=1
        )
        await tables.ledger.override(order)
        return replace(known, orders=orders_of(await tables.ledger.overrides(MXA)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.store, "transaction", answer_lost)
        with pytest.raises(StoreAway):
            await world.projects.revise(MXA, deny)
    changes = stream(world, held)
    assert (await world.refused("mxa")).code is ProblemCode.REFUSED
    told = await next_change(changes)
    assert (told.project, told.withdrawn) == ("mxa", (wheel("mxa").filename,))
