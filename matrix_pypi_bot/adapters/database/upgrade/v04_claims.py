"""Keeps what statements claim of files beside them, and what is judged of statements."""

from __future__ import annotations

from typing import Final

from matrix_pypi_bot.adapters.database.claims import INSERT_ONLY, SCHEMA, ClaimTables
from matrix_pypi_bot.adapters.database.dialect import Connection, Scheme, definition, insert_only
from matrix_pypi_bot.core.claims import claims_of
from matrix_pypi_bot.core.envelope import read_envelope
from matrix_pypi_bot.core.rejected import Rejected
from matrix_pypi_bot.core.statements import read_statement
from matrix_pypi_bot.core.strict_json import parse_strict

BATCH_STATEMENTS: Final = 500
_CLAIMING: Final = "('attestation', 'review', 'withdrawal')"


async def keep_claims(connection: Connection, scheme: Scheme) -> None:
    """Creates the tables, and fills in the claims of the statements that were kept until now."""
    for template in SCHEMA:
        await connection.execute(definition(template, scheme))
    for table in INSERT_ONLY:
        for statement in insert_only(table, scheme):
            await connection.execute(statement)
    tables, after = ClaimTables(connection, scheme), 0
    while rows := await connection.fetch(
        "SELECT n, project, org, keyid, envelope, first_seen_ms FROM envelope "  # noqa: S608
        f"WHERE kind IN {_CLAIMING} AND n > $1 ORDER BY n LIMIT $2",
        after,
        BATCH_STATEMENTS,
    ):
        for row in rows:
            after = row["n"]
            try:
                told = read_statement(read_envelope(parse_strict(bytes(row["envelope"]))).payload)
                claims = list(claims_of(told, org=row["org"], keyid=row["keyid"], received_ms=row["first_seen_ms"]))
            except Rejected:
                continue  # kept under rules that were wider than today's
            for claim in claims:
                await tables.claim(row["project"], claim)
