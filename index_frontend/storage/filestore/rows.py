"""The rows of the index: one function a question. All take the connection they run on."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

import msgspec

from matrix_pypi_bot.wire.cids import Cid
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import Stored

VERSION: Final = 1

SCHEMA: Final = """
CREATE TABLE files (
    sha256 TEXT PRIMARY KEY, size INTEGER NOT NULL, cid TEXT NOT NULL, modified_ns INTEGER NOT NULL
) WITHOUT ROWID;
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

_STORED_COLUMNS: Final = "project, file, sha256, size, cid, source"


@dataclass(frozen=True, slots=True)
class FileRow:
    """What was true of a file when it was verified."""

    size: int
    cid: Cid
    modified_ns: int


def check(connection: sqlite3.Connection) -> None:
    """Raises sqlite3.Error when a table or a column is missing."""
    connection.execute("SELECT sha256, size, cid, modified_ns FROM files LIMIT 1").fetchone()
    connection.execute(f"SELECT id, {_STORED_COLUMNS}, reported FROM reports LIMIT 1").fetchone()  # noqa: S608 - a constant
    connection.execute("SELECT project, file, sha256 FROM wanted LIMIT 1").fetchone()
    connection.execute("SELECT sha256, at_seconds FROM wrong LIMIT 1").fetchone()


def get_file(connection: sqlite3.Connection, sha256: Sha256) -> FileRow | None:
    """The row of a file, None when there is none."""
    row = connection.execute("SELECT size, cid, modified_ns FROM files WHERE sha256 = ?", (sha256,)).fetchone()
    return None if row is None else FileRow(row[0], Cid(row[1]), row[2])


def put_file(connection: sqlite3.Connection, sha256: Sha256, row: FileRow) -> None:
    """Writes the row, in place of an older one; what was wrong with earlier transfers is forgotten."""
    connection.execute(
        "INSERT OR REPLACE INTO files (sha256, size, cid, modified_ns) VALUES (?, ?, ?, ?)",
        (sha256, row.size, row.cid, row.modified_ns),
    )
    connection.execute("DELETE FROM wrong WHERE sha256 = ?", (sha256,))


def drop_file(connection: sqlite3.Connection, sha256: Sha256) -> None:
    """The file is not there any more."""
    connection.execute("DELETE FROM files WHERE sha256 = ?", (sha256,))


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
