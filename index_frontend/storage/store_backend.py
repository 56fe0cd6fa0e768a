"""A content store of ours as a backend like any other: to move files into it and out of it, and to be tried by the same tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from typing import BinaryIO, Final, Protocol

from index_frontend.digest_gate import DigestMismatch, Tally
from index_frontend.ports import BlockStore, ContentStore, Damaged, Held, StorageBroken, Writer
from index_frontend.storage.api import (
    MAX_CHUNK_BYTES,
    ContentId,
    Health,
    NotFound,
    Stat,
    StorageBackend,
    StorageFull,
    StorageProblem,
    Unavailable,
    Usage,
    WrongContent,
)
from index_frontend.storage.checks import Hashing
from matrix_pypi_bot.wire.cids import Cid
from matrix_pypi_bot.wire.digests import Sha256

OTHERS_SECONDS: Final = 30.0
"""How long `put` waits for somebody else who writes the same file."""
_POLL_SECONDS: Final = 0.02


class WholeStore(ContentStore, BlockStore, Protocol):
    """A store that can also be walked through, pinned in, and emptied."""

    async def delete(self, sha256: Sha256) -> bool:
        """Whether it was here, and is not any more; a pinned file stays."""
        ...

    async def pin(self, sha256: Sha256, name: str) -> bool:
        """Never evicted or deleted from now on; False when it is not here."""
        ...

    async def unpin(self, sha256: Sha256) -> None:
        """No error when it was not pinned."""
        ...

    async def pin_of(self, sha256: Sha256) -> str | None:
        """The name that it is pinned under."""
        ...

    async def pinned(self) -> int:
        """How many files are."""
        ...

    def all(self, after: Sha256 | None = None) -> AsyncIterator[Held]:
        """Every file by ascending sha256, from the one behind `after` on."""
        ...

    async def totals(self) -> tuple[int, int]:
        """(bytes, number) of all files."""
        ...

    async def check(self) -> None:
        """Raises StorageFull or StorageBroken when nothing can be stored now."""
        ...


class StoreBackend(StorageBackend):
    """What `opening` opens. What is put into it is hashed, whoever has hashed it before: whatever it holds it may serve."""

    def __init__(
        self,
        name: str,
        opening: Callable[[], AbstractAsyncContextManager[WholeStore]],
        *,
        limit_bytes: int | None = None,
    ) -> None:
        super().__init__(name)
        self._opening = opening
        self._limit_bytes = limit_bytes
        self._opened: WholeStore | None = None
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        """Raises StorageFull or Unavailable."""
        if self._opened is None:
            with self._told():
                self._opened = await self._stack.enter_async_context(self._opening())

    async def close(self) -> None:
        """Finishes what was begun."""
        self._opened = None
        await self._stack.aclose()

    async def stat(self, content: ContentId) -> Stat | None:
        """Looked at as closely as before it is read."""
        with self._told():
            file = await self._file(content)
            if file is None:
                return None
            file.close()
            return Stat(content=content, pin=await self._store.pin_of(content.sha256))

    @asynccontextmanager
    async def read(self, content: ContentId) -> AsyncIterator[AsyncIterator[bytes]]:
        """Goes on when the file is deleted meanwhile."""
        with self._told():
            file = await self._file(content)
        if file is None:
            raise self._missing(content.sha256)
        with file:
            yield self._chunks(file)

    async def health(self) -> Health:
        """Whether a byte can be written."""
        if self._opened is None:
            return Health(state="down", detail="it is closed")
        try:
            await self._opened.check()
        except StorageFull as problem:
            return Health(state="degraded", detail=problem.detail)
        except StorageProblem as problem:
            return Health(state="down", detail=problem.detail)
        return Health(state="ok")

    async def put(self, content: ContentId, chunks: AsyncIterator[bytes]) -> None:
        """Raises WrongContent, StorageFull or Unavailable, and whatever `chunks` raises."""
        source = _Source(chunks)
        try:
            with self._told():
                held = await self._put(content, source)
        except Exception:
            if source.failure is not None:
                raise source.failure from None
            raise
        if (held.size, held.cid) != (content.size, content.cid):
            await self.delete(content)
            raise WrongContent(f"{content.sha256} has the CID {held.cid}, not {content.cid}", backend=self.name)

    async def delete(self, content: ContentId) -> bool:
        """Who reads it reads on."""
        with self._told():
            return await self._store.delete(content.sha256)

    async def get_block(self, cid: Cid) -> bytes:
        """From the first of its files that is sound."""
        with self._told():
            for place in await self._store.places_of(cid):
                try:
                    return await self._store.read_block(place)
                except Damaged:
                    if await self._store.recheck(place.sha256) is not None:  # it was only touched
                        return await self._store.read_block(place)
        raise NotFound(f"no file that is here has the block {cid}", backend=self.name)

    async def pin(self, content: ContentId, name: str) -> None:
        """Another name takes the place of the one before."""
        with self._told():
            if not await self._store.pin(content.sha256, name):
                raise self._missing(content.sha256)

    async def unpin(self, content: ContentId) -> None:
        """At once."""
        with self._told():
            await self._store.unpin(content.sha256)

    async def list(self, *, after: Sha256 | None = None) -> AsyncIterator[Stat]:
        """As the store walks through itself."""
        with self._told():
            async for held in self._store.all(after):
                content = ContentId(sha256=held.sha256, size=held.size, cid=held.cid)
                yield Stat(content=content, pin=await self._store.pin_of(held.sha256))

    async def usage(self) -> Usage:
        """Files only: what is kept beside them is small."""
        with self._told():
            held_bytes, files = await self._store.totals()
            pinned = await self._store.pinned()
        return Usage(bytes=held_bytes, files=files, limit_bytes=self._limit_bytes, pinned_files=pinned)

    @property
    def _store(self) -> WholeStore:
        if self._opened is None:
            raise Unavailable("is closed", backend=self.name)
        return self._opened

    async def _put(self, content: ContentId, source: _Source) -> Held:
        for _ in range(int(OTHERS_SECONDS / _POLL_SECONDS)):
            async with self._store.writer(content.sha256) as got:
                if isinstance(got, Held):
                    return got
                if got is not None:
                    return await self._fill(got, content, source)
            await asyncio.sleep(_POLL_SECONDS)
        raise Unavailable("somebody else is writing that file", backend=self.name)

    async def _fill(self, writer: Writer, content: ContentId, source: _Source) -> Held:
        tally = Tally(content.sha256, size=content.size, max_bytes=content.size)
        hashing = Hashing(_Counted(tally))
        await writer.expect(content.size)
        try:
            async for chunk in source:
                await hashing.update(chunk)
                await writer.write(chunk)
        finally:
            await hashing.settle()
        return await writer.commit(tally.finish())

    async def _file(self, content: ContentId) -> BinaryIO | None:
        """It, open; None when it is not here, or is another one than was asked for."""
        held = await self._store.find(content.sha256)
        if held is None or (held.size, held.cid) != (content.size, content.cid):
            return None
        try:
            return self._store.open(held)
        except Damaged:
            again = await self._store.recheck(content.sha256)
            return None if again is None else self._store.open(again)

    async def _chunks(self, file: BinaryIO) -> AsyncIterator[bytes]:
        while True:
            reading = asyncio.ensure_future(asyncio.to_thread(file.read, MAX_CHUNK_BYTES))
            try:
                chunk = await asyncio.shield(reading)
            except asyncio.CancelledError:
                await asyncio.wait([reading])  # nobody closes the file under a running thread
                raise
            except OSError as error:
                raise Unavailable(f"cannot read a file: {error.strerror}", backend=self.name) from error
            if not chunk:
                return
            yield chunk

    def _missing(self, sha256: Sha256) -> NotFound:
        return NotFound(f"{sha256} is not here", backend=self.name)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What the store raises, as the problems of a backend."""
        try:
            yield
        except DigestMismatch as problem:
            raise WrongContent(problem.detail, backend=self.name) from problem
        except (StorageBroken, Damaged) as problem:
            raise Unavailable(problem.detail, backend=self.name, hint=problem.hint) from problem


class _Counted:
    """A tally as a hash."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def update(self, data: bytes, /) -> None:
        """Raises DigestMismatch when it is too much."""
        self._tally.update(data)


class _Source:
    """The chunks that somebody puts in; `failure` is what they raised."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self.failure: Exception | None = None
        self._chunks = chunks

    def __aiter__(self) -> _Source:
        """Itself."""
        return self

    async def __anext__(self) -> bytes:
        """The next one."""
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            raise
        except Exception as error:
            self.failure = error
            raise
