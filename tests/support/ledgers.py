"""The databases of bots, read as they lie there: what a bot kept, and not what it says that it kept."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2  # type: ignore[import-untyped]

from tests.support.member import Member


def ledger_of(member: Member) -> Path:
    """The SQLite file of an organisation's bot."""
    return Path(member.org.told["config_file"]).with_name("bot.db")


def attestations(database: Path | str, project: str, org: str) -> list[str]:
    """The ids of the attestations of a project by an organisation, each as often as it was kept; `database` a file or a URL."""
    return _column(
        database, f"SELECT id FROM envelope WHERE kind = 'attestation' AND project = '{project}' AND org = '{org}'"
    )


def claims(database: Path | str, project: str, org: str) -> list[str]:
    """The ids of the attestations that are weighed, each as often as it would be."""
    where = f"kind = 'attestation' AND project = '{project}' AND org = '{org}'"
    return _column(database, f"SELECT statement_id FROM claim WHERE {where}")


def leaves(database: Path | str) -> int:
    """How many statements the organisation's own log has."""
    return int(_column(database, "SELECT count(*) FROM log_leaf")[0])


def copied(database: Path | str, org: str) -> int:
    """How many of them the copy of another organisation's log has."""
    where = f"copy_id IN (SELECT id FROM peer_copy WHERE org = '{org}')"
    return int(_column(database, f"SELECT coalesce(max(size), 0) FROM peer_head WHERE {where}")[0])


def unsent(database: Path | str) -> int:
    """How many events wait to be sent into rooms."""
    return len(_column(database, "SELECT n FROM outbox WHERE status = 'queued'"))


def _column(database: Path | str, statement: str) -> list[str]:
    rows: Sequence[Sequence[Any]]
    if isinstance(database, Path):
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
            rows = connection.execute(statement).fetchall()
    else:
        parts = urlsplit(database)
        with (
            closing(
                psycopg2.connect(
                    host=parts.hostname, port=parts.port, user=parts.username, dbname=parts.path.lstrip("/")
                )
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)
            rows = cursor.fetchall()
    return [str(row[0]) for row in rows]
