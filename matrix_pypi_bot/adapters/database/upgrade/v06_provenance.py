"""Room for provenance: its documents, what they were found to prove, and each project's publisher of first sight."""

from __future__ import annotations

from matrix_pypi_bot.adapters.database import provenance
from matrix_pypi_bot.adapters.database.dialect import Connection, Scheme, definition, insert_only


async def make_room_for_provenance(connection: Connection, scheme: Scheme) -> None:
    """Creates the tables, empty: what files proved before was never looked at."""
    for template in provenance.SCHEMA:
        await connection.execute(definition(template, scheme))
    for table in provenance.INSERT_ONLY:
        for statement in insert_only(table, scheme):
            await connection.execute(statement)
