"""A disk on which the power fails: the n-th step does not happen, nor does any after it."""

from __future__ import annotations

import fcntl
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from index_frontend.ports import StorageFull
from index_frontend.storage.filestore.disk import Disk


class PowerFailure(BaseException):
    """Not an Exception, so that nobody handles it: the process is dead."""


STEPS = ("make_folders", "create", "append", "seal", "sync", "publish", "sync_folder", "remove")


class CrashingDisk(Disk):
    """Counts steps; from step `fails_at` on (the first is 1) every step fails. `tears` lets half of the failing append happen."""

    def __init__(self, fails_at: int | None = None, *, tears: bool = False) -> None:
        self.steps: list[str] = []
        self.fails_at = fails_at
        self._tears = tears

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name not in STEPS:
            return value

        def step(*arguments: Any) -> Any:
            self.steps.append(name)
            if self.fails_at is not None and len(self.steps) >= self.fails_at:
                if self._tears and name == "append" and len(self.steps) == self.fails_at:
                    os.write(arguments[0], arguments[1][: len(arguments[1]) // 2])
                self.fail()
            return value(*arguments)

        return step

    def fail(self) -> None:
        """The end of the world, as far as the store is concerned."""
        raise PowerFailure


class KillingDisk(CrashingDisk):
    """The process is killed at the n-th step: nothing is cleaned up, by nobody."""

    def fail(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class FullOnce(CrashingDisk):
    """At the n-th step the disk is full, and at the next one it is not any more."""

    def fail(self) -> None:
        if len(self.steps) == self.fails_at:
            raise StorageFull("no room")


def drop_locks(folder: Path) -> None:
    """What the kernel does for a dead process: every lock under `folder` that is still open in this one is let go."""
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if entry.readlink().is_relative_to(folder):
                fcntl.flock(int(entry.name), fcntl.LOCK_UN)
