"""The real tables over SQLite in memory, asked directly: no thread, no file. For worlds that are lived thousands of times."""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import tempfile
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from matrix_pypi_bot.adapters.database.dialect import Connection, Scheme
from matrix_pypi_bot.adapters.database.engine import DatabaseTransaction, open_store
from matrix_pypi_bot.adapters.database.sqlite import _numbered
from matrix_pypi_bot.ports import Transaction


class DirectConnection:
    """As much of mautrix' `Connection` as the tables use."""

    scheme = Scheme.SQLITE

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def execute(self, query: str, *args: Any) -> str:
        self._connection.execute(_numbered(query), args)
        return ""

    async def executemany(self, query: str, each: Sequence[Sequence[Any]]) -> str:
        self._connection.executemany(_numbered(query), each)
        return ""

    async def fetch(self, query: str, *args: Any) -> list[Any]:
        return self._connection.execute(_numbered(query), args).fetchall()

    async def fetchrow(self, query: str, *args: Any) -> Any:
        return self._connection.execute(_numbered(query), args).fetchone()

    async def fetchval(self, query: str, *args: Any, column: int = 0) -> Any:
        row = self._connection.execute(_numbered(query), args).fetchone()
        return None if row is None else row[column]


class DirectStore:
    """`ports.Store`, empty or as it was when `saved` was taken."""

    def __init__(self, saved: bytes | None = None) -> None:
        self._connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=512)
        self._connection.row_factory = sqlite3.Row
        self._connection.deserialize(saved if saved is not None else _schema())
        self._connection.execute("PRAGMA recursive_triggers = ON")
        self._lock = asyncio.Lock()
        self._direct = cast(Connection, DirectConnection(self._connection))

    def save(self) -> bytes:
        """A backup."""
        return self._connection.serialize()

    def rows(self, query: str, *args: Any) -> list[Any]:
        """What is in a table, for whoever looks at the world from outside."""
        return self._connection.execute(query, args).fetchall()

    def close(self) -> None:
        """Nothing is asked any more."""
        self._connection.close()

    @asynccontextmanager
    async def transaction(self, *, reads_only: bool = False) -> AsyncIterator[Transaction]:
        """One at a time."""
        async with self._lock:
            self._connection.execute("BEGIN")
            try:
                yield DatabaseTransaction(self._direct, Scheme.SQLITE)
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")


@functools.cache
def _schema() -> bytes:
    """An empty database as the upgrades make it. Made in a thread of its own: a loop may be running in this one."""
    made: list[bytes] = []

    async def make(path: str) -> None:
        async with open_store(f"sqlite:{path}"):
            pass
        source, target = sqlite3.connect(path), sqlite3.connect(":memory:")
        source.execute("PRAGMA journal_mode = DELETE")  # what was made for a log beside it cannot be opened in memory
        source.backup(target)
        made.append(target.serialize())
        source.close()
        target.close()

    with tempfile.TemporaryDirectory() as folder:
        thread = threading.Thread(target=lambda: asyncio.run(make(f"{folder}/schema.db")))
        thread.start()
        thread.join()
    [schema] = made
    return schema
