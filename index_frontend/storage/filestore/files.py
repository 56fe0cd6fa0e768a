"""Complete files: found, opened, written and taken away, in a folder that several processes share."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import AsyncIterator
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
from index_frontend.storage.filestore.eviction import Eviction
from index_frontend.storage.filestore.graph import Graph, GraphBuilder
from index_frontend.storage.filestore.index import Index, Work
from index_frontend.storage.filestore.layout import Layout
from index_frontend.storage.filestore.limits import Limits
from index_frontend.storage.filestore.nodes import Nodes
from index_frontend.storage.filestore.notes import Notes
from index_frontend.storage.filestore.part import FilePart, FileWriter
from index_frontend.storage.filestore.pins import Pins
from index_frontend.storage.filestore.threads import in_thread
from matrix_pypi_bot.wire.cids import Cid, raw_cid
from matrix_pypi_bot.wire.digests import Sha256

log = logging.getLogger(__name__)

KNOWN_FILES: Final = 50_000
_READ_BYTES: Final = 1 << 20


class Files(Notes):
    """What `ports.ContentStore` promises, and taking a file away."""

    def __init__(self, layout: Layout, index: Index, disk: Disk, threads: Executor, limits: Limits) -> None:
        super().__init__(index)
        self._layout = layout
        self._disk = disk
        self._threads = threads
        self._nodes = Nodes(layout, disk)
        self._pins = Pins(layout, disk)
        self._eviction = Eviction(layout, index, disk, threads, limits, self.evict)
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
        """Unbuffered. A use. Raises Damaged."""
        self._eviction.used(held.sha256)
        return self.look_into(held)

    def look_into(self, held: Held) -> BinaryIO:
        """As `open`, but no use."""
        assert held.path is not None, "not a file of this store"
        try:
            descriptor = os.open(held.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise Damaged(f"cannot open the stored file {held.sha256}: {error.strerror}") from error
        stat = os.fstat(descriptor)
        if (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) != (held.size, held.modified_ns, held.changed_ns):
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
                writer = FileWriter(sha256, claim, self._layout, self._disk, self._threads, self)
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

    def used(self, sha256: Sha256) -> None:
        """In memory; written with others in a while."""
        self._eviction.used(sha256)

    async def make_room(self, size: int) -> None:
        """For a file of `size` bytes that comes. Raises StorageFull."""
        await self._eviction.make_room(size)

    def is_full(self, size: int) -> None:
        """The disk had no room for `size` bytes."""
        self._eviction.is_full(size)

    async def evict(self, sha256: Sha256) -> bool:
        """Takes the file away unless it is pinned, or somebody is at work on it. Who has it open reads on."""
        async with self._claimed(sha256) as claim:
            return claim is not None and await self._take_away(sha256)

    async def _take_away(self, sha256: Sha256) -> bool:
        """Under the claim. The file goes first: rows without a file are cleared away, a file without rows is taken in again."""
        if self._layout.pin(sha256).exists():
            return False
        is_here = self._layout.file(sha256).exists()
        self._known.pop(sha256, None)
        await in_thread(self._threads, self._disk.remove, self._layout.file(sha256))
        await self._write_row(partial(rows.drop_file, sha256=sha256, forget=self.forget_node))
        return is_here

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
            for leftover in self._layout.leftovers(sha256):
                if os.access(leftover, os.F_OK):
                    await in_thread(self._threads, self._disk.remove, leftover)
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
        """Hashes what lies in the file's place: right, it gets its row and nodes; wrong, it goes. Under the claim."""
        path = self._layout.file(sha256)
        self._known.pop(sha256, None)
        held, graph = await in_thread(self._threads, _hashed, path, sha256)
        if held is not None:
            await self.keep(held, graph)
            return held
        if os.access(path, os.F_OK):
            if await self._is_kept_aside(sha256, path):
                log.error("pinned file is damaged, taken out of service", extra={"sha256": sha256})
                await self._write_row(partial(rows.drop_file, sha256=sha256, forget=lambda _: None))
                return None
            log.error("stored file is damaged, removed", extra={"sha256": sha256})
            await in_thread(self._threads, self._disk.remove, path)
        await self._write_row(partial(rows.drop_file, sha256=sha256, forget=self.forget_node))
        return None

    async def _is_kept_aside(self, sha256: Sha256, path: Path) -> bool:
        """What is pinned waits to be mended, if it is known what it was: the rest of it may be all that anybody has."""
        if not self._layout.pin(sha256).exists():
            return False
        try:
            row = await self._index.read(partial(rows.get_file, sha256=sha256))
        except StorageProblem:
            row = None
        if row is None:
            return False
        await in_thread(self._threads, self._disk.publish, path, self._layout.aside(self._of_row(sha256, row)))
        return True

    async def keep(self, held: Held, graph: Graph) -> None:
        """A file is here and right: a `FileWriter`'s last step. Without its row or a node it is hashed anew when it is asked for."""
        self._known[held.sha256] = held
        row = rows.FileRow(held.size, held.cid, held.modified_ns, held.changed_ns)
        await self._write_row(partial(rows.put_file, sha256=held.sha256, row=row, graph=graph))
        self._eviction.look()
        if not graph.nodes:
            return
        try:  # who deleted a file with the same node meanwhile had not seen our row; an earlier version kept none
            await in_thread(self._threads, self._nodes.write, held.sha256, graph)
        except StorageProblem as problem:
            log.warning("store cannot write a node", extra={"sha256": held.sha256, "cause": problem.detail})

    async def _write_row(self, work: Work[None]) -> None:
        """Best effort."""
        try:
            await self._index.write(work)
        except StorageProblem:
            log.exception("store cannot write its index")

    def forget_node(self, cid: Cid) -> None:
        """No file has the node any more. Called inside the transaction that found so: who wants it has his row, or will look."""
        try:
            self._nodes.remove(cid)
        except StorageProblem as problem:
            log.warning("store cannot remove a node", extra={"cause": problem.detail})

    def _remember(self, sha256: Sha256, row: rows.FileRow) -> Held:
        held = self._known[sha256] = self._of_row(sha256, row)
        return held

    def _of_row(self, sha256: Sha256, row: rows.FileRow) -> Held:
        return Held(
            sha256=sha256,
            size=row.size,
            cid=row.cid,
            path=self._layout.file(sha256),
            modified_ns=row.modified_ns,
            changed_ns=row.changed_ns,
        )


def _hashed(path: Path, sha256: Sha256) -> tuple[Held | None, Graph]:
    """The file, if it is what its name says; None if not, or if there is none. Raises StorageBroken."""
    digest, builder = hashlib.sha256(), GraphBuilder()
    try:
        with told("read", path), path.open("rb", buffering=0) as file:
            stat = os.fstat(file.fileno())
            while chunk := file.read(_READ_BYTES):
                digest.update(chunk)
                builder.update(chunk)
    except StorageBroken as problem:
        if isinstance(problem.__cause__, FileNotFoundError):
            return None, Graph(raw_cid(sha256))
        raise
    graph = builder.finish(sha256)
    if digest.hexdigest() != sha256:
        return None, graph
    held = Held(
        sha256=sha256,
        size=builder.size,
        cid=graph.cid,
        path=path,
        modified_ns=stat.st_mtime_ns,
        changed_ns=stat.st_ctime_ns,
    )
    return held, graph
