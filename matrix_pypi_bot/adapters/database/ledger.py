"""The tables of what is known and never forgotten (`ports.Ledger`), insert-only by triggers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from matrix_pypi_bot.adapters.database.claims import ClaimTables
from matrix_pypi_bot.adapters.database.packing import pack, unpack
from matrix_pypi_bot.core.claims import Claim
from matrix_pypi_bot.core.cooldown import Sight
from matrix_pypi_bot.ports import Accepted, EnvelopeRow, OverrideRow
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import Observed
from matrix_pypi_bot.wire.names import FileName, ProjectName

SCHEMA: Final = (
    # Every statement that ever passed the check; project and file are '' where a kind has none.
    """CREATE TABLE envelope (
        n {identity}, id {name} NOT NULL UNIQUE, kind TEXT NOT NULL, project {name} NOT NULL, file {name} NOT NULL,
        sha256 TEXT, keyid {name} NOT NULL, org TEXT NOT NULL, seq BIGINT, envelope {blob} NOT NULL,
        first_seen_ms BIGINT NOT NULL, via TEXT NOT NULL)""",
    "CREATE INDEX envelope_of_project ON envelope (project, kind, n)",
    "CREATE INDEX envelope_chain ON envelope (keyid, project, seq)",
    """CREATE TABLE sighting (
        id {name} NOT NULL, room_id {name} NOT NULL, event_id {name} NOT NULL, at_ms BIGINT NOT NULL,
        PRIMARY KEY (id, room_id, event_id))""",
    # Personal data, beside the ledger and not in it: may be purged without touching trust.
    """CREATE TABLE sender (
        event_id {name} NOT NULL, room_id {name} NOT NULL, mxid TEXT NOT NULL, at_ms BIGINT NOT NULL,
        PRIMARY KEY (event_id, room_id))""",
    "CREATE INDEX sender_age ON sender (at_ms)",
    # What each key of ours signed: one digest a file, for ever.
    "CREATE TABLE own_signature (keyid {name} NOT NULL, file {name} NOT NULL, sha256 TEXT NOT NULL, PRIMARY KEY (keyid, file))",
    # L: the newest row of a file counts.
    """CREATE TABLE own_digest (
        n {identity}, project {name} NOT NULL, file {name} NOT NULL, sha256 TEXT NOT NULL, size BIGINT,
        at_ms BIGINT NOT NULL, cause TEXT NOT NULL, serial BIGINT)""",
    "CREATE INDEX own_digest_of_project ON own_digest (project, n)",
    # One row a page and not one a file: a page names up to thousands. `digests` is packed JSON {{file: sha256}}. v08 adds `lacked_ms`.
    "CREATE TABLE first_digest (n {identity}, project {name} NOT NULL, at_ms BIGINT NOT NULL, digests {blob} NOT NULL)",
    "CREATE INDEX first_digest_of_project ON first_digest (project, n)",
    """CREATE TABLE own_view (
        n {identity}, project {name} NOT NULL, upstream {name} NOT NULL, serial BIGINT, root TEXT NOT NULL,
        at_ms BIGINT NOT NULL)""",
    "CREATE INDEX own_view_serial ON own_view (project, upstream, serial)",
    """CREATE TABLE operator_override (
        n {identity}, statement_id {name} NOT NULL UNIQUE, project {name} NOT NULL, file {name} NOT NULL,
        action TEXT NOT NULL, sha256 TEXT, reason TEXT NOT NULL, at_ms BIGINT NOT NULL)""",
    "CREATE INDEX operator_override_of_project ON operator_override (project, n)",
    # The leaves of our own log; what stands on them: `log`.
    "CREATE TABLE log_leaf (n BIGINT PRIMARY KEY, statement_id {name} NOT NULL UNIQUE, leaf_hash {blob} NOT NULL)",
    # Keyed by what was seen and the day, so that a broken source cannot fill the disk.
    """CREATE TABLE observation (
        id {name} NOT NULL PRIMARY KEY, project {name} NOT NULL, file {name} NOT NULL, body {blob} NOT NULL,
        at_ms BIGINT NOT NULL)""",
)

# By which the redaction of an event is known to be one of a statement.
SIGHTING_INDEX: Final = "CREATE INDEX sighting_event ON sighting (event_id)"

INSERT_ONLY: Final = (
    "envelope", "sighting", "own_signature", "own_digest", "first_digest", "own_view", "operator_override", "log_leaf", "observation",
)  # fmt: skip

_MANY: Final = 50  # organisations that attest one digest, announcements of one of them: as far as anybody looks
_DAY_MS: Final = 86_400_000
_SELECT: Final = "SELECT id, kind, project, file, sha256, keyid, org, seq, envelope, first_seen_ms, via FROM envelope "


class LedgerTables(ClaimTables):
    """`ports.Ledger` inside one transaction."""

    __slots__ = ()

    async def keep(self, row: EnvelopeRow, claims: Sequence[Claim] = ()) -> bool:
        known = await self._db.fetchval("SELECT 1 FROM envelope WHERE id = $1", row.id)
        if known is None:
            await self._db.execute(
                "INSERT INTO envelope (id, kind, project, file, sha256, keyid, org, seq, envelope, first_seen_ms, via) "
                "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
                row.id, row.kind, row.project or "", row.file or "", row.sha256, row.keyid, row.org, row.seq,
                row.envelope, row.first_seen_ms, row.via,
            )  # fmt: skip
            if not claims or row.via == "own" or not await self._is_full(row):
                for claim in claims:
                    await self.claim(row.project or ProjectName(""), claim)
        return known is None

    async def refutation_ids(self, project: ProjectName) -> list[str]:
        rows = await self._db.fetch(
            "SELECT id FROM envelope WHERE project = $1 AND kind = 'refutation' ORDER BY n", project
        )
        return [row["id"] for row in rows]

    async def last_refutations(self, project: ProjectName, limit: int) -> list[EnvelopeRow]:
        rows = await self._db.fetch(
            _SELECT + "WHERE project = $1 AND kind = 'refutation' ORDER BY n DESC LIMIT $2", project, limit
        )
        return [_envelope(row) for row in rows]

    async def envelope(self, statement_id: str) -> EnvelopeRow | None:
        row = await self._db.fetchrow(_SELECT + "WHERE id = $1", statement_id)
        return None if row is None else _envelope(row)

    async def attestations(self, project: ProjectName) -> list[EnvelopeRow]:
        rows = await self._db.fetch(_SELECT + "WHERE project = $1 AND kind = 'attestation' ORDER BY n", project)
        return [_envelope(row) for row in rows]

    async def said(self, kind: str, project: ProjectName, file: FileName | None) -> list[EnvelopeRow]:
        rows = await self._db.fetch(
            _SELECT + "WHERE project = $1 AND kind = $2 AND file = $3 ORDER BY n", project, kind, file or ""
        )
        return [_envelope(row) for row in rows]

    async def carried_by(self, event_id: str) -> EnvelopeRow | None:
        row = await self._db.fetchrow(
            _SELECT + "WHERE id = (SELECT id FROM sighting WHERE event_id = $1 LIMIT 1)",  # noqa: S608
            event_id,
        )
        return None if row is None else _envelope(row)

    async def manifests(self, org: str) -> list[EnvelopeRow]:
        rows = await self._db.fetch(_SELECT + "WHERE project = '' AND kind = 'keys' AND org = $1 ORDER BY n", org)
        return [_envelope(row) for row in rows]

    async def announcements(self, org: str) -> list[EnvelopeRow]:
        rows = await self._db.fetch(
            _SELECT + "WHERE project = '' AND kind = 'announcement' AND org = $1 ORDER BY n DESC LIMIT $2", org, _MANY
        )
        return [_envelope(row) for row in rows]

    async def sighted(self, statement_id: str, *, room_id: str, event_id: str, sender: str, at_ms: int) -> None:
        await self._db.execute(
            "INSERT INTO sighting (id, room_id, event_id, at_ms) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            statement_id, room_id, event_id, at_ms,
        )  # fmt: skip
        await self._db.execute(
            "INSERT INTO sender (event_id, room_id, mxid, at_ms) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            event_id, room_id, sender, at_ms,
        )  # fmt: skip

    async def last_index(self, keyid: str, project: ProjectName) -> EnvelopeRow | None:
        row = await self._db.fetchrow(
            _SELECT + "WHERE keyid = $1 AND project = $2 AND kind = 'index' ORDER BY seq DESC LIMIT 1", keyid, project
        )
        return None if row is None else _envelope(row)

    async def newest_index(self, project: ProjectName) -> dict[str, EnvelopeRow]:
        # A chain belongs to a key: a new key's numbers begin again.
        rows = await self._db.fetch(
            _SELECT + "AS one WHERE project = $1 AND kind = 'index' AND NOT EXISTS ("  # noqa: S608
            "SELECT 1 FROM envelope AS later WHERE later.keyid = one.keyid AND later.project = $1 AND later.kind = 'index' "
            "AND (later.seq, later.n) > (one.seq, one.n)) ORDER BY first_seen_ms, n",
            project,
        )
        return {row["org"]: _envelope(row) for row in rows}

    async def keep_document(self, sha256: Sha256, body: bytes) -> None:
        await self._db.execute(
            "INSERT INTO document (sha256, body) VALUES ($1, $2) ON CONFLICT DO NOTHING", sha256, await pack(body)
        )

    async def document(self, sha256: Sha256) -> bytes | None:
        packed = await self._db.fetchval("SELECT body FROM document WHERE sha256 = $1", sha256)
        return None if packed is None else await unpack(bytes(packed))

    async def event_of(self, statement_id: str, room_id: str) -> str | None:
        event_id: str | None = await self._db.fetchval(
            "SELECT event_id FROM sighting WHERE id = $1 AND room_id = $2 ORDER BY at_ms, event_id LIMIT 1",
            statement_id,
            room_id,
        )
        return event_id

    async def forget_senders(self, before_ms: int) -> None:
        await self._db.execute("DELETE FROM sender WHERE at_ms < $1", before_ms)

    async def chain(self, keyid: str, project: ProjectName | None) -> tuple[int, str | None]:
        row = await self._db.fetchrow(
            "SELECT seq, id FROM envelope WHERE keyid = $1 AND project = $2 AND seq IS NOT NULL ORDER BY seq DESC LIMIT 1",
            keyid, project or "",
        )  # fmt: skip
        return (0, None) if row is None else (row["seq"], row["id"])

    async def sign_once(self, keyid: str, file: FileName, sha256: Sha256) -> bool:
        await self._db.execute(
            "INSERT INTO own_signature (keyid, file, sha256) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            keyid, file, sha256,
        )  # fmt: skip
        return await self.signed(keyid, file) == sha256

    async def signed(self, keyid: str, file: FileName) -> Sha256 | None:
        digest: Sha256 | None = await self._db.fetchval(
            "SELECT sha256 FROM own_signature WHERE keyid = $1 AND file = $2", keyid, file
        )
        return digest

    async def accept(self, accepted: Accepted) -> None:
        await self._db.execute(
            "INSERT INTO own_digest (project, file, sha256, size, at_ms, cause, serial) VALUES ($1, $2, $3, $4, $5, $6, $7)",
            accepted.project, accepted.file, accepted.sha256, accepted.size, accepted.at_ms, accepted.by, accepted.serial,
        )  # fmt: skip

    async def accepted(self, project: ProjectName) -> dict[FileName, Accepted]:
        rows = await self._db.fetch(
            "SELECT file, sha256, size, at_ms, cause, serial FROM own_digest WHERE project = $1 ORDER BY n", project
        )
        return {
            row["file"]: Accepted(
                project=project,
                file=row["file"],
                sha256=row["sha256"],
                size=row["size"],
                at_ms=row["at_ms"],
                by=row["cause"],
                serial=row["serial"],
            )
            for row in rows
        }

    async def first_seen(self, project: ProjectName) -> dict[FileName, Sha256]:
        rows = await self._db.fetch("SELECT digests FROM first_digest WHERE project = $1 ORDER BY n DESC", project)
        seen: dict[FileName, Sha256] = {}
        for row in rows:  # the oldest last: it wins
            seen.update(msgspec.json.decode(await unpack(row["digests"]), type=dict[FileName, Sha256]))
        return seen

    async def sights(self, project: ProjectName) -> dict[FileName, Sight]:
        rows = await self._db.fetch(
            "SELECT at_ms, lacked_ms, digests FROM first_digest WHERE project = $1 ORDER BY n DESC", project
        )
        sights: dict[FileName, Sight] = {}
        for row in rows:  # as above
            files = msgspec.json.decode(await unpack(row["digests"]), type=dict[FileName, Sha256])
            sights.update(dict.fromkeys(files, Sight(row["at_ms"], row["lacked_ms"])))
        return sights

    async def see_first(
        self, project: ProjectName, files: dict[FileName, Sha256], at_ms: int, lacked_ms: int | None = None
    ) -> None:
        known = await self.first_seen(project)
        new = {file: sha256 for file, sha256 in files.items() if file not in known} if known else files
        if new:
            await self._db.execute(
                "INSERT INTO first_digest (project, at_ms, lacked_ms, digests) VALUES ($1, $2, $3, $4)",
                project, at_ms, lacked_ms, await pack(msgspec.json.encode(new)),
            )  # fmt: skip

    async def own_view(self, project: ProjectName, upstream: str, serial: int | None, root: Sha256, at_ms: int) -> None:
        await self._db.execute(
            "INSERT INTO own_view (project, upstream, serial, root, at_ms) VALUES ($1, $2, $3, $4, $5)",
            project, upstream, serial, root, at_ms,
        )  # fmt: skip

    async def serial_floor(self, project: ProjectName, upstream: str) -> int | None:
        floor: int | None = await self._db.fetchval(
            "SELECT MAX(serial) FROM own_view WHERE project = $1 AND upstream = $2 AND at_ms > "
            "(SELECT COALESCE(MAX(at_ms), -1) FROM operator_override WHERE project = $1 AND file = '' AND action = 'release')",
            project,
            upstream,
        )
        return floor

    async def override(self, row: OverrideRow) -> None:
        await self._db.execute(
            "INSERT INTO operator_override (statement_id, project, file, action, sha256, reason, at_ms) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7)",
            row.statement_id, row.project, row.file or "", row.action, row.sha256, row.reason, row.at_ms,
        )  # fmt: skip

    async def overrides(self, project: ProjectName) -> list[OverrideRow]:
        rows = await self._db.fetch(
            "SELECT statement_id, file, action, sha256, reason, at_ms FROM operator_override WHERE project = $1 ORDER BY n",
            project,
        )
        return [
            OverrideRow(
                statement_id=row["statement_id"],
                project=project,
                file=row["file"] or None,
                action=row["action"],
                sha256=row["sha256"],
                reason=row["reason"],
                at_ms=row["at_ms"],
            )
            for row in rows
        ]

    async def observe(self, observed: Observed, at_ms: int) -> None:
        body = msgspec.json.encode(observed)
        key = hashlib.sha256(b"%d " % (at_ms // _DAY_MS) + body).hexdigest()
        await self._db.execute(
            "INSERT INTO observation (id, project, file, body, at_ms) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            key, observed.project, observed.file, body, at_ms,
        )  # fmt: skip


def _envelope(row: Any) -> EnvelopeRow:
    return EnvelopeRow(
        id=row["id"],
        kind=row["kind"],
        project=row["project"] or None,
        file=row["file"] or None,
        sha256=row["sha256"],
        keyid=row["keyid"],
        org=row["org"],
        seq=row["seq"],
        envelope=bytes(row["envelope"]),
        first_seen_ms=row["first_seen_ms"],
        via=row["via"],
    )
