"""A store in memory, for tests and demonstrations. One process, nothing survives it."""

from __future__ import annotations

import io
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import BinaryIO, Final

from index_frontend.ports import BlockPlace, Damaged, DigestMismatch, Held, Verified
from matrix_pypi_bot.wire.cids import Block, Cid, CidBuilder
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import Stored

WRONG_SECONDS: Final = 60.0
MAX_PLACES: Final = 16


class MemoryPart:
    """Bytes that a MemoryWriter appends to."""

    def __init__(self) -> None:
        self.total: int | None = None
        self.data = bytearray()
        self.gone = False
        self.committed: Held | None = None

    def length(self) -> int:
        """Bytes there so far."""
        return len(self.data)

    def is_gone(self) -> bool:
        """Whether its writer threw it away."""
        return self.gone

    def became(self, held: Held) -> bool:
        """Whether its writer committed it as this."""
        return self.committed is held

    async def read(self, start: int, count: int) -> bytes:
        """A copy."""
        return bytes(self.data[start : start + count])

    def close(self) -> None:
        """Nothing to close."""


class MemoryWriter:
    """Writes one object of a MemoryStore."""

    def __init__(self, sha256: Sha256, keep: Callable[[Held, bytes, list[Block]], None]) -> None:
        self.size = 0
        self.now = MemoryPart()
        self._sha256 = sha256
        self._keep = keep

    def part(self) -> MemoryPart:
        """The part itself."""
        return self.now

    async def expect(self, total: int) -> None:
        """Kept at the part."""
        self.now.total = total

    async def write(self, data: bytes) -> None:
        """Appends."""
        self.now.data += data
        self.size += len(data)

    async def restart(self) -> None:
        """With an empty part."""
        self.now.gone = True
        self.now, self.size = MemoryPart(), 0

    async def commit(self, verified: Verified, whole: bytes | bytearray | None = None) -> Held:
        """Raises DigestMismatch."""
        await self.write(bytes(whole or b""))
        if verified != Verified(self._sha256, self.size):
            raise DigestMismatch(
                "other bytes were verified", expected=self._sha256, actual=verified.sha256, size=self.size
            )
        blocks: list[Block] = []
        builder = CidBuilder(on_block=blocks.append)
        builder.update(self.now.data)
        held = Held(sha256=self._sha256, size=self.size, cid=builder.finish())
        self.now.committed = held
        self._keep(held, bytes(self.now.data), blocks)
        return held


class MemoryStore:
    """What `ports.ContentStore` promises, as long as the process lives."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._objects: dict[Sha256, tuple[Held, bytes]] = {}
        self._pins: dict[Sha256, str] = {}
        self._blocks: dict[Cid, dict[Sha256, Block]] = {}
        self._wanted: dict[tuple[str, str, Sha256], None] = {}
        self._writing: dict[Sha256, MemoryWriter] = {}
        self._wrong: dict[Sha256, float] = {}
        self._metadata: dict[tuple[Sha256, str, str], None] = {}
        self._reports: dict[tuple[str, str, str], tuple[Stored, bool]] = {}

    def held(self, sha256: Sha256) -> Held | None:
        """From a dict."""
        known = self._objects.get(sha256)
        return None if known is None else known[0]

    async def find(self, sha256: Sha256) -> Held | None:
        """There is nobody else who could have stored it."""
        return self.held(sha256)

    def open(self, held: Held) -> BinaryIO:
        """The bytes as a file."""
        if held.sha256 not in self._objects:
            raise Damaged(f"the stored file {held.sha256} is gone")
        return io.BytesIO(self._objects[held.sha256][1])

    async def recheck(self, sha256: Sha256) -> Held | None:
        """Memory does not rot."""
        return self.held(sha256)

    @asynccontextmanager
    async def writer(self, sha256: Sha256) -> AsyncIterator[MemoryWriter | Held | None]:
        """One writer an object."""
        if sha256 in self._writing:
            yield None
        elif (held := self.held(sha256)) is not None:
            yield held
        else:
            writer = self._writing[sha256] = MemoryWriter(sha256, self._keep)
            try:
                yield writer
            finally:
                writer.now.gone = writer.now.committed is None
                del self._writing[sha256]

    def follow(self, sha256: Sha256) -> MemoryPart | None:
        """The part of the writer of this process."""
        writer = self._writing.get(sha256)
        return None if writer is None or not writer.size else writer.now

    async def note_wrong(self, sha256: Sha256) -> None:
        """With the time."""
        self._wrong[sha256] = self._monotonic()

    async def was_wrong(self, sha256: Sha256) -> bool:
        """By the time."""
        return self._monotonic() - self._wrong.get(sha256, -WRONG_SECONDS) < WRONG_SECONDS

    async def note_wanted(self, project: str, file: str, sha256: Sha256) -> None:
        """In order of asking."""
        self._wanted[project, file, sha256] = None

    async def forget_wanted(self, project: str, file: str, sha256: Sha256) -> None:
        """Also one that was never noted."""
        self._wanted.pop((project, file, sha256), None)

    async def wanted(self, limit: int = 500) -> list[tuple[str, str, Sha256]]:
        """Oldest first."""
        return list(self._wanted)[:limit]

    async def note_asked(self, stored: Stored) -> bool:
        """In order of asking."""
        await self.forget_wanted(stored.project, stored.file, Sha256(stored.sha256))
        key = (stored.project, stored.file, stored.sha256)
        known = key in self._reports
        self._reports.setdefault(key, (stored, False))
        return not known

    async def unreported(self, limit: int = 500) -> list[Stored]:
        """Oldest first."""
        return [stored for stored, done in self._reports.values() if not done][:limit]

    async def reported(self, stored: Stored) -> None:
        """Kept, so that it is not noted again."""
        self._reports[stored.project, stored.file, stored.sha256] = (stored, True)

    def used(self, sha256: Sha256) -> None:
        """Nothing is evicted here."""

    async def delete(self, sha256: Sha256) -> bool:
        """With its blocks, as far as no other file has them."""
        if sha256 in self._pins or self._objects.pop(sha256, None) is None:
            return False
        for cid in [cid for cid, files in self._blocks.items() if files.pop(sha256, None) and not files]:
            del self._blocks[cid]
        return True

    async def pin(self, sha256: Sha256, name: str) -> bool:
        """In a dict."""
        if sha256 in self._objects:
            self._pins[sha256] = name
        return sha256 in self._objects

    async def unpin(self, sha256: Sha256) -> None:
        """From the dict."""
        self._pins.pop(sha256, None)

    async def pin_of(self, sha256: Sha256) -> str | None:
        """From the dict."""
        return self._pins.get(sha256)

    async def pinned(self) -> int:
        """How many are."""
        return len(self._pins)

    async def all(self, after: Sha256 | None = None) -> AsyncIterator[Held]:
        """What was here when it was asked."""
        for sha256, (held, _) in sorted(self._objects.items()):
            if after is None or sha256 > after:
                yield held

    async def totals(self) -> tuple[int, int]:
        """Counted."""
        return sum(held.size for held, _ in self._objects.values()), len(self._objects)

    async def check(self) -> None:
        """There is always room."""

    async def places_of(self, cid: Cid) -> tuple[BlockPlace, ...]:
        """From a dict."""
        blocks = list(self._blocks.get(cid, {}).items())[:MAX_PLACES]
        return tuple(_place(sha256, block) for sha256, block in blocks)

    async def open_leaf(self, place: BlockPlace) -> None:
        """There are no files here."""

    async def read_block(self, place: BlockPlace) -> bytes:
        """A slice of the file, or the node as it was made. Raises Damaged."""
        block = self._blocks.get(place.cid, {}).get(place.sha256)
        if block is None:
            raise Damaged(f"the stored file {place.sha256} is gone")
        if block.data is not None:
            return block.data
        return self._objects[place.sha256][1][block.offset : block.offset + block.size]

    async def askers_of(self, sha256: Sha256) -> tuple[tuple[str, str], ...]:
        """In order of asking."""
        return tuple((one.project, one.file) for one, done in self._reports.values() if done and one.sha256 == sha256)

    async def note_metadata(self, sha256: Sha256, project: str, file: str) -> None:
        """In order of asking."""
        self._metadata[sha256, project, file] = None

    async def metadata_of(self, sha256: Sha256) -> tuple[tuple[str, str], ...]:
        """In order of asking."""
        told = {(one.project, one.file) for one, done in self._reports.values() if done}
        named = [(project, file) for digest, project, file in self._metadata if digest == sha256]
        return tuple(wheel for wheel in named if wheel in told)

    def _keep(self, held: Held, data: bytes, blocks: list[Block]) -> None:
        self._objects[held.sha256] = (held, data)
        for block in blocks:
            self._blocks.setdefault(block.cid, {}).setdefault(held.sha256, block)


def _place(sha256: Sha256, block: Block) -> BlockPlace:
    if block.data is None:
        return BlockPlace(cid=block.cid, sha256=sha256, size=block.size, offset=block.offset)
    return BlockPlace(cid=block.cid, sha256=sha256, size=len(block.data), offset=None)
