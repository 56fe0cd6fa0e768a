"""Stores whose process was killed at each step of its work: `python -m tests.support.killed_store FOLDER` leaves one for every step.

Every life is a fork of one small process, so that a hundred of them take seconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from index_frontend.ports import Held, Verified
from index_frontend.storage.filestore import FileStore, open_filestore
from index_frontend.storage.filestore.index import Index, Work
from index_frontend.storage.filestore.mending import mend
from index_frontend.storage.filestore.scrub import nobody
from matrix_pypi_bot.wire.digests import sha256_of
from tests.support.crashing_disk import CrashingDisk, KillingDisk

MIB: Final = 1 << 20
PINNED: Final = bytes(2 * MIB) + b"pinned"
EVICTED: Final = bytes(MIB) + b"evicted"
SMALL: Final = b"small" * 1000
BODIES: Final = (PINNED, EVICTED, SMALL)
"""The first two share a leaf."""


async def live(folder: Path, disk: CrashingDisk) -> None:
    """What a store does in a life: it stores, pins, evicts, sets aside and mends."""
    _count_rows(disk)
    async with open_filestore(folder, disk=disk) as store:
        for body in BODIES:
            await put(store, body)
        await store.pin(sha256_of(PINNED), "kept")
        await store.evict(sha256_of(EVICTED))
        held = await store.find(sha256_of(PINNED))
        assert held is not None
        with store.look_into(held) as file:
            await store.set_aside(held, os.fstat(file.fileno()))
        (aside,) = await store.set_asides()
        assert aside.path is not None
        assert await mend(aside, store, nobody, store._threads)  # nothing is wrong with it
        await store.give_up(aside.path)


async def put(store: FileStore, body: bytes) -> Held:
    """In three parts."""
    while True:
        async with store.writer(sha256_of(body)) as writer:
            if isinstance(writer, Held):
                return writer
            if writer is not None:  # else the tidying is looking at it
                for start in range(0, len(body), -(-len(body) // 3)):
                    await writer.write(body[start : start + -(-len(body) // 3)])
                return await writer.commit(Verified(sha256_of(body), len(body)))
        await asyncio.sleep(0.001)


def _count_rows(disk: CrashingDisk) -> None:
    """A transaction is a step, too."""
    apply = Index._apply

    def counted(index: Index, works: list[Work[Any]], durable: bool) -> list[Any]:
        disk.steps.append("row")
        if disk.fails_at is not None and len(disk.steps) >= disk.fails_at:
            disk.fail()
        return apply(index, works, durable)

    Index._apply = counted  # type: ignore[method-assign, assignment]


def _live_until(folder: Path, step: int) -> None:
    asyncio.run(live(folder, KillingDisk(step)))


def _forked(work: Callable[[], None]) -> int:
    """How the child that does it ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        work()
    except BaseException:  # it must not go on as its parent
        os._exit(1)
    os._exit(0)


def main(folder: Path) -> None:
    """Rehearses, and then lives and dies once a step; the steps go to `steps.json`."""

    def rehearse() -> None:
        disk = CrashingDisk()
        asyncio.run(live(folder / "rehearsal", disk))
        (folder / "steps.json").write_text(json.dumps(disk.steps))

    if _forked(rehearse):
        sys.exit("the rehearsal failed")
    for step in range(1, len(json.loads((folder / "steps.json").read_text())) + 1):
        _forked(partial(_live_until, folder / f"{step:03}", step))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
