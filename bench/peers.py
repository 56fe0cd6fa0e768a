"""A file fetched from peers, every block and the whole checked, against what nobody can do without: the download and the hashing."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
from aiohttp import web

from index_frontend.blocks import Blocks, Neighbour
from index_frontend.dag.blocks import read_node
from index_frontend.digest_gate import Tally
from index_frontend.serve_plan import Wanted
from index_frontend.storage.filestore import open_filestore
from index_frontend.storage.gateway import GatewayBackend
from index_frontend.storage.verified import Verified
from matrix_pypi_bot.wire.cids import Cid, CidBuilder
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import Decision, Observed, Stored
from matrix_pypi_bot.wire.names import ProjectName

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.support.file_side import worker

MIB = 1 << 20
SIZE = 200 * MIB
ROUNDS = 7
FILE = "bench-1.0.tar.gz"


class Sample:
    """The file, and how it is called."""

    def __init__(self) -> None:
        self.data = os.urandom(SIZE)
        self.sha256 = Sha256(hashlib.sha256(self.data).hexdigest())
        builder = CidBuilder()
        builder.update(self.data)
        self.cid: Cid = builder.finish()
        self.path = f"/packages/{self.sha256[:2]}/{self.sha256[2:4]}/{self.sha256[4:]}/{FILE}"

    @property
    def decision(self) -> Decision:
        """That it is served."""
        return Decision(
            action="serve+attest", http=200, rule="R8", project="bench", file=FILE, path=self.path,
            sha256=self.sha256, size=SIZE, cids=(self.cid,),
        )  # fmt: skip

    @property
    def wanted(self) -> Wanted:
        """That it is to be had by its CID."""
        return Wanted(
            sha256=self.sha256, size=SIZE, urls=(), opened_origins=frozenset(), project=ProjectName("bench"),
            name=FILE, max_bytes=SIZE, cids=(self.cid,),
        )  # fmt: skip


async def keep(sample: Sample, folder: Path) -> None:
    """The file in a store, attested."""
    async with open_filestore(folder) as store, store.writer(sample.sha256) as writer:
        tally = Tally(sample.sha256, size=SIZE, max_bytes=SIZE)
        for start in range(0, SIZE, MIB):
            piece = sample.data[start : start + MIB]
            tally.update(piece)
            await writer.write(piece)  # type: ignore[union-attr]
        held = await writer.commit(tally.finish())  # type: ignore[union-attr]
        report = Stored(project="bench", file=FILE, sha256=held.sha256, size=SIZE, cid=held.cid, source="upstream")
        await store.note_asked(report)
        await store.reported(report)


async def plain(origin: str, sample: Sample) -> float:
    """Megabytes a second: one download by aiohttp, hashed as it comes."""
    begin = time.perf_counter()
    digest = hashlib.sha256()
    async with aiohttp.ClientSession() as session, session.get(origin + sample.path) as response:
        async for chunk in response.content.iter_chunked(MIB):
            digest.update(chunk)
    assert digest.hexdigest() == sample.sha256
    return SIZE / (time.perf_counter() - begin) / 1e6


async def bare(origin: str, sample: Sample, at_once: int = 4) -> float:
    """The same by blocks, each and the whole hashed, and nothing else: what a loop of ten lines reaches."""
    begin = time.perf_counter()
    digest = hashlib.sha256()
    async with aiohttp.ClientSession() as session:

        async def get(cid: str) -> bytes:
            async with session.get(f"{origin}/ipfs/{cid}?format=raw") as response:
                data = await response.read()
            hashlib.sha256(data).digest()
            return data

        ahead: deque[asyncio.Task[bytes]] = deque()
        for cid in read_node(await get(sample.cid))[0]:
            ahead.append(asyncio.create_task(get(cid)))
            if len(ahead) >= at_once:
                digest.update(await ahead.popleft())
        while ahead:
            digest.update(await ahead.popleft())
    assert digest.hexdigest() == sample.sha256
    return SIZE / (time.perf_counter() - begin) / 1e6


async def verified(origins: Sequence[str], sample: Sample) -> float:
    """As the frontend does it, from all of `origins`."""
    async with neighbours(origins) as found:
        begin = time.perf_counter()
        digest = hashlib.sha256()
        file = await Blocks(found, _heard).open(sample.wanted)
        async for chunk in file.chunks():
            await asyncio.to_thread(digest.update, chunk)
        assert digest.hexdigest() == sample.sha256
        return SIZE / (time.perf_counter() - begin) / 1e6


@asynccontextmanager
async def neighbours(origins: Sequence[str]) -> AsyncIterator[list[Neighbour]]:
    """New ones: nobody remembers who lied."""
    opened = [Verified(GatewayBackend(f"peer{number}", origin)) for number, origin in enumerate(origins)]
    for one in opened:
        await one.open()
    yield [Neighbour(one, "peer") for one in opened]
    for one in opened:
        await one.close()


async def _heard(observed: Observed) -> None:
    """The frontend tells the bot."""


@contextmanager
def liar() -> Iterator[str]:
    """A gateway that gives other bytes for every block, in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, __file__, "lie", str(port)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


async def lie(port: int) -> None:
    """Serves until it is killed."""

    async def handle(request: web.BaseRequest) -> web.Response:
        return web.Response(body=bytes(MIB), content_type="application/vnd.ipld.raw")

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


async def compare(
    name: str, ours: Callable[[], Awaitable[float]], theirs: Callable[[], Awaitable[float]], goal: str
) -> None:
    """Prints how many times as fast `ours` is, turn by turn; and by this process' processor time, whatever else runs."""
    found, computed, speeds = [], [], []
    for _ in range(ROUNDS):
        begin = time.process_time()
        base, between = await theirs(), time.process_time()
        speed, end = await ours(), time.process_time()
        found.append(speed / base)
        computed.append((between - begin) / (end - between))
        speeds.append(speed)
    told = f"{statistics.median(found):6.2f}  ({min(found):.2f} to {max(found):.2f})  goal {goal}"
    print(
        f"{name:<58} {told}  {statistics.median(speeds):.0f} MB/s, by processor time {statistics.median(computed):.2f}",
        flush=True,
    )


def run() -> None:
    """Two mirrors that have the file, each in a process of its own; and a third that lies."""
    sample = Sample()
    environment = {**os.environ, "FILE_SIDE_MAX_BYTES": str(1 << 30)}
    with tempfile.TemporaryDirectory(prefix="matrix-pypi-bench-") as base, ExitStack() as stack:
        origins = []
        for name in ("a", "b"):
            asyncio.run(keep(sample, Path(base, name)))
            origins.append(
                f"http://127.0.0.1:{stack.enter_context(worker(Path(base, name), [sample.decision], environment)).port}"
            )
        evil = stack.enter_context(liar())

        async def all_of_it() -> None:
            one = lambda: plain(origins[0], sample)  # noqa: E731
            await compare(
                "bare loop over blocks, of a plain download", lambda: bare(origins[0], sample), one, "(control)"
            )
            await compare(
                "verified from one peer, of a plain download", lambda: verified(origins[:1], sample), one, ">= 0.6"
            )
            await compare(
                "verified from two peers, of a plain download", lambda: verified(origins, sample), one, ">= 0.6"
            )
            both = lambda: verified(origins, sample)  # noqa: E731
            await compare(
                "two peers and a liar, of two peers", lambda: verified([evil, *origins], sample), both, ">= 0.8"
            )

        asyncio.run(all_of_it())


if __name__ == "__main__":
    if sys.argv[1:2] == ["lie"]:
        asyncio.run(lie(int(sys.argv[2])))
    else:
        run()
