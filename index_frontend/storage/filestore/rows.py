"""The rows of the index: one function a question. All take the connection they run on."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

import msgspec

from index_frontend.storage.filestore import block_rows
from index_frontend.storage.filestore.copy_rows import COPIES
from index_frontend.storage.filestore.graph import Graph
from matrix_pypi_bot.wire.cids import Cid
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import Stored

VERSION: Final = 3

_FILES: Final = """
CREATE TABLE files (
    id INTEGER PRIMARY KEY, sha256 TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, cid TEXT NOT NULL,
    modified_ns INTEGER NOT NULL, changed_ns INTEGER NOT NULL, used INTEGER NOT NULL
);
CREATE INDEX files_by_use ON files (used);
CREATE TABLE blocks (
    cid BLOB NOT NULL, file INTEGER NOT NULL, offset INTEGER, size INTEGER NOT NULL, PRIMARY KEY (cid, file)
) WITHOUT ROWID;
CREATE INDEX blocks_by_file ON blocks (file);
CREATE INDEX reports_by_digest ON reports (sha256);
CREATE TABLE totals (bytes INTEGER NOT NULL, files INTEGER NOT NULL);
INSERT INTO totals VALUES (0, 0);
CREATE TRIGGER files_in AFTER INSERT ON files
    BEGIN UPDATE totals SET bytes = bytes + NEW.size, files = files + 1; END;
CREATE TRIGGER files_out AFTER DELETE ON files
    BEGIN UPDATE totals SET bytes = bytes - OLD.size, files = files - 1; END;
"""
"""`blocks`: of files of more than one leaf; `offset` is NULL for a node. `used`: a count that grows, not a time."""

SCHEMA: Final = """
CREATE TABLE reports (
    id INTEGER PRIMARY KEY, project TEXT NOT NULL, file TEXT NOT NULL, sha256 TEXT NOT NULL, size INTEGER NOT NULL,
    cid TEXT NOT NULL, source TEXT NOT NULL, reported INTEGER NOT NULL DEFAULT 0, UNIQUE (project, file, sha256)
);
CREATE INDEX unreported ON reports (id) WHERE NOT reported;
CREATE TABLE wanted (
    project TEXT NOT NULL, file TEXT NOT NULL, sha256 TEXT NOT NULL, PRIMARY KEY (project, file, sha256)
) WITHOUT ROWID;
CREATE TABLE wrong (sha256 TEXT PRIMARY KEY, at_seconds REAL NOT NULL) WITHOUT ROWID;
"""

METADATA: Final = """
CREATE TABLE metadata (
    sha256 TEXT NOT NULL, project TEXT NOT NULL, file TEXT NOT NULL, PRIMARY KEY (sha256, project, file)
) WITHOUT ROWID;
"""
"""Which wheels the METADATA with a digest is of, of those that clients were given."""

FILES: Final = _FILES + COPIES
"""What is found again when it is lost."""

MIGRATIONS: Final = {1: "DROP TABLE files;" + FILES + METADATA, 2: METADATA}
"""From each earlier version to this one. What the bot was told is kept."""

WITHOUT_BLOCKS: Final = frozenset({1})
"""Versions after which the files are looked at anew."""

_STORED_COLUMNS: Final = "project, file, sha256, size, cid, source"


@dataclass(frozen=True, slots=True)
class FileRow:
    """What was true of a file when it was verified."""

    size: int
    cid: Cid
    modified_ns: int
    changed_ns: int


def check(connection: sqlite3.Connection) -> None:
    """Raises sqlite3.Error when a table or a column is missing."""
    connection.execute("SELECT id, sha256, size, cid, modified_ns, changed_ns, used FROM files LIMIT 1").fetchone()
    connection.execute("SELECT cid, file, offset, size FROM blocks LIMIT 1").fetchone()
    connection.execute("SELECT bytes, files FROM totals").fetchone()
    connection.execute("SELECT backend, report FROM copied_until LIMIT 1").fetchone()
    connection.execute("SELECT backend, report, turn FROM uncopied LIMIT 1").fetchone()
    connection.execute(f"SELECT id, {_STORED_COLUMNS}, reported FROM reports LIMIT 1").fetchone()  # noqa: S608 - a constant
    connection.execute("SELECT project, file, sha256 FROM wanted LIMIT 1").fetchone()
    connection.execute("SELECT sha256, at_seconds FROM wrong LIMIT 1").fetchone()
    connection.execute("SELECT sha256, project, file FROM metadata LIMIT 1").fetchone()


def get_file(connection: sqlite3.Connection, sha256: Sha256) -> FileRow | None:
    """The row of a file, None when there is none."""
    query = "SELECT size, cid, modified_ns, changed_ns FROM files WHERE sha256 = ?"
    row = connection.execute(query, (sha256,)).fetchone()
    return None if row is None else FileRow(row[0], Cid(row[1]), *row[2:])


def put_file(connection: sqlite3.Connection, sha256: Sha256, row: FileRow, graph: Graph) -> None:
    """Writes the rows of a file and its blocks, in place of older ones; what was wrong with earlier transfers is forgotten."""
    connection.execute(
        """INSERT INTO files (sha256, size, cid, modified_ns, changed_ns, used)
        VALUES (?, ?, ?, ?, ?, (SELECT coalesce(max(used), 0) + 1 FROM files))
        ON CONFLICT (sha256) DO UPDATE SET size = excluded.size, cid = excluded.cid,
            modified_ns = excluded.modified_ns, changed_ns = excluded.changed_ns""",
        (sha256, row.size, row.cid, row.modified_ns, row.changed_ns),
    )
    block_rows.put_blocks(connection, sha256, graph)
    connection.execute("DELETE FROM wrong WHERE sha256 = ?", (sha256,))


def drop_file(connection: sqlite3.Connection, sha256: Sha256, forget: Callable[[Cid], None]) -> None:
    """The file is not there any more; `forget` is told of every node that no other file has. It must not raise."""
    block_rows.drop_blocks(connection, sha256, forget)
    connection.execute("DELETE FROM files WHERE sha256 = ?", (sha256,))


def totals(connection: sqlite3.Connection) -> tuple[int, int]:
    """(bytes, number) of all files."""
    bytes_, files = connection.execute("SELECT bytes, files FROM totals").fetchone()
    return bytes_, files


def mark_used(connection: sqlite3.Connection, sha256s: Collection[Sha256]) -> None:
    """These were used later than all that were marked before."""
    (latest,) = connection.execute("SELECT coalesce(max(used), 0) + 1 FROM files").fetchone()
    connection.executemany("UPDATE files SET used = ? WHERE sha256 = ?", ((latest, sha256) for sha256 in sha256s))


def least_used(
    connection: sqlite3.Connection, after: tuple[int, int], limit: int
) -> list[tuple[int, int, Sha256, int]]:
    """(use, id, sha256, size) of files behind `after`, a use and an id; those used longest ago first."""
    query = "SELECT used, id, sha256, size FROM files WHERE (used, id) > (?, ?) ORDER BY used, id LIMIT ?"
    return connection.execute(query, (*after, limit)).fetchall()


def digests_with(connection: sqlite3.Connection, prefix: str) -> set[Sha256]:
    """Every file whose digest begins with `prefix`, hexadecimal."""
    query = "SELECT sha256 FROM files WHERE sha256 >= ? AND sha256 < ?"
    return {row[0] for row in connection.execute(query, (prefix, prefix + "g"))}


def files_after(connection: sqlite3.Connection, after: str, limit: int) -> list[tuple[Sha256, FileRow]]:
    """Files by ascending digest, from the one behind `after` on."""
    query = """SELECT sha256, size, cid, modified_ns, changed_ns FROM files WHERE sha256 > ? ORDER BY sha256 LIMIT ?"""
    return [(row[0], FileRow(row[1], Cid(row[2]), *row[3:])) for row in connection.execute(query, (after, limit))]


def note_asked(connection: sqlite3.Connection, stored: Stored) -> bool:
    """False when the file was noted before, reported since or not. It is wanted no more."""
    forget_wanted(connection, stored.project, stored.file, Sha256(stored.sha256))
    cursor = connection.execute(
        f"INSERT OR IGNORE INTO reports ({_STORED_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608 - a constant
        (stored.project, stored.file, stored.sha256, stored.size, stored.cid, stored.source),
    )
    return cursor.rowcount > 0


def note_wanted(connection: sqlite3.Connection, project: str, file: str, sha256: Sha256) -> None:
    """A fetch of the file begins because a client asked."""
    connection.execute("INSERT OR IGNORE INTO wanted (project, file, sha256) VALUES (?, ?, ?)", (project, file, sha256))


def forget_wanted(connection: sqlite3.Connection, project: str, file: str, sha256: Sha256) -> None:
    """The fetch ended, this way or that."""
    connection.execute("DELETE FROM wanted WHERE project = ? AND file = ? AND sha256 = ?", (project, file, sha256))


def wanted(connection: sqlite3.Connection, limit: int) -> list[tuple[str, str, Sha256]]:
    """(project, file, sha256) of fetches that began and of which nobody noted the end."""
    return connection.execute("SELECT project, file, sha256 FROM wanted LIMIT ?", (limit,)).fetchall()


def unreported(connection: sqlite3.Connection, limit: int) -> list[Stored]:
    """Oldest first."""
    query = f"SELECT {_STORED_COLUMNS} FROM reports WHERE NOT reported ORDER BY id LIMIT ?"  # noqa: S608 - a constant
    names = Stored.__struct_fields__
    rows = connection.execute(query, (limit,)).fetchall()
    return [msgspec.convert(dict(zip(names, row, strict=True)), Stored) for row in rows]


def mark_reported(connection: sqlite3.Connection, stored: Stored) -> None:
    """It is not asked about again."""
    connection.execute(
        "UPDATE reports SET reported = 1 WHERE project = ? AND file = ? AND sha256 = ?",
        (stored.project, stored.file, stored.sha256),
    )


def note_wrong(connection: sqlite3.Connection, sha256: Sha256, now_seconds: float, keep_seconds: float) -> None:
    """Remembers a transfer that turned out wrong; older ones, and those of an earlier boot of the machine, are forgotten."""
    connection.execute(
        "DELETE FROM wrong WHERE at_seconds NOT BETWEEN ? AND ?", (now_seconds - keep_seconds, now_seconds)
    )
    connection.execute("INSERT OR REPLACE INTO wrong (sha256, at_seconds) VALUES (?, ?)", (sha256, now_seconds))


def was_wrong(connection: sqlite3.Connection, sha256: Sha256, now_seconds: float, keep_seconds: float) -> bool:
    """Whether such a transfer is remembered."""
    row = connection.execute(
        "SELECT 1 FROM wrong WHERE sha256 = ? AND at_seconds BETWEEN ? AND ?",
        (sha256, now_seconds - keep_seconds, now_seconds),
    ).fetchone()
    return row is not None


def askers_of(connection: sqlite3.Connection, sha256: Sha256) -> tuple[tuple[str, str], ...]:
    """(project, file) of what the bot knows that clients were given."""
    query = "SELECT project, file FROM reports WHERE sha256 = ? AND reported ORDER BY id"
    return tuple(connection.execute(query, (sha256,)).fetchall())


def note_metadata(connection: sqlite3.Connection, sha256: Sha256, project: str, file: str) -> None:
    """A client was given these bytes as the METADATA of the wheel `file`."""
    query = "INSERT OR IGNORE INTO metadata (sha256, project, file) VALUES (?, ?, ?)"
    connection.execute(query, (sha256, project, file))


def metadata_of(connection: sqlite3.Connection, sha256: Sha256, limit: int) -> tuple[tuple[str, str], ...]:
    """(project, file) of wheels with this METADATA of which the bot knows that clients were given them, at most `limit`."""
    query = """SELECT project, file FROM metadata WHERE sha256 = ? AND EXISTS (
        SELECT 1 FROM reports WHERE reports.project = metadata.project AND reports.file = metadata.file AND reported) LIMIT ?"""
    return tuple(connection.execute(query, (sha256, limit)).fetchall())
