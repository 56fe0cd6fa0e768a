"""The frontend as a process: its parts put together, listening, in one process or in several that share a port."""

from __future__ import annotations

from functools import partial

from index_frontend.app.process import serve
from index_frontend.app.workers import supervise
from index_frontend.config import Settings
from matrix_pypi_bot.process.lifecycle import run_until_signal

__all__ = ["run"]


def run(settings: Settings, workers: int) -> None:
    """Serve with `workers` processes until SIGTERM or SIGINT. Raises Problem when it cannot begin, or cannot go on."""
    if workers == 1:
        # asyncio's own loop: uvloop has no sendfile, without which a large file costs twice the time.
        run_until_signal(partial(serve, settings), prefer_uvloop=False)
    else:
        supervise(settings, workers)
