"""The store itself: what `ports.ContentStore` promises, on a folder that several processes share."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from cachetools import LRUCache

from index_frontend.ports import Damaged, Held, StorageBroken, StorageProblem
from index_frontend.storage.filestore import rows
from index_frontend.storage.filestore.claims import Claim, told_length, try_claim
from index_frontend.storage.filestore.disk import Disk, told
from index_frontend.storage.filestore.index import Index, Work
from index_frontend.storage.filestore.layout import Layout
from index_frontend.storage.filestore.part import FilePart, FileWriter
from index_frontend.storage.filestore.threads import in_thread
from matrix_pypi_bot.wire.cids import CidBuilder
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import Stored

log = logging.getLogger(__name__)

KNOWN_FILES: Final = 50_000
WRONG_SECONDS: Final = 60.0
_READ_BYTES: Final = 1 << 20


class FileStore:
    """Files by sha256. Open it with `open_filestore`."""

    def __init__(
        self,
        layout: Layout,
        index: Index,
        disk: Disk,
        threads: Executor,
        monotonic: Callable[[], float] = time.monotonic,  # the same clock in all processes of a machine
    ) -> None:
        self._layout = layout
        self._index = index
        self._disk = disk
        self._threads = threads
        self._monotonic = monotonic
        self._known: LRUCache[Sha256, Held] = LRUCache(KNOWN_FILES)

    def held(self, sha256: Sha256) -> Held | None:
        """From memory."""
        return self._known.get(sha256)

    async def find(self, sha256: Sha256) -> Held | None:
        """From memory, else from the folder and the index. A file without a row is not found: nobody says that it is whole."""
        held = self._known.get(sha256)
        if held is None and os.access(self._layout.file(sha256), os.F_OK):
            try:
                row = await self._index.read(partial(rows.get_file, sha256=sha256))
            except StorageProblem as problem:
                log.warning("store cannot look up a file", extra={"sha256": sha256, "cause": problem.detail})
                return None
            if row is not None:
                held = self._remember(sha256, row)
        return held

    def open(self, held: Held) -> BinaryIO:
        """Unbuffered. Raises Damaged."""
        assert held.path is not None, "not a file of this store"
        try:
            descriptor = os.open(held.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise Damaged(f"cannot open the stored file {held.sha256}: {error.strerror}") from error
        stat = os.fstat(descriptor)
        if (stat.st_size, stat.st_mtime_ns) != (held.size, held.modified_ns):
            os.close(descriptor)
            raise Damaged(f"the stored file {held.sha256} was changed after it was stored")
        return os.fdopen(descriptor, "rb", buffering=0)

    async def recheck(self, sha256: Sha256) -> Held | None:
        """None, too, while another process writes it."""
        async with self._claimed(sha256) as claim:
            return None if claim is None else await self._adopt(sha256)

    @asynccontextmanager
    async def writer(self, sha256: Sha256) -> AsyncIterator[FileWriter | Held | None]:
        """Under the object's claim. What a process that died had finished is taken over."""
        async with self._claimed(sha256) as claim:
            if claim is None:
                yield None
            elif (held := await self._sound(sha256)) is not None:
                yield held
            else:
                writer = FileWriter(sha256, claim, self._layout, self._disk, self._threads, self._keep)
                try:
                    yield writer
                finally:
                    await writer.discard()

    def follow(self, sha256: Sha256) -> FilePart | None:
        """The part of whichever process writes it."""
        try:
            descriptor = os.open(self._layout.part(sha256), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        return FilePart(descriptor, partial(told_length, self._layout.lock(sha256)), self._threads)

    async def note_wrong(self, sha256: Sha256) -> None:
        """In the index, by a clock that all processes of this machine share."""
        now, keep = self._monotonic(), WRONG_SECONDS
        try:
            await self._index.write(partial(rows.note_wrong, sha256=sha256, now_seconds=now, keep_seconds=keep))
        except StorageProblem as problem:
            log.warning("store cannot note a wrong transfer", extra={"sha256": sha256, "cause": problem.detail})

    async def was_wrong(self, sha256: Sha256) -> bool:
        """False when the index cannot be asked."""
        now, keep = self._monotonic(), WRONG_SECONDS
        try:
            return await self._index.read(partial(rows.was_wrong, sha256=sha256, now_seconds=now, keep_seconds=keep))
        except StorageProblem:
            return False

    async def note_asked(self, stored: Stored) -> bool:
        """In the index. Raises StorageBroken."""
        return await self._index.write(partial(rows.note_asked, stored=stored), durable=True)

    async def note_wanted(self, project: str, file: str, sha256: Sha256) -> None:
        """In the index, safe from a kill but not from a power cut. Raises StorageBroken."""
        await self._index.write(partial(rows.note_wanted, project=project, file=file, sha256=sha256))

    async def forget_wanted(self, project: str, file: str, sha256: Sha256) -> None:
        """In the index. Raises StorageBroken."""
        await self._index.write(partial(rows.forget_wanted, project=project, file=file, sha256=sha256))

    async def wanted(self, limit: int = 500) -> list[tuple[str, str, Sha256]]:
        """From the index. Raises StorageBroken."""
        return await self._index.read(partial(rows.wanted, limit=limit))

    async def unreported(self, limit: int = 500) -> list[Stored]:
        """From the index. Raises StorageBroken."""
        return await self._index.read(partial(rows.unreported, limit=limit))

    async def reported(self, stored: Stored) -> None:
        """In the index. Raises StorageBroken."""
        await self._index.write(partial(rows.mark_reported, stored=stored))

    async def check(self) -> None:
        """Raises StorageFull or StorageBroken when nothing can be stored now."""
        probe = self._layout.tmp / f"probe-{os.getpid()}"
        await in_thread(self._threads, self._probe, probe)

    def _probe(self, path: Path) -> None:
        self._disk.remove(path)
        descriptor = self._disk.create(path)
        try:
            self._disk.append(descriptor, b"?")
        finally:
            os.close(descriptor)
            self._disk.remove(path)

    @asynccontextmanager
    async def _claimed(self, sha256: Sha256) -> AsyncIterator[Claim | None]:
        """The claim, None while another process has it. The part that a process that died left behind is thrown away.

        Claiming is done here and now: a few calls on names that are in memory take a tenth of the time that handing them to a thread
        would add to every fetch.
        """
        claim = try_claim(self._layout.lock(sha256))
        if claim is None:
            yield None
            return
        try:
            part = self._layout.part(sha256)
            if os.access(part, os.F_OK):
                await in_thread(self._threads, self._disk.remove, part)
            yield claim
        finally:
            await in_thread(self._threads, claim.release)

    async def _sound(self, sha256: Sha256) -> Held | None:
        """The file, when it is here as it was stored, or has been hashed anew; under its claim."""
        if not os.access(self._layout.file(sha256), os.F_OK):
            return None
        held = await self.find(sha256)
        if held is not None:
            try:
                self.open(held).close()
                return held
            except Damaged as damage:
                log.warning("stored file was touched, hashing it anew", extra={"cause": damage.detail})
        return await self._adopt(sha256)

    async def _adopt(self, sha256: Sha256) -> Held | None:
        """Hashes what lies in the file's place: right, it gets its row; wrong, it is removed. Under the claim."""
        path = self._layout.file(sha256)
        self._known.pop(sha256, None)
        row = await in_thread(self._threads, _hashed, path, sha256)
        if row is not None:
            await self._write_row(partial(rows.put_file, sha256=sha256, row=row))
            return self._remember(sha256, row)
        if os.access(path, os.F_OK):
            log.error("stored file is damaged, removed", extra={"sha256": sha256})
            await in_thread(self._threads, self._disk.remove, path)
        await self._write_row(partial(rows.drop_file, sha256=sha256))
        return None

    async def _keep(self, held: Held) -> None:
        """A file has just been published."""
        row = rows.FileRow(held.size, held.cid, held.modified_ns)
        self._remember(held.sha256, row)
        await self._write_row(partial(rows.put_file, sha256=held.sha256, row=row))

    async def _write_row(self, work: Work[None]) -> None:
        """Best effort: a file without its row is hashed anew when somebody asks for it."""
        try:
            await self._index.write(work)
        except StorageProblem:
            log.exception("store cannot write its index")

    def _remember(self, sha256: Sha256, row: rows.FileRow) -> Held:
        held = Held(
            sha256=sha256, size=row.size, cid=row.cid, path=self._layout.file(sha256), modified_ns=row.modified_ns
        )
        self._known[sha256] = held
        return held


def _hashed(path: Path, sha256: Sha256) -> rows.FileRow | None:
    """What there is to know of the file, if it is what its name says; None if not, or if there is none. Raises StorageBroken."""
    digest, builder = hashlib.sha256(), CidBuilder()
    try:
        with told("read", path), path.open("rb", buffering=0) as file:
            modified_ns = os.fstat(file.fileno()).st_mtime_ns
            while chunk := file.read(_READ_BYTES):
                digest.update(chunk)
                builder.update(chunk)
    except StorageBroken as problem:
        if isinstance(problem.__cause__, FileNotFoundError):
            return None
        raise
    return rows.FileRow(builder.size, builder.finish(), modified_ns) if digest.hexdigest() == sha256 else None
