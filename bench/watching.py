"""How long an event loop keeps anybody waiting, beside a process that does nothing else than look: what the machine does to everybody.

A lag counts from when a sleep was to end. What the idle process was kept waiting for at the same time, nobody's loop held.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

SAMPLE_SECONDS: Final = 0.005
TOLD_SECONDS: Final = 0.001


@dataclass(frozen=True, slots=True)
class Lag:
    """From `begin` on (CLOCK_MONOTONIC) somebody waited for `seconds` longer than he wanted."""

    begin: float
    seconds: float

    @property
    def end(self) -> float:
        """When he went on."""
        return self.begin + self.seconds


class Watch:
    """While its block runs: the lags of the loop and of an idle process beside it, and how far resident memory grew.

    `burst_seconds` is the longest time for which the loop's thread computed between two looks: the same however busy the machine is.
    """

    def __init__(self) -> None:
        self.growth_bytes = 0
        self.burst_seconds = 0.0
        self.lags: list[Lag] = []
        self.idle: list[Lag] = []

    async def __aenter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-S", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()
        self._before = resident_bytes()
        self._task = asyncio.create_task(self._look())
        self._memory = asyncio.create_task(self._weigh())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in (self._task, self._memory):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        told, _none = self._process.communicate()
        self.idle = [Lag(*map(float, line.split())) for line in told.decode().splitlines()]

    async def _look(self) -> None:
        while True:
            due, computed = time.monotonic() + SAMPLE_SECONDS, time.thread_time()
            await asyncio.sleep(SAMPLE_SECONDS)
            self.burst_seconds = max(self.burst_seconds, time.thread_time() - computed)
            self.lags.append(Lag(due, time.monotonic() - due))

    async def _weigh(self) -> None:
        """Apart from the looking, which it would delay."""
        while True:
            self.growth_bytes = max(self.growth_bytes, resident_bytes() - self._before)
            await asyncio.sleep(10 * SAMPLE_SECONDS)

    @property
    def worst_seconds(self) -> float:
        """The longest lag of the loop."""
        return max((lag.seconds for lag in self.lags), default=0.0)

    @property
    def idle_seconds(self) -> float:
        """The longest one of the process that does nothing."""
        return max((lag.seconds for lag in self.idle), default=0.0)

    @property
    def own_seconds(self) -> float:
        """The longest lag of the loop, without the time in it that the idle process was kept waiting, too."""
        return max((lag.seconds - self._shared(lag) for lag in self.lags), default=0.0)

    def _shared(self, lag: Lag) -> float:
        """How long the idle process was kept waiting during `lag`."""
        shared = (min(lag.end, one.end) - max(lag.begin, one.begin) for one in self.idle)
        return sum(seconds for seconds in shared if seconds > 0)

    def told(self) -> str:
        """One line."""
        lags = sorted(lag.seconds for lag in self.lags) or [0.0]
        return (
            f"memory +{self.growth_bytes / 1e6:5.1f} MB (goal < 64), loop lag {1e3 * lags[-1]:5.1f} ms at most (goal < 50), "
            f"{1e3 * lags[int(0.99 * (len(lags) - 1))]:.1f} ms at p99; an idle process' {1e3 * self.idle_seconds:.1f} ms, "
            f"the loop's own {1e3 * self.own_seconds:.1f} ms, computing {1e3 * self.burst_seconds:.1f} ms"
        )


def resident_bytes() -> int:
    """This process' memory now. Linux only."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def look_on() -> None:
    """Sleeps and notes by how much each sleep was too long, until its input ends; then it tells them."""
    import select

    found: list[tuple[float, float]] = []
    print("ready", flush=True)
    while True:
        due = time.monotonic() + SAMPLE_SECONDS
        if select.select([sys.stdin], [], [], SAMPLE_SECONDS)[0]:
            break
        seconds = time.monotonic() - due
        if seconds > TOLD_SECONDS:
            found.append((due, seconds))
    for begin, seconds in found:
        print(begin, seconds)


if __name__ == "__main__":
    look_on()
