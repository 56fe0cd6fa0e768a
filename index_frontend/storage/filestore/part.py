"""A file on its way into the store: the side that reads it and the side that writes it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from typing import Final, Protocol

from index_frontend.ports import DigestMismatch, Held, StorageBroken, StorageFull, StorageProblem, Verified
from index_frontend.storage.filestore.claims import Claim, told_length
from index_frontend.storage.filestore.disk import Disk
from index_frontend.storage.filestore.graph import Graph, GraphBuilder
from index_frontend.storage.filestore.layout import Layout
from index_frontend.storage.filestore.nodes import Nodes
from index_frontend.storage.filestore.threads import in_thread
from matrix_pypi_bot.wire.digests import Sha256

log = logging.getLogger(__name__)

_NOWAIT: Final[int | None] = getattr(os, "RWF_NOWAIT", None)


class FilePart:
    """An open, growing file. It goes on being readable under whatever name it gets, or none."""

    def __init__(self, descriptor: int, length_told: Callable[[], int | None], threads: Executor) -> None:
        self._descriptor: int | None = descriptor
        self._length_told = length_told
        self._threads = threads
        self._total: int | None = None

    @property
    def total(self) -> int | None:
        """Length of the whole, once its writer knows it."""
        if self._total is None:
            self._total = self._length_told()
        return self._total

    def length(self) -> int:
        """Bytes there so far."""
        return os.fstat(self._open()).st_size

    def is_gone(self) -> bool:
        """Whether it lost its name: thrown away."""
        return os.fstat(self._open()).st_nlink == 0

    def became(self, held: Held) -> bool:
        """Whether the held file is this one, renamed."""
        try:
            return held.path is not None and os.path.samestat(os.fstat(self._open()), held.path.stat())
        except OSError:
            return False

    async def read(self, start: int, count: int) -> bytes:
        """Out of the page cache at once where the system tells that it can, else in a thread. Raises StorageBroken."""
        if _NOWAIT is not None:
            buffer = bytearray(count)
            with suppress(OSError):  # EAGAIN: not in memory; EOPNOTSUPP: this filesystem cannot tell
                return bytes(memoryview(buffer)[: os.preadv(self._open(), [buffer], start, _NOWAIT)])
        try:
            return await in_thread(self._threads, os.pread, self._open(), count, start)
        except OSError as error:
            raise StorageBroken(f"cannot read a file of the store: {error.strerror}") from error

    def close(self) -> None:
        """Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _open(self) -> int:
        if self._descriptor is None:
            raise StorageBroken("the file is closed already")
        return self._descriptor


class Home(Protocol):
    """The store that a file is written for."""

    async def make_room(self, size: int) -> None:
        """Raises StorageFull when a file of `size` bytes may not be stored."""
        ...

    def is_full(self, size: int) -> None:
        """The disk had no room for `size` bytes."""
        ...

    async def keep(self, held: Held, graph: Graph) -> None:
        """The file is in its place."""
        ...


class FileWriter:
    """Writes one object under a claim. All steps on the disk are done in threads."""

    def __init__(
        self,
        sha256: Sha256,
        claim: Claim,
        layout: Layout,
        disk: Disk,
        threads: Executor,
        home: Home,
    ) -> None:
        self.size = 0
        self.sha256 = sha256
        self._claim = claim
        self._layout = layout
        self._disk = disk
        self._threads = threads
        self._home = home
        self._descriptor: int | None = None
        self._graph = GraphBuilder()
        self._room = -1

    def part(self) -> FilePart:
        """Reads what has been written; there must have been a `write`."""
        if self._descriptor is None:
            raise StorageBroken("nothing was written yet")
        lock = self._layout.lock(self.sha256)
        return FilePart(os.dup(self._descriptor), lambda: told_length(lock), self._threads)

    async def expect(self, total: int) -> None:
        """Said to other processes through the lock file. Raises StorageFull when there will be no room for it."""
        await self._home.make_room(total)
        self._room = total
        await in_thread(self._threads, self._claim.tell, total)

    async def write(self, data: bytes) -> None:
        """Appends, and hashes for the CID meanwhile."""
        with self._seen_when_full(len(data)):
            await in_thread(self._threads, self._append, data)

    async def restart(self) -> None:
        """The old part loses its name, so that who reads it sees that it is gone; the next one may have another length."""
        await in_thread(self._threads, self._throw_away)
        await in_thread(self._threads, self._claim.forget)

    async def discard(self) -> None:
        """Nothing of it stays, unless it was committed."""
        if self._descriptor is None:
            return
        try:
            await in_thread(self._threads, self._throw_away)
        except StorageProblem as problem:  # the next who claims the object tries again
            log.warning("store cannot throw a part away", extra={"cause": problem.detail})

    async def commit(self, verified: Verified, whole: bytes | bytearray | None = None) -> Held:
        """Raises DigestMismatch, StorageFull or StorageBroken."""
        size = self.size + len(whole or b"")
        if verified != Verified(self.sha256, size):
            told = f"{size} bytes were written of an object that was to be {self.sha256}"
            raise DigestMismatch(told, expected=self.sha256, actual=verified.sha256, size=size)
        if size > self._room:  # nobody told how much would come
            await self._home.make_room(size)
        with self._seen_when_full(size):
            held, graph = await in_thread(self._threads, self._publish, whole or b"")
        await self._home.keep(held, graph)
        return held

    @contextmanager
    def _seen_when_full(self, size: int) -> Iterator[None]:
        """The store makes room for the next one."""
        try:
            yield
        except StorageFull:
            self._home.is_full(size)
            raise

    def _throw_away(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        self.size, self._graph = 0, GraphBuilder()
        if descriptor is not None:
            os.close(descriptor)
            self._disk.remove(self._layout.part(self.sha256))

    def _append(self, data: bytes | bytearray) -> None:
        if self._descriptor is None:
            self._descriptor = self._disk.create(self._layout.part(self.sha256))
        try:
            self._disk.append(self._descriptor, data)
        except StorageProblem:  # how much of it is there nobody knows: nothing may follow it
            with suppress(StorageProblem):
                self._throw_away()
            raise
        self.size += len(data)
        self._graph.update(data)

    def _publish(self, rest: bytes | bytearray) -> tuple[Held, Graph]:
        if rest or self._descriptor is None:
            self._append(rest)
        assert self._descriptor is not None
        graph = self._graph.finish(self.sha256)
        Nodes(self._layout, self._disk).write(self.sha256, graph)
        target = self._layout.file(self.sha256)
        changed = self._disk.make_folders(target.parent)
        self._disk.seal(self._descriptor)
        self._disk.sync(self._descriptor)
        self._disk.publish(self._layout.part(self.sha256), target)
        stat = os.fstat(self._descriptor)  # renaming is a change
        os.close(self._descriptor)
        self._descriptor = None
        for folder in (target.parent, *changed):
            self._disk.sync_folder(folder)
        held = Held(
            sha256=self.sha256,
            size=self.size,
            cid=graph.cid,
            path=target,
            modified_ns=stat.st_mtime_ns,
            changed_ns=stat.st_ctime_ns,
        )
        return held, graph
