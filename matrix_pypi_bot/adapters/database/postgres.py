"""A connection to PostgreSQL of which several may ask at the same time: they take turns, as the protocol wants it."""

from __future__ import annotations

import asyncio
from typing import Any

from mautrix.util.async_db import Connection


class PostgresConnection(Connection):
    """`Connection` with the same methods."""

    def __init__(self, connection: Connection) -> None:
        self._turn = asyncio.Lock()
        super().__init__(connection.scheme, connection.wrapped, connection.log)

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """Runs a statement; what became of it."""
        async with self._turn:
            status: str = await super().execute(query, *args, timeout=timeout)
        return status

    async def executemany(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """Runs a statement for each of the sequences in `args[0]`."""
        async with self._turn:
            status: str = await super().executemany(query, *args, timeout=timeout)
        return status

    async def fetch(self, query: str, *args: Any, timeout: float | None = None) -> list[Any]:
        """All rows."""
        async with self._turn:
            rows: list[Any] = await super().fetch(query, *args, timeout=timeout)
        return rows

    async def fetchrow(self, query: str, *args: Any, timeout: float | None = None) -> Any:
        """The first row, None when there is none."""
        async with self._turn:
            return await super().fetchrow(query, *args, timeout=timeout)

    async def fetchval(self, query: str, *args: Any, column: int = 0, timeout: float | None = None) -> Any:
        """One column of the first row, None when there is none."""
        async with self._turn:
            return await super().fetchval(query, *args, column=column, timeout=timeout)
