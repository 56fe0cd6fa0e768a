"""Processes that never outlive the one that started them, and the leftovers of one that had no time to stop its own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

LEFTOVER_STOP_SECONDS: Final = 8.0
_PR_SET_PDEATHSIG: Final = 1  # <linux/prctl.h>
_POLL_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One process of the stack.

    `ready` says, without waiting long, whether it does its work; `mark` is a text in its command that no other process has, by
    which a leftover of it is known. `environment` None: ours.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    log: Path
    ready: Callable[[], bool]
    mark: str
    environment: Mapping[str, str] | None = None


def spawn(part: Part) -> subprocess.Popen[bytes]:
    """Start it, in this process' group and session, its output appended to its log."""
    with part.log.open("ab") as log:
        return subprocess.Popen(
            part.command,
            cwd=part.folder,
            env=part.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=_dies_with_parent(),  # this process has one thread
        )


def _dies_with_parent() -> Callable[[], None] | None:
    """What a child does before it becomes another program, so that SIGKILL of its parent is a SIGTERM for it. Linux only."""
    if not sys.platform.startswith("linux"):
        return None
    parent = os.getpid()
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return None

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return ask


def command_of(pid: int) -> str:
    """The command line of a process; empty when there is none, or it cannot be told."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        if Path("/proc/self/cmdline").exists():
            return ""
    with contextlib.suppress(OSError):  # no /proc: macOS, BSD
        command = ["ps", "-o", "command=", "-p", str(pid)]
        found = subprocess.run(command, capture_output=True, text=True, check=False)  # wherever the system has it
        return found.stdout.strip()
    return ""


def stop_leftovers(records: Any, *, say: Callable[[str], None], stop_seconds: float = LEFTOVER_STOP_SECONDS) -> None:
    """Stop processes of an earlier stack that are still running. `records`: `[{"name", "pid", "mark"}]`, as far as it is that.

    A process is stopped only when its command line still holds the mark: numbers are used again.
    """
    found = [
        (str(record["name"]), record["pid"])
        for record in (records if isinstance(records, list) else [])
        if isinstance(record, dict)
        and record.keys() >= {"name", "pid", "mark"}
        and isinstance(record["pid"], int)
        and record["mark"]
        and str(record["mark"]) in command_of(record["pid"])
    ]
    for name, pid in found:
        say(f"stopping {name} (process {pid}), left over from an earlier start")
        _signal(pid, signal.SIGTERM)
    if not _gone((pid for _, pid in found), stop_seconds):
        for _, pid in found:
            _signal(pid, signal.SIGKILL)
        _gone((pid for _, pid in found), stop_seconds)


def _gone(pids: Iterable[int], seconds: float) -> bool:
    """Whether all have ended before `seconds` are over."""
    left, deadline = list(pids), time.monotonic() + seconds
    while left := [pid for pid in left if command_of(pid)]:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
