"""The index of the store, in SQLite. Throw-away: what is lost here is found again by hashing, or asked again."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from index_frontend.ports import StorageBroken
from index_frontend.storage.filestore import rows
from index_frontend.storage.filestore.layout import Layout
from index_frontend.storage.filestore.threads import in_thread
from matrix_pypi_bot.wire.problems import clean_line

log = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

BUSY_SECONDS: Final = 10.0
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_GONE: Final = sqlite3.SQLITE_CANTOPEN


class Index:
    """Two connections, each in a thread of its own: one writes, one reads, so that no look-up waits for an fsync.

    Writes that come while one is under way go into the next transaction together. `is_new` says that what the index knew is lost.
    Both look first whether the index is still the file they have open: what is written into one that another process has replaced,
    or a person has deleted, nobody would ever read.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._writes = ThreadPoolExecutor(1, "index-writes")
        self._reads = ThreadPoolExecutor(1, "index-reads")
        self._queue: list[tuple[Work[Any], asyncio.Future[Any]]] = []
        self._durable = False
        self._drain: asyncio.Task[None] | None = None
        self._writer, self.is_new = _open(layout)
        self._inode = _inode_of(layout.index)
        self._is_lost = False
        self._reader: sqlite3.Connection | None = None
        self._reads_inode: int | None = None

    async def read(self, work: Work[T]) -> T:
        """What `work` reads. Raises StorageBroken."""
        try:
            return await in_thread(self._reads, self._ask, work)
        except sqlite3.Error as error:
            if _kind(error) in _DAMAGED or _kind(error) == _GONE:
                return await self.write(work)  # meets the same damage, starts a new index, and asks that
            raise _problem(error) from error

    async def write(self, work: Work[T], *, durable: bool = False) -> T:
        """What `work` returns, when it is written, and if `durable` survives a power cut. Raises StorageBroken."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.append((work, future))
        self._durable |= durable
        if self._drain is None:
            self._drain = asyncio.create_task(self._work_off())
        return await future

    async def close(self) -> None:
        """Finishes what was begun."""
        if self._drain is not None:
            await self._drain
        await in_thread(self._writes, self._writer.close)
        if self._reader is not None:
            await in_thread(self._reads, self._reader.close)
        self._writes.shutdown()
        self._reads.shutdown()

    async def _work_off(self) -> None:
        while self._queue:
            batch, self._queue = self._queue, []
            durable, self._durable = self._durable, False
            try:
                outcomes = await in_thread(self._writes, self._apply, [work for work, _ in batch], durable)
            except Exception as error:  # there is no index, and none can be made: the next batch tries again
                outcomes = [error] * len(batch)
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                if future.done():  # its caller was cancelled
                    continue
                if isinstance(outcome, Exception):
                    future.set_exception(_problem(outcome) if isinstance(outcome, sqlite3.Error) else outcome)
                else:
                    future.set_result(outcome)
        self._drain = None

    def _apply(self, works: list[Work[Any]], durable: bool) -> list[Any]:
        """The outcome of each, an exception where it failed; all in one transaction if that is possible."""
        if self._is_lost or _inode_of(self._layout.index) != self._inode:
            self._renew("another one took its place" if self._layout.index.exists() else "it was deleted")
        try:
            self._writer.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            return self._transaction(works)
        except Exception as error:
            if isinstance(error, sqlite3.Error) and _kind(error) in _DAMAGED:
                self._renew(str(error))
            elif len(works) == 1:
                return [error]
            return [self._alone(work) for work in works]

    def _alone(self, work: Work[Any]) -> Any:
        try:
            return self._transaction([work])[0]
        except Exception as error:  # its caller's
            return error

    def _transaction(self, works: list[Work[Any]]) -> list[Any]:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            outcomes = [work(self._writer) for work in works]
            self._writer.execute("COMMIT")
            return outcomes
        except BaseException:
            with suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")
            raise

    def _ask(self, work: Work[T]) -> T:
        inode = _inode_of(self._layout.index)
        if self._reader is not None and inode != self._reads_inode:
            self._reader.close()
            self._reader = None
        if self._reader is None:
            self._reader, self._reads_inode = _connect(self._layout.index, may_make=False), inode
        try:
            return work(self._reader)
        except sqlite3.Error:
            self._reader.close()  # the next question finds the index that may have taken its place
            self._reader = None
            raise

    def _renew(self, cause: str) -> None:
        """Raises StorageBroken; then it is tried again before the next write."""
        log.error("index of the store is lost, going on with another one", extra={"cause": cause})
        self._is_lost = True
        self._writer.close()
        self._writer, self.is_new = _open(self._layout, distrusted=self._inode)
        self._inode = _inode_of(self._layout.index)
        self._is_lost = False


def _open(layout: Layout, distrusted: int | None = None) -> tuple[sqlite3.Connection, bool]:
    """A sound index, and whether it had to be made. One process at a time looks and makes. Raises StorageBroken.

    `distrusted` is the inode of a damaged one; another process may have replaced it already.
    """
    with _locked(layout.index_lock):
        try:
            if layout.index.exists() and layout.index.stat().st_ino != distrusted:
                return _sound(layout.index)
        except sqlite3.Error as error:
            if _kind(error) in _BUSY:
                raise _problem(error) from error
            log.warning("index of the store cannot be used, starting a new one", extra={"cause": str(error)})
        try:
            return _create(layout.index), True
        except (sqlite3.Error, OSError) as error:
            raise _problem(error) from error


def _sound(path: Path) -> tuple[sqlite3.Connection, bool]:
    """The index at `path`, and whether its files have to be found again: after an update. Raises sqlite3.Error."""
    connection = _connect(path)
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version in rows.MIGRATIONS:
            _make(connection, rows.MIGRATIONS[version])
        elif version != rows.VERSION:
            raise sqlite3.DatabaseError(f"version {version}, not {rows.VERSION}")  # noqa: TRY301 - closes like any other
        rows.check(connection)
    except BaseException:
        connection.close()
        raise
    return connection, version in rows.WITHOUT_BLOCKS


def _make(connection: sqlite3.Connection, tables: str) -> None:
    connection.executescript(f"BEGIN; {tables} PRAGMA user_version = {rows.VERSION}; COMMIT;")


def _create(path: Path) -> sqlite3.Connection:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    connection = _connect(path)
    _make(connection, rows.SCHEMA + rows.METADATA + rows.FILES)
    return connection


def _connect(path: Path, *, may_make: bool = True) -> sqlite3.Connection:
    """A connection in autocommit mode, to be used in any one thread."""
    address = f"{path.as_uri()}?mode={'rwc' if may_make else 'rw'}"
    connection = sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except BaseException:
        connection.close()
        raise
    return connection


def _inode_of(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        with path.open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise _problem(error) from error


def _kind(error: sqlite3.Error) -> int | None:
    """SQLite's primary result code; None for errors of our own and of the Python module."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _problem(error: Exception) -> StorageBroken:
    return StorageBroken(
        f"the index of the store: {clean_line(str(error), 120)}",
        hint="index.sqlite may be deleted while nothing runs; it is made anew from the files",
    )
