"""A backend under trial: files of the trial's own, and what to expect of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Never

from index_frontend.storage.api import Capability, ContentId, Stat, StorageBackend
from index_frontend.storage.verified import Verified
from matrix_pypi_bot.wire.cids import Block, Cid, CidBuilder
from matrix_pypi_bot.wire.digests import Sha256, sha256_of
from matrix_pypi_bot.wire.problems import Problem

MIB: Final = 1 << 20
SIZES: Final = (0, 1, 65_536, MIB - 1, MIB, MIB + 1, 10 * MIB)
_CHUNK_BYTES: Final = 200_000  # so that neither blocks nor the tail end where a chunk does


class Failed(Exception):
    """The backend does not do what it must."""


class NotApplicable(Exception):
    """It cannot be asked of this backend."""


class SourceBroke(Exception):
    """What a source of ours raises, to see whether it comes through."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A file and its name."""

    data: bytes
    content: ContentId

    @classmethod
    def of(cls, data: bytes) -> Sample:
        """The file of these bytes."""
        builder = CidBuilder()
        builder.update(data)
        return cls(data, ContentId(sha256=sha256_of(data), size=len(data), cid=builder.finish()))

    def blocks(self) -> dict[Cid, bytes]:
        """Every leaf and node of it."""
        found: dict[Cid, bytes] = {}

        def keep(block: Block) -> None:
            leaf = self.data[block.offset : block.offset + block.size]
            found[block.cid] = leaf if block.data is None else block.data

        builder = CidBuilder(on_block=keep)
        builder.update(self.data)
        builder.finish()
        return found


class Trial:
    """Stores, reads and removes. `known` are files that a backend which cannot store is known to have."""

    def __init__(self, make: Callable[[], StorageBackend], known: Sequence[Sample] = ()) -> None:
        self._make = make
        self.backend = self.another()
        self.known = tuple(known)
        self._stored: dict[ContentId, None] = {}

    def another(self) -> Verified:
        """A second backend of the same configuration, not open."""
        made = self._make()
        return made if isinstance(made, Verified) else Verified(made)

    def can(self, capability: Capability) -> bool:
        """Whether the backend can do this."""
        return capability in self.backend.capabilities

    def fresh(self, size: int) -> Sample:
        """A file that nobody has, unless it is empty."""
        return Sample.of(os.urandom(size))

    async def store(self, sample: Sample, chunks: AsyncIterator[bytes] | None = None) -> Sample:
        """Puts it, and remembers to remove it unless it was there before."""
        content = sample.content
        if content not in self._stored and await self.backend.stat(content) is None:
            self._stored[content] = None
        await self.backend.put(content, chunks or chunks_of(sample.data))
        return sample

    async def some(self, *sizes: int) -> list[Sample]:
        """Files that the backend has: just stored, or those that are known. Raises NotApplicable when there are none."""
        if self.can(Capability.PUT):
            return [await self.store(self.fresh(size)) for size in sizes]
        if not self.known:
            raise NotApplicable("it cannot store, and no file was named that it has")
        return list(self.known)

    async def expect_held(self, sample: Sample) -> None:
        """It is there, and reads as it is."""
        stat = await self.backend.stat(sample.content)
        expect(isinstance(stat, Stat), f"a file of {len(sample.data)} bytes is not there after it was stored")
        expect(await self.read(sample.content) == sample.data, f"a file of {len(sample.data)} bytes reads otherwise")

    async def expect_absent(self, content: ContentId, after: str) -> None:
        """Nobody sees it."""
        expect(await self.backend.stat(content) is None, f"a file is there after {after}")
        if self.can(Capability.LIST):
            async for stat in self.backend.list(after=before(content.sha256)):
                expect(stat.content.sha256 != content.sha256, f"a file is listed after {after}")
                break

    async def read(self, content: ContentId) -> bytes:
        """The whole file."""
        async with self.backend.read(content) as chunks:
            return b"".join([chunk async for chunk in chunks])

    async def remove(self, content: ContentId) -> bool:
        """Whether it is gone."""
        if self.can(Capability.PIN):
            await self.backend.unpin(content)
        await self.backend.delete(content)
        self._stored.pop(content, None)
        return await self.backend.stat(content) is None

    async def remove_all(self) -> list[ContentId]:
        """What could not be removed of all that was stored here."""
        if not self.can(Capability.DELETE):
            return [content for content in self._stored if await self.backend.stat(content) is not None]
        left = []
        for content in tuple(self._stored):
            try:
                gone = await self.remove(content)
            except Problem:
                gone = False
            if not gone:
                left.append(content)
        return left


async def chunks_of(data: bytes) -> AsyncIterator[bytes]:
    """In chunks that end nowhere in particular."""
    for start in range(0, len(data), _CHUNK_BYTES):
        yield data[start : start + _CHUNK_BYTES]


async def breaking(data: bytes, at: int) -> AsyncIterator[bytes]:
    """Raises SourceBroke behind byte `at`."""
    async for chunk in chunks_of(data[:at]):
        yield chunk
    raise SourceBroke


async def stalling(data: bytes, at: int, reached: asyncio.Event) -> AsyncIterator[bytes]:
    """Waits for ever behind byte `at`."""
    async for chunk in chunks_of(data[:at]):
        yield chunk
    reached.set()
    await asyncio.Event().wait()


def before(sha256: Sha256) -> Sha256 | None:
    """The digest that comes right before; None for the first."""
    number = int(sha256, 16)
    return Sha256(f"{number - 1:064x}") if number else None


def expect(holds: bool, otherwise: str) -> None:
    """Raises Failed unless it holds."""
    if not holds:
        raise Failed(otherwise)


async def expect_problem(
    kinds: type[Exception] | tuple[type[Exception], ...], call: Awaitable[object], what: str
) -> None:
    """`call` ends in one of these. Raises Failed when it does not."""
    expected = kinds if isinstance(kinds, tuple) else (kinds,)
    try:
        await call
    except expected:
        return
    except Exception as error:
        _wrong(what, expected, f"{type(error).__name__} ({error})")
    _wrong(what, expected, "nothing")


def _wrong(what: str, expected: tuple[type[Exception], ...], raised: str) -> Never:
    raise Failed(f"{what} raises {raised}, not {' or '.join(kind.__name__ for kind in expected)}")
