"""A process starts its parts in order and stops them in reverse, whatever goes wrong with one of them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from matrix_pypi_bot.process import lifecycle
from matrix_pypi_bot.process.lifecycle import Lifecycle, run_until_signal


@asynccontextmanager
async def part(name: str, order: list[str], error: Exception | None = None) -> AsyncIterator[str]:
    order.append(f"{name} starts")
    yield name
    order.append(f"{name} stops")
    if error is not None:
        raise error


async def test_parts_stop_in_reverse_order() -> None:
    order: list[str] = []
    async with Lifecycle() as life:
        assert await life.enter("database", part("database", order)) == "database"
        await life.enter("api", part("api", order))
    assert order == ["database starts", "api starts", "api stops", "database stops"]


async def test_a_part_that_fails_or_hangs_while_stopping_does_not_keep_the_others_from_it() -> None:
    order: list[str] = []
    async with Lifecycle() as life:
        await life.enter("database", part("database", order))
        life.on_stop("hangs", asyncio.Event().wait, stop_seconds=0.01)
        await life.enter("fails", part("fails", order, ValueError("bad")))
    assert order[-2:] == ["fails stops", "database stops"]


async def test_what_did_start_is_stopped_when_the_next_part_does_not() -> None:
    order: list[str] = []

    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        raise OSError("port taken")
        yield

    with pytest.raises(OSError, match="port taken"):
        async with Lifecycle() as life:
            await life.enter("database", part("database", order))
            await life.enter("api", broken())
    assert order == ["database starts", "database stops"]


async def test_a_task_that_fails_ends_the_process_and_is_not_lost() -> None:
    async def fails() -> None:
        raise ValueError("the inbox is broken")

    with pytest.raises(ValueError, match="the inbox is broken"):
        async with Lifecycle() as life:
            life.task("inbox", fails())
            await life.forever()


async def test_a_task_that_ends_well_ends_nothing_and_one_that_runs_is_cancelled() -> None:
    ended: list[str] = []

    async def runs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def done() -> None:
        ended.append("done")

    with pytest.raises(TimeoutError):
        async with Lifecycle() as life:
            life.task("runs", runs())
            life.task("done", done())
            async with asyncio.timeout(0.01):
                await life.forever()
    assert ended == ["done", "cancelled"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_cancels_and_returns(number: signal.Signals) -> None:
    stopped: list[str] = []

    async def main() -> None:
        async with Lifecycle() as life:
            await life.enter("part", part("part", stopped))
            os.kill(os.getpid(), number)
            await life.forever()

    run_until_signal(main)
    assert stopped == ["part starts", "part stops"]


def test_what_main_raises_is_raised() -> None:
    async def main() -> None:
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        run_until_signal(main)


def test_a_process_that_does_not_stop_is_ended() -> None:
    script = (
        "import asyncio, os, signal\n"
        "from matrix_pypi_bot.process.lifecycle import run_until_signal\n"
        "async def main():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        await asyncio.Event().wait()\n"
        "    finally:\n"
        "        await asyncio.Event().wait()\n"
        "run_until_signal(main, stop_seconds=0.05)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, timeout=30).returncode == 1


def test_the_loop_is_asyncios_own_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> Callable[[], asyncio.AbstractEventLoop]:
        raise AssertionError("uvloop was asked for")

    async def main() -> None:
        pass

    monkeypatch.setattr(lifecycle, "_loop_factory", fails)
    run_until_signal(main, prefer_uvloop=False)
