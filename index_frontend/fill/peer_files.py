"""What neighbours have: files by their blocks, a wheel's METADATA as a block of its own, or by those few that it lies in."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Final

from index_frontend.blocks import BlockFile, Blocks
from index_frontend.dag.blocks import LEAF_BYTES
from index_frontend.fill.wheel_metadata import Bytes, metadata_of
from index_frontend.ports import SourceAway, SourceBody, SourceGone, Wanted
from matrix_pypi_bot.wire.cids import raw_cid
from matrix_pypi_bot.wire.digests import sha256_of

MAX_LEAVES: Final = 20
"""Of a wheel, for its METADATA: its directory is at most 8 MiB, METADATA too, each may begin within a leaf."""


class PeerFiles:
    """A `ports.Source` over `Blocks`. Wheels of up to `max_file_bytes` are looked into."""

    name = Blocks.name

    def __init__(self, blocks: Blocks, *, max_file_bytes: int) -> None:
        self._blocks = blocks
        self._max_file_bytes = max_file_bytes

    def ways(self, wanted: Wanted) -> tuple[Wanted, ...]:
        """Those of the file; for METADATA those of its wheel whose CID was attested, else its own block alone."""
        if not wanted.is_metadata:
            return self._blocks.ways(wanted)
        if wanted.wheel is None:
            return ()
        ways = self._blocks.ways(self._wheel_of(wanted)) if wanted.cids else ()
        ways = ways or self._blocks.ways(_alone(wanted))
        return tuple(replace(wanted, urls=(), cids=way.cids) for way in ways)

    def fetch(self, wanted: Wanted, start: int = 0) -> AbstractAsyncContextManager[SourceBody]:
        """Raises SourceGone, SourceAway, SourceWrong."""
        return self._metadata(wanted, start) if wanted.is_metadata else self._blocks.fetch(wanted, start)

    @asynccontextmanager
    async def _metadata(self, wanted: Wanted, start: int) -> AsyncIterator[SourceBody]:
        """As a block, which is one question; else out of the wheel."""
        alone = _alone(wanted)
        async with AsyncExitStack() as stack:
            try:
                body = await stack.enter_async_context(self._blocks.fetch(alone, start))
            except (SourceGone, SourceAway):
                if wanted.cids == alone.cids:
                    raise
            else:
                yield body
                return
        file = await self._blocks.open(self._wheel_of(wanted))
        data = await _metadata_in(file, wanted.max_bytes)
        if data is None or sha256_of(data) != wanted.sha256:
            raise SourceGone(f"matrix-pypi: {wanted.name} cannot be taken out of the wheel that peers have")
        yield Bytes(data, start, file.sender)

    def _wheel_of(self, wanted: Wanted) -> Wanted:
        assert wanted.wheel is not None
        return replace(wanted, sha256=wanted.wheel, name=wanted.file, max_bytes=self._max_file_bytes, wheel=None)


def _alone(wanted: Wanted) -> Wanted:
    """METADATA as a file of its own: up to 1 MiB that is one leaf, whose CID its digest tells."""
    return replace(wanted, urls=(), cids=(raw_cid(wanted.sha256),), wheel=None)


async def _metadata_in(file: BlockFile, max_bytes: int) -> bytes | None:
    """What `metadata_of` finds, leaf after leaf as it asks for them; None, too, when it asks for too many."""
    sparse = _Sparse(file.size)
    for _ in range(MAX_LEAVES):
        try:
            return await asyncio.to_thread(metadata_of, sparse, max_bytes)
        except _MissingError as missing:
            start = missing.index * LEAF_BYTES
            sparse.leaves[missing.index] = b"".join([piece async for piece in file.chunks(start, start + LEAF_BYTES)])
    return None


class _MissingError(Exception):
    """A leaf that must be had before the reading can go on."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


class _Sparse(io.BytesIO):
    """A file of which some leaves are here. Reading from another one raises _MissingError."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.leaves: dict[int, bytes] = {}
        self._size = size
        self._at = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        """Anywhere in the file, or beyond it."""
        at = offset + (0, self._at, self._size)[whence]
        if at < 0:
            raise ValueError("before the beginning")
        self._at = at
        return at

    def tell(self) -> int:
        """Where it is."""
        return self._at

    def read(self, count: int | None = -1) -> bytes:
        """Raises _MissingError; then it is where it was."""
        left = max(0, self._size - self._at)
        count = left if count is None or count < 0 else min(count, left)
        parts: list[bytes] = []
        at = self._at
        while count:
            index, offset = divmod(at, LEAF_BYTES)
            if index not in self.leaves:
                raise _MissingError(index)
            part = self.leaves[index][offset : offset + count]
            parts.append(part)
            at += len(part)
            count -= len(part)
        self._at = at
        return b"".join(parts)
