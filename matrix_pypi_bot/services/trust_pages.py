"""What everybody may see: how files were decided, the statements about them, and the proofs that those are in the log.

Asks nobody and changes nothing. An index that is not attested is private: of its projects nothing is told here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from matrix_pypi_bot.core.claims import Claim
from matrix_pypi_bot.core.envelope import StatementId, read_envelope
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.limits import MAX_MANIFEST_SIGNATURES
from matrix_pypi_bot.core.rejected import Rejected
from matrix_pypi_bot.core.statements import Statement, read_statement
from matrix_pypi_bot.core.statements.keys import Manifest
from matrix_pypi_bot.core.statements.refutation import Refutation
from matrix_pypi_bot.ports import PROJECT_ROOM, Clock, EnvelopeRow, Store, Transaction, VerdictRow
from matrix_pypi_bot.services.explain import Explainer, told_of
from matrix_pypi_bot.services.known import Known
from matrix_pypi_bot.services.log import LogKeeper
from matrix_pypi_bot.services.log_proofs import inclusion_proofs
from matrix_pypi_bot.services.projects import Projects
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import Evidence, Explanation, FileDecision
from matrix_pypi_bot.wire.names import FileName, InvalidName, ProjectName, project_and_version
from matrix_pypi_bot.wire.problems import Problem, ProblemCode
from matrix_pypi_bot.wire.trust import FileStanding, Judged, LogTold, Proof, TrustFile, TrustHome, TrustProject

T = TypeVar("T")
S = TypeVar("S")

NAMES_AT_ONCE: Final = 500
MAX_OF_ONE: Final = 8  # statements of one kind by one organisation on one file: nobody crowds the others out
MAX_MANIFESTS: Final = 16  # of one organisation: the newest, and those by which its roots changed
MAX_REFUTATIONS: Final = 100  # of a project, that nobody judged yet
MAX_VERDICTS: Final = 50  # of one file


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A statement that is kept: what it says, how it came here, and its place in our log when it is ours."""

    row: EnvelopeRow
    statement: Statement
    proof: Proof | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePage:
    """Everything on one file."""

    explanation: Explanation
    file: FileName
    sha256: Sha256 | None
    told: tuple[Told, ...]
    refutations: tuple[Told, ...]
    verdicts: tuple[Judged, ...]
    manifests: dict[str, tuple[msgspec.Raw, ...]]
    log: LogTold

    @property
    def decision(self) -> FileDecision:
        """How the file was decided."""
        return told_of(self.explanation, self.file)[0]

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """What was known when it was decided."""
        return told_of(self.explanation, self.file)[1]

    def document(self, org: str) -> TrustFile:
        """The page as JSON readers get it."""
        return TrustFile(
            org=org,
            project=self.explanation.project,
            file=self.file,
            decision=self.decision,
            rule=self.decision.rule,
            reason=self.decision.reason,
            sha256=self.sha256,
            evidence=self.evidence,
            envelopes=tuple(msgspec.Raw(told.row.envelope) for told in self.told),
            refutations=tuple(msgspec.Raw(told.row.envelope) for told in self.refutations),
            verdicts=self.verdicts,
            manifests=self.manifests,
            log=self.log,
        )


class TrustPages:
    """`orgs()` names the organisations whose manifests are told; `is_public` False: nothing about projects is."""

    def __init__(
        self,
        *,
        explainer: Explainer,
        projects: Projects,
        store: Store,
        clock: Clock,
        log: LogKeeper,
        org: str,
        log_origin: str,
        orgs: Callable[[], Iterable[str]],
        is_public: bool,
    ) -> None:
        self.org = org
        self._explainer = explainer
        self._projects = projects
        self._store = store
        self._clock = clock
        self._log = log
        self._origin = log_origin
        self._orgs = orgs
        self._is_public = is_public

    async def home(self, after: str = "") -> TrustHome:
        """Who speaks here, and the projects behind `after`. Raises StoreAway."""
        async with self._store.transaction() as tables:
            names = await tables.views.names(after, NAMES_AT_ONCE + 1) if self._is_public else []
            manifests = await self._manifests(tables)
        shown, more = names[:NAMES_AT_ONCE], len(names) > NAMES_AT_ONCE
        return TrustHome(
            org=self.org,
            projects=tuple(shown),
            next=shown[-1] if more else None,
            manifests=manifests,
            log=LogTold(origin=self._origin, note=self._log.note),
        )

    async def project(self, project: ProjectName) -> TrustProject:
        """How the files of a project stand. Raises Problem (NOT_FOUND), StoreAway."""
        self._check_public(project)
        known = await self._projects.load(project)
        if known.is_blank:
            raise _unknown(project)
        async with self._store.transaction() as tables:
            claims = await tables.ledger.claims(project)
            room = await tables.mail.room(f"{PROJECT_ROOM}{project}")
        view = known.view
        return TrustProject(
            org=self.org,
            project=project,
            state=view.told_state if view is not None else "down",
            view_age_seconds=view.age_seconds(self._clock.now_ms()) if view is not None else 0.0,
            serial=view.page.serial if view is not None else known.serial_floor,
            room=room.room_id if room is not None else None,
            files=_standings(known, self._explainer.decisions(known, None), claims),
        )

    async def file(self, project: ProjectName, file: FileName) -> FilePage:
        """Everything on one file. Raises Problem (NOT_FOUND), StoreAway."""
        self._check_public(project)
        explanation = await self._explainer.explain(project, file)
        known = await self._projects.load(project)
        head, note = self._log.head, self._log.note
        orders = [order for order in (known.orders.project, known.orders.files.get(file)) if order is not None]
        async with self._store.transaction() as tables:
            verdicts = [row for row in await tables.ledger.verdicts(project) if row.file == file]
            ids = [
                *_claiming(await tables.ledger.claims_on(project, file), file),
                *(order.statement_id for order in orders),
            ]
            ids += [row.evidence_id for row in verdicts if row.evidence_id is not None][-MAX_VERDICTS:]
            rows = [row for one in dict.fromkeys(ids) if (row := await tables.ledger.envelope(one)) is not None]
            known_ids = {row.id for row in rows}
            unjudged = reversed(await tables.ledger.last_refutations(project, MAX_REFUTATIONS))
            rows += [row for row in unjudged if row.id not in known_ids]
            read = [one for row in rows if (one := _read(row)) is not None and _is_about(one.statement, file)]
            told = _last_of_each(read, lambda one: (one.row.org, one.row.kind), lambda one: one)
            proofs = await inclusion_proofs(tables, head, [one.row.id for one in told if one.row.via == "own"])
            manifests = await self._manifests(tables)
        placed = [Told(row=one.row, statement=one.statement, proof=proofs.get(one.row.id)) for one in told]
        return FilePage(
            explanation=explanation,
            file=file,
            sha256=_digest_of(known, file),
            told=tuple(one for one in placed if one.row.kind != Refutation.NAME),
            refutations=tuple(one for one in placed if one.row.kind == Refutation.NAME),
            verdicts=tuple(_judged(row) for row in verdicts[-MAX_VERDICTS:]),
            manifests=manifests,
            log=LogTold(origin=self._origin, note=note, proofs=proofs),
        )

    def _check_public(self, project: ProjectName) -> None:
        if not self._is_public:
            raise _unknown(project)

    async def _manifests(self, tables: Transaction) -> dict[str, tuple[msgspec.Raw, ...]]:
        found = {org: _chain(await tables.ledger.manifests(org)) for org in self._orgs()}
        return {org: chain for org, chain in found.items() if chain}


def _chain(rows: Sequence[EnvelopeRow]) -> tuple[msgspec.Raw, ...]:
    """The manifests by which the roots changed and the newest one, oldest first: the way from any former root to the keys of today."""
    chain: list[EnvelopeRow] = []
    roots: object = None
    for row in rows:
        told = _read(row)
        if told is None or not isinstance(told.statement.predicate, Manifest):
            continue
        if told.statement.predicate.roots != roots:
            roots = told.statement.predicate.roots
            chain.append(row)
    if rows and rows[-1] not in chain:
        chain.append(rows[-1])
    return tuple(msgspec.Raw(row.envelope) for row in chain[-MAX_MANIFESTS:])


def _read(row: EnvelopeRow) -> Told | None:
    """What the row says; None for one that this version does not understand any more."""
    try:
        envelope = read_envelope(json.loads(row.envelope), max_signatures=MAX_MANIFEST_SIGNATURES)
        return Told(row=row, statement=read_statement(envelope.payload))
    except Rejected:
        return None


def _claiming(claims: Sequence[Claim], file: FileName) -> list[StatementId]:
    """The statements that claim something of the file: the last few of each kind that each organisation made."""
    of_file = [claim for claim in claims if claim.file == file or _takes_back_version(claim, file)]
    return _last_of_each(of_file, lambda claim: (claim.org, claim.kind), lambda claim: claim.statement_id)


def _takes_back_version(claim: Claim, file: FileName) -> bool:
    if claim.kind != "withdrawal" or claim.word != "version":
        return False
    try:
        return project_and_version(claim.file) == project_and_version(file)
    except InvalidName:
        return False


def _last_of_each(items: Sequence[T], group: Callable[[T], object], shown: Callable[[T], S]) -> list[S]:
    """The last few of each group, in their order: nobody crowds the others out."""
    count: Counter[object] = Counter()
    kept = []
    for item in reversed(items):
        count[group(item)] += 1
        if count[group(item)] <= MAX_OF_ONE:
            kept.append(shown(item))
    return kept[::-1]


def _is_about(statement: Statement, file: FileName) -> bool:
    """Whether a refutation concerns the file; all others were looked for by the file."""
    return not isinstance(statement.predicate, Refutation) or statement.predicate.file == file


def _judged(row: VerdictRow) -> Judged:
    return Judged(
        statement_id=row.statement_id,
        fault=row.fault,
        result=row.result,
        org=row.org,
        reason=row.reason,
        at=str(Instant.of_ms(row.at_ms)),
        evidence_id=row.evidence_id,
    )


def _standings(known: Known, decisions: Mapping[str, FileDecision], claims: Sequence[Claim]) -> dict[str, FileStanding]:
    digests: dict[str, dict[str, None]] = {}
    orgs: dict[str, dict[str, None]] = {}
    for name in map(FileName, decisions):
        told = (_digest_of(known, name), known.first_seen.get(name))
        digests[name], orgs[name] = {sha256: None for sha256 in told if sha256 is not None}, {}
    for claim in claims:
        if claim.kind == "attestation" and claim.file in decisions:
            digests[claim.file][claim.subject] = None
            orgs[claim.file][claim.org] = None
    return {
        file: FileStanding(decision=decision, sha256=tuple(digests[file]), attested_by=tuple(orgs[file]))
        for file, decision in decisions.items()
    }


def _digest_of(known: Known, file: FileName) -> Sha256 | None:
    """The digest that the decision is about: the page's as it was finished, else the one remembered."""
    if known.finished is not None and file in known.finished.files:
        return known.finished.files[file].sha256
    remembered = known.lasting().get(file)
    return remembered.sha256 if remembered is not None else None


def _unknown(project: ProjectName) -> Problem:
    return Problem(f"nothing is told of {project} here", code=ProblemCode.NOT_FOUND)
