"""Small files in memory: most requests are for a few kilobytes, and opening a file costs more than sending it."""

from __future__ import annotations

from cachetools import LRUCache

from matrix_pypi_bot.wire.digests import Sha256

_OVERHEAD_BYTES = 1_000  # of the objects around a body


class SmallBodies:
    """The least recently served go first when `max_bytes` are full. Whether one may be served is asked of the oracle, each time.

    Who puts a body has hashed it.
    """

    def __init__(self, max_bytes: int) -> None:
        self._bodies: LRUCache[Sha256, bytes] = LRUCache(max_bytes, getsizeof=_size_of)

    def get(self, sha256: Sha256) -> bytes | None:
        """The body, if it is in memory."""
        return self._bodies.get(sha256)

    def put(self, sha256: Sha256, body: bytes) -> None:
        """Remembers it, if it fits at all."""
        if _size_of(body) <= self._bodies.maxsize:
            self._bodies[sha256] = body


def _size_of(body: bytes) -> int:
    return len(body) + _OVERHEAD_BYTES
