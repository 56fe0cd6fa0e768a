"""Past the store, when it cannot take anything: each client by a transfer of his own, with the same gate before his last bytes."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from index_frontend.digest_gate import DigestGate, DigestMismatch, Tally
from index_frontend.fill.transfer import Transfer
from index_frontend.ports import Source, SourceAway, SourceBody, SourceGone, SourceWrong, StorageBroken, Wanted, nowhere
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

log = logging.getLogger(__name__)

_PIECE_BYTES: Final = 256 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Through:
    """An open transfer to one client. `total` is the length of the whole."""

    source: str
    total: int
    wanted: Wanted
    body: SourceBody
    given: Transfer | None

    async def pieces(self, start: int = 0) -> AsyncGenerator[bytes, None]:
        """The bytes from `start` on, the last 64 KiB only when all are right. Raises SourceAway, SourceWrong."""
        try:
            async with aclosing(self._let_out(start)) as pieces:
                async for piece in pieces:
                    yield piece
        except DigestMismatch as mismatch:
            log.exception("wrong bytes", extra={"file": self.wanted.name, "source": self.source})
            told = f"matrix-pypi: {self.wanted.name}: {self.source} sent other bytes than the index names"
            raise SourceWrong(told) from mismatch

    async def _let_out(self, start: int) -> AsyncGenerator[bytes, None]:
        gate = DigestGate(Tally(self.wanted.sha256, size=self.total, max_bytes=self.wanted.max_bytes))
        skip = start
        async with aclosing(self._all()) as chunks:
            async for chunk in chunks:
                out = gate.feed(chunk)
                if piece := out[skip:]:
                    yield piece
                skip -= min(skip, len(out))
        if piece := gate.finish()[skip:]:
            yield piece

    async def _all(self) -> AsyncGenerator[bytes, None]:
        position = 0
        while self.given is not None and position < self.given.released:
            piece = await self.given.read(position, _PIECE_BYTES)
            if not piece:
                raise StorageBroken("a part is shorter than it was")
            position += len(piece)
            yield piece
        async with aclosing(self.body.chunks()) as chunks:
            async for chunk in chunks:
                yield chunk


@asynccontextmanager
async def through(sources: Sequence[Source], wanted: Wanted, given: Transfer | None = None) -> AsyncIterator[Through]:
    """From the first source that answers; what a client has of `given` already is hashed again and goes on where that stopped.

    Raises SourceGone, SourceAway or SourceWrong when no source answers (or not with what is as long as `given`), StorageBroken when
    none says how long the whole is.
    """
    start = 0 if given is None else given.released
    async with AsyncExitStack() as stack:
        body = await _first(stack, sources, wanted, start)
        total = wanted.size if body.size is None else body.size
        if total is None:
            told = f"matrix-pypi: {wanted.name} cannot be stored now, and nobody says how long it is"
            raise StorageBroken(told, code=ProblemCode.FILE_UNAVAILABLE)
        if given is not None and given.total not in (None, total):
            # The client was told that length: with a larger one its last bytes would not be held back any more.
            raise SourceWrong(f"matrix-pypi: {wanted.name}: {body.sender} has {total} bytes now, {given.total} before")
        yield Through(source=body.sender, total=total, wanted=wanted, body=body, given=given)


async def _first(stack: AsyncExitStack, sources: Sequence[Source], wanted: Wanted, start: int) -> SourceBody:
    problem: Problem = nowhere(wanted)
    for source in sources:
        for way in source.ways(wanted):
            try:
                return await stack.enter_async_context(source.fetch(way, start))
            except (SourceGone, SourceAway, SourceWrong) as error:
                problem = error
    raise problem
