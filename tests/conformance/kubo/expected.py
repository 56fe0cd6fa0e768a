"""Files that the tests of the Kubo backend keep, and ways to look at them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from index_frontend.storage.api import ContentId, StorageBackend
from matrix_pypi_bot.wire.cids import CidBuilder
from matrix_pypi_bot.wire.digests import sha256_of

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class File:
    """A file that no other test has."""

    data: bytes

    @classmethod
    def of(cls, seed: str, size: int) -> File:
        """`size` bytes that `seed` tells."""
        return cls(hashlib.shake_128(seed.encode()).digest(size))

    @property
    def content(self) -> ContentId:
        """What it is."""
        builder = CidBuilder()
        builder.update(self.data)
        return ContentId(sha256=sha256_of(self.data), size=len(self.data), cid=builder.finish())

    async def chunks(self, step: int = 300_000) -> AsyncGenerator[bytes, None]:
        """Its bytes, in pieces that fit no block."""
        for start in range(0, len(self.data), step):
            yield self.data[start : start + step]


async def read_all(backend: StorageBackend, content: ContentId) -> bytes:
    """Every byte that the backend gives."""
    async with backend.read(content) as chunks:
        return b"".join([chunk async for chunk in chunks])
