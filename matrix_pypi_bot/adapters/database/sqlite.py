"""A connection to SQLite that asks its worker thread as rarely as it can.

Each question to the thread costs as much as several statements, and mautrix' own connection asks three times for every SELECT. Here
statements that return nothing are kept until a result is needed or the transaction ends; then all go in one question.
"""

from __future__ import annotations

import functools
import re
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

from mautrix.util.async_db import Connection

_BEGIN: Final = "BEGIN IMMEDIATE"
_PARAMETER: Final = re.compile(r"\$([0-9]+)")

Statement = tuple[str, Sequence[Any]]


class SqliteConnection(Connection):
    """`Connection` with the same methods, for one transaction that ends with `commit`.

    What is wrong with a statement that returns nothing is raised by a later one, at the latest by `commit`.
    """

    def __init__(self, connection: Connection) -> None:
        self._waiting: list[Statement] = [(_BEGIN, ())]
        super().__init__(connection.scheme, connection.wrapped, connection.log)

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """Has a statement run, soon."""
        self._waiting.append((query, args))
        return ""

    async def executemany(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """Has a statement run for each of the sequences in `args[0]`, soon."""
        self._waiting.extend((query, each) for each in args[0])
        return ""

    async def fetch(self, query: str, *args: Any, timeout: float | None = None) -> list[Any]:
        """All rows."""
        self._waiting.append((query, args))
        return await self._run()

    async def fetchrow(self, query: str, *args: Any, timeout: float | None = None) -> Any:
        """The first row, None when there is none."""
        rows = await self.fetch(query, *args)
        return rows[0] if rows else None

    async def fetchval(self, query: str, *args: Any, column: int = 0, timeout: float | None = None) -> Any:
        """One column of the first row, None when there is none."""
        row = await self.fetchrow(query, *args)
        return None if row is None else row[column]

    async def commit(self) -> None:
        """Runs what waits and makes it durable. A transaction in which nothing was asked was none."""
        if [query for query, _ in self._waiting] != [_BEGIN]:
            self._waiting.append(("COMMIT", ()))
            await self._run()

    async def _run(self) -> list[Any]:
        """Runs what waits; the rows of the last statement."""
        statements = [(_numbered(query), args) for query, args in self._waiting]
        self._waiting.clear()
        connection = self.wrapped
        # aiosqlite offers nothing public that runs several statements in its thread at once.
        rows: list[Any] = await connection._execute(_all_of, connection._conn, statements)  # noqa: SLF001
        return rows


def _all_of(connection: sqlite3.Connection, statements: Iterable[Statement]) -> list[Any]:
    rows: list[Any] = []
    for query, args in statements:
        rows = connection.execute(query, args).fetchall()
    return rows


@functools.lru_cache(maxsize=512)
def _numbered(query: str) -> str:
    """`$1` as SQLite writes it."""
    return _PARAMETER.sub(r"?\1", query)
