"""Starts processes, says when they are ready, starts again those that die, stops all in reverse order. No thread, no event loop."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Final

from matrix_pypi_bot.devstack.children import Part, spawn
from matrix_pypi_bot.devstack.signals import Signals
from matrix_pypi_bot.process.command_line import ExitCode, NeededIsMissing
from matrix_pypi_bot.wire.problems import Problem, ProblemCode, clean_line

FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 30.0
STEADY_SECONDS: Final = 60.0  # who lived this long starts with the first pause again
STOP_SECONDS: Final = 8.0  # of the 10 that the contract gives, before what is left is killed
MAX_DEATHS_AT_START: Final = 3
_POLL_SECONDS: Final = 0.05
_WATCH_SECONDS: Final = 5.0  # a death wakes the supervisor; this is in case a signal got lost
_SETTLE_SECONDS: Final = 0.2  # Ctrl-C reaches children too, perhaps before us: their end is then no death to report
_TAIL_BYTES: Final = 3_000
_TAIL_LINES: Final = 12


class Stopped(Exception):
    """SIGTERM or SIGINT came."""


class Child:
    """One part, through all its lives."""

    def __init__(self, part: Part, group: int) -> None:
        self.part = part
        self.group = group
        self.process = spawn(part)
        self.started = time.monotonic()
        self.is_ready = False
        self.deaths = 0
        self.pause_seconds = FIRST_PAUSE_SECONDS
        self.again_at: float | None = None

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def died(self) -> float:
        """Count its death; the seconds to wait before it is started again."""
        now = time.monotonic()
        self.deaths += 1
        self.is_ready = False
        if now - self.started > STEADY_SECONDS:
            self.pause_seconds = FIRST_PAUSE_SECONDS
        pause = self.pause_seconds
        self.pause_seconds = min(pause * 2, LONGEST_PAUSE_SECONDS)
        self.again_at = now + pause
        return pause

    def start_again(self) -> None:
        """Its next life."""
        self.process = spawn(self.part)
        self.started = time.monotonic()
        self.again_at = None


class Supervisor:
    """Watches over children. `say` prints a line; `changed` hears of every new set of process ids."""

    def __init__(self, signals: Signals, *, say: Callable[[str], None], changed: Callable[[], None]) -> None:
        self._signals = signals
        self._say = say
        self._changed = changed
        self._children: list[Child] = []

    @property
    def pids(self) -> dict[str, int]:
        """The process ids, by name of part; of one that is about to be started again the last."""
        return {child.part.name: child.process.pid for child in self._children}

    @property
    def parts(self) -> list[Part]:
        """What was started, in that order."""
        return [child.part for child in self._children]

    def start(self, *parts: Part) -> None:
        """Start them and watch over them from now on. Those that are started together are stopped together."""
        group = self._children[-1].group + 1 if self._children else 0
        for part in parts:
            self._children.append(Child(part, group))
            self._changed()

    def wait_ready(
        self,
        names: Sequence[str],
        *,
        timeout_seconds: float,
        tick: Callable[[set[str]], None],
        also: Callable[[], bool],
    ) -> None:
        """Return when the parts `names` are ready and `also()` is true; `tick` hears every moment which are not.

        Raises Stopped, or a Problem with the end of the log when a part cannot be started or takes too long.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            self._attend(starting=True)
            waiting = {child.part.name for child in self._children if not child.is_ready} & {*names}
            tick(waiting)
            if not waiting and also():
                return
            if time.monotonic() > deadline:
                raise self._too_slow(sorted(waiting), timeout_seconds)
            self._pause(_POLL_SECONDS)

    def watch(self) -> None:
        """Watch until Stopped is raised."""
        while True:
            self._attend(starting=False)
            moments = [child.again_at - time.monotonic() for child in self._children if child.again_at is not None]
            unready = any(not child.is_ready for child in self._children)
            self._pause(max(0.0, min([_WATCH_SECONDS, *moments, *([4 * _POLL_SECONDS] if unready else [])])))

    def stop(self) -> None:
        """Stop all children, the newest group first: SIGTERM, each group a share of the time, then SIGKILL for what is left."""
        deadline = time.monotonic() + STOP_SECONDS
        groups = [[*group] for _, group in groupby(reversed(self._children), key=lambda child: child.group)]
        for index, group in enumerate(groups):
            shared = time.monotonic() + (deadline - time.monotonic()) / (len(groups) - index)
            for child in group:
                if child.running:
                    child.process.terminate()
            for child in group:
                self._wait(child, shared - time.monotonic())
        for child in self._children:
            self._wait(child, deadline - time.monotonic())
            if child.running:
                self._say(f"{child.part.name} does not stop: killed")
                child.process.kill()
                child.process.wait()

    def _attend(self, *, starting: bool) -> None:
        """Look at every child once: has it died, must it be started again, has it become ready."""
        for child in self._children:
            if child.again_at is not None:
                if time.monotonic() >= child.again_at:
                    child.start_again()
                    self._changed()
            elif not child.running:
                self._bury(child, starting=starting)
            elif not child.is_ready and child.part.ready():
                child.is_ready = True
                if child.deaths and not starting:
                    self._say(f"{child.part.name} is back after {time.monotonic() - child.started:.1f} s")

    def _bury(self, child: Child, *, starting: bool) -> None:
        settled = time.monotonic() + _SETTLE_SECONDS
        while (left := settled - time.monotonic()) > 0:
            self._pause(left)
        pause = child.died()
        end = describe_end(child.process)
        code = child.process.returncode
        hopeless = code in (ExitCode.USAGE, ExitCode.CONFIGURATION, ExitCode.UNREACHABLE)
        if starting and (hopeless or child.deaths >= MAX_DEATHS_AT_START):
            raise self._cannot_start(child, end, configuration=code == ExitCode.CONFIGURATION)
        self._say(f"{child.part.name} {end}; starting it again in {pause:g} s (log: {child.part.log})")

    def _pause(self, seconds: float) -> None:
        """Wait for a signal or for `seconds`. Raises Stopped."""
        if not self._signals.stop:
            self._signals.wait(seconds)
        if self._signals.stop:
            raise Stopped

    def _wait(self, child: Child, seconds: float) -> None:
        """Wait until it has ended; no longer than `seconds`, and not at all once a second signal asks for haste."""
        deadline = time.monotonic() + seconds
        while child.running and time.monotonic() < deadline and not self._signals.haste:
            self._signals.wait(min(_POLL_SECONDS, max(0.0, deadline - time.monotonic())))

    def _cannot_start(self, child: Child, end: str, *, configuration: bool) -> Problem:
        detail = f"{child.part.name} {end} while starting. The end of {child.part.log}: {tail(child)}"
        return Problem(detail, code=ProblemCode.CONFIGURATION) if configuration else NeededIsMissing(detail)

    def _too_slow(self, waiting: list[str], timeout_seconds: float) -> Problem:
        detail = f"{' and '.join(waiting) or 'the trust room'} not ready after {timeout_seconds:.0f} s"
        logs = [str(child.part.log) for child in self._children if not waiting or child.part.name in waiting]
        return NeededIsMissing(detail, hint=f"the reason is in {' or '.join(logs)}")


def describe_end(process: subprocess.Popen[bytes]) -> str:
    """`ended with exit code 1`, `was killed by SIGKILL`."""
    code = process.returncode
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def tail(child: Child) -> str:
    """The last lines of its log, on one line."""
    try:
        with child.part.log.open("rb") as file:
            file.seek(max(0, child.part.log.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return "(there is none)"
    return clean_line(" | ".join(line.strip() for line in lines[-_TAIL_LINES:] if line.strip()), 1_500)
