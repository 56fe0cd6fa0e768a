"""The tables of what statements claim of files, and what was judged of them: the part of `ports.Ledger` that decisions read."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from matrix_pypi_bot.adapters.database.dialect import Connection, Scheme
from matrix_pypi_bot.core.claims import Claim, Facts
from matrix_pypi_bot.ports import EnvelopeRow, VerdictRow
from matrix_pypi_bot.wire.names import FileName, ProjectName

# What statements claim of files, so that none has to be read again to be weighed; `facts` is JSON.
SCHEMA: Final = (
    """CREATE TABLE claim (
        n {identity}, statement_id {name} NOT NULL, kind {name} NOT NULL, project {name} NOT NULL, file {name} NOT NULL,
        subject TEXT NOT NULL, org {name} NOT NULL, keyid TEXT NOT NULL, index_name TEXT NOT NULL, word TEXT NOT NULL,
        received_ms BIGINT NOT NULL, serial BIGINT, upload_time TEXT, facts {blob} NOT NULL)""",
    "CREATE INDEX claim_of_project ON claim (project, n)",
    "CREATE INDEX claim_of_file ON claim (project, file, subject, org)",
    "CREATE INDEX claim_of_org ON claim (org, project)",
    """CREATE TABLE verdict (
        n {identity}, statement_id {name} NOT NULL, fault {name} NOT NULL, result TEXT NOT NULL, project {name} NOT NULL,
        file {name} NOT NULL, keyid TEXT NOT NULL, org TEXT NOT NULL, evidence_id TEXT, reason TEXT NOT NULL,
        suspends BOOLEAN NOT NULL, at_ms BIGINT NOT NULL)""",
    "CREATE INDEX verdict_of_project ON verdict (project, n)",
    "CREATE INDEX verdict_of_statement ON verdict (statement_id, fault, n)",
    "CREATE INDEX verdict_suspending ON verdict (n) WHERE suspends",
    "CREATE INDEX verdict_unsettled ON verdict (project) WHERE result IN ('CONTESTED', 'CONFLICT')",
    # The lists that index statements stand for; what is not named by a statement any more may be purged.
    "CREATE TABLE document (sha256 {name} PRIMARY KEY, body {blob} NOT NULL)",
    "CREATE INDEX page_change_of_project ON page_change (project, seq)",
)
INSERT_ONLY: Final = ("claim", "verdict")

MAX_CLAIMS: Final = 40_000  # of one organisation on one project: three on each file of the largest one, and some
_CLAIM_COLUMNS: Final = (
    "statement_id, kind, file, subject, org, keyid, index_name, word, received_ms, serial, upload_time, facts"
)
_VERDICT_COLUMNS: Final = "statement_id, fault, result, project, file, keyid, org, evidence_id, reason, suspends, at_ms"
_facts = msgspec.json.Decoder(Facts)
_NO_FACTS: Final = Facts()


class ClaimTables:
    """Claims and verdicts inside one transaction."""

    __slots__ = ("_db",)

    def __init__(self, connection: Connection, scheme: Scheme) -> None:
        self._db = connection

    async def _is_full(self, row: EnvelopeRow) -> bool:
        """Whether the organisation said more of the project than is weighed. It may still take back all that."""
        limit = 2 * MAX_CLAIMS if row.kind == "withdrawal" else MAX_CLAIMS
        found = await self._db.fetchval(
            "SELECT 1 FROM claim WHERE org = $1 AND project = $2 LIMIT 1 OFFSET $3",
            row.org, row.project or "", limit - 1,
        )  # fmt: skip
        return found is not None

    async def claim(self, project: ProjectName, claim: Claim) -> None:
        """Keeps what a statement that is kept claims of one file."""
        await self._db.execute(
            f"INSERT INTO claim (project, {_CLAIM_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",  # noqa: S608
            project, claim.statement_id, claim.kind, claim.file, claim.subject, claim.org, claim.keyid, claim.index,
            claim.word, claim.received_ms, claim.serial, claim.upload_time, msgspec.json.encode(claim.facts),
        )  # fmt: skip

    async def claims(self, project: ProjectName) -> list[Claim]:
        query = f"SELECT {_CLAIM_COLUMNS} FROM claim WHERE project = $1 ORDER BY n"  # noqa: S608
        return [_claim(row) for row in await self._db.fetch(query, project)]

    async def claims_on(self, project: ProjectName, file: FileName) -> list[Claim]:
        query = (
            f"SELECT {_CLAIM_COLUMNS} FROM claim "  # noqa: S608
            "WHERE project = $1 AND (file = $2 OR (kind = 'withdrawal' AND word = 'version')) ORDER BY n"
        )
        return [_claim(row) for row in await self._db.fetch(query, project, file)]

    async def projects_of(self, org: str, after: str, limit: int) -> list[ProjectName]:
        rows = await self._db.fetch(
            "SELECT DISTINCT project FROM claim WHERE org = $1 AND project > $2 ORDER BY project LIMIT $3",
            org, after, limit,
        )  # fmt: skip
        return [row["project"] for row in rows]

    async def unreviewed(self, own: str, after: str, limit: int) -> list[ProjectName]:
        rows = await self._db.fetch(
            "SELECT DISTINCT project FROM claim AS one WHERE kind = 'attestation' AND org <> $1 AND project > $2 "
            "AND NOT EXISTS (SELECT 1 FROM claim AS mine WHERE mine.project = one.project AND mine.file = one.file "
            "AND mine.subject = one.subject AND mine.org = $1 AND mine.word IN ('bytes', 'index', 'ok', 'bad')) "
            "ORDER BY project LIMIT $3",
            own, after, limit,
        )  # fmt: skip
        return [row["project"] for row in rows]

    async def unsettled(self, after: str, limit: int) -> list[ProjectName]:
        rows = await self._db.fetch(
            "SELECT DISTINCT project FROM verdict AS one WHERE result IN ('CONTESTED', 'CONFLICT') AND project > $1 "
            "AND NOT EXISTS (SELECT 1 FROM verdict AS later WHERE later.statement_id = one.statement_id "
            "AND later.fault = one.fault AND later.n > one.n) ORDER BY project LIMIT $2",
            after, limit,
        )  # fmt: skip
        return [row["project"] for row in rows]

    async def judge(self, row: VerdictRow) -> None:
        await self._db.execute(
            f"INSERT INTO verdict ({_VERDICT_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",  # noqa: S608
            row.statement_id, row.fault, row.result, row.project or "", row.file or "", row.keyid, row.org,
            row.evidence_id, row.reason, row.suspends, row.at_ms,
        )  # fmt: skip

    async def verdicts(self, project: ProjectName) -> list[VerdictRow]:
        query = f"SELECT {_VERDICT_COLUMNS} FROM verdict WHERE project = $1 ORDER BY n"  # noqa: S608
        return [_verdict(row) for row in await self._db.fetch(query, project)]

    async def suspensions(self) -> list[VerdictRow]:
        query = (
            f"SELECT {_VERDICT_COLUMNS} FROM verdict AS one WHERE suspends AND NOT EXISTS (SELECT 1 FROM verdict AS later "  # noqa: S608
            "WHERE later.statement_id = one.statement_id AND later.fault = one.fault AND later.n > one.n) ORDER BY n"
        )
        return [_verdict(row) for row in await self._db.fetch(query)]


def _claim(row: Any) -> Claim:
    statement_id, kind, file, subject, org, keyid, index, word, received_ms, serial, upload_time, facts = row
    return Claim(
        statement_id=statement_id,
        kind=kind,
        file=file,
        subject=subject,
        org=org,
        keyid=keyid,
        index=index,
        word=word,
        received_ms=received_ms,
        serial=serial,
        upload_time=upload_time,
        facts=_NO_FACTS if bytes(facts) == b"{}" else _facts.decode(facts),
    )


def _verdict(row: Any) -> VerdictRow:
    return VerdictRow(
        statement_id=row["statement_id"],
        fault=row["fault"],
        result=row["result"],
        project=row["project"] or None,
        file=row["file"] or None,
        keyid=row["keyid"],
        org=row["org"],
        evidence_id=row["evidence_id"],
        reason=row["reason"],
        suspends=bool(row["suspends"]),
        at_ms=row["at_ms"],
    )
