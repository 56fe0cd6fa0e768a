"""The first schema: every table module's own definitions, and the triggers that keep the ledger insert-only."""

from __future__ import annotations

from matrix_pypi_bot.adapters.database import ledger, mail, views
from matrix_pypi_bot.adapters.database.dialect import Connection, Scheme, definition, insert_only, prepare


async def create(connection: Connection, scheme: Scheme) -> None:
    """Creates all tables in an empty database."""
    for statement in prepare(scheme):
        await connection.execute(statement)
    for template in (*ledger.SCHEMA, *views.SCHEMA, *mail.SCHEMA):
        await connection.execute(definition(template, scheme))
    for table in ledger.INSERT_ONLY:
        for statement in insert_only(table, scheme):
            await connection.execute(statement)
