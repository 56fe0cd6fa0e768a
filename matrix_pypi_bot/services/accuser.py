"""Own findings said to others, with the evidence that they need to see them for themselves."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterable

from matrix_pypi_bot.core.court import Finding
from matrix_pypi_bot.core.events import StatementTooLarge
from matrix_pypi_bot.core.evidence import Proves
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.judge import Verdict
from matrix_pypi_bot.core.provenance import carried
from matrix_pypi_bot.core.statements.refutation import Evidence, Fault
from matrix_pypi_bot.ports import Transaction, VerdictRow
from matrix_pypi_bot.services.known import Known
from matrix_pypi_bot.services.members import Members
from matrix_pypi_bot.services.projects import Projects
from matrix_pypi_bot.services.refutations import Refutations

log = logging.getLogger(__name__)


class Accuser:
    """Refutes what was found to be false, or contradicted."""

    def __init__(self, refutations: Refutations, projects: Projects, members: Members) -> None:
        self._refutations = refutations
        self._projects = projects
        self._members = members

    async def refute(
        self, tables: Transaction, known: Known, judged: Iterable[VerdictRow], finding: Finding, *, now_ms: int
    ) -> str | None:
        """The id of the refutation, which is signed, kept, logged and on its way; None when it cannot be shown to anybody.

        `judged` are the verdicts on the project, oldest first.
        """
        shown = await _shown(tables, known, finding, now_ms)
        if shown is None:
            return None
        proof = await self._proof(tables, known, finding, shown)
        # With the publisher's signature nobody needs upstream to judge it; if that is not too large.
        ways = [(Fault.PROVENANCE, proof)] if proof is not None else []
        if not ways and (before := await self._doubted(tables, judged, finding)) is not None:
            return before
        accused = finding.accused
        for fault, evidence in (*ways, (finding.fault, shown)):
            with contextlib.suppress(StatementTooLarge):
                return await self._refutations.say(
                    tables,
                    fault=fault,
                    project=known.project,
                    file=accused.file,
                    statement_id=accused.statement_id,
                    keyid=accused.keyid,
                    shown=evidence,
                    told=f"is {'contradicted' if finding.is_doubt else 'false'} ({fault}): {finding.reason}",
                    org=accused.org,
                    now_ms=now_ms,
                )
        log.warning("refutation too large to be said alarm", extra={"org": accused.org, "file": accused.file})
        return None

    async def _doubted(self, tables: Transaction, judged: Iterable[VerdictRow], finding: Finding) -> str | None:
        """Our own earlier word on it, from when it was a doubt: the same is not said twice."""
        about = (finding.accused.statement_id, finding.fault.value)
        words = [row for row in judged if (row.statement_id, row.fault) == about]
        if not words or words[-1].result != Verdict.CONFLICT.value:
            return None
        for row in words:
            if row.result != Verdict.CONFLICT.value or row.evidence_id is None:
                continue
            said = await tables.ledger.envelope(row.evidence_id)
            if said is not None and said.org == self._members.own.name:
                return said.id
        return None

    async def _proof(self, tables: Transaction, known: Known, finding: Finding, shown: Evidence) -> Evidence | None:
        """The same with what the publisher signed, if the right digest is the one that his provenance was found to prove."""
        file, proofs = finding.accused.file, self._projects.rulebook.proofs
        if finding.fault is not Fault.PYPI_DIGEST or finding.sha256 is None:
            return None
        if proofs.unforgiving(known, file) != Proves(finding.sha256):
            return None
        raw = await tables.provenance.document(known.project, file)
        bundle = None if raw is None else carried(raw)
        return None if bundle is None else Evidence(envelopes=shown.envelopes, bundle=bundle)


async def _shown(tables: Transaction, known: Known, finding: Finding, now_ms: int) -> Evidence | None:
    if finding.carried is not None:
        return Evidence(envelopes=(dict(finding.carried),))
    ids = [i for i in (finding.accused.statement_id, finding.other) if i is not None]
    rows = [row for i in ids if (row := await tables.ledger.envelope(i)) is not None]
    envelopes = tuple(json.loads(row.envelope) for row in rows)
    if len(envelopes) != len(ids):
        return None
    if finding.fault is not Fault.PYPI_DIGEST:
        return Evidence(envelopes=envelopes)
    if finding.sha256 is None:
        return None
    view = known.view
    at = Instant.of_ms(now_ms if view is None or view.state != "live" else view.checked_ms)
    shown = Evidence(envelopes=envelopes, sha256=finding.sha256, at=at)
    serial = view.page.serial if view is not None else None
    return shown if serial is None else Evidence(envelopes=envelopes, sha256=finding.sha256, at=at, serial=serial)
