"""Remembers with the files of a page when the page before was looked at: a file that it lacked is no older than that."""

from __future__ import annotations

from matrix_pypi_bot.adapters.database.dialect import Connection, Scheme


async def remember_what_was_lacked(connection: Connection, scheme: Scheme) -> None:
    """Adds the column. Nobody knows it of files seen before; their upload-times are believed."""
    await connection.execute("ALTER TABLE first_digest ADD COLUMN lacked_ms BIGINT")
