"""A store in memory, for tests and demonstrations. One process, nothing survives it."""

from __future__ import annotations

import io
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import BinaryIO, Final

from index_frontend.ports import Damaged, DigestMismatch, Held, Verified
from matrix_pypi_bot.wire.cids import Cid, CidBuilder
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import Stored

WRONG_SECONDS: Final = 60.0


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

    def __init__(self, sha256: Sha256, objects: dict[Sha256, tuple[Held, bytes]]) -> None:
        self.size = 0
        self.now = MemoryPart()
        self._sha256 = sha256
        self._objects = objects

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
        held = Held(sha256=self._sha256, size=self.size, cid=_cid(self.now.data))
        self.now.committed = held
        self._objects[self._sha256] = (held, bytes(self.now.data))
        return held


class MemoryStore:
    """What `ports.ContentStore` promises, as long as the process lives."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._objects: dict[Sha256, tuple[Held, bytes]] = {}
        self._wanted: dict[tuple[str, str, Sha256], None] = {}
        self._writing: dict[Sha256, MemoryWriter] = {}
        self._wrong: dict[Sha256, float] = {}
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
            writer = self._writing[sha256] = MemoryWriter(sha256, self._objects)
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


def _cid(data: bytearray) -> Cid:
    builder = CidBuilder()
    builder.update(data)
    return builder.finish()
