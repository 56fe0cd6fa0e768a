"""What a person sees while the stack starts: one line that changes on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Any, Final, Self

_REFRESH_SECONDS: Final = 0.1
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]")  # ends of logs are shown here, and spaces are kept


class Progress:
    """Prints lines, and between them which parts are still starting."""

    def __init__(self, names: Sequence[str], *, begun: float | None = None) -> None:
        self._names = names
        self._width = max(12, *map(len, names)) if names else 12
        self._waiting: set[str] = {*names}
        self._begun = time.monotonic() if begun is None else begun
        self._drawn = 0.0
        self._live: Any = None  # rich's, once it has been imported: only for terminals
        self._spinner: Any = None

    def __enter__(self) -> Self:
        """The clock runs."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The changing line goes away."""
        self.done()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._begun

    def say(self, line: str) -> None:
        """One line, above the changing one."""
        text = _UNPRINTABLE.sub(" ", line)
        if self._live is not None:
            self._live.console.print(text, highlight=False, markup=False, soft_wrap=True)
            return
        try:
            print(text, flush=True)
        except BrokenPipeError:  # whoever read our lines has read enough; the stack lives on
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def waiting_for(self, names: Collection[str]) -> None:
        """Those of the parts that do not answer yet. Says so when one has begun to."""
        for name in self._names:
            if name in self._waiting and name not in names:
                self._waiting.discard(name)
                self.say(f"  {name:<{self._width}} answers after {self.seconds:.1f} s")
        if sys.stdout.isatty() and time.monotonic() - self._drawn > _REFRESH_SECONDS:
            self._drawn = time.monotonic()
            self._draw()

    def done(self) -> None:
        """From now on only lines."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _draw(self) -> None:
        from rich.live import Live
        from rich.spinner import Spinner

        # Refreshed by hand: a thread of rich's would be running while children are forked.
        if self._live is None:
            self._spinner = Spinner("dots")
            self._live = Live(self._spinner, auto_refresh=False, transient=True)
            self._live.start()
        waiting = ", ".join(name for name in self._names if name in self._waiting)
        self._spinner.update(text=f"starting {waiting}  {self.seconds:.0f} s")
        self._live.refresh()
