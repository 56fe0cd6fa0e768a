"""The plug-in `memory`: a place that forgets everything when its process ends. To try things out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from index_frontend.storage.memory import MemoryStore
from index_frontend.storage.registry import read_section
from index_frontend.storage.store_backend import StoreBackend
from matrix_pypi_bot.process.settings import Section


class MemorySettings(Section, frozen=True, kw_only=True):
    """There is nothing to say."""


def memory_backend(name: str, section: Mapping[str, Any]) -> StoreBackend:
    """Raises Misconfigured."""
    read_section(MemorySettings, section, backend=name)
    store = MemoryStore()

    @asynccontextmanager
    async def opening() -> AsyncIterator[MemoryStore]:
        yield store

    return StoreBackend(name, opening)
