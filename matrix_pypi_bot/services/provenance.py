"""Provenance of files that somebody wants: fetched once, verified offline, remembered for ever, and decided by.

A page of thousands of files is decided without it; a file is looked at before it is served for the first time. What cannot be
fetched now counts as absent for now: whoever can hide a document could as well take it off the page (rules P5 and P10).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final

from cachetools import LRUCache

from matrix_pypi_bot.core import evidence
from matrix_pypi_bot.core.evidence import Doubt, Proves
from matrix_pypi_bot.core.index_file import IndexFile
from matrix_pypi_bot.core.provenance import Finding, Provenances, first_pin, witness
from matrix_pypi_bot.ports import Clock, Document, Documents, NotProvenance, Store, Transaction, Verifier
from matrix_pypi_bot.services.flights import Flights
from matrix_pypi_bot.services.known import Known
from matrix_pypi_bot.services.projects import Projects
from matrix_pypi_bot.wire.names import FileName, ProjectName

log = logging.getLogger(__name__)

MAX_TRIED: Final = 10_000
INVALID_AGAIN_MS: Final = 3_600_000  # what was invalid is fetched again, when it is asked for, so often


class Provenance:
    """Looks at provenance. Must be made in a running loop."""

    def __init__(
        self,
        *,
        projects: Projects,
        store: Store,
        clock: Clock,
        documents: Documents,
        verifier: Verifier,
        retry_seconds: float,
    ) -> None:
        self._projects = projects
        self._store = store
        self._clock = clock
        self._documents = documents
        self._verifier = verifier
        self._retry_ms = int(retry_seconds * 1000)
        self._until: LRUCache[str, int] = LRUCache(MAX_TRIED)
        self._flights: Flights[None] = Flights()

    async def look(self, project: ProjectName, file: FileName) -> None:
        """The file's provenance is verified and decided by when this returns, if it can be had and was not before. Raises StoreAway."""
        listed = self._listed(await self._projects.load(project), file)
        key = f"{project}/{file}"
        if listed is None or self._clock.now_ms() < self._until.get(key, 0):
            return
        await self._flights.join(key, lambda: self._look(project, listed, key))

    async def document(self, project: ProjectName, file: FileName) -> bytes | None:
        """Our copy of the file's document, if it could be verified. Raises StoreAway."""
        known = await self._projects.load(project)
        finding = known.provenance.findings.get(file)
        if finding is None or finding.sha256 is None:
            return None
        async with self._store.transaction() as tables:
            return await tables.provenance.document(project, file)

    async def check_bundle(
        self, project: ProjectName, file: FileName, bundle: Mapping[str, object]
    ) -> evidence.Provenance:
        """What an attestation bundle of PEP 740 (`publisher`, `attestations`) proves of `file`, to judge an accusation (F5) by.

        None when nobody can tell here: this root or version does not know enough, or no publisher of the project is known. INVALID
        also when the publisher signed for another digest before: two words of his contradict, and convict nobody else.
        Raises StoreAway.
        """
        try:
            finding = await self._verifier.bundle(file, bundle)
        except NotProvenance:
            return Doubt.INVALID
        known, policy = await self._projects.load(project), self._projects.rulebook.proofs.policy
        pins = policy.pins.get(project, ()) if policy is not None else ()
        if not pins and known.provenance.pin is None and finding.sha256 is not None:
            return None
        listed = known.view.page.files.get(file) if known.view is not None else None
        told = witness(finding, pins, known.provenance.pin, listed.upload_time if listed is not None else None)
        held = self._projects.rulebook.proofs.unforgiving(known, file)
        if isinstance(told, Proves) and isinstance(held, Proves) and held != told:
            log.warning("publisher signed two digests alarm", extra={"project": project, "file": file})
            return Doubt.INVALID
        return told

    async def stop(self) -> None:
        """Nobody is asked any more."""
        await self._flights.stop()

    def _listed(self, known: Known, file: FileName) -> IndexFile | None:
        """The page's entry, if there is something to look at."""
        listed = known.view.page.files.get(file) if known.view is not None else None
        return listed if listed is not None and self._projects.rulebook.proofs.asks(known, listed) else None

    async def _look(self, project: ProjectName, listed: IndexFile, key: str) -> None:
        known = await self._projects.load(project)
        before = known.provenance.findings.get(listed.name)
        raw = None
        if before is None:  # perhaps it was verified under another root
            async with self._store.transaction() as tables:
                raw = await tables.provenance.document(project, listed.name)
        if raw is None and known.view is not None and known.view.state == "live":
            self._until[key] = self._clock.now_ms() + (self._retry_ms if before is None else INVALID_AGAIN_MS)
            raw = await self._fetched(known, known.view.opened_origins, listed)
        if raw is None:
            return
        try:
            finding = await self._verifier.document(listed.name, raw)
        except NotProvenance as error:
            self._missing(known, listed, str(error))
            return
        if finding != before:
            self._until[key] = self._clock.now_ms() + (INVALID_AGAIN_MS if finding.sha256 is None else 0)
            self._report(await self._remember(project, listed, raw, finding), listed, finding)

    async def _fetched(self, known: Known, opened: Collection[str], listed: IndexFile) -> bytes | None:
        assert listed.provenance is not None, "what has none is not looked at"
        answer = await self._documents.fetch(listed.provenance, opened=opened)
        if isinstance(answer, Document):
            return answer.raw
        self._missing(known, listed, getattr(answer, "reason", "it is not there"))
        return None

    async def _remember(self, project: ProjectName, listed: IndexFile, raw: bytes, finding: Finding) -> Known:
        now_ms, file = self._clock.now_ms(), listed.name

        async def change(tables: Transaction, known: Known) -> Known:
            root = self._verifier.root
            if not await tables.provenance.keep(project, file, root=root, raw=raw, finding=finding, at_ms=now_ms):
                return known
            pin = known.provenance.pin
            if pin is None and finding.sha256 == listed.sha256 and self._may_pin(project, finding):
                await tables.provenance.pin(project, first_pin(file, finding), now_ms)
                pin = await tables.provenance.pinned(project)
            return replace(known, provenance=Provenances({**known.provenance.findings, file: finding}, pin))

        return await self._projects.revise(project, change)

    def _may_pin(self, project: ProjectName, finding: Finding) -> bool:
        """Whether this is the project's publisher, as far as the operator said who is."""
        policy = self._projects.rulebook.proofs.policy
        pins = policy.pins.get(project, ()) if policy is not None else ()
        return isinstance(witness(finding, pins, None, None), Proves)

    def _report(self, known: Known, listed: IndexFile, finding: Finding) -> None:
        """What an operator should hear of."""
        proofs = self._projects.rulebook.proofs
        what = {"project": known.project, "file": listed.name, "publisher": ", ".join(map(str, finding.publishers))}
        if finding.unknown:
            log.warning("provenance cannot be judged", extra=what | {"reason": finding.unknown})
        elif finding.fault:
            log.warning("provenance invalid alarm", extra=what | {"reason": finding.fault})
        elif finding.sha256 != listed.sha256:
            log.warning("provenance proves another digest alarm", extra=what | {"sha256": finding.sha256})
        elif proofs.unforgiving(known, listed.name) is Doubt.PUBLISHER_CHANGED:
            log.warning("publisher changed alarm", extra=what | {"before": proofs.expected(known)})
        else:
            log.info("provenance verified", extra=what)

    def _missing(self, known: Known, listed: IndexFile, reason: str) -> None:
        what = {"project": known.project, "file": listed.name, "reason": reason}
        if known.provenance.pin is not None:
            log.warning("provenance missing alarm", extra=what)
        else:
            log.info("provenance not fetched", extra=what)
