"""The tables of this organisation's transparency log (`ports.Log`).

Every full subtree's hash is kept beside the leaves, one row a leaf on average: a root or a proof reads about as many rows as the
tree is high, and nothing of the tree is held in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matrix_pypi_bot.adapters.database.dialect import Connection, Scheme
from matrix_pypi_bot.core.tlog import node_hash
from matrix_pypi_bot.ports import HeadRow

SCHEMA: Final = (
    # Full subtrees of two leaves (level 1) and more; a leaf's own hash is in `log_leaf`.
    "CREATE TABLE log_node (level BIGINT NOT NULL, n BIGINT NOT NULL, hash {blob} NOT NULL, PRIMARY KEY (level, n))",
    # By its key the database refuses a second root of one size.
    "CREATE TABLE log_checkpoint (size BIGINT PRIMARY KEY, root {blob} NOT NULL, at_ms BIGINT NOT NULL)",
    # One row. The same checkpoint is signed again from time to time, so it stands apart from the promise.
    """CREATE TABLE log_head (
        id BIGINT PRIMARY KEY CHECK (id = 1), size BIGINT NOT NULL REFERENCES log_checkpoint (size), note TEXT NOT NULL,
        at_ms BIGINT NOT NULL)""",
)
INSERT_ONLY: Final = ("log_node", "log_checkpoint")


class LogTables:
    """`ports.Log` inside one transaction."""

    __slots__ = ("_db",)

    def __init__(self, connection: Connection, scheme: Scheme) -> None:
        self._db = connection

    async def append(self, statement_id: str, leaf_hash: bytes) -> int:
        n = await self.size()
        await self._db.execute(
            "INSERT INTO log_leaf (n, statement_id, leaf_hash) VALUES ($1, $2, $3)", n, statement_id, leaf_hash
        )
        await self.complete(n, leaf_hash)
        return n

    async def complete(self, n: int, leaf_hash: bytes) -> None:
        """Keeps the hashes of the subtrees that leaf `n` makes full: for every second leaf one, for every fourth another, ..."""
        level, index, merged = 0, n, leaf_hash
        while index & 1:
            merged = node_hash(await self.subtree(level, index - 1), merged)
            level, index = level + 1, index >> 1
            await self._db.execute("INSERT INTO log_node (level, n, hash) VALUES ($1, $2, $3)", level, index, merged)

    async def size(self) -> int:
        size: int = await self._db.fetchval("SELECT COALESCE(MAX(n) + 1, 0) FROM log_leaf")
        return size

    async def subtree(self, level: int, index: int) -> bytes:
        if level:
            found = await self._db.fetchval("SELECT hash FROM log_node WHERE level = $1 AND n = $2", level, index)
        else:
            found = await self._db.fetchval("SELECT leaf_hash FROM log_leaf WHERE n = $1", index)
        if found is None:
            raise LookupError(f"the log has no full subtree {index} of level {level}")
        return bytes(found)

    async def leaves(self, start: int, end: int) -> list[str]:
        rows = await self._db.fetch("SELECT statement_id FROM log_leaf WHERE n >= $1 AND n < $2 ORDER BY n", start, end)
        return [row["statement_id"] for row in rows]

    async def entries(self, start: int, end: int) -> list[bytes]:
        rows = await self._db.fetch(
            "SELECT envelope.envelope FROM log_leaf JOIN envelope ON envelope.id = log_leaf.statement_id "
            "WHERE log_leaf.n >= $1 AND log_leaf.n < $2 ORDER BY log_leaf.n",
            start, end,
        )  # fmt: skip
        return [bytes(row["envelope"]) for row in rows]

    async def places(self, statement_ids: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for statement_id in statement_ids:
            n = await self._db.fetchval("SELECT n FROM log_leaf WHERE statement_id = $1", statement_id)
            if n is not None:
                found[statement_id] = n
        return found

    async def promise(self, size: int, root: bytes, at_ms: int) -> bytes:
        await self._db.execute(
            "INSERT INTO log_checkpoint (size, root, at_ms) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            size,
            root,
            at_ms,
        )
        promised: bytes = await self._db.fetchval("SELECT root FROM log_checkpoint WHERE size = $1", size)
        return bytes(promised)

    async def head(self) -> HeadRow | None:
        row = await self._db.fetchrow(
            "SELECT log_head.size, root, note, log_checkpoint.at_ms AS promised_ms, log_head.at_ms AS signed_ms "
            "FROM log_head JOIN log_checkpoint ON log_checkpoint.size = log_head.size"
        )
        if row is None:
            return None
        return HeadRow(
            size=row["size"],
            root=bytes(row["root"]),
            note=row["note"],
            promised_ms=row["promised_ms"],
            signed_ms=row["signed_ms"],
        )

    async def put_head(self, size: int, note: str, at_ms: int) -> None:
        await self._db.execute(
            "INSERT INTO log_head (id, size, note, at_ms) VALUES (1, $1, $2, $3) ON CONFLICT (id) DO UPDATE SET "
            "size = excluded.size, note = excluded.note, at_ms = excluded.at_ms",
            size, note, at_ms,
        )  # fmt: skip
