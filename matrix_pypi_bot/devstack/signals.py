"""Signals as something to wait for: a request to stop, or the end of a child."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from types import FrameType, TracebackType
from typing import Any, Final, Self

# `timeout` and some supervisors send a signal twice at once; a person who is impatient presses Ctrl-C again later.
_IMPATIENT_SECONDS: Final = 1.0
_STOPPING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Signals:
    """While entered, SIGTERM, SIGINT and SIGHUP set `stop` (another SIGINT, later, `haste`), and `wait` wakes up when a child ends."""

    def __init__(self) -> None:
        self.stop = False
        self.haste = False
        self._asked = 0.0
        self._before: dict[signal.Signals, Any] = {}
        self._wakeup_before = -1
        self._read, self._write = -1, -1

    def __enter__(self) -> Self:
        """Only in the main thread."""
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._wakeup_before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in (*_STOPPING, signal.SIGCHLD):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # started by nohup: the terminal may go
            self._before[number] = signal.signal(number, self._came)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Everything as it was."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._read)
        os.close(self._write)

    def wait(self, seconds: float) -> None:
        """Return when a signal came, or after `seconds`."""
        select.select([self._read], [], [], max(0.0, seconds))
        with contextlib.suppress(BlockingIOError):
            os.read(self._read, 4096)

    def _came(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGCHLD:
            return
        if not self.stop:
            self.stop, self._asked = True, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._asked > _IMPATIENT_SECONDS:
            self.haste = True
