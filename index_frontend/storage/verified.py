"""Around every backend: what it gives and is given is checked here, and what it raises is one of our problems.

So no plug-in can forget it, and none is trusted.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, Final, TypeVar, get_args, get_type_hints

from index_frontend.dag.blocks import BadBlock, check_block
from index_frontend.storage.api import (
    BackendProblem,
    Capability,
    ContentId,
    Health,
    Stat,
    StorageBackend,
    StorageFull,
    Unavailable,
    Usage,
    WrongContent,
)
from index_frontend.storage.checks import THREAD_BYTES, Incoming, checked_blocks, checked_whole, refuse_impossible
from matrix_pypi_bot.wire.cids import Cid, split_cid
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.problems import clean_line

log = logging.getLogger(__name__)

HEALTH_SECONDS: Final = 2.0
CALL_SECONDS: Final = 60.0
"""No call that moves no file takes longer, and no chunk of one comes later than this after the one before."""

_STATES: Final = frozenset(get_args(get_type_hints(Health)["state"]))

T = TypeVar("T")


class Verified(StorageBackend):
    """Any backend, checked.

    Beyond what `StorageBackend` promises: what `read` and `get_block` let out is what its name says (a whole file's last 64 KiB wait
    until all of it is), `put` gives the backend nothing complete that is not what it is called, chunks are at most 1 MiB both ways,
    calls end in bounded time, and every failure is one of `storage.api`. Cancellation passes.
    """

    def __init__(self, backend: StorageBackend) -> None:
        super().__init__(backend.name)
        self.backend = backend
        self._is_open = False
        self._changing = asyncio.Lock()
        self._strays: set[asyncio.Task[Health]] = set()

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Those of the backend."""
        return self.backend.capabilities

    async def open(self) -> None:
        """Raises Unavailable or Misconfigured when the backend cannot even be tried."""
        async with self._changing:
            if not self._is_open:
                async with self._bounded():
                    await self.backend.open()
                self._is_open = True

    async def close(self) -> None:
        """Never raises for what the backend does."""
        async with self._changing:
            if self._is_open:
                self._is_open = False
                try:
                    async with self._bounded():
                        await self.backend.close()
                except BackendProblem as problem:
                    log.warning("storage backend did not close well", extra={"cause": problem.detail})

    async def stat(self, content: ContentId) -> Stat | None:
        """None, too, when the backend has something else under that name."""
        async with self._call():
            stat = await self.backend.stat(content)
        return stat if isinstance(stat, Stat) and stat.content == content else None

    @asynccontextmanager
    async def read(self, content: ContentId) -> AsyncIterator[AsyncIterator[bytes]]:
        """Block by block where the backend gives the file's nodes, else with the tail held back; the whole is hashed in any case."""
        self._must_be_open()
        with self._translated():
            body = self.backend.read(content)
        async with self._bounded():
            chunks = await body.__aenter__()
        try:
            source = self._timely(chunks)
            if Capability.BLOCKS in self.capabilities:
                checked = checked_blocks(content, source, self.get_block, backend=self.name)
            else:
                checked = checked_whole(content, source, backend=self.name)
            async with aclosing(source), aclosing(checked):
                yield checked
        finally:
            try:
                async with self._bounded():
                    await body.__aexit__(*sys.exc_info())
            except BackendProblem as problem:
                log.debug("storage backend did not end a transfer well", extra={"cause": problem.detail})

    async def health(self) -> Health:
        """Within two seconds, whatever the backend does."""
        if not self._is_open:
            return Health(state="down", detail="it is closed")
        task = asyncio.create_task(self.backend.health(), name=f"health of {self.name}")
        self._strays.add(task)
        task.add_done_callback(self._seen)
        try:
            await asyncio.wait({task}, timeout=HEALTH_SECONDS)
        finally:
            task.cancel()
        if not task.done() or task.cancelled():
            return Health(state="down", detail=f"does not say how it is within {HEALTH_SECONDS:g} s")
        if (error := task.exception()) is not None:
            return Health(state="down", detail=clean_line(f"{type(error).__name__}: {error}", 200))
        health: object = task.result()
        if not isinstance(health, Health) or health.state not in _STATES or not isinstance(health.detail, str):
            return Health(state="down", detail="does not say how it is")
        return Health(state=health.state, detail=clean_line(health.detail, 200))

    def _seen(self, task: asyncio.Task[Health]) -> None:
        self._strays.discard(task)
        if not task.cancelled():
            task.exception()  # asyncio complains about failures that nobody looked at

    async def put(self, content: ContentId, chunks: AsyncIterator[bytes]) -> None:
        """Raises WrongContent when `chunks` are not the file, and whatever they raise; the backend has not seen their end then."""
        self._must_be_open()
        refuse_impossible(content, backend=self.name)
        incoming = Incoming(content, chunks, backend=self.name)
        try:
            with self._translated():
                await self.backend.put(content, incoming)
        except Exception:
            if incoming.failure is not None:
                raise incoming.failure from None  # whatever the backend made of it
            raise
        finally:
            incoming.close()
        if incoming.failure is not None:
            raise incoming.failure
        if not incoming.is_complete and await self.stat(content) is None:
            raise Unavailable("says that it has stored what it did not read", backend=self.name)

    async def delete(self, content: ContentId) -> bool:
        """As the backend says."""
        async with self._call():
            return await self.backend.delete(content)

    async def get_block(self, cid: Cid) -> bytes:
        """Hashed. Raises WrongContent, and InvalidCid for an identity hash or anything else that is not ours."""
        split_cid(cid)
        async with self._call():
            data: object = await self.backend.get_block(cid)
        if not isinstance(data, bytes):
            raise Unavailable(f"gave {type(data).__name__} for a block", backend=self.name)
        try:
            if len(data) < THREAD_BYTES:
                check_block(cid, data)
            else:
                await asyncio.to_thread(check_block, cid, data)
        except BadBlock as error:
            raise WrongContent(error.detail, backend=self.name) from error
        return data

    async def pin(self, content: ContentId, name: str) -> None:
        """The name is one printable line."""
        async with self._call():
            await self.backend.pin(content, clean_line(name, 200))

    async def unpin(self, content: ContentId) -> None:
        """As the backend does it."""
        async with self._call():
            await self.backend.unpin(content)

    def list(self, *, after: Sha256 | None = None) -> AsyncIterator[Stat]:
        """Strictly ascending, so that whoever walks through comes to an end."""
        self._must_be_open()
        with self._translated():
            return self._ascending(self.backend.list(after=after), after or Sha256(""))

    async def _ascending(self, stats: AsyncIterator[Stat], last: Sha256) -> AsyncGenerator[Stat, None]:
        source = self._timely(stats)
        async with aclosing(source):
            async for stat in source:
                if not isinstance(stat, Stat):
                    raise Unavailable(f"lists {type(stat).__name__} for a file", backend=self.name)
                if stat.content.sha256 <= last:
                    raise Unavailable("lists what it holds out of order", backend=self.name)
                last = stat.content.sha256
                yield stat

    async def usage(self) -> Usage:
        """As the backend counts."""
        async with self._call():
            usage: object = await self.backend.usage()
        if not isinstance(usage, Usage):
            raise Unavailable(f"tells {type(usage).__name__} for what it holds", backend=self.name)
        return usage

    def _must_be_open(self) -> None:
        if not self._is_open:
            raise Unavailable("is closed", backend=self.name)

    @asynccontextmanager
    async def _call(self) -> AsyncIterator[None]:
        """A call that moves no file."""
        self._must_be_open()
        async with self._bounded():
            yield

    @asynccontextmanager
    async def _bounded(self) -> AsyncIterator[None]:
        """What the block waits for ends in time, and its failures are ours."""
        with self._translated():
            async with asyncio.timeout(CALL_SECONDS):
                yield

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """What is not one of ours becomes Unavailable. BadBlock and the like are no plug-in's to raise either."""
        try:
            yield
        except (BackendProblem, StorageFull):
            raise
        except TimeoutError as error:
            raise Unavailable("does not answer in time", backend=self.name) from error
        except Exception as error:
            told = clean_line(f"{type(error).__name__}: {error}", 200)
            raise Unavailable(told, backend=self.name) from error

    async def _timely(self, items: AsyncIterator[T]) -> AsyncGenerator[T, None]:
        """What comes, each within its time. The generator behind it is closed with this one."""
        try:
            while True:
                async with self._bounded():
                    item = await anext(items, None)
                if item is None:
                    return
                yield item
        finally:
            await _close(items)


@asynccontextmanager
async def opened(backend: StorageBackend) -> AsyncIterator[StorageBackend]:
    """The backend, open while the block runs."""
    await backend.open()
    try:
        yield backend
    finally:
        await backend.close()


async def _close(items: Any) -> None:
    """Ends an iterator that can be ended."""
    if hasattr(items, "aclose"):
        try:
            await items.aclose()
        except Exception:  # it is a plug-in's, and nobody wants its rest
            log.debug("storage backend did not end an iteration well", exc_info=True)
