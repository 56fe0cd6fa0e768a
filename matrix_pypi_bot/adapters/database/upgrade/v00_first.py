"""The first schema: every table module's own definitions, and the triggers that keep the ledger insert-only."""

from __future__ import annotations

from typing import Final

from matrix_pypi_bot.adapters.database import ledger, mail, views
from matrix_pypi_bot.adapters.database.dialect import Connection, Scheme, definition, insert_only, prepare

# Here and not with its module: v02 puts another in its place.
_STORED_REPORT: Final = """CREATE TABLE stored_report (
    n {identity}, project {name} NOT NULL, file {name} NOT NULL, sha256 TEXT NOT NULL, body {blob} NOT NULL,
    at_ms BIGINT NOT NULL, UNIQUE (project, file, sha256))"""


async def create(connection: Connection, scheme: Scheme) -> None:
    """Creates all tables in an empty database."""
    for statement in prepare(scheme):
        await connection.execute(statement)
    for template in (*ledger.SCHEMA, *views.SCHEMA, _STORED_REPORT, *mail.SCHEMA):
        await connection.execute(definition(template, scheme))
    for table in ledger.INSERT_ONLY:
        for statement in insert_only(table, scheme):
            await connection.execute(statement)
