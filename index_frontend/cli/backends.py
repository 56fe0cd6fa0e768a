"""Which backends a configuration names, for the commands that work with them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from index_frontend.config import EMBEDDED, Settings, load
from index_frontend.storage.api import Misconfigured
from index_frontend.storage.registry import make_backends
from index_frontend.storage.verified import Verified
from matrix_pypi_bot.process.command_line import NeededIsMissing


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
