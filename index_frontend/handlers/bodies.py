"""Small files in memory: most requests are for a few kilobytes, and opening a file costs more than sending it."""

from __future__ import annotations

from dataclasses import dataclass

from cachetools import LRUCache

from index_frontend.ports import Held
from matrix_pypi_bot.wire.digests import Sha256

_OVERHEAD_BYTES = 1_000  # of the objects around a body


@dataclass(frozen=True, slots=True)
class SmallBody:
    """A whole file, hashed when it was read."""

    held: Held
    data: bytes


class SmallBodies:
    """The least recently served go first when `max_bytes` are full. Whether one may be served is asked of the oracle, each time."""

    def __init__(self, max_bytes: int) -> None:
        self._bodies: LRUCache[Sha256, SmallBody] = LRUCache(max_bytes, getsizeof=_size_of)

    def get(self, sha256: Sha256) -> SmallBody | None:
        """The body, if it is in memory."""
        return self._bodies.get(sha256)

    def put(self, body: SmallBody) -> None:
        """Remembers it, if it fits at all."""
        if _size_of(body) <= self._bodies.maxsize:
            self._bodies[body.held.sha256] = body


def _size_of(body: SmallBody) -> int:
    return len(body.data) + _OVERHEAD_BYTES
