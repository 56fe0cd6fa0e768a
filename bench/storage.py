"""What a store costs beside its bytes: memory and the event loop while a large file goes in and comes out."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from index_frontend.storage.api import ContentId
from index_frontend.storage.registry import installed, make_backend
from index_frontend.storage.verified import Verified
from matrix_pypi_bot.wire.cids import CidBuilder
from matrix_pypi_bot.wire.digests import Sha256

MIB = 1 << 20
SAMPLE_SECONDS = 0.005


class Watch:
    """While its block runs: how far resident memory grew, and how long the event loop kept anybody waiting."""

    def __init__(self) -> None:
        self.growth_bytes = 0
        self.lags: list[float] = []

    async def __aenter__(self) -> Watch:
        self._before = resident_bytes()
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _look(self) -> None:
        while True:
            begin = time.perf_counter()
            await asyncio.sleep(SAMPLE_SECONDS)
            self.lags.append(time.perf_counter() - begin - SAMPLE_SECONDS)
            self.growth_bytes = max(self.growth_bytes, resident_bytes() - self._before)

    def told(self) -> str:
        """One line."""
        lags = sorted(self.lags) or [0.0]
        return (
            f"memory +{self.growth_bytes / 1e6:5.1f} MB (goal < 64), loop lag "
            f"{1e3 * lags[-1]:5.1f} ms at most (goal < 50), {1e3 * lags[int(0.99 * (len(lags) - 1))]:.1f} ms at p99"
        )


def resident_bytes() -> int:
    """This process' memory now. Linux only."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def pieces(count: int) -> Iterator[bytes]:
    """`count` MiB, no two alike, made without a random source's cost."""
    block = bytearray(hashlib.shake_256(b"matrix-pypi").digest(MIB))
    for number in range(count):
        block[:8] = number.to_bytes(8, "big")
        yield bytes(block)


def described(count: int) -> ContentId:
    """What those are called."""
    digest, builder = hashlib.sha256(), CidBuilder()
    for piece in pieces(count):
        digest.update(piece)
        builder.update(piece)
    return ContentId(sha256=Sha256(digest.hexdigest()), size=count * MIB, cid=builder.finish())


async def put_and_read(backend: Verified, count: int) -> None:
    """`count` MiB into the backend, out of it, and out of it block by block where it has blocks."""
    content = described(count)

    async def source() -> AsyncIterator[bytes]:
        for piece in pieces(count):
            yield piece

    await backend.open()
    try:
        async with timed("put", count):
            await backend.put(content, source())
        async with timed("read", count), backend.read(content) as chunks:
            digest = hashlib.sha256()
            async for chunk in chunks:
                digest.update(chunk)
        assert digest.hexdigest() == content.sha256
        await backend.delete(content)
    finally:
        await backend.close()


@contextlib.asynccontextmanager
async def timed(what: str, count: int) -> AsyncIterator[None]:
    """Prints what the block cost."""
    begin = time.perf_counter()
    async with Watch() as watch:
        yield
    seconds = time.perf_counter() - begin
    print(f"{what:<11} {count} MiB: {count * MIB / 1e6 / seconds:6.0f} MB/s, {watch.told()}", flush=True)


async def plain(folder: Path, count: int) -> None:
    """What the machine does to anybody now: the same bytes written, synced, read and hashed by one thread, nothing checked."""

    def write() -> None:
        with (folder / "plain").open("wb") as file:
            digest = hashlib.sha256()
            for piece in pieces(count):
                digest.update(piece)
                file.write(piece)
            os.fsync(file.fileno())

    def read() -> None:
        digest = hashlib.sha256()
        with (folder / "plain").open("rb") as file:
            while piece := file.read(MIB):
                digest.update(piece)

    async with timed("plain write", count):
        await asyncio.to_thread(write)
    async with timed("plain read", count):
        await asyncio.to_thread(read)
    (folder / "plain").unlink()


def run() -> None:
    """Puts 1 GiB into an embedded store and reads it back."""
    with tempfile.TemporaryDirectory(prefix="matrix-pypi-bench-") as folder:
        asyncio.run(plain(Path(folder), 1024))
        backend = make_backend("bench", {"type": "file", "folder": folder}, installed())
        asyncio.run(put_and_read(backend, 1024))


if __name__ == "__main__":
    sys.exit(run())
