"""Rooms that other organisations made, how often a statement was said again, and which statement an event carried."""

from __future__ import annotations

from matrix_pypi_bot.adapters.database import ledger, mail
from matrix_pypi_bot.adapters.database.dialect import Connection, Scheme, definition


async def know_rooms_of_others(connection: Connection, scheme: Scheme) -> None:
    """Every room known until now is of our own making."""
    for template in (*mail.ROOMS_SCHEMA, ledger.SIGHTING_INDEX):
        await connection.execute(definition(template, scheme))
