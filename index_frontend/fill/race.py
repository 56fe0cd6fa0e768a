"""Two sources, one of them preferred: it has a head start, then both run, and the first that opens wins.

The preferred one that won must also go on: when it lets wait, the other one is there to.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from index_frontend.ports import Source, SourceAway, SourceBody, Wanted
from matrix_pypi_bot.wire.problems import Problem

SILENT_SECONDS: Final = 5.0
"""So long the preferred one may let wait for more: pip hears nothing meanwhile, and gives up after 15 s."""


class Race:
    """A `ports.Source`. `ahead` finds objects by CID alone, `behind` by address alone; without the one the other runs at once.

    After a race come all other ways of both, `behind` before `ahead`, so that a transfer that breaks off goes on somewhere.
    """

    def __init__(self, ahead: Source, behind: Source, head_start_seconds: float) -> None:
        self.name = behind.name
        self._ahead = ahead
        self._behind = behind
        self._head_start_seconds = head_start_seconds

    def ways(self, wanted: Wanted) -> tuple[Wanted, ...]:
        """A way with a CID and an address is a race."""
        ahead = self._ahead.ways(wanted)
        behind = self._behind.ways(wanted)
        if not ahead:
            return behind if not wanted.cids else tuple(replace(way, cids=()) for way in behind)
        behind = tuple(replace(way, cids=()) for way in behind)
        if not behind:
            return ahead
        return (replace(ahead[0], urls=behind[0].urls), *ahead[1:], *behind[1:], behind[0], ahead[0])

    def fetch(self, wanted: Wanted, start: int = 0) -> AbstractAsyncContextManager[SourceBody]:
        """Raises what the sources raise; when both fail, what `behind` says."""
        if wanted.cids and wanted.urls:
            return self._raced(wanted, start)
        return (self._ahead if wanted.cids else self._behind).fetch(wanted, start)

    @asynccontextmanager
    async def _raced(self, wanted: Wanted, start: int) -> AsyncIterator[SourceBody]:
        async with AsyncExitStack() as stack:
            ahead = _Opening(self._ahead, replace(wanted, urls=()), start)
            stack.push_async_callback(ahead.close)
            await asyncio.wait([ahead.opened], timeout=self._head_start_seconds)
            if not ahead.is_open:
                behind = _Opening(self._behind, replace(wanted, cids=()), start)
                stack.push_async_callback(behind.close)
                await _first_open(ahead, behind)
                if not ahead.is_open:
                    await ahead.close()
                    yield behind.opened.result()
                    return
                await behind.close()
            yield _Timely(ahead.opened.result())


@dataclass(frozen=True, slots=True)
class _Timely:
    """A `ports.SourceBody` that is away when it lets wait."""

    body: SourceBody

    @property
    def size(self) -> int | None:
        """As the body says."""
        return self.body.size

    @property
    def sender(self) -> str:
        """As the body says."""
        return self.body.sender

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The same. Raises SourceAway, and whatever the body raises."""
        async with aclosing(self.body.chunks()) as chunks:
            while True:
                try:
                    async with asyncio.timeout(SILENT_SECONDS):
                        chunk = await anext(chunks, None)
                except TimeoutError as error:
                    told = f"matrix-pypi: {self.sender} sends nothing for {SILENT_SECONDS:g} s"
                    raise SourceAway(told) from error
                if chunk is None:
                    return
                yield chunk


class _Opening:
    """A fetch that is being opened, in a task of its own so that it can be given up; it stays open until `close`."""

    def __init__(self, source: Source, wanted: Wanted, start: int) -> None:
        self.opened: asyncio.Future[SourceBody] = asyncio.get_running_loop().create_future()
        self._is_left = asyncio.Event()
        self._task = asyncio.create_task(self._hold(source, wanted, start))

    @property
    def is_open(self) -> bool:
        """Whether there is a body to read."""
        return self.opened.done() and not self.opened.cancelled() and self.opened.exception() is None

    async def close(self) -> None:
        """Ends the fetch. Idempotent."""
        if self.is_open:
            self._is_left.set()
        else:
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self.opened.cancel()

    async def _hold(self, source: Source, wanted: Wanted, start: int) -> None:
        try:
            async with source.fetch(wanted, start) as body:
                self.opened.set_result(body)
                await self._is_left.wait()
        except Problem as problem:
            if not self.opened.done():
                self.opened.set_exception(problem)
        except BaseException as error:
            if not self.opened.done():
                self.opened.set_exception(error)
            raise


async def _first_open(*openings: _Opening) -> None:
    """Returns when one of them is open, or none will be."""
    waiting = {opening.opened for opening in openings if not opening.opened.done()}
    while waiting and not any(opening.is_open for opening in openings):
        _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
