"""Content from one place to another, whole or not at all, and not twice: between backends, into archives and out of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from index_frontend.dag.car import BadCar
from index_frontend.storage.api import Capability, ContentId, NotFound, Stat, Unavailable, WrongContent
from index_frontend.storage.archive import Archive, Told, write_car
from index_frontend.storage.verified import Verified
from matrix_pypi_bot.wire.cids import Cid, InvalidCid, parse_cid
from matrix_pypi_bot.wire.digests import InvalidDigest, Sha256, parse_sha256
from matrix_pypi_bot.wire.problems import Problem, ProblemCode, clean_line

CAR_SUFFIX: Final = ".car"


class NotHeld(Problem):
    """A file that was named is not there."""

    code = ProblemCode.NOT_FOUND


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of a file. `name` is its CID; `detail` says why it was refused, or where it is."""

    name: str
    size: int
    result: Literal["done", "was there", "refused"]
    detail: str = ""


async def find(backend: Verified, names: Sequence[str]) -> AsyncGenerator[Stat, None]:
    """The files that `names` (sha256 or CID) are; all that it holds, in order, when there are none. Raises NotHeld."""
    digests: set[Sha256] = set()
    cids: set[Cid] = set()
    for name in names:
        try:
            digests.add(parse_sha256(name))
        except InvalidDigest:
            try:
                cids.add(parse_cid(name))
            except InvalidCid as error:
                raise NotHeld(f"{clean_line(name, 80)} is neither a sha256 nor a CID", code=error.code) from error
    if Capability.LIST not in backend.capabilities:
        raise NotHeld(f"{backend.name} cannot list what it holds", hint="name a backend that can")
    async for stat in backend.list():
        if not names or stat.content.sha256 in digests or stat.content.cid in cids:
            digests.discard(stat.content.sha256)
            cids.discard(stat.content.cid)
            yield stat
            if names and not digests and not cids:
                return
    if digests or cids:
        raise NotHeld(f"{backend.name} does not hold {next(iter(digests or cids))}")


async def copy(
    source: Verified, target: Verified, stat: Stat, told: Told = lambda count: None, *, pins: bool = False
) -> Moved:
    """The file is in both; with `pins` pinned in `target` as it is in `source`. Checked block by block on its way.

    One that `source` cannot read is refused, and keeps nobody from the next: it may be a bad sector of a disk that is being saved.
    """
    content = stat.content
    moved = Moved(content.cid, content.size, "was there")
    if await target.stat(content) is None:
        try:
            async with source.read(content) as chunks:
                await target.put(content, _counted(chunks, told))
        except (NotFound, WrongContent, Unavailable) as problem:
            if isinstance(problem, Unavailable) and problem.backend != source.name:
                raise
            return Moved(content.cid, content.size, "refused", problem.detail)
        moved = Moved(content.cid, content.size, "done")
    else:
        told(content.size)
    if pins and stat.pin is not None and Capability.PIN in target.capabilities:
        await target.pin(content, stat.pin)
    return moved


async def export(backend: Verified, stat: Stat, folder: Path, told: Told = lambda count: None) -> Moved:
    """`folder`/<CID>.car; left alone when it is there."""
    content = stat.content
    path = folder / f"{content.cid}{CAR_SUFFIX}"
    if path.exists():
        told(content.size)
        return Moved(content.cid, content.size, "was there", str(path))
    try:
        await write_car(backend, content, path, told)
    except (NotFound, WrongContent, Unavailable) as problem:
        return Moved(content.cid, content.size, "refused", problem.detail)
    return Moved(content.cid, content.size, "done", str(path))


async def import_car(backend: Verified, path: Path, told: Told = lambda count: None) -> AsyncGenerator[Moved, None]:
    """Every file whose root the archive names, stored if all of it is in there. `told` of the archive's bytes three times.

    An archive that is no CAR, or has a wrong block, is refused whole.
    """
    with path.open("rb") as file:
        try:
            archive = await asyncio.to_thread(Archive.read, file, told)
        except BadCar as problem:
            yield Moved(path.name, path.stat().st_size, "refused", problem.detail)
            return
        if not archive.roots:
            yield Moved(path.name, 0, "refused", "it names no root")
        for root in archive.roots:
            yield await _stored(backend, archive, root, told)


async def _stored(backend: Verified, archive: Archive, root: Cid, told: Told) -> Moved:
    try:
        content = await asyncio.to_thread(archive.content, root, told)
    except BadCar as problem:
        return Moved(root, 0, "refused", problem.detail)
    if await backend.stat(content) is not None:
        told(content.size)
        return Moved(root, content.size, "was there")
    try:
        await backend.put(content, archive.chunks(root, told))
    except (BadCar, WrongContent) as problem:
        return Moved(root, content.size, "refused", problem.detail)
    return Moved(root, content.size, "done")


async def scrub(
    backend: Verified, stat: Stat, told: Told = lambda count: None, repair: Verified | None = None
) -> Moved:
    """The file read to its end and hashed; when it is wrong, replaced by that of `repair`, if that has it and it is right."""
    content = stat.content
    try:
        await _read(backend, content, told)
    except (NotFound, WrongContent, Unavailable) as problem:
        if repair is not None:
            with suppress(NotFound, WrongContent):
                await _read(repair, content, lambda count: None)
                await _replace(backend, stat, repair)
                return Moved(content.cid, content.size, "done", f"repaired from {repair.name}: {problem.detail}")
        return Moved(content.cid, content.size, "refused", problem.detail)
    return Moved(content.cid, content.size, "was there")


async def _replace(backend: Verified, stat: Stat, repair: Verified) -> None:
    """What is wrong gives way only after it is known that `repair` has it right."""
    if stat.pin is not None:
        await backend.unpin(stat.content)
    await backend.delete(stat.content)
    await copy(repair, backend, Stat(content=stat.content))
    if stat.pin is not None:
        await backend.pin(stat.content, stat.pin)
    await _read(backend, stat.content, lambda count: None)


async def _read(backend: Verified, content: ContentId, told: Told) -> None:
    async with backend.read(content) as chunks:
        async for chunk in chunks:
            told(len(chunk))


async def _counted(chunks: AsyncIterator[bytes], told: Told) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        yield chunk
        told(len(chunk))
