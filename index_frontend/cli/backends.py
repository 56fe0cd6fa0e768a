"""Which backends a configuration names, for the commands that work with them."""

from __future__ import annotations

import asyncio
import difflib
import errno
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from index_frontend.config import EMBEDDED, Settings, load
from index_frontend.storage.api import Misconfigured
from index_frontend.storage.registry import make_backends
from index_frontend.storage.verified import Verified
from matrix_pypi_bot.process.command_line import NeededIsMissing
from matrix_pypi_bot.wire.problems import clean_line

T = TypeVar("T")


def backends_in(config: Path) -> dict[str, Mapping[str, Any]]:
    """The section of each backend by its name, the embedded store first. Raises ConfigurationProblem."""
    settings = load(config)
    return {EMBEDDED: embedded(settings), **settings.backends}


def embedded(settings: Settings) -> dict[str, Any]:
    """The store in `storage.folder` as a section of its own."""
    storage = settings.storage
    limits = {key: getattr(storage, key) for key in ("max_bytes", "min_free_bytes", "min_free_inodes")}
    return {"type": EMBEDDED, "folder": str(storage.folder), **limits}


def maker(config: Path, name: str) -> Callable[[], Verified]:
    """Makes the backend called `name`, each time a new one. Raises ConfigurationProblem, and Misconfigured when there is none."""
    sections = backends_in(config)
    if name not in sections:
        near = difflib.get_close_matches(name, sections, n=1)
        hint = f"did you mean {near[0]}?" if near else f"{config} has: {', '.join(sections)}"
        raise Misconfigured("the configuration has no backend of this name", backend=name, hint=hint)
    return lambda: make_backends({name: sections[name]})[name]


def run(work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns. Being told to end cancels it, so that it puts back in order what it has begun.

    Raises NeededIsMissing for a file or folder of the operator's that cannot be read or written.
    """

    async def cancellable() -> T:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        return asyncio.run(cancellable())
    except asyncio.CancelledError:
        sys.exit(128 + signal.SIGTERM)
    except OSError as error:
        if error.errno == errno.EPIPE:  # who reads what we print has enough of it
            raise
        where = f"{error.filename}: " if error.filename is not None else ""
        told = clean_line(f"{where}{error.strerror or error}", 300)
        raise NeededIsMissing(told, hint="look at the path, its permissions, and the room on its disk") from error


async def opened_well(backend: Verified) -> Verified:
    """The backend, open. Raises NeededIsMissing when it is down."""
    await backend.open()
    health = await backend.health()
    if health.state == "down":
        await backend.close()
        raise NeededIsMissing(
            f"{backend.name} is down: {health.detail}", hint="look at its section in the configuration"
        )
    return backend
