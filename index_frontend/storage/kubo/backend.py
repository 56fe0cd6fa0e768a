"""Kubo as a place for files. What is kept is pinned in the node; what is not pinned there its garbage collection takes away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from index_frontend.storage.api import (
    MAX_CHUNK_BYTES,
    ContentId,
    Health,
    NotFound,
    Stat,
    StorageBackend,
    StorageFull,
    Unavailable,
    Unsupported,
    Usage,
    WrongContent,
)
from index_frontend.storage.kubo.holdings import holdings, pin_name, read_pin
from index_frontend.storage.kubo.packing import as_car
from index_frontend.storage.kubo.settings import KuboSettings
from index_frontend.storage.registry import read_section
from matrix_pypi_bot.wire.cids import Cid, raw_cid
from matrix_pypi_bot.wire.digests import Sha256, sha256_of
from matrix_pypi_bot.wire.problems import Problem, clean_line

if TYPE_CHECKING:
    from index_frontend.storage.kubo.rpc import Chunks, KuboRpc

log = logging.getLogger(__name__)

HEALTH_SECONDS: Final = 1.8  # of the two that the interface gives
GARBAGE_SECONDS: Final = 600.0
"""So often garbage that others made is looked for in a full node: another process deletes, too, and everything waits meanwhile."""
EMPTY: Final = ContentId(sha256=sha256_of(b""), size=0, cid=raw_cid(sha256_of(b"")))
_FOREIGN: Final = "(pinned by its operator)"


def backend(name: str, section: Mapping[str, Any]) -> StorageBackend:
    """The entry point. Raises Misconfigured."""
    return KuboBackend(name, read_section(KuboSettings, section, backend=name))


class KuboBackend(StorageBackend):
    """What `storage.api` promises, by one node. It fetches blocks from the node's network, never whole files."""

    def __init__(self, name: str, settings: KuboSettings) -> None:
        super().__init__(name)
        self._settings = settings
        self._open: KuboRpc | None = None
        self._takes_cars: bool | None = None
        self._has_garbage = True
        self._next_collection = 0.0
        self._company = (0.0, False)
        self._dials: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Peers are introduced to a node that is there; one that comes later meets them at the next look at its health."""
        if self._open is None:
            from index_frontend.storage.kubo.rpc import (
                KuboRpc,
            )  # aioipfs takes a second: not where a section is only checked

            self._open = KuboRpc(self.name, self._settings)
            try:
                async with asyncio.timeout(HEALTH_SECONDS):
                    await self._introduce()
            except (TimeoutError, Problem) as problem:
                log.warning("kubo is away", extra={"backend": self.name, "cause": clean_line(str(problem))})

    async def close(self) -> None:
        """Idempotent."""
        if self._open is not None:
            rpc, self._open = self._open, None
            for task in (dials := [*self._dials]):
                task.cancel()
            await asyncio.gather(*dials, return_exceptions=True)
            await rpc.close()

    async def stat(self, content: ContentId) -> Stat | None:
        """A file is held when it is pinned: a node pins only what it has all blocks of."""
        name = await self._rpc.pinned(content.cid)
        if name is None:
            return None
        pin = read_pin(name)
        return Stat(content=content, pin=(name or _FOREIGN) if pin is None else pin.name)

    @asynccontextmanager
    async def read(self, content: ContentId) -> AsyncIterator[AsyncIterator[bytes]]:
        """What the node has; counted, since a node that breaks off ends its answer as if it were whole."""
        if await self.stat(content) is None:
            raise NotFound(f"does not hold {content.cid}", backend=self.name)
        async with self._rpc.cat(content.cid) as chunks, aclosing(self._counted(content, chunks)) as counted:
            yield counted

    async def health(self) -> Health:
        """Its version and how full it is; peers that it does not know, because it was started anew, are introduced."""
        try:
            async with asyncio.timeout(HEALTH_SECONDS):
                version, repository = await self._rpc.version(), await self._rpc.repository()
                await self._introduce()
        except TimeoutError:
            return Health(state="down", detail=f"does not answer within {HEALTH_SECONDS:g} s")
        except Problem as problem:
            return Health(
                state="down",
                detail=clean_line(f"{problem.detail} ({problem.hint})" if problem.hint else problem.detail),
            )
        limit = self._settings.max_bytes
        told = f"Kubo {version}, {repository.size >> 20} MiB"
        if limit is not None and repository.size >= limit:
            return Health(state="degraded", detail=f"{told}, more than its max_bytes: nothing is stored any more")
        return Health(state="ok", detail=told)

    async def put(self, content: ContentId, chunks: AsyncIterator[bytes]) -> None:
        """As a CAR, which carries its CID; a node that takes none adds the file anew, and its CID is compared."""
        name = await self._rpc.pinned(content.cid)
        if name is None:
            await self._make_room(content.size)
            await self._transfer(content, chunks)
            try:
                await self._rpc.pin(content.cid, pin_name(content))
            except NotFound as problem:
                told = f"does not have all of {content.cid} after it was stored"
                raise Unavailable(told, backend=self.name, hint="was its garbage being collected?") from problem

    async def delete(self, content: ContentId) -> bool:
        """Its blocks go with the next garbage collection. What its operator pinned is his."""
        name = await self._rpc.pinned(content.cid)
        pin = None if name is None else read_pin(name)
        if pin is None or pin.name is not None:
            return False
        self._has_garbage = True
        return await self._rpc.unpin(content.cid)

    async def get_block(self, cid: Cid) -> bytes:
        """Of what the node has, else from its network, if that may be asked and anybody is in it."""
        try:
            return await self._rpc.block(cid)
        except NotFound:
            if not self._settings.fetch_timeout_seconds or not await self._has_company():
                raise
        return await self._rpc.block(cid, fetch_seconds=self._settings.fetch_timeout_seconds)

    async def pin(self, content: ContentId, name: str) -> None:
        """The pin in the node gets the name. One of its operator's stays as it is."""
        before = await self._rpc.pinned(content.cid)
        if before is None:
            raise NotFound(f"does not hold {content.cid}", backend=self.name)
        if not before or read_pin(before) is not None:
            await self._rpc.pin(content.cid, pin_name(content, name))

    async def unpin(self, content: ContentId) -> None:
        """The pin in the node loses the name, and stays."""
        before = await self._rpc.pinned(content.cid)
        pin = None if before is None else read_pin(before)
        if pin is not None and pin.name is not None:
            await self._rpc.pin(content.cid, pin_name(content))

    async def list(self, *, after: Sha256 | None = None) -> AsyncGenerator[Stat, None]:
        """Files stored through this interface, by any of its users, by any of its users."""
        async with aclosing(holdings(self._rpc, after or "")) as stats:
            async for stat in stats:
                yield stat

    async def usage(self) -> Usage:
        """Of the whole repository, whoever filled it."""
        return Usage(bytes=(await self._rpc.repository()).size, limit_bytes=self._settings.max_bytes)

    @property
    def _rpc(self) -> KuboRpc:
        if self._open is None:
            raise Unavailable("it is closed", backend=self.name)
        return self._open

    async def _transfer(self, content: ContentId, chunks: AsyncIterator[bytes]) -> None:
        """The blocks are in the node, not pinned yet. What is left of a transfer that failed is garbage."""
        try:
            if await self._imports():
                async with aclosing(as_car(content, chunks, backend=self.name)) as car:
                    await self._rpc.dag_import(car, pin_roots=False)
                return
            found = await self._rpc.add(chunks)
        finally:
            self._has_garbage = True  # not earlier: a collection that ends meanwhile has not seen all of it
        if found != content.cid:
            told = f"calls {content.cid} {clean_line(found, 80)}"
            raise WrongContent(told, backend=self.name, hint="use Kubo 0.35 or newer, which takes max-file-links")

    async def _imports(self) -> bool:
        """Whether the node takes CARs, tried with one of nothing: a body that was sent once cannot be sent again."""
        if self._takes_cars is None:
            try:
                async with aclosing(as_car(EMPTY, _nothing(), backend=self.name)) as car:
                    await self._rpc.dag_import(car, pin_roots=False)
            except Unsupported:
                self._takes_cars = False
            else:
                self._takes_cars = True
        return self._takes_cars

    async def _make_room(self, size: int) -> None:
        """Raises StorageFull when the repository would grow beyond its limit, also after its garbage was collected."""
        limit = self._settings.max_bytes
        if limit is None or (await self._rpc.repository()).size + size <= limit:
            return
        now = asyncio.get_running_loop().time()
        if self._has_garbage or now >= self._next_collection:
            self._has_garbage, self._next_collection = False, now + GARBAGE_SECONDS
            await self._rpc.collect_garbage()
            if (await self._rpc.repository()).size + size <= limit:
                return
        raise StorageFull(
            f"{self.name}: {size} bytes more than max_bytes ({limit}) allows", hint="unpin, or raise max_bytes"
        )

    async def _has_company(self) -> bool:
        """Whether there is anybody to ask, or about to be; looked up once a second."""
        now = asyncio.get_running_loop().time()
        if self._dials:
            return True
        if now >= self._company[0]:
            self._company = (now + 1, await self._rpc.has_company())
        return self._company[1]

    async def _introduce(self) -> None:
        """Tell the node of peers that it does not know."""
        if self._settings.peers:
            known = await self._rpc.peering()
            for address in self._settings.peers:
                if address.rpartition("/")[2] not in known:
                    await self._rpc.add_peering(address)
                    # The node dials by itself, but only after some seconds; how long a dial takes is the other's to say.
                    task = asyncio.create_task(self._dial(self._rpc, address), name=f"{self.name} dials")
                    self._dials.add(task)
                    task.add_done_callback(self._dials.discard)

    async def _dial(self, rpc: KuboRpc, address: str) -> None:
        try:
            await rpc.connect(address)
        except Problem as problem:
            log.info("kubo does not reach a peer yet", extra={"backend": self.name, "cause": problem.detail})
        finally:
            self._company = (0.0, False)

    async def _counted(self, content: ContentId, chunks: Chunks) -> AsyncGenerator[bytes, None]:
        count = 0
        async for chunk in chunks:
            count += len(chunk)
            if count > content.size:
                raise WrongContent(f"gives more than the {content.size} bytes of {content.cid}", backend=self.name)
            for start in range(0, len(chunk), MAX_CHUNK_BYTES):
                yield chunk[start : start + MAX_CHUNK_BYTES]
        if count < content.size:
            raise Unavailable(f"broke off after {count} of {content.size} bytes", backend=self.name)


async def _nothing() -> AsyncGenerator[bytes, None]:
    for chunk in list[bytes]():
        yield chunk
