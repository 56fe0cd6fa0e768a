"""A connection to SQLite that asks its worker thread as rarely as it can.

Each question to the thread costs as much as several statements, and mautrix' own connection asks three times for every SELECT. Here
statements that return nothing are kept until a result is needed or the transaction ends; then all go in one question.
"""

from __future__ import annotations

import asyncio
import functools
import re
import sqlite3
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from mautrix.util.async_db import Connection

_BEGIN: Final = "BEGIN IMMEDIATE"
_SNAPSHOT: Final = "BEGIN"
_PARAMETER: Final = re.compile(r"\$([0-9]+)")

Statement = tuple[str, Sequence[Any]]
_Answers: TypeAlias = asyncio.Future[list[list[Any]]]


class SqliteConnection(Connection):
    """`Connection` with the same methods, for one transaction that ends with `commit`.

    What is wrong with a statement that returns nothing is raised by a later one, at the latest by `commit`. With `reads_only`
    nothing is to be written; what is asked at the same time is one transaction of its own.
    """

    def __init__(self, connection: Connection, *, reads_only: bool = False) -> None:
        self._reads_only = reads_only
        self._waiting: list[Statement] = [] if reads_only else [(_BEGIN, ())]
        self._asking: list[
            _Answers
        ] = []  # of the next question, if somebody is about to ask it: fields cannot be set again
        super().__init__(connection.scheme, connection.wrapped, connection.log)

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """Has a statement run, soon."""
        self._write((query, args))
        return ""

    async def executemany(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """Has a statement run for each of the sequences in `args[0]`, soon."""
        self._write(*((query, each) for each in args[0]))
        return ""

    async def fetch(self, query: str, *args: Any, timeout: float | None = None) -> list[Any]:
        """All rows. Who asks at the same time as others, in other tasks, goes in one question with them."""
        assert not self._reads_only or query.startswith("SELECT"), f"a snapshot is only read: {query}"
        place = len(self._waiting)
        self._waiting.append((query, args))
        if self._asking:
            return (await self._asking[0])[place]
        answers: _Answers = asyncio.get_running_loop().create_future()
        self._asking.append(answers)
        try:
            await self._hear_all()
            rows = await self._run()
        except BaseException as error:
            _fail(answers, error)
            raise
        if not answers.done():  # one of those who wait may have been cancelled
            answers.set_result(rows)
        return rows[place]

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
        if not self._reads_only and [query for query, _ in self._waiting] != [_BEGIN]:
            self._waiting.append(("COMMIT", ()))
            await self._run()

    async def _hear_all(self) -> None:
        """Returns when everybody has asked who is about to, some of them only after a step or two of their own."""
        heard = 0
        try:
            while heard < len(self._waiting):
                heard = len(self._waiting)
                await asyncio.sleep(0)
        finally:
            self._asking.clear()

    def _write(self, *statements: Statement) -> None:
        assert not self._reads_only, f"a snapshot is only read: {statements[:1]}"
        self._waiting.extend(statements)

    async def _run(self) -> list[list[Any]]:
        """Runs what waits; the rows of each."""
        statements = [(_numbered(query), args) for query, args in self._waiting]
        self._waiting.clear()
        connection = self.wrapped
        work = _snapshot if self._reads_only else _all_of
        # aiosqlite offers nothing public that runs several statements in its thread at once.
        rows: list[list[Any]] = await connection._execute(work, connection._conn, statements)  # noqa: SLF001
        return rows


def _fail(answers: _Answers, error: BaseException) -> None:
    """Whoever waits for the answers fails alike."""
    if isinstance(error, Exception) and not answers.done():
        answers.set_exception(error)
        answers.exception()  # it may be that nobody waits
    answers.cancel()


def _all_of(connection: sqlite3.Connection, statements: Sequence[Statement]) -> list[list[Any]]:
    if not connection.in_transaction and statements[0][0] not in (_BEGIN, _SNAPSHOT):
        # It could not be begun, which somebody else was told: what comes later must not become durable by itself.
        raise sqlite3.OperationalError("there is no transaction")
    return [connection.execute(query, args).fetchall() for query, args in statements]


def _snapshot(connection: sqlite3.Connection, statements: Sequence[Statement]) -> list[list[Any]]:
    return _all_of(connection, [(_SNAPSHOT, ()), *statements, ("COMMIT", ())])[1:-1]


@functools.lru_cache(maxsize=512)
def _numbered(query: str) -> str:
    """`$1` as SQLite writes it."""
    return _PARAMETER.sub(r"?\1", query)
