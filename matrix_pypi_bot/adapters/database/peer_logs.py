"""The tables of copies of other organisations' logs (`ports.PeerLogs`).

A leaf's envelope lies in the ledger once it counts there; `peer_entry` holds only those that do not, or not yet. Staged leaves and the
nodes above them lie apart, so that what the database refuses to change is only what a signed head bears.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from matrix_pypi_bot.adapters.database.dialect import Connection, Scheme
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.leaves import Leaf
from matrix_pypi_bot.core.notes import NoteKey
from matrix_pypi_bot.core.tlog import full_subtrees, node_hash
from matrix_pypi_bot.ports import Break, CopyHead, CopyId, Waiting

SCHEMA: Final = (
    """CREATE TABLE peer_copy (
        id {identity}, org {name} NOT NULL, origin {name} NOT NULL, log_key {blob} NOT NULL, at_ms BIGINT NOT NULL,
        UNIQUE (org, origin, log_key))""",
    """CREATE TABLE peer_leaf (
        copy_id BIGINT NOT NULL, n BIGINT NOT NULL, statement_id {name} NOT NULL, leaf_hash {blob} NOT NULL,
        PRIMARY KEY (copy_id, n))""",
    "CREATE INDEX peer_leaf_of_statement ON peer_leaf (statement_id)",
    """CREATE TABLE peer_node (
        copy_id BIGINT NOT NULL, level BIGINT NOT NULL, n BIGINT NOT NULL, hash {blob} NOT NULL,
        PRIMARY KEY (copy_id, level, n))""",
    # Leaves (level 0) and full subtrees above them that no signed head bears yet.
    """CREATE TABLE peer_staged (
        copy_id BIGINT NOT NULL, level BIGINT NOT NULL, n BIGINT NOT NULL, hash {blob} NOT NULL, statement_id TEXT NOT NULL,
        PRIMARY KEY (copy_id, level, n))""",
    """CREATE TABLE peer_entry (
        copy_id BIGINT NOT NULL, n BIGINT NOT NULL, envelope {blob} NOT NULL, relayed BOOLEAN NOT NULL,
        outcome TEXT NOT NULL, PRIMARY KEY (copy_id, n))""",
    # Two roots of one size are both kept: they are the proof of a fork.
    """CREATE TABLE peer_note (
        copy_id BIGINT NOT NULL, size BIGINT NOT NULL, root {blob} NOT NULL, note TEXT NOT NULL, at_ms BIGINT NOT NULL,
        PRIMARY KEY (copy_id, size, root))""",
    """CREATE TABLE peer_head (
        copy_id BIGINT PRIMARY KEY, size BIGINT NOT NULL, root {blob} NOT NULL, note TEXT NOT NULL,
        signed_s BIGINT NOT NULL, taken BIGINT NOT NULL)""",
    """CREATE TABLE peer_break (
        copy_id BIGINT NOT NULL, fork BOOLEAN NOT NULL, first_note TEXT NOT NULL, second_note TEXT NOT NULL,
        at_ms BIGINT NOT NULL, PRIMARY KEY (copy_id, fork))""",
    """CREATE TABLE peer_day (
        org {name} NOT NULL, day BIGINT NOT NULL, statements BIGINT NOT NULL, size_bytes BIGINT NOT NULL,
        PRIMARY KEY (org, day))""",
    """CREATE TABLE log_cosignature (
        witness {name} PRIMARY KEY, size BIGINT NOT NULL, line TEXT NOT NULL, at_ms BIGINT NOT NULL)""",
)
INSERT_ONLY: Final = ("peer_copy", "peer_leaf", "peer_node", "peer_note", "peer_break")

_HEAD: Final = "size, root, note, signed_s, taken"


class PeerLogTables:
    """`ports.PeerLogs` inside one transaction."""

    __slots__ = ("_db",)

    def __init__(self, connection: Connection, scheme: Scheme) -> None:
        self._db = connection

    async def copy(self, org: str, key: NoteKey, at_ms: int) -> CopyId:
        query = "SELECT id FROM peer_copy WHERE org = $1 AND origin = $2 AND log_key = $3"
        found = await self._db.fetchval(query, org, key.name, key.public)
        if found is None:
            await self._db.execute(
                "INSERT INTO peer_copy (org, origin, log_key, at_ms) VALUES ($1, $2, $3, $4)",
                org, key.name, key.public, at_ms,
            )  # fmt: skip
            found = await self._db.fetchval(query, org, key.name, key.public)
        return CopyId(found)

    async def newest_copy(self, org: str) -> CopyId | None:
        found = await self._db.fetchval(
            "SELECT MAX(id) FROM peer_copy JOIN peer_head ON peer_head.copy_id = peer_copy.id WHERE org = $1", org
        )
        return None if found is None else CopyId(found)

    async def head(self, copy: CopyId) -> CopyHead | None:
        row = await self._db.fetchrow(f"SELECT {_HEAD} FROM peer_head WHERE copy_id = $1", copy)  # noqa: S608
        return None if row is None else _head(row)

    async def put_head(self, copy: CopyId, head: CopyHead) -> None:
        await self._db.execute(
            f"INSERT INTO peer_head (copy_id, {_HEAD}) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (copy_id) DO UPDATE SET "  # noqa: S608
            "size = excluded.size, root = excluded.root, note = excluded.note, signed_s = excluded.signed_s, taken = excluded.taken",
            copy, head.size, head.root, head.note, int(head.signed), head.taken,
        )  # fmt: skip

    async def heads(self) -> dict[str, CopyHead]:
        rows = await self._db.fetch(
            f"SELECT org, {_HEAD} FROM peer_copy JOIN peer_head ON peer_head.copy_id = peer_copy.id ORDER BY id"  # noqa: S608
        )
        return {row["org"]: _head(row) for row in rows}

    async def end(self, copy: CopyId) -> int:
        staged = await self._db.fetchval("SELECT MAX(n) FROM peer_staged WHERE copy_id = $1 AND level = 0", copy)
        last = staged
        if last is None:
            last = await self._db.fetchval("SELECT MAX(n) FROM peer_leaf WHERE copy_id = $1", copy)
        return 0 if last is None else int(last) + 1

    async def stage(self, copy: CopyId, leaves: Sequence[Leaf], *, relayed: bool) -> None:
        start = await self.end(copy)
        peaks = [await self.subtree(copy, level, index) for level, index in full_subtrees(0, start)]
        hashes: list[tuple[int, int, int, bytes, str]] = []
        for n, leaf in enumerate(leaves, start):
            hashes.append((copy, 0, n, leaf.hash, leaf.statement_id))
            level, index, merged = 0, n, leaf.hash
            while index & 1:
                merged = node_hash(peaks.pop(), merged)
                level, index = level + 1, index >> 1
                hashes.append((copy, level, index, merged, ""))
            peaks.append(merged)
        await self._db.executemany(
            "INSERT INTO peer_staged (copy_id, level, n, hash, statement_id) VALUES ($1, $2, $3, $4, $5)", hashes
        )
        await self._db.executemany(
            "INSERT INTO peer_entry (copy_id, n, envelope, relayed, outcome) VALUES ($1, $2, $3, $4, '')",
            [(copy, n, leaf.envelope, relayed) for n, leaf in enumerate(leaves, start)],
        )

    async def settle(self, copy: CopyId, size: int) -> None:
        leaves = "copy_id = $1 AND level = 0 AND n < $2"
        nodes = "copy_id = $1 AND level > 0 AND ((n + 1) << CAST(level AS INTEGER)) <= $2"
        await self._db.execute(
            "INSERT INTO peer_leaf (copy_id, n, statement_id, leaf_hash) "  # noqa: S608
            f"SELECT copy_id, n, statement_id, hash FROM peer_staged WHERE {leaves}",
            copy, size,
        )  # fmt: skip
        await self._db.execute(
            "INSERT INTO peer_node (copy_id, level, n, hash) "  # noqa: S608
            f"SELECT copy_id, level, n, hash FROM peer_staged WHERE {nodes}",
            copy, size,
        )  # fmt: skip
        for which in (leaves, nodes):
            await self._db.execute(f"DELETE FROM peer_staged WHERE {which}", copy, size)  # noqa: S608

    async def drop_staged(self, copy: CopyId) -> bool:
        first = await self._db.fetchval("SELECT MIN(n) FROM peer_staged WHERE copy_id = $1 AND level = 0", copy)
        if first is None:
            return False
        relayed = await self._db.fetchval(
            "SELECT 1 FROM peer_entry WHERE copy_id = $1 AND n >= $2 AND relayed LIMIT 1", copy, first
        )
        await self._db.execute("DELETE FROM peer_entry WHERE copy_id = $1 AND n >= $2", copy, first)
        await self._db.execute("DELETE FROM peer_staged WHERE copy_id = $1", copy)
        return relayed is not None

    async def subtree(self, copy: CopyId, level: int, index: int) -> bytes:
        query = (
            "SELECT hash FROM peer_node WHERE copy_id = $1 AND level = $2 AND n = $3"
            if level
            else "SELECT leaf_hash FROM peer_leaf WHERE copy_id = $1 AND $2 = 0 AND n = $3"
        )
        found = await self._db.fetchval(query, copy, level, index)
        if found is None:
            found = await self._db.fetchval(
                "SELECT hash FROM peer_staged WHERE copy_id = $1 AND level = $2 AND n = $3", copy, level, index
            )
        if found is None:
            raise LookupError(f"the copy has no full subtree {index} of level {level}")
        return bytes(found)

    async def entries(self, copy: CopyId, start: int, end: int) -> list[bytes]:
        rows = await self._db.fetch(
            "SELECT COALESCE(envelope.envelope, peer_entry.envelope) AS envelope FROM peer_leaf "
            "LEFT JOIN envelope ON envelope.id = peer_leaf.statement_id "
            "LEFT JOIN peer_entry ON peer_entry.copy_id = peer_leaf.copy_id AND peer_entry.n = peer_leaf.n "
            "WHERE peer_leaf.copy_id = $1 AND peer_leaf.n >= $2 AND peer_leaf.n < $3 ORDER BY peer_leaf.n",
            copy, start, end,
        )  # fmt: skip
        return [bytes(row["envelope"]) for row in rows]

    async def waiting(self, copy: CopyId, start: int, end: int, limit: int) -> list[Waiting]:
        rows = await self._db.fetch(
            "SELECT n, envelope, relayed, outcome FROM peer_entry "
            "WHERE copy_id = $1 AND n >= $2 AND n < $3 ORDER BY n LIMIT $4",
            copy, start, end, limit,
        )  # fmt: skip
        return [_waiting(row) for row in rows]

    async def uncounted(
        self, copy: CopyId, outcomes: frozenset[str], limit: int, *, start: int = 0, relayed_only: bool = False
    ) -> list[Waiting]:
        among = ", ".join(f"${number}" for number in range(4, 4 + len(outcomes)))
        rows = await self._db.fetch(
            "SELECT n, envelope, relayed, outcome FROM peer_entry WHERE copy_id = $1 AND n >= $2 "  # noqa: S608
            f"AND outcome IN ({among}) {'AND relayed' if relayed_only else ''} ORDER BY n LIMIT $3",
            copy, start, limit, *sorted(outcomes),
        )  # fmt: skip
        return [_waiting(row) for row in rows]

    async def kept(self, copy: CopyId, n: int) -> None:
        await self._db.execute("DELETE FROM peer_entry WHERE copy_id = $1 AND n = $2", copy, n)

    async def found(self, copy: CopyId, n: int, outcome: str) -> None:
        await self._db.execute("UPDATE peer_entry SET outcome = $3 WHERE copy_id = $1 AND n = $2", copy, n, outcome)

    async def mend(self, copy: CopyId, n: int, envelope: bytes) -> None:
        await self._db.execute(
            "UPDATE peer_entry SET envelope = $3, relayed = $4, outcome = '' WHERE copy_id = $1 AND n = $2",
            copy, n, envelope, False,
        )  # fmt: skip

    async def see(self, copy: CopyId, size: int, root: bytes, note: str, at_ms: int) -> None:
        await self._db.execute(
            "INSERT INTO peer_note (copy_id, size, root, note, at_ms) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            copy, size, root, note, at_ms,
        )  # fmt: skip

    async def notes(self, copy: CopyId, start: int, end: int) -> list[tuple[int, bytes, str]]:
        rows = await self._db.fetch(
            "SELECT size, root, note FROM peer_note WHERE copy_id = $1 AND size >= $2 AND size < $3 ORDER BY size, at_ms",
            copy, start, end,
        )  # fmt: skip
        return [(row["size"], bytes(row["root"]), row["note"]) for row in rows]

    async def largest_note(self, copy: CopyId) -> int:
        found: int = await self._db.fetchval("SELECT COALESCE(MAX(size), 0) FROM peer_note WHERE copy_id = $1", copy)
        return found

    async def break_off(self, found: Break, at_ms: int) -> bool:
        known = await self._db.fetchval(
            "SELECT 1 FROM peer_break WHERE copy_id = $1 AND fork = $2", found.copy, found.fork
        )
        if known is None:
            await self._db.execute(
                "INSERT INTO peer_break (copy_id, fork, first_note, second_note, at_ms) VALUES ($1, $2, $3, $4, $5)",
                found.copy, found.fork, *found.notes, at_ms,
            )  # fmt: skip
        return known is None

    async def breaks(self) -> list[Break]:
        rows = await self._db.fetch(
            "SELECT copy_id, org, origin, log_key, fork, first_note, second_note FROM peer_break "
            "JOIN peer_copy ON peer_copy.id = peer_break.copy_id ORDER BY peer_break.at_ms, copy_id"
        )
        return [
            Break(
                copy=CopyId(row["copy_id"]),
                org=row["org"],
                key=NoteKey(row["origin"], bytes(row["log_key"])),
                fork=bool(row["fork"]),
                notes=(row["first_note"], row["second_note"]),
            )
            for row in rows
        ]

    async def spend(self, org: str, day: int, statements: int, size_bytes: int) -> tuple[int, int]:
        await self._db.execute("DELETE FROM peer_day WHERE org = $1 AND day < $2", org, day)
        await self._db.execute(
            "INSERT INTO peer_day (org, day, statements, size_bytes) VALUES ($1, $2, $3, $4) ON CONFLICT (org, day) DO UPDATE SET "
            "statements = peer_day.statements + excluded.statements, size_bytes = peer_day.size_bytes + excluded.size_bytes",
            org, day, statements, size_bytes,
        )  # fmt: skip
        row = await self._db.fetchrow(
            "SELECT statements, size_bytes FROM peer_day WHERE org = $1 AND day = $2", org, day
        )
        assert row is not None, "it was written a moment ago"
        return row["statements"], row["size_bytes"]

    async def cosigned(self, witness: str, size: int, line: str, at_ms: int) -> None:
        await self._db.execute(
            "INSERT INTO log_cosignature (witness, size, line, at_ms) VALUES ($1, $2, $3, $4) ON CONFLICT (witness) DO UPDATE SET "
            "size = excluded.size, line = excluded.line, at_ms = excluded.at_ms",
            witness, size, line, at_ms,
        )  # fmt: skip

    async def cosignatures(self, size: int) -> dict[str, str]:
        rows = await self._db.fetch("SELECT witness, line FROM log_cosignature WHERE size = $1 ORDER BY witness", size)
        return {row["witness"]: row["line"] for row in rows}


def _waiting(row: Any) -> Waiting:
    return Waiting(row["n"], bytes(row["envelope"]), bool(row["relayed"]), row["outcome"])


def _head(row: Any) -> CopyHead:
    return CopyHead(
        size=row["size"],
        root=bytes(row["root"]),
        note=row["note"],
        signed=Instant(row["signed_s"]),
        taken=row["taken"],
    )
