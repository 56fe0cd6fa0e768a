"""Backends for tests: a dictionary that can do everything, and what a careless or evil plug-in makes of it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from importlib.metadata import EntryPoint
from typing import Any

from index_frontend.storage.api import ContentId, Health, NotFound, Stat, StorageBackend, Usage
from matrix_pypi_bot.wire.cids import Block, Cid, CidBuilder
from matrix_pypi_bot.wire.digests import Sha256, sha256_of

MIB = 1 << 20


def vector(size: int) -> bytes:
    """The bytes of the CID vectors."""
    blocks = range((size + 31) // 32)
    return b"".join(hashlib.sha256(b"matrix-pypi-cid-vector" + i.to_bytes(8, "big")).digest() for i in blocks)[:size]


def content_of(data: bytes) -> ContentId:
    """What a file of these bytes is called."""
    builder = CidBuilder()
    builder.update(data)
    return ContentId(sha256=sha256_of(data), size=len(data), cid=builder.finish())


def blocks_of(data: bytes) -> dict[Cid, bytes]:
    """Every leaf and node of a file of these bytes."""
    found: dict[Cid, bytes] = {}

    def keep(block: Block) -> None:
        found[block.cid] = data[block.offset : block.offset + block.size] if block.data is None else block.data

    builder = CidBuilder(on_block=keep)
    builder.update(data)
    builder.finish()
    return found


async def chunks_of(data: bytes, size: int = 256 << 10) -> AsyncIterator[bytes]:
    """In chunks of `size`."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def read_all(backend: StorageBackend, content: ContentId) -> bytes:
    """The whole file."""
    async with backend.read(content) as chunks:
        return b"".join([chunk async for chunk in chunks])


class DictBackend(StorageBackend):
    """Holds files in a dictionary. `files` and `blocks` may be changed under it."""

    def __init__(self, name: str = "dict", files: Iterable[bytes] = ()) -> None:
        super().__init__(name)
        self.files: dict[ContentId, bytes] = {}
        self.blocks: dict[Cid, bytes] = {}
        self.pins: dict[ContentId, str] = {}
        self.calls: list[str] = []
        for data in files:
            self._keep(content_of(data), data)

    def _keep(self, content: ContentId, data: bytes) -> None:
        self.files[content] = data
        self.blocks |= blocks_of(data)

    async def open(self) -> None:
        self.calls.append("open")

    async def close(self) -> None:
        self.calls.append("close")

    async def stat(self, content: ContentId) -> Stat | None:
        return Stat(content=content, pin=self.pins.get(content)) if content in self.files else None

    @asynccontextmanager
    async def read(self, content: ContentId) -> AsyncIterator[AsyncIterator[bytes]]:
        if content not in self.files:
            raise NotFound("does not have it", backend=self.name)
        yield chunks_of(self.files[content])

    async def health(self) -> Health:
        return Health(state="ok", detail="a dictionary")

    async def put(self, content: ContentId, chunks: AsyncIterator[bytes]) -> None:
        if content in self.files:
            return
        self._keep(content, b"".join([chunk async for chunk in chunks]))

    async def delete(self, content: ContentId) -> bool:
        if content in self.pins or content not in self.files:
            return False
        del self.files[content]
        self.blocks = {}
        for data in self.files.values():
            self.blocks |= blocks_of(data)
        return True

    async def get_block(self, cid: Cid) -> bytes:
        try:
            return self.blocks[cid]
        except KeyError as error:
            raise NotFound("does not have it", backend=self.name) from error

    async def pin(self, content: ContentId, name: str) -> None:
        if content not in self.files:
            raise NotFound("does not have it", backend=self.name)
        self.pins[content] = name

    async def unpin(self, content: ContentId) -> None:
        self.pins.pop(content, None)

    async def list(self, *, after: Sha256 | None = None) -> AsyncIterator[Stat]:
        for content in sorted(self.files, key=lambda one: one.sha256):
            if after is None or content.sha256 > after:
                yield Stat(content=content, pin=self.pins.get(content))

    async def usage(self) -> Usage:
        return Usage(bytes=sum(map(len, self.files.values())), files=len(self.files))


class ReadOnlyBackend(StorageBackend):
    """Only what every backend must have."""

    def __init__(self, name: str = "bare", files: Iterable[bytes] = ()) -> None:
        super().__init__(name)
        self.inner = DictBackend(name, files)

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def stat(self, content: ContentId) -> Stat | None:
        return await self.inner.stat(content)

    def read(self, content: ContentId) -> Any:
        return self.inner.read(content)

    async def health(self) -> Health:
        return Health(state="ok")


def plugin(name: str, value: str) -> EntryPoint:
    """An entry point as an installed plug-in has it."""
    return EntryPoint(name=name, value=value, group="matrix_pypi.storage")
