"""A connection to SQLite that asks its worker thread once a statement.

mautrix' own asks three times for every SELECT (execute, fetch, close), and each time costs as much as the statement itself.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any, Final

from mautrix.util.async_db import Connection

_PARAMETER: Final = re.compile(r"\$([0-9]+)")


class SqliteConnection(Connection):
    """`Connection` with the same methods. Results are read whole, so no cursor stays open."""

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """Runs a statement; what it would return is not kept."""
        await self._all(query, args)
        return ""

    async def fetch(self, query: str, *args: Any, timeout: float | None = None) -> list[Any]:
        """All rows."""
        return await self._all(query, args)

    async def fetchrow(self, query: str, *args: Any, timeout: float | None = None) -> Any:
        """The first row, None when there is none."""
        rows = await self._all(query, args)
        return rows[0] if rows else None

    async def fetchval(self, query: str, *args: Any, column: int = 0, timeout: float | None = None) -> Any:
        """One column of the first row, None when there is none."""
        rows = await self._all(query, args)
        return rows[0][column] if rows else None

    async def _all(self, query: str, args: Sequence[Any]) -> list[Any]:
        return list(await self.wrapped.execute_fetchall(_numbered(query), args))


@functools.lru_cache(maxsize=512)
def _numbered(query: str) -> str:
    """`$1` as SQLite writes it."""
    return _PARAMETER.sub(r"?\1", query)
