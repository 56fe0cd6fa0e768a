"""Keeps reports that differ in anything beside one another: a wrong one no longer takes the place of the right one."""

from __future__ import annotations

from matrix_pypi_bot.adapters.database import views
from matrix_pypi_bot.adapters.database.dialect import Connection, Scheme, definition


async def keep_reports_that_differ(connection: Connection, scheme: Scheme) -> None:
    """Moves what waits into the new table; SQLite cannot change what is unique in a table that is there."""
    for template in views.REPORTS_SCHEMA:
        await connection.execute(definition(template, scheme))
    await connection.execute(
        "INSERT INTO waiting_report (project, body, at_ms) SELECT project, body, at_ms FROM stored_report ORDER BY n"
    )
    await connection.execute("DROP TABLE stored_report")
