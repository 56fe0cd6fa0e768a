"""Remembers under which rules the changes were told: other rules may decide otherwise without any page being new."""

from __future__ import annotations

from matrix_pypi_bot.adapters.database import views
from matrix_pypi_bot.adapters.database.dialect import Connection, Scheme, definition


async def remember_rules(connection: Connection, scheme: Scheme) -> None:
    """Creates the table, empty: nobody knows under which rules the changes that are there were told."""
    await connection.execute(definition(views.RULES_SCHEMA, scheme))
