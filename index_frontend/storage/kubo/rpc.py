"""The RPC of a Kubo node: its small commands by aioipfs, on a transport of our own; everything that moves files is ours.

aioipfs 0.7 takes the body of any status but five for an answer, returns None when nobody answers, sends its token with some
requests only, and buffers whole files. So its commands run over `Wire` here, and nothing else of the project imports it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, TypeAlias

import aiohttp
from aioipfs import AsyncIPFS  # type: ignore[import-untyped]
from aioipfs.api import CoreAPI, RepoAPI  # type: ignore[import-untyped]
from aioipfs.apis.pin import PinAPI  # type: ignore[import-untyped]
from aioipfs.apis.swarm import SwarmAPI, SwarmPeeringAPI  # type: ignore[import-untyped]
from yarl import URL

from index_frontend.storage.api import NotFound, Unavailable, WrongContent
from index_frontend.storage.kubo import answers
from index_frontend.storage.kubo.settings import KuboSettings
from index_frontend.storage.kubo.uploads import upload
from index_frontend.storage.kubo.wire import Wire
from matrix_pypi_bot.wire.cids import Cid
from matrix_pypi_bot.wire.problems import clean_line

Chunks: TypeAlias = AsyncGenerator[bytes, None]
MAX_BLOCK_BYTES: Final = 2 << 20
_MAX_LINES: Final = 1_000  # of a command that answers in a few
PIN_STALL_SECONDS: Final = 10.0
_GC_SECONDS: Final = 600.0
_OUT_OF_TIME: Final = "deadline exceeded"
# The profile `unixfs-v1-2025` in full: a node's own defaults are others, and one that drops a parameter gives another CID.
ADD: Final = {
    "cid-version": "1", "raw-leaves": "true", "chunker": "size-1048576", "max-file-links": "1024", "hash": "sha2-256",
    "trickle": "false", "inline": "false", "nocopy": "false", "wrap-with-directory": "false", "preserve-mode": "false",
    "preserve-mtime": "false", "progress": "false", "quieter": "false",
}  # fmt: skip
_OFFLINE: Final = {"offline": "true"}


class _OverWire:
    """Puts the commands of aioipfs on our transport: they get bytes that are whole and an answer, or a typed error."""

    driver: _Node

    async def post(self, url: URL, data: None = None, params: dict[str, str] | None = None, **_: Any) -> bytes:
        assert data is None
        return await self.driver.wire.answer(url, params or {})


class _Core(_OverWire, CoreAPI): ...  # type: ignore[misc]


class _Pin(_OverWire, PinAPI): ...  # type: ignore[misc]


class _Repo(_OverWire, RepoAPI): ...  # type: ignore[misc]


class _Peering(_OverWire, SwarmPeeringAPI): ...  # type: ignore[misc]


class _Swarm(_OverWire, SwarmAPI): ...  # type: ignore[misc]


class _Node(AsyncIPFS):  # type: ignore[misc]
    """aioipfs with our session. Made in a running loop."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        super().__init__()
        self.core, self.pin, self.repo, self.swarm = _Core(self), _Pin(self), _Repo(self), _Swarm(self)
        self.swarm.peering = _Peering(self)

    def get_session(self, *_: object, **__: object) -> aiohttp.ClientSession:
        return self.wire.session

    def api_endpoint(self, path: str) -> URL:
        return self.wire.url(path)


class KuboRpc:
    """One node. Every method raises Unavailable or Unauthorised beside what it names; none believes a status.

    What comes back in chunks is counted and hashed by the caller: an end of such a stream says nothing.
    """

    def __init__(self, backend: str, settings: KuboSettings) -> None:
        self._wire = Wire(backend, settings)
        self._node = _Node(self._wire)
        # Announcing each new root at once is for public networks; in a closed one it is a search for nobody.
        self._announce = {} if settings.network == "public" else {"fast-provide-root": "false"}

    async def close(self) -> None:
        """Idempotent."""
        await self._wire.close()

    # The node ----------------------------------------------------------------------------------------------------------

    async def version(self) -> str:
        """E.g. `0.43.0`."""
        answer = await self._node.core.version(number=True, commit=False, repo=False, all=False)
        return clean_line(self._wire.decode(answer, answers.Version).version, 40)

    async def identity(self) -> answers.Identity:
        """Who it is and where others find it."""
        return self._wire.decode(await self._node.core.id(), answers.Identity)

    async def repository(self) -> answers.RepositorySize:
        """How large its repository is. Without `size-only`, which aioipfs cannot say, Kubo counts every block."""
        answer = await self._wire.answer(self._wire.url("repo/stat"), {"size-only": "true"})
        return self._wire.decode(answer, answers.RepositorySize)

    async def collect_garbage(self) -> None:
        """Removes what is not pinned. Everything else in the node waits meanwhile."""
        async with self._wire.deadline(_GC_SECONDS):
            response = await self._wire.send(self._wire.url("repo/gc"), {"quiet": "true", "stream-errors": "true"})
            try:
                async for line in self._wire.lines(response):
                    if error := self._wire.decode(line, answers.RemovedLine).error:
                        raise Unavailable(f"garbage collection: {clean_line(error, 160)}", backend=self._wire.backend)
            finally:
                response.close()

    async def has_company(self) -> bool:
        """Whether it is connected with any other node now."""
        answer = await self._node.swarm.peers(verbose=False)
        return bool(self._wire.decode(answer, answers.SwarmPeers).peers)

    async def peering(self) -> frozenset[str]:
        """The peer ids of the nodes that it stays connected with."""
        answer = self._wire.decode(await self._node.swarm.peering.ls(), answers.Peerings)
        return frozenset(peer.peer_id for peer in answer.peers or ())

    async def add_peering(self, address: str) -> None:
        """Stay connected with the node at the multiaddress `address`, until the node ends; it is dialled within seconds."""
        await self._node.swarm.peering.add(address)

    async def connect(self, address: str) -> None:
        """Dials the node at the multiaddress `address` now. Returns when they are connected."""
        await self._node.swarm.connect(address)

    # Pins --------------------------------------------------------------------------------------------------------------

    async def pinned(self, cid: Cid) -> str | None:
        """The name of the recursive pin of `cid`, which may be empty; None when there is none."""
        try:
            answer = await self._node.pin.ls(cid, pintype="recursive", names=True)
        except NotFound:
            return None
        pin = self._wire.decode(answer, answers.Pins).keys.get(cid)
        return None if pin is None else pin.name

    async def pin(self, cid: Cid, name: str) -> None:
        """Pins what is there; what is pinned gets another name. Raises NotFound when the root is missing.

        For any other missing block Kubo searches its network without end, also when told to be offline. It says how far it is twice
        a second: when that stays the same for long, the answer is Unavailable.
        """
        params = {"arg": cid, "name": name, "recursive": "true", "progress": "true", **_OFFLINE, **self._announce}
        stall_seconds = min(PIN_STALL_SECONDS, self._wire.silence_seconds)
        loop, so_far, is_pinned = asyncio.get_running_loop(), -1, False
        async with self._wire.deadline(self._wire.silence_seconds, f"looks for blocks of {cid} in vain") as watch:
            response = await self._wire.send(self._wire.url("pin/add"), params)
            try:
                async for line in self._wire.lines(response):
                    told = self._wire.decode(line, answers.PinProgress)
                    is_pinned = is_pinned or cid in (told.pins or ())
                    if told.blocks > so_far:
                        so_far = told.blocks
                        watch.reschedule(loop.time() + stall_seconds)
            finally:
                response.close()
        if not is_pinned:
            raise Unavailable(f"broke off while it pinned {cid}", backend=self._wire.backend)

    async def unpin(self, cid: Cid) -> bool:
        """Whether it was pinned."""
        try:
            await self._node.pin.rm(cid)
        except NotFound:
            return False
        return True

    async def pins(self) -> AsyncGenerator[answers.PinLine, None]:
        """Every recursive pin, in any order."""
        params = {"type": "recursive", "names": "true", "stream": "true"}
        response = await self._wire.send(self._wire.url("pin/ls"), params)
        try:
            async for line in self._wire.lines(response):
                yield self._wire.decode(line, answers.PinLine)
        finally:
            response.close()

    # Bytes -------------------------------------------------------------------------------------------------------------

    async def block(self, cid: Cid, *, fetch_seconds: float = 0) -> bytes:
        """A block of at most 2 MiB, unchecked; its network is asked for `fetch_seconds`. Raises NotFound."""
        params = {"arg": cid, **({"timeout": f"{fetch_seconds:.3f}s"} if fetch_seconds else _OFFLINE)}
        try:
            return await self._wire.answer(self._wire.url("block/get"), params, limit_bytes=MAX_BLOCK_BYTES)
        except Unavailable as problem:
            if fetch_seconds and _OUT_OF_TIME in problem.detail:
                found = f"nobody in its network gave {cid} within {fetch_seconds:g} s"
                raise NotFound(found, backend=self._wire.backend) from problem
            raise

    def cat(self, cid: Cid, *, offset: int = 0, length: int | None = None) -> AbstractAsyncContextManager[Chunks]:
        """A file's bytes, or `length` of them from `offset` on, of what the node has. Raises NotFound on entering."""
        params = {"arg": cid, "offset": str(offset), "progress": "false", **_OFFLINE}
        return self._stream("cat", params | ({} if length is None else {"length": str(length)}))

    def dag_export(self, cid: Cid) -> AbstractAsyncContextManager[Chunks]:
        """A CAR of everything below `cid`, of what the node has. Raises NotFound on entering."""
        return self._stream("dag/export", {"arg": cid, "progress": "false", **_OFFLINE})

    async def dag_import(self, car: AsyncIterator[bytes], *, pin_roots: bool) -> frozenset[str]:
        """Takes the blocks of a CAR over, and returns the CIDs of its roots. Raises what `car` does, StorageFull, WrongContent.

        With `pin_roots`, a root that cannot be pinned comes under a status 200: that is WrongContent. Kubo searches its network for
        blocks that are missing below one, and is silent meanwhile: `pin` afterwards does not.
        """
        params = {"pin-roots": str(pin_roots).lower(), "stats": "false", **self._announce}
        roots = set()
        for line in await self._upload("dag/import", params, car):
            if (root := self._wire.decode(line, answers.ImportLine).root) is None:
                continue
            if root.pin_error:
                told = clean_line(root.pin_error, 160)
                raise WrongContent(
                    f"the node does not pin {clean_line(root.cid.cid, 80)}: {told}", backend=self._wire.backend
                )
            roots.add(root.cid.cid)
        return frozenset(roots)

    async def add(self, chunks: AsyncIterator[bytes], *, only_hash: bool = False) -> str:
        """Adds a file in the profile `unixfs-v1-2025`, unpinned, and returns the CID that the node found. Raises what `chunks` does."""
        params = {**ADD, "pin": "false", "only-hash": str(only_hash).lower(), **self._announce}
        lines = await self._upload("add", params, chunks)
        if len(lines) != 1:
            raise Unavailable(f"added one file and heard of {len(lines)}", backend=self._wire.backend)
        return self._wire.decode(lines[0], answers.Added).cid

    async def _upload(self, command: str, params: dict[str, str], chunks: AsyncIterator[bytes]) -> list[bytes]:
        response = await upload(self._wire, command, params, chunks)
        try:
            lines = []
            async with self._wire.deadline(self._wire.silence_seconds, f"does not come to the end of {command}"):
                async for line in self._wire.lines(response):
                    lines.append(line)
                    if len(lines) > _MAX_LINES:
                        raise Unavailable(f"{command} answered without end", backend=self._wire.backend)
            return lines
        finally:
            response.close()

    @asynccontextmanager
    async def _stream(self, command: str, params: dict[str, str]) -> AsyncIterator[Chunks]:
        response = await self._wire.send(self._wire.url(command), params)
        try:
            yield self._wire.chunks(response)
        finally:
            response.close()
