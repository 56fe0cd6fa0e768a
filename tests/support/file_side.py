"""The frontend's file side over real sockets: store, fetches and file answers as they really are, beside a bot that a test scripts.

In the test's own process, in a thread (`FileSide`), or as processes that share a store (`worker`), which a test may kill.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self, TypeVar

import msgspec
from aiohttp import web

from index_frontend.app.serving import listening
from index_frontend.blocks import Blocks, Gateways, Neighbour
from index_frontend.fill import Fills, PeerFiles, Race, Reporter, WheelMetadata
from index_frontend.handlers.files import FileHandler
from index_frontend.handlers.ipfs import GatewayHandler
from index_frontend.handlers.middleware import answering
from index_frontend.ports import BlockStore, ContentStore, Page, ProjectNames
from index_frontend.storage.filestore import open_filestore
from index_frontend.storage.filestore.disk import Disk
from index_frontend.storage.gateway import GatewayBackend
from index_frontend.storage.verified import Verified, opened
from index_frontend.upstream import UpstreamSource
from matrix_pypi_bot.process.outbound import Origin, Outbound, origin_of
from matrix_pypi_bot.wire.messages import Decision, Observed, PageState, ProjectDocument, Stored
from matrix_pypi_bot.wire.names import FileName, FilePath, ProjectName, file_path, parse_file_path
from matrix_pypi_bot.wire.problems import Problem, ProblemCode
from tests.support.dists import Dist
from tests.support.http_client import Reply, ask
from tests.support.upstream import Upstream

T = TypeVar("T")
MAX_AT_ONCE = 16
MAX_GATEWAYS = 4
PEER_HEAD_START_SECONDS = 0.15
MAX_FILE_BYTES = int(os.environ.get("FILE_SIDE_MAX_BYTES", 64 << 20))


def serve_decision(upstream: Upstream, dist: Dist, **changes: Any) -> Decision:
    """What the bot says of a file that it sees upstream: R8, with its digest, size and address."""
    decision = Decision(
        action="serve+attest",
        http=200,
        rule="R8",
        project=dist.project,
        file=dist.filename,
        path=upstream.path_of(dist),
        sha256=dist.sha256,
        size=dist.size,
        core_metadata_sha256=dist.metadata_sha256,
        urls=(f"{upstream.files_origin}{upstream.path_of(dist)}",),
        opened_origins=(origin_of(upstream.files_origin),),
    )
    return msgspec.structs.replace(decision, **changes)


@dataclass(slots=True)
class ScriptedOracle:
    """The bot's word on files by their path. `on_refresh` is what it says of a project after another look at upstream."""

    decisions: dict[str, Decision] = field(default_factory=dict)
    on_refresh: dict[str, Decision] = field(default_factory=dict)
    stored: list[Stored] = field(default_factory=list)
    observed: list[Observed] = field(default_factory=list)
    refreshed: list[str] = field(default_factory=list)
    attested: dict[str, tuple[str, ...]] = field(default_factory=dict)
    attested_by: tuple[str, ...] = ("orga",)
    attested_size: int | None = None
    peers: tuple[str, ...] = ()
    peer_origins: tuple[str, ...] = ()
    asked_whereabouts: list[str] = field(default_factory=list)
    is_away: bool = False

    def say(self, decision: Decision) -> None:
        """From now on."""
        self.decisions[decision.path] = decision

    async def standing(self, path: FilePath) -> Decision:
        """See ports.Oracle."""
        found = self.decisions.get(file_path(path.address, path.file))
        if found is None:
            raise Problem("matrix-pypi: no page names this path", code=ProblemCode.NOT_FOUND)
        return found

    async def standing_of(self, project: ProjectName, file: FileName) -> Decision:
        """See ports.Oracle."""
        for decision in self.decisions.values():
            if (decision.project, decision.file) == (project, file):
                return decision
        raise Problem("matrix-pypi: no page names this file", code=ProblemCode.NOT_FOUND)

    async def whereabouts(self, project: ProjectName, file: FileName) -> Decision:
        """The same, with the CIDs that were attested and the gateways of others."""
        self.asked_whereabouts.append(file)
        decision = await self.standing_of(project, file)
        cids = self.attested.get(file, ())
        size = self.attested_size if decision.size is None else decision.size
        return msgspec.structs.replace(
            decision,
            cids=cids,
            size=size,
            attested_by=self.attested_by if cids else (),
            peers=self.peers,
            peer_origins=self.peer_origins,
        )

    async def page(self, project: ProjectName, *, refresh: bool = False) -> Page:
        """An empty page; looking at upstream again is what matters here."""
        if refresh:
            self.refreshed.append(project)
            self.decisions.update(self.on_refresh)
        view = PageState(state="live", age_seconds=0, fresh_seconds=600, revision="1", seq=1)
        document = ProjectDocument(name=project, view=view, files=())
        return Page(document=document, raw=b"{}", stale=False, remaining_seconds=600, hit=False)

    def glance(self, project: ProjectName) -> Page | None:
        """Nothing is held."""
        return None

    def projects(self, revision: str | None) -> AbstractAsyncContextManager[ProjectNames]:
        """Not asked for here."""
        raise NotImplementedError

    async def report_stored(self, stored: Stored) -> bool:
        """See ports.Oracle."""
        if not self.is_away:
            self.stored.append(stored)
        return not self.is_away

    async def report_observed(self, observed: Observed) -> None:
        """See ports.Oracle."""
        self.observed.append(observed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A file side that listens."""

    port: int
    store: ContentStore
    blocks: BlockStore
    fills: Fills


@asynccontextmanager
async def serving(
    oracle: ScriptedOracle,
    folder: Path,
    *,
    port: int = 0,
    disk: Disk | None = None,
    peers: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[Serving]:
    """The file side on `port`, with its store in `folder`; `peers` are gateways by name."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_filestore(folder, disk=disk))
        outbound = Outbound(user_agent="tests", connect_timeout_seconds=1, read_timeout_seconds=1)
        stack.push_async_callback(outbound.close)
        reporter = Reporter(store, oracle)
        neighbours = []
        for name, url in peers.items():
            peer = Verified(GatewayBackend(name, url, connect_timeout_seconds=1, read_timeout_seconds=1))
            neighbours.append(Neighbour(await stack.enter_async_context(opened(peer)), "peer"))
        gateways = Gateways(_gateway, known=frozenset(peers.values()), most=MAX_GATEWAYS)
        stack.push_async_callback(gateways.close)
        blocks = Blocks(neighbours, oracle.report_observed, gateways)
        peer_files = PeerFiles(blocks, max_file_bytes=MAX_FILE_BYTES)
        source = Race(peer_files, UpstreamSource(outbound), PEER_HEAD_START_SECONDS)
        fills = Fills(store, [WheelMetadata(store), source], oracle, reporter)
        stack.push_async_callback(fills.close)
        reports = asyncio.create_task(reporter.run())
        stack.push_async_callback(_ended, reports)
        files = FileHandler(oracle, store, fills, max_file_bytes=MAX_FILE_BYTES, blocks=blocks)

        gateway = GatewayHandler(oracle, store, max_at_once=MAX_AT_ONCE)

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            path, _, query = request.raw_path.partition("?")
            if path.startswith("/ipfs/"):
                return await gateway.handle(request, path.removeprefix("/ipfs/"), query)
            return await files.handle(request, parse_file_path(request.rel_url.raw_path))

        listener = listening(lambda request: answering(answer, request), "127.0.0.1", port)
        yield Serving(port=await stack.enter_async_context(listener), store=store, blocks=store, fills=fills)


class FileSide:
    """A file side in a thread with a loop of its own; every method may be called from the test's thread."""

    def __init__(
        self,
        upstream: Upstream,
        folder: Path,
        *,
        disk: Disk | None = None,
        peers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.oracle = ScriptedOracle()
        self.folder = folder
        self._upstream = upstream
        self._disk = disk
        self._peers = peers
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="file side", daemon=True)
        self._stack = AsyncExitStack()
        self._serving: Serving | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        listening = serving(self.oracle, self.folder, disk=self._disk, peers=self._peers)
        self._serving = self.run(self._stack.enter_async_context(listening))
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def store(self) -> ContentStore:
        """The store; use it inside `run`."""
        assert self._serving is not None
        return self._serving.store

    @property
    def blocks(self) -> BlockStore:
        """The same store, by blocks; use it inside `run`."""
        assert self._serving is not None
        return self._serving.blocks

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives in the file side's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def publish(self, dist: Dist, **changes: Any) -> None:
        """The file is upstream, and the bot says so."""
        self._upstream.publish(dist)
        self.oracle.say(serve_decision(self._upstream, dist, **changes))

    def url(self, dist: Dist, suffix: str = "") -> str:
        """The file's address here."""
        assert self._serving is not None
        return f"http://127.0.0.1:{self._serving.port}{self._upstream.path_of(dist)}{suffix}"

    @property
    def gateway(self) -> str:
        """What a peer is told to find the blocks that are here."""
        assert self._serving is not None
        return f"http://127.0.0.1:{self._serving.port}"

    def ipfs(self, rest: str, method: str = "GET", /, **headers: str) -> Reply:
        """The gateway's answer to `/ipfs/<rest>`."""
        return ask(f"{self.gateway}/ipfs/{rest}", method, **headers)

    def get(self, dist: Dist, method: str = "GET", /, suffix: str = "", **headers: str) -> Reply:
        """The answer to one request."""
        return ask(self.url(dist, suffix), method, **headers)


@dataclass(slots=True)
class Worker:
    """A process that serves a store which it shares with others."""

    process: subprocess.Popen[bytes]
    port: int

    def kill(self) -> None:
        """As the kernel's out-of-memory killer does it."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def url(self, path: str) -> str:
        """A file's address at this worker."""
        return f"http://127.0.0.1:{self.port}{path}"


@contextmanager
def worker(folder: Path, decisions: Sequence[Decision], environ: Mapping[str, str] = os.environ) -> Iterator[Worker]:
    """A process of its own on a free port; killed, if it still lives, when the block is left."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", __name__, str(folder), str(port)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(environ))
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(decisions))
        process.stdin.close()
        assert process.stdout.readline() == b"ready\n"
        yield Worker(process, port)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _gateway(name: str, url: str, opened: frozenset[Origin]) -> Verified:
    return Verified(GatewayBackend(name, url, opened=opened, connect_timeout_seconds=1, read_timeout_seconds=1))


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _serve_for_ever(folder: Path, port: int, decisions: list[Decision]) -> None:
    oracle = ScriptedOracle()
    for decision in decisions:
        oracle.say(decision)
    async with serving(oracle, folder, port=port):
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(
        _serve_for_ever(
            Path(sys.argv[1]), int(sys.argv[2]), msgspec.json.decode(sys.stdin.buffer.read(), type=list[Decision])
        )
    )
