"""Copies of other organisations' logs, and their cosignatures of ours."""

from __future__ import annotations

from matrix_pypi_bot.adapters.database import peer_logs
from matrix_pypi_bot.adapters.database.dialect import Connection, Scheme, definition, insert_only


async def keep_copies(connection: Connection, scheme: Scheme) -> None:
    """Creates the tables, empty."""
    for template in peer_logs.SCHEMA:
        await connection.execute(definition(template, scheme))
    for table in peer_logs.INSERT_ONLY:
        for statement in insert_only(table, scheme):
            await connection.execute(statement)
