"""The tables of the last page of each project, of changes frontends must hear of, and of reports not settled yet (`ports.Views`)."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from matrix_pypi_bot.adapters.database.dialect import Connection, Scheme
from matrix_pypi_bot.adapters.database.packing import pack, unpack
from matrix_pypi_bot.ports import ViewRow
from matrix_pypi_bot.wire.messages import Change, Stored
from matrix_pypi_bot.wire.names import ProjectName

SCHEMA: Final = (
    """CREATE TABLE page_view (
        project {name} PRIMARY KEY, upstream TEXT NOT NULL, state TEXT NOT NULL, etag TEXT, serial BIGINT,
        fetched_ms BIGINT NOT NULL, checked_ms BIGINT NOT NULL, opened_origins TEXT NOT NULL)""",
    # Apart from its view, which is written at every check: a page is up to megabytes and rarely new.
    "CREATE TABLE page_body (project {name} PRIMARY KEY, raw {blob} NOT NULL)",
    # Numbers of rows that were forgotten never come back: frontends resume by them.
    """CREATE TABLE page_change (
        seq {identity}, project {name} NOT NULL, revision TEXT NOT NULL, withdrawn TEXT NOT NULL, at_ms BIGINT NOT NULL)""",
)
# The newest row counts: `seq` is the number at which `rules` replaced others.
RULES_SCHEMA: Final = "CREATE TABLE change_rules (n {identity}, rules TEXT NOT NULL, seq BIGINT NOT NULL)"
# The same is kept once, and what differs in anything beside it: nobody knows yet which of two reports on a file is right.
REPORTS_SCHEMA: Final = (
    """CREATE TABLE waiting_report (
        n {identity}, project {name} NOT NULL, body {blob} NOT NULL UNIQUE, at_ms BIGINT NOT NULL)""",
    "CREATE INDEX waiting_report_of_project ON waiting_report (project, n)",
)


class ViewTables:
    """`ports.Views` inside one transaction."""

    __slots__ = ("_db",)

    def __init__(self, connection: Connection, scheme: Scheme) -> None:
        self._db = connection

    async def get(self, project: ProjectName) -> ViewRow | None:
        row = await self._db.fetchrow(
            "SELECT upstream, state, etag, serial, fetched_ms, checked_ms, opened_origins, raw "
            "FROM page_view JOIN page_body USING (project) WHERE project = $1",
            project,
        )
        if row is None:
            return None
        return ViewRow(
            project=project,
            upstream=row["upstream"],
            state=row["state"],
            etag=row["etag"],
            serial=row["serial"],
            fetched_ms=row["fetched_ms"],
            checked_ms=row["checked_ms"],
            raw=await unpack(row["raw"]),
            opened_origins=msgspec.json.decode(row["opened_origins"], type=tuple[str, ...]),
        )

    async def put(self, row: ViewRow) -> None:
        await self._db.execute(
            "INSERT INTO page_view (project, upstream, state, etag, serial, fetched_ms, checked_ms, opened_origins) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (project) DO UPDATE SET "
            "upstream = excluded.upstream, state = excluded.state, etag = excluded.etag, serial = excluded.serial, "
            "fetched_ms = excluded.fetched_ms, checked_ms = excluded.checked_ms, opened_origins = excluded.opened_origins",
            row.project, row.upstream, row.state, row.etag, row.serial, row.fetched_ms, row.checked_ms,
            msgspec.json.encode(row.opened_origins).decode(),
        )  # fmt: skip
        await self._db.execute(
            "INSERT INTO page_body (project, raw) VALUES ($1, $2) ON CONFLICT (project) DO UPDATE SET raw = excluded.raw",
            row.project,
            await pack(row.raw),
        )

    async def checked(self, project: ProjectName, state: Literal["live", "down", "gone"], checked_ms: int) -> None:
        await self._db.execute(
            "UPDATE page_view SET state = $2, checked_ms = $3 WHERE project = $1", project, state, checked_ms
        )

    async def names(self, after: str, limit: int) -> list[ProjectName]:
        rows = await self._db.fetch(
            "SELECT project FROM page_view WHERE project > $1 AND state <> 'gone' ORDER BY project LIMIT $2",
            after,
            limit,
        )
        return [row["project"] for row in rows]

    async def change(self, project: ProjectName, revision: str, withdrawn: tuple[str, ...], at_ms: int) -> int:
        seq: int = await self._db.fetchval(
            "INSERT INTO page_change (project, revision, withdrawn, at_ms) VALUES ($1, $2, $3, $4) RETURNING seq",
            project, revision, msgspec.json.encode(withdrawn).decode(), at_ms,
        )  # fmt: skip
        return seq

    async def told(self, project: ProjectName) -> str | None:
        revision: str | None = await self._db.fetchval(
            "SELECT revision FROM page_change WHERE project = $1 ORDER BY seq DESC LIMIT 1", project
        )
        return revision

    async def changes(self, after: int, limit: int) -> list[Change]:
        rows = await self._db.fetch(
            "SELECT seq, project, revision, withdrawn FROM page_change WHERE seq > $1 ORDER BY seq LIMIT $2",
            after,
            limit,
        )
        return [_change(row) for row in rows]

    async def change_bounds(self) -> tuple[int, int]:
        row = await self._db.fetchrow(
            "SELECT COALESCE(MIN(seq), 0) AS old, COALESCE(MAX(seq), 0) AS new FROM page_change"
        )
        assert row is not None, "an aggregate always answers"
        return row["old"], row["new"]

    async def forget_changes(self, keep: int) -> None:
        await self._db.execute(
            "DELETE FROM page_change WHERE seq <= (SELECT MAX(seq) FROM page_change) - $1", max(1, keep)
        )

    async def rules_since(self, rules: str, at_ms: int) -> int:
        row = await self._db.fetchrow("SELECT rules, seq FROM change_rules ORDER BY n DESC LIMIT 1")
        if row is not None and row["rules"] == rules:
            return int(row["seq"])
        _, newest = await self.change_bounds()
        seq = 0
        if (
            newest or row is not None
        ):  # a number of its own: who has an older one must be told from who heard of the new rules
            seq = await self.change(ProjectName(""), "", (), at_ms)
            await self._db.execute("DELETE FROM page_change WHERE seq = $1", seq)
        await self._db.execute("INSERT INTO change_rules (rules, seq) VALUES ($1, $2)", rules, seq)
        return seq

    async def report(self, stored: Stored, at_ms: int) -> None:
        await self._db.execute(
            "INSERT INTO waiting_report (project, body, at_ms) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            stored.project, msgspec.json.encode(stored), at_ms,
        )  # fmt: skip

    async def reports(self, project: ProjectName) -> list[Stored]:
        rows = await self._db.fetch("SELECT body FROM waiting_report WHERE project = $1 ORDER BY n", project)
        return [msgspec.json.decode(bytes(row["body"]), type=Stored) for row in rows]

    async def reported_projects(self) -> list[ProjectName]:
        rows = await self._db.fetch("SELECT DISTINCT project FROM waiting_report ORDER BY project")
        return [row["project"] for row in rows]

    async def settled(self, stored: Stored) -> None:
        await self._db.execute("DELETE FROM waiting_report WHERE body = $1", msgspec.json.encode(stored))


def _change(row: Any) -> Change:
    return Change(
        seq=row["seq"],
        project=row["project"],
        revision=row["revision"],
        withdrawn=msgspec.json.decode(row["withdrawn"], type=tuple[str, ...]),
    )
