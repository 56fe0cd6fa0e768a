"""Large values on their way into the database and out of it: compressed, and off the event loop when that takes long."""

from __future__ import annotations

import asyncio
from typing import Final

import zstandard

IN_THREAD_BYTES: Final = 128 << 10  # compressing less takes under half a millisecond, as long as a hop to a thread
_LEVEL: Final = 1  # 4 MB in 8 ms; higher levels win little on digests, which do not compress


async def pack(data: bytes) -> bytes:
    """`data` as one zstd frame that knows its length."""
    if len(data) < IN_THREAD_BYTES:
        return _compressed(data)
    return await asyncio.to_thread(_compressed, data)


async def unpack(packed: bytes) -> bytes:
    """What `pack` was given."""
    if len(packed) < IN_THREAD_BYTES:
        return zstandard.decompress(packed)
    return await asyncio.to_thread(zstandard.decompress, packed)


def _compressed(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=_LEVEL).compress(data)
