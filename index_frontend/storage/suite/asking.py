"""Points about questions: what is there, what is not, and how the backend is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from index_frontend.storage.api import Capability, ContentId, NotFound, StorageBackend, Unavailable, Unsupported
from index_frontend.storage.suite.trial import (
    MIB,
    Failed,
    NotApplicable,
    Sample,
    Trial,
    before,
    chunks_of,
    expect,
    expect_problem,
)
from index_frontend.storage.verified import HEALTH_SECONDS
from matrix_pypi_bot.wire.cids import Cid, InvalidCid, raw_cid
from matrix_pypi_bot.wire.digests import Sha256

_MOST_LISTED: Final = 10_000
_SETTLE_SECONDS: Final = 5.0


async def healthy(trial: Trial) -> None:
    """It says in time how it is, and it is well."""
    begun = time.monotonic()
    health = await trial.backend.health()
    expect(time.monotonic() - begun < HEALTH_SECONDS + 0.5, "it takes longer than two seconds to say how it is")
    expect(health.state != "down", f"it is down: {health.detail}")


async def reads(trial: Trial) -> None:
    """What is held reads the same for many at once, and can be left in the middle."""
    sample = max(await trial.some(4 * MIB + 23), key=lambda one: len(one.data))
    async with trial.backend.read(sample.content) as chunks:
        async for _ in chunks:
            break
    found = await asyncio.gather(*(trial.read(sample.content) for _ in range(4)))
    expect(all(data == sample.data for data in found), "files read side by side are not what was stored")


async def unknown(trial: Trial) -> None:
    """What is not held is said not to be there, by every method, and not to be away."""
    backend, content = trial.backend, trial.fresh(3 * MIB).content
    expect(await backend.stat(content) is None, "a file that nobody has is there")
    await expect_problem(NotFound, trial.read(content), "reading what is not held")
    if trial.can(Capability.DELETE):
        expect(not await backend.delete(content), "deleting what is not held says that it was")
    if trial.can(Capability.BLOCKS):
        for cid in (content.cid, raw_cid(content.sha256)):
            await expect_problem(NotFound, backend.get_block(cid), "asking for a block of nobody's")


async def similar(trial: Trial) -> None:
    """A name that is that of a held file but for its last digit is another one's."""
    for sample in (await trial.some(MIB - 29, MIB + 29))[:4]:
        content = sample.content
        sha256 = Sha256(content.sha256[:-1] + ("0" if content.sha256[-1] != "0" else "1"))
        cid = raw_cid(sha256) if content.size <= MIB else trial.fresh(content.size).content.cid
        alike = ContentId(sha256=sha256, size=content.size, cid=cid)
        expect(await trial.backend.stat(alike) is None, "a file is found under another's name")


async def blocks(trial: Trial) -> None:
    """Every leaf and node of what is held, by its CID."""
    for sample in await trial.some(0, 31, MIB, 3 * MIB + 31):
        for cid, data in sample.blocks().items():
            expect(await trial.backend.get_block(cid) == data, f"the block {cid} of a held file is another one")


async def identity(trial: Trial) -> None:
    """CIDs that carry their content instead of naming it are refused."""
    call = trial.backend.get_block(Cid("bafkqablimvwgy3y"))
    await expect_problem((InvalidCid, NotFound), call, "asking for an identity CID")


async def listed(trial: Trial) -> None:
    """Everything once, in order, from anywhere on."""
    samples = sorted((await trial.some(1, MIB + 37, 37)), key=lambda one: one.content.sha256)
    for sample in samples:
        first = await _first_behind(trial.backend, before(sample.content.sha256))
        expect(first == sample.content, "a held file is not listed at its place")
        second = await _first_behind(trial.backend, sample.content.sha256)
        expect(second is None or second.sha256 > sample.content.sha256, "the list begins before what it shall follow")


async def listed_under_writes(trial: Trial) -> None:
    """What was there all the time is listed once, whatever comes and goes meanwhile."""
    samples = await trial.some(41, 43, 47, 53)
    wanted = {sample.content.sha256 for sample in samples}
    seen: list[Sha256] = []
    async for stat in trial.backend.list():
        seen.append(stat.content.sha256)
        if len(seen) <= 4 and trial.can(Capability.PUT):
            await trial.store(trial.fresh(59))
        if len(seen) == _MOST_LISTED:
            break
    expect(seen == sorted(set(seen)), "the list is not in order, or names a file twice")
    missing = {sha256 for sha256 in wanted if not seen or sha256 <= seen[-1] or len(seen) < _MOST_LISTED} - {*seen}
    expect(not missing, f"{len(missing)} files that were there all the time are not listed")


async def counted(trial: Trial) -> None:
    """How much it holds."""
    samples = await trial.some(2 * MIB)
    usage = await trial.backend.usage()
    expect(usage.bytes >= 0, "it does not tell how much it holds")
    expect(
        usage.bytes >= sum(len(one.data) for one in samples),
        f"it says that it holds {usage.bytes} bytes; it was given more",
    )
    expect(usage.files is None or usage.files >= len(samples), "it says that it holds fewer files than it was given")


async def honest(trial: Trial) -> None:
    """What it cannot do it says it cannot, and nothing else."""
    backend, sample = trial.backend, trial.fresh(27)
    content = sample.content
    calls: dict[Capability, Callable[[], Awaitable[object]]] = {
        Capability.PUT: lambda: backend.put(content, chunks_of(sample.data)),
        Capability.DELETE: lambda: backend.delete(content),
        Capability.BLOCKS: lambda: backend.get_block(content.cid),
        Capability.PIN: lambda: backend.pin(content, "x"),
        Capability.LIST: lambda: _first_behind(backend, None),
        Capability.USAGE: backend.usage,
    }
    for capability, call in calls.items():
        if trial.can(capability):
            if capability is not Capability.PUT:  # its points store
                await _not_unsupported(call, capability)
        else:
            await expect_problem(Unsupported, call(), f"{capability.value}, which it cannot do,")
    has_unpin = type(backend.backend).unpin is not StorageBackend.unpin
    expect(has_unpin == trial.can(Capability.PIN), "of pin and unpin it has only one")


async def closed(trial: Trial) -> None:
    """Closing twice is closing once; afterwards nothing works, and it says so."""
    backend = trial.another()
    await backend.open()
    await backend.open()
    await backend.close()
    await backend.close()
    try:
        await backend.backend.close()
    except Exception as error:
        raise Failed(f"closing it twice raises {type(error).__name__}") from error
    sample = Sample.of(b"x")
    await expect_problem(Unavailable, backend.stat(sample.content), "asking a backend that is closed")
    expect((await backend.health()).state == "down", "a closed backend is not down")


async def leaks(trial: Trial) -> None:
    """Opened, used, left in the middle and closed, it leaves no task and no open file."""
    before_tasks = asyncio.all_tasks()
    await _used(trial)
    first = _open_files()
    for _ in range(3):
        await _used(trial)
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:  # connections that were told to close do so in their own time
        tasks = {task for task in asyncio.all_tasks() - before_tasks if not task.done()}
        files = _open_files()
        if not tasks and (first is None or files is None or files <= first):
            return
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(0.02)
    names = ", ".join(sorted(task.get_name() for task in tasks))
    raise Failed(f"it leaves tasks behind: {names}" if tasks else f"of {first} open files it has made {files}")


async def _used(trial: Trial) -> None:
    backend = trial.another()
    await backend.open()
    try:
        with suppress(NotFound):
            async with backend.read(trial.fresh(27).content):
                pass
        with suppress(NotApplicable):
            for sample in await trial.some(2 * MIB + 61):
                with suppress(NotFound):  # a backend in memory is another one each time
                    async with backend.read(sample.content) as chunks:
                        await anext(chunks, None)
        await backend.health()
    finally:
        await backend.close()


async def _not_unsupported(call: Callable[[], Awaitable[object]], capability: Capability) -> None:
    try:
        await call()
    except Unsupported as problem:
        raise Failed(f"{capability.value} is there and says that it is not") from problem
    except NotFound:
        return


async def _first_behind(backend: StorageBackend, after: Sha256 | None) -> ContentId | None:
    async for stat in backend.list(after=after):
        return stat.content
    return None


def _open_files() -> int | None:
    """How many this process has; None where the system does not tell."""
    folder = Path("/proc/self/fd")
    return len([*folder.iterdir()]) if folder.is_dir() else None
