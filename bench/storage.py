"""What a store costs beside its bytes: memory and the event loop while a large file goes in and comes out.

Each round also writes and reads the same bytes plainly, in one thread: the loop that waits for it does nothing of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from watching import Watch

from index_frontend.storage.api import ContentId
from index_frontend.storage.registry import installed, make_backend
from index_frontend.storage.verified import Verified
from matrix_pypi_bot.wire.cids import CidBuilder
from matrix_pypi_bot.wire.digests import Sha256

MIB = 1 << 20
ROUNDS = 3

lags: defaultdict[str, list[tuple[float, ...]]] = defaultdict(list)
"""By what was done, a round each, in seconds: the longest lag, an idle process', the loop's own, the longest computing."""


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
    lags[what].append((watch.worst_seconds, watch.idle_seconds, watch.own_seconds, watch.burst_seconds))
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


def summary() -> None:
    """Prints the rounds' longest lags, kind by kind."""
    for what, found in lags.items():
        columns = zip(
            ("loop lag", "of an idle process", "the loop's own", "computing"), zip(*found, strict=True), strict=True
        )
        told = ", ".join(
            f"{name} {1e3 * statistics.median(each):.1f} ({1e3 * min(each):.1f} to {1e3 * max(each):.1f})"
            for name, each in columns
        )
        goal = "(control)" if what.startswith("plain") else "goal < 50"
        print(f"{what:<11} longest in ms over {len(found)} rounds: {told}  {goal}", flush=True)


def run() -> None:
    """Puts 1 GiB into an embedded store and reads it back."""
    with tempfile.TemporaryDirectory(prefix="matrix-pypi-bench-") as folder:
        for _ in range(ROUNDS):
            asyncio.run(plain(Path(folder), 1024))
            backend = make_backend("bench", {"type": "file", "folder": folder}, installed())
            asyncio.run(put_and_read(backend, 1024))
    summary()


if __name__ == "__main__":
    sys.exit(run())
