"""Tasks of one block: the first that fails ends all, and nobody outside is cancelled by it."""

from __future__ import annotations

import asyncio

import pytest

from matrix_pypi_bot.services.together import together
from tests.support.virtual import virtual


async def fails_after(seconds: float, told: str = "told") -> None:
    await asyncio.sleep(seconds)
    raise LookupError(told)


@virtual
async def test_all_have_ended_when_the_block_has() -> None:
    async with together() as group:
        tasks = [group.create_task(asyncio.sleep(seconds, seconds)) for seconds in (3, 1, 2)]
    assert [task.result() for task in tasks] == [3, 1, 2]


@virtual
async def test_the_first_failure_ends_the_others_and_is_raised_itself() -> None:
    with pytest.raises(LookupError, match="told"):
        async with together() as group:
            other = group.create_task(asyncio.sleep(3_600))
            group.create_task(fails_after(1))
    assert other.cancelled()


@virtual
async def test_what_fails_in_the_block_ends_the_tasks() -> None:
    with pytest.raises(ZeroDivisionError):
        async with together() as group:
            other = group.create_task(asyncio.sleep(3_600))
            await asyncio.sleep(0)
            raise ZeroDivisionError
    assert other.cancelled()


@virtual
async def test_a_timeout_around_a_failure_that_was_caught_is_still_a_timeout() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10):
            with pytest.raises(LookupError):
                async with together() as group:
                    group.create_task(fails_after(1))
            await asyncio.sleep(3_600)


@virtual
async def test_who_is_cancelled_in_the_moment_of_a_failure_is_cancelled() -> None:
    async def work() -> None:
        async with together() as group:
            group.create_task(fails_after(1))
            group.create_task(stubborn())

    async def stubborn() -> None:
        try:
            await asyncio.sleep(3_600)
        finally:
            await asyncio.sleep(1)

    for moment in (1, 1.5):  # with the failure, and while the others are stopped because of it
        running = asyncio.create_task(work())
        await asyncio.sleep(moment)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert running.cancelled()


@virtual
async def test_a_task_that_was_cancelled_by_itself_ends_nobody_else() -> None:
    async with together() as group:
        group.create_task(asyncio.sleep(3_600)).cancel()
        other = group.create_task(asyncio.sleep(1, "done"))
    assert other.result() == "done"
