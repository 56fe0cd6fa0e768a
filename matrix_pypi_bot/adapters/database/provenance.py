"""The tables of provenance: documents, what verifying them told, and publishers of first sight (`ports.Proofs`)."""

from __future__ import annotations

from typing import Final

import msgspec

from matrix_pypi_bot.adapters.database.dialect import Connection, Scheme
from matrix_pypi_bot.adapters.database.packing import pack, unpack
from matrix_pypi_bot.core.provenance import Finding, Pin
from matrix_pypi_bot.wire.digests import sha256_of
from matrix_pypi_bot.wire.names import FileName, ProjectName

SCHEMA: Final = (
    "CREATE TABLE provenance_document (sha256 {name} PRIMARY KEY, raw {blob} NOT NULL)",
    # The newest row of a file under a root counts.
    """CREATE TABLE provenance_finding (
        n {identity}, project {name} NOT NULL, file {name} NOT NULL, document {name} NOT NULL REFERENCES provenance_document (sha256),
        root {name} NOT NULL, finding {blob} NOT NULL, at_ms BIGINT NOT NULL, UNIQUE (project, file, document, root))""",
    "CREATE INDEX provenance_finding_of_project ON provenance_finding (project, root, n)",
    "CREATE TABLE first_publisher (project {name} PRIMARY KEY, pin {blob} NOT NULL, at_ms BIGINT NOT NULL)",
)
INSERT_ONLY: Final = ("provenance_document", "provenance_finding", "first_publisher")

MAX_BAD_A_FILE: Final = 16  # an upstream that shows another useless document at every look does not fill the disk


class ProvenanceTables:
    """`ports.Proofs` inside one transaction."""

    __slots__ = ("_db",)

    def __init__(self, connection: Connection, scheme: Scheme) -> None:
        self._db = connection

    async def keep(
        self, project: ProjectName, file: FileName, *, root: str, raw: bytes, finding: Finding, at_ms: int
    ) -> bool:
        sha256 = sha256_of(raw)
        rows = await self._db.fetch(
            "SELECT document, root FROM provenance_finding WHERE project = $1 AND file = $2", project, file
        )
        if any((row["document"], row["root"]) == (sha256, root) for row in rows):
            return False
        if finding.sha256 is None and len(rows) >= MAX_BAD_A_FILE:
            return False
        await self._db.execute(
            "INSERT INTO provenance_document (sha256, raw) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            sha256,
            await pack(raw),
        )
        await self._db.execute(
            "INSERT INTO provenance_finding (project, file, document, root, finding, at_ms) VALUES ($1, $2, $3, $4, $5, $6)",
            project, file, sha256, root, msgspec.json.encode(finding), at_ms,
        )  # fmt: skip
        return True

    async def pin(self, project: ProjectName, pin: Pin, at_ms: int) -> None:
        await self._db.execute(
            "INSERT INTO first_publisher (project, pin, at_ms) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            project,
            msgspec.json.encode(pin),
            at_ms,
        )

    async def pinned(self, project: ProjectName) -> Pin | None:
        row = await self._db.fetchrow("SELECT pin FROM first_publisher WHERE project = $1", project)
        return None if row is None else msgspec.json.decode(bytes(row["pin"]), type=Pin)

    async def findings(self, project: ProjectName, root: str) -> dict[FileName, Finding]:
        rows = await self._db.fetch(
            "SELECT file, finding FROM provenance_finding WHERE project = $1 AND root = $2 ORDER BY n", project, root
        )
        return {FileName(row["file"]): msgspec.json.decode(bytes(row["finding"]), type=Finding) for row in rows}

    async def document(self, project: ProjectName, file: FileName) -> bytes | None:
        row = await self._db.fetchrow(
            "SELECT raw FROM provenance_finding JOIN provenance_document ON provenance_document.sha256 = document "
            "WHERE project = $1 AND file = $2 ORDER BY n DESC LIMIT 1",
            project,
            file,
        )
        return None if row is None else await unpack(bytes(row["raw"]))
