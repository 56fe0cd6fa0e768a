"""Gives the log its tree and its checkpoints: the leaves were kept from the first day, nothing above them was."""

from __future__ import annotations

from typing import Final

from matrix_pypi_bot.adapters.database import log
from matrix_pypi_bot.adapters.database.dialect import Connection, Scheme, definition, insert_only

BATCH_LEAVES: Final = 1_000


async def build_the_tree(connection: Connection, scheme: Scheme) -> None:
    """Creates the tables and the subtrees above the leaves that are there."""
    for template in log.SCHEMA:
        await connection.execute(definition(template, scheme))
    for table in log.INSERT_ONLY:
        for statement in insert_only(table, scheme):
            await connection.execute(statement)
    tables, start = log.LogTables(connection, scheme), 0
    while rows := await connection.fetch(
        "SELECT n, leaf_hash FROM log_leaf WHERE n >= $1 AND n < $2 ORDER BY n", start, start + BATCH_LEAVES
    ):
        for row in rows:
            await tables.complete(row["n"], bytes(row["leaf_hash"]))
        start += BATCH_LEAVES
