"""Files as CAR archives on disk: written from any backend, read with every block checked. No file's CID changes on the way.

An archive that is read may come from anywhere; it is read once from its beginning to its end, and after that single blocks by their
place. Which files are in it is told by its roots; whole is a file when every block below its root is there.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO, Final

from index_frontend.dag.blocks import BadBlock, Link, children, is_leaf, read_node, root_of
from index_frontend.dag.car import BadCar, CarReader, car_header, car_section, car_section_bytes
from index_frontend.storage.api import Capability, ContentId, StorageBackend, Unavailable
from matrix_pypi_bot.wire.cids import Block, Cid, CidBuilder
from matrix_pypi_bot.wire.digests import Sha256

_READ_BYTES: Final = 1 << 20
_MAX_ARCHIVE_BYTES: Final = 1 << 50

Told = Callable[[int], object]
"""Is told of bytes that are done, as they are."""


async def car_of(backend: StorageBackend, content: ContentId) -> AsyncGenerator[bytes, None]:
    """The CAR of a file that the backend holds: its root, then every block depth first, none twice; as Kubo exports it.

    The backend is a `Verified` one. Raises NotFound, Unavailable or WrongContent; what came until then is no whole archive.
    """
    nodes = await _nodes_of(backend, content)
    yield car_header(content.cid)
    seen: set[Cid] = set()
    async with backend.read(content) as chunks:
        walk = _blocks(root_of(content.cid, content.size), nodes, _Leaves(chunks, backend.name))
        async with aclosing(walk):
            async for cid, data in walk:
                if cid not in seen:
                    seen.add(cid)
                    yield car_section(cid, data)


async def write_car(backend: StorageBackend, content: ContentId, path: Path, told: Told = lambda count: None) -> None:
    """`path` is the CAR of the file; it appears when it is whole and on the disk."""
    part = path.with_name(f".{path.name}.{token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            async with aclosing(car_of(backend, content)) as pieces:
                async for piece in pieces:
                    await asyncio.to_thread(file.write, piece)
                    told(len(piece))
            await asyncio.to_thread(_sync, file)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@dataclass(slots=True)
class Archive:
    """A CAR that was read and is open. `places` are its blocks: where each begins, and how long it is."""

    roots: tuple[Cid, ...]
    places: dict[Cid, tuple[int, int]]
    _file: BinaryIO

    @classmethod
    def read(cls, file: BinaryIO, told: Told = lambda count: None) -> Archive:
        """`file`, which stays open, from its beginning to its end. Blocking. Raises BadCar."""
        reader, places, position = CarReader(max_bytes=_MAX_ARCHIVE_BYTES), dict[Cid, tuple[int, int]](), 0
        while chunk := file.read(_READ_BYTES):
            blocks = reader.feed(chunk)
            if not position and reader.roots is not None:
                position = len(car_header(*reader.roots))
            for cid, data in blocks:
                position += car_section_bytes(len(data))
                places.setdefault(cid, (position - len(data), len(data)))
            told(len(chunk))
        reader.finish()
        return cls(tuple(dict.fromkeys(reader.roots or ())), places, file)

    def content(self, root: Cid, told: Told = lambda count: None) -> ContentId:
        """What the file below `root` is. Blocking. Raises BadCar unless all of it is here and is a file of our profile."""
        digest, count = hashlib.sha256(), 0
        for data in self.leaves(root):
            digest.update(data)
            count += len(data)
            told(len(data))
        return ContentId(sha256=Sha256(digest.hexdigest()), size=count, cid=root)

    def leaves(self, root: Cid) -> Iterator[bytes]:
        """The file below `root`, leaf by leaf. Blocking. Raises BadCar."""
        data = self._block(root)
        try:
            size = len(data) if is_leaf(root) else sum(read_node(data)[1])
            yield from self._below(root_of(root, size), data)
        except BadBlock as error:
            raise BadCar(f"{root} is not a file in the profile unixfs-v1-2025: {error.detail}") from error

    async def chunks(self, root: Cid, told: Told = lambda count: None) -> AsyncIterator[bytes]:
        """The same beside the event loop."""
        leaves = self.leaves(root)
        while (data := await asyncio.to_thread(next, leaves, None)) is not None:
            if data:
                yield data
            told(len(data))

    def _below(self, link: Link, data: bytes) -> Iterator[bytes]:
        below = children(link, data)
        if link.level == 0:
            yield data
        for child in below:
            yield from self._below(child, self._block(child.cid))

    def _block(self, cid: Cid) -> bytes:
        if cid not in self.places:
            raise BadCar(f"the block {cid} is missing")
        start, size = self.places[cid]
        self._file.seek(start)
        return self._file.read(size)


class _Leaves:
    """A stream, cut to measure."""

    def __init__(self, chunks: AsyncIterator[bytes], backend: str) -> None:
        self._chunks = chunks
        self._backend = backend
        self._rest = bytearray()

    async def take(self, count: int) -> bytes:
        """The next `count` bytes; with those of the file's end comes the stream's end, which says that all of it was right."""
        while len(self._rest) < count:
            chunk = await anext(self._chunks, None)
            if chunk is None:
                raise Unavailable("broke off", backend=self._backend)
            self._rest += chunk
        data = bytes(self._rest[:count])
        del self._rest[:count]
        return data


async def _nodes_of(backend: StorageBackend, content: ContentId) -> dict[Cid, bytes]:
    """The nodes that stand above the file's leaves: 50 kB for each GiB."""
    root = root_of(content.cid, content.size)
    if root.level == 0:
        return {}
    if Capability.BLOCKS in backend.capabilities:
        return await _fetched(backend, root)
    nodes: dict[Cid, bytes] = {}

    def keep(block: Block) -> None:
        if block.data is not None:
            nodes[block.cid] = block.data

    builder = CidBuilder(on_block=keep)
    async with backend.read(content) as chunks:
        async for chunk in chunks:
            await asyncio.to_thread(builder.update, chunk)
    builder.finish()
    return nodes


async def _fetched(backend: StorageBackend, link: Link) -> dict[Cid, bytes]:
    if link.level == 0:
        return {}
    nodes = {link.cid: await backend.get_block(link.cid)}
    for child in children(link, nodes[link.cid]):
        nodes |= await _fetched(backend, child)
    return nodes


async def _blocks(link: Link, nodes: dict[Cid, bytes], leaves: _Leaves) -> AsyncGenerator[tuple[Cid, bytes], None]:
    """Depth first."""
    if link.level == 0:
        yield link.cid, await leaves.take(link.size)
        return
    yield link.cid, nodes[link.cid]
    for child in children(link, nodes[link.cid]):
        async for block in _blocks(child, nodes, leaves):
            yield block


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
