"""What is held where, and how each place is: figures for operators, looked up when somebody asks for them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext, suppress
from types import MappingProxyType
from typing import Final

from index_frontend.config import EMBEDDED, Settings
from index_frontend.handlers.operations import Metrics
from index_frontend.ports import StorageProblem
from index_frontend.storage.api import BackendProblem, Capability, Health, Usage
from index_frontend.storage.filestore import FileStore
from index_frontend.storage.registry import make_backends
from index_frontend.storage.store_backend import StoreBackend
from index_frontend.storage.verified import Verified
from matrix_pypi_bot.process.lifecycle import Lifecycle

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 10.0
"""Anybody may ask for /metrics; the backends are looked at no more often than this."""
USAGE_SECONDS: Final = 2.0
_UP: Final = {"ok": 1.0, "degraded": 0.5, "down": 0.0}


class Holdings:
    """Tells `metrics` of each backend; `left_to_copy`: how many files are not copied there yet."""

    def __init__(
        self,
        backends: Mapping[str, Verified],
        metrics: Metrics,
        left_to_copy: Mapping[str, Callable[[], Awaitable[int]]] = MappingProxyType({}),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backends = backends
        self._left_to_copy = left_to_copy
        self._metrics = metrics
        self._clock = clock
        self._looking = asyncio.Lock()
        self._looked_at = float("-inf")

    async def look(self) -> None:
        """Within a few seconds, whatever the backends do; at once when that was just done."""
        async with self._looking:
            if self._clock() - self._looked_at < LOOK_SECONDS:
                return
            await asyncio.gather(*(self._one(name, backend) for name, backend in self._backends.items()))
            self._looked_at = self._clock()

    async def _one(self, name: str, backend: Verified) -> None:
        health = await backend.health()
        usage = None if health.state == "down" else await _usage(backend)
        told = figures(health, usage)
        if name in self._left_to_copy:
            with suppress(StorageProblem):
                told["uncopied_files"] = await self._left_to_copy[name]()
        self._metrics.holds(name, told)


def figures(health: Health, usage: Usage | None) -> dict[str, float]:
    """By the names of `operations.STORAGE_FIGURES`; what is not known is not there."""
    told: dict[str, float | None] = {"up": _UP[health.state]}
    if usage is not None:
        told |= {
            "bytes": usage.bytes,
            "files": usage.files,
            "pinned_files": usage.pinned_files,
            "limit_bytes": usage.limit_bytes,
        }
    return {name: value for name, value in told.items() if value is not None}


async def enter_backends(life: Lifecycle, settings: Settings) -> dict[str, Verified]:
    """Those of the configuration by name, open until `life` ends; one that does not open stays down. Raises Misconfigured."""
    backends = make_backends(settings.backends)
    for name, backend in backends.items():
        await _enter(life, name, backend)
    return backends


async def enter_embedded(life: Lifecycle, settings: Settings, store: FileStore) -> Verified:
    """The store itself as a backend."""
    opening = StoreBackend(EMBEDDED, lambda: nullcontext(store), limit_bytes=settings.storage.max_bytes)
    embedded = Verified(opening)
    await _enter(life, EMBEDDED, embedded)
    return embedded


async def _enter(life: Lifecycle, name: str, backend: Verified) -> None:
    life.on_stop(f"backend {name}", backend.close)
    try:
        await backend.open()
    except BackendProblem as problem:
        log.warning("storage backend cannot be opened", extra={"backend": name, "cause": problem.detail})


async def _usage(backend: Verified) -> Usage | None:
    if Capability.USAGE not in backend.capabilities:
        return None
    try:
        async with asyncio.timeout(USAGE_SECONDS):
            return await backend.usage()
    except (BackendProblem, TimeoutError) as error:
        log.warning("storage backend does not tell what it holds", extra={"backend": backend.name, "cause": str(error)})
        return None
