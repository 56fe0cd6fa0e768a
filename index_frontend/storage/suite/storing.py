"""Points about files going in, and about those that must not."""

from __future__ import annotations

import asyncio

from index_frontend.storage.api import Capability, ContentId, NotFound, WrongContent
from index_frontend.storage.suite.trial import (
    MIB,
    SIZES,
    Sample,
    SourceBroke,
    Trial,
    breaking,
    chunks_of,
    expect,
    expect_problem,
    stalling,
)
from matrix_pypi_bot.wire.cids import raw_cid
from matrix_pypi_bot.wire.digests import sha256_of


async def round_trips(trial: Trial) -> None:
    """A file of each size comes out as it went in."""
    for size in SIZES:
        await trial.expect_held(await trial.store(trial.fresh(size)))


async def storing_twice(trial: Trial) -> None:
    """The second time is success, and changes nothing."""
    sample = await trial.store(trial.fresh(2 * MIB + 3))
    before = await trial.backend.stat(sample.content)
    await trial.store(sample)
    await trial.expect_held(sample)
    expect(await trial.backend.stat(sample.content) == before, "storing a file twice changes how it stands")


async def storing_side_by_side(trial: Trial) -> None:
    """Several callers store the same at once; all succeed."""
    sample, other = trial.fresh(2 * MIB + 5), trial.fresh(MIB // 2)
    await asyncio.gather(*(trial.store(one) for one in (sample, other) * 3))
    await trial.expect_held(sample)
    await trial.expect_held(other)


async def wrong_names(trial: Trial) -> None:
    """What is not what it is called is not kept, under either name."""
    for size in (33, MIB, 3 * MIB + 7):
        true, other = trial.fresh(size), trial.fresh(size)
        is_leaf = size <= MIB
        names = {
            "sha256": ContentId(
                sha256=other.content.sha256,
                size=size,
                cid=raw_cid(other.content.sha256) if is_leaf else true.content.cid,
            ),
            "size": ContentId(sha256=true.content.sha256, size=size + 1, cid=true.content.cid),
            "CID": ContentId(sha256=true.content.sha256, size=size, cid=other.content.cid),
        }
        for what, content in names.items():
            call = trial.backend.put(content, chunks_of(true.data))
            await expect_problem(WrongContent, call, f"storing {size} bytes under a wrong {what}")
            await trial.expect_absent(content, f"it was stored under a wrong {what}")
            await trial.expect_absent(true.content, f"it was stored under a wrong {what}")


async def broken_sources(trial: Trial) -> None:
    """A source that ends early or raises leaves nothing, and what it raised comes through."""
    for size in (3 * MIB + 11, MIB):
        sample = trial.fresh(size)
        for at in (0, size // 2, size - 1, size):
            call = trial.backend.put(sample.content, breaking(sample.data, at))
            await expect_problem(SourceBroke, call, f"a source that breaks at byte {at} of {size}")
            await trial.expect_absent(sample.content, f"its source broke at byte {at} of {size}")
        for at in (0, size // 2, size - 1):
            call = trial.backend.put(sample.content, chunks_of(sample.data[:at]))
            await expect_problem(WrongContent, call, f"a source that ends at byte {at} of {size}")
            await trial.expect_absent(sample.content, f"its source ended at byte {at} of {size}")
        await trial.expect_held(await trial.store(sample))


async def cancelled(trial: Trial) -> None:
    """A put that is cancelled leaves nothing, and the same file can be stored afterwards."""
    sample = trial.fresh(3 * MIB + 13)
    for at in (0, sample.content.size // 2, sample.content.size - 1, sample.content.size):
        reached = asyncio.Event()
        task = asyncio.create_task(trial.backend.put(sample.content, stalling(sample.data, at, reached)))
        waiting = asyncio.create_task(reached.wait())
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        task.cancel()
        await expect_problem(asyncio.CancelledError, _shielded(task), f"being cancelled at byte {at}")  # type: ignore[arg-type]
        await trial.expect_absent(sample.content, f"it was cancelled at byte {at}")
    await trial.expect_held(await trial.store(sample))


async def _shielded(task: asyncio.Task[None]) -> None:
    """The task's end as if it were our own, but for a cancellation of ourselves."""
    await asyncio.wait({task})
    if task.cancelled():
        raise asyncio.CancelledError
    task.result()


async def pinned(trial: Trial) -> None:
    """A pinned file tells its pin's name, stays, and may go when it is unpinned."""
    sample = await trial.store(trial.fresh(MIB + 17))
    backend, content = trial.backend, sample.content
    await backend.pin(content, "a name")
    await backend.pin(content, "another name")
    stat = await backend.stat(content)
    expect(stat is not None and stat.pin == "another name", f"a pinned file stands as {stat}")
    if trial.can(Capability.DELETE):
        expect(not await backend.delete(content), "a pinned file is said to be deleted")
    await trial.expect_held(sample)
    await backend.unpin(content)
    await backend.unpin(content)
    stat = await backend.stat(content)
    expect(stat is None or stat.pin is None, f"a file that was unpinned stands as {stat}")
    await expect_problem(NotFound, backend.pin(trial.fresh(25).content, "x"), "pinning what is not held")
    await backend.unpin(trial.fresh(25).content)


async def deleted(trial: Trial) -> None:
    """A file that is deleted is gone; another one stays."""
    gone, stays = await trial.some(2 * MIB + 19, MIB + 19)
    expect(await trial.backend.delete(gone.content), "deleting a file that is held says that it was not")
    expect(not await trial.backend.delete(gone.content), "deleting a file twice says twice that it was held")
    await trial.expect_absent(gone.content, "it was deleted")
    await expect_problem(NotFound, trial.read(gone.content), "reading what was deleted")
    await trial.expect_held(stays)
    await trial.expect_held(await trial.store(gone))


async def deleted_with_shared_blocks(trial: Trial) -> None:
    """Of two files that share blocks, one goes and the other stays whole."""
    head = trial.fresh(MIB).data
    first, second = (Sample.of(head + trial.fresh(MIB + size).data) for size in (1, 2))
    await trial.store(first)
    await trial.store(second)
    await trial.backend.delete(first.content)
    await trial.expect_held(second)
    if trial.can(Capability.BLOCKS):
        cid = raw_cid(sha256_of(head))
        expect(await trial.backend.get_block(cid) == head, "a block that two files shared is gone with one of them")
