"""The rows that tell how far each backend has copies: the reports are numbered, and those up to one number are dealt with: copied, or
put off, because nobody can say how they stand, because they are refused, or because the backend takes everything but them.

All that may be lost with the index: what is copied again is found to be there.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from matrix_pypi_bot.wire.messages import Stored

COPIES: Final = """
CREATE TABLE copied_until (backend TEXT PRIMARY KEY, report INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE uncopied (
    backend TEXT NOT NULL, report INTEGER NOT NULL, turn INTEGER NOT NULL, PRIMARY KEY (backend, report)
) WITHOUT ROWID;
CREATE INDEX uncopied_by_turn ON uncopied (backend, turn);
"""

_COLUMNS: Final = "id, project, file, sha256, size, cid, source"


def reported_after(connection: sqlite3.Connection, number: int, limit: int) -> list[tuple[int, Stored]]:
    """(number, report) of what clients were given, in order."""
    query = f"SELECT {_COLUMNS} FROM reports WHERE id > ? ORDER BY id LIMIT ?"  # noqa: S608 - a constant
    return [_numbered(row) for row in connection.execute(query, (number, limit))]


def reported_as(connection: sqlite3.Connection, project: str, file: str) -> list[tuple[int, Stored]]:
    """(number, report) of every report of a file, also of other bytes under its name."""
    query = f"SELECT {_COLUMNS} FROM reports WHERE project = ? AND file = ?"  # noqa: S608 - a constant
    return [_numbered(row) for row in connection.execute(query, (project, file))]


def copied_until(connection: sqlite3.Connection, backend: str) -> int:
    """0 at the beginning."""
    row = connection.execute("SELECT report FROM copied_until WHERE backend = ?", (backend,)).fetchone()
    return 0 if row is None else int(row[0])


def note_copied(connection: sqlite3.Connection, backend: str, number: int) -> None:
    """Everything up to this report is dealt with."""
    connection.execute("INSERT OR REPLACE INTO copied_until (backend, report) VALUES (?, ?)", (backend, number))


def put_off(connection: sqlite3.Connection, backend: str, number: int) -> None:
    """This one comes again, after all that were put off before."""
    connection.execute(
        """INSERT OR REPLACE INTO uncopied (backend, report, turn)
        VALUES (?, ?, (SELECT coalesce(max(turn), 0) + 1 FROM uncopied WHERE backend = ?))""",
        (backend, number, backend),
    )


def settle(connection: sqlite3.Connection, backend: str, number: int) -> None:
    """It is put off no more."""
    connection.execute("DELETE FROM uncopied WHERE backend = ? AND report = ?", (backend, number))


def waiting(connection: sqlite3.Connection, backend: str, limit: int) -> list[tuple[int, Stored]]:
    """(number, report) of what was put off, in turn."""
    query = f"""SELECT {_COLUMNS} FROM uncopied JOIN reports ON id = report
        WHERE backend = ? ORDER BY turn LIMIT ?"""  # noqa: S608 - a constant
    return [_numbered(row) for row in connection.execute(query, (backend, limit))]


def left_to_copy(connection: sqlite3.Connection, backend: str) -> int:
    """How many reports are not copied yet."""
    row = connection.execute(
        "SELECT count(*) FROM reports WHERE id > ?", (copied_until(connection, backend),)
    ).fetchone()
    return int(row[0])


def _numbered(row: tuple[int, str, str, str, int, str, str]) -> tuple[int, Stored]:
    number, project, file, sha256, size, cid, source = row
    return number, Stored(project=project, file=file, sha256=sha256, size=size, cid=cid, source=source)
