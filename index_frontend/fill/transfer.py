"""One body on its way in, as its readers see it: how long it is, how much of it may be let out, how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from index_frontend.ports import Part
from matrix_pypi_bot.wire.problems import Problem

SMALL_BYTES: Final = 65_536
"""A body of this length goes out when it is verified, all at once: it is no longer than the tail that is held back anyway."""

MEMORY_BYTES: Final = 1 << 20
"""A body of this length is let out of memory, and written to the disk when all of it is verified: most files wait for no disk then."""


class Transfer:
    """Readers stick to one transfer from their first byte to their last: what follows a failed one may be other bytes.

    The bytes are in memory when the whole is short, else in a part. Nothing is shared but these, so a slow reader costs nobody
    else anything.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.total: int | None = None
        self.released = 0
        self.verified = False
        self.failure: Problem | None = None
        self._memory: bytearray | None = None
        self._part: Part | None = None
        self._readers = 0
        self._ended = False
        self._changed = asyncio.Event()

    # What its writer does ----------------------------------------------------------------------------------------------

    def expect(self, total: int) -> None:
        """The length of the whole is known."""
        self.total = total
        self._wake()

    def grow(self, source: Part | bytearray, released: int) -> None:
        """The first `released` bytes, all of them in `source` (the same each time), may be read."""
        if isinstance(source, bytearray):
            self._memory = source
        else:
            self._part = source
        if released > self.released:
            self.released = released
            self._wake()

    def succeed(self, size: int) -> None:
        """All of it is verified."""
        self.verified, self.total, self.released = True, size, size
        self._wake()

    def fail(self, problem: Problem) -> None:
        """Nothing more of it will come. Does nothing when it has ended already."""
        if not self.verified and self.failure is None:
            self.failure = problem
            self._wake()

    def end(self) -> None:
        """Its writer is done with it; the part is closed when the last reader leaves."""
        self._ended = True
        self._close_if_unused()

    @property
    def body(self) -> bytes | None:
        """The whole, when it is small and verified."""
        if self._memory is None or not self.verified or len(self._memory) > SMALL_BYTES:
            return None
        return bytes(self._memory)

    # What its readers do -----------------------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Keeps the bytes readable."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            self._close_if_unused()

    async def head(self) -> None:
        """Returns when the length is known or the transfer has ended, well or not."""
        while self.total is None and not self.verified and self.failure is None:
            await self._changed.wait()

    async def until(self, position: int) -> None:
        """Returns when the byte at `position` may be read, or all is verified. Raises what the transfer failed with."""
        while self.released <= position and not self.verified:
            if self.failure is not None:
                raise self.failure
            await self._changed.wait()

    async def whole(self) -> None:
        """Returns when all of it is verified. Raises what it failed with."""
        while not self.verified:
            if self.failure is not None:
                raise self.failure
            await self._changed.wait()

    async def read(self, start: int, count: int) -> bytes:
        """At most `count` released bytes from `start`, at least one where one is released."""
        stop = min(start + count, self.released)
        if self._memory is not None:
            with memoryview(self._memory) as view:
                return bytes(view[start:stop])
        assert self._part is not None, "nothing is released before there is something to read"
        return await self._part.read(start, stop - start)

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _close_if_unused(self) -> None:
        if self._ended and not self._readers and self._part is not None:
            self._part.close()
