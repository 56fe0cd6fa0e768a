"""Others' statements judged: what is false is refuted in this organisation's name, accusations are looked into, files are reviewed.

A verdict, the refutation that says so, its mail, and the decisions that follow from it are one database transaction. Nobody is
believed for accusing: what is upheld here was found out here, or proves itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from matrix_pypi_bot.core.claims import Claim, claims_of
from matrix_pypi_bot.core.court import Finding, OtherBytes, doubts, findings, reviews, verdict_now
from matrix_pypi_bot.core.decide import Ruling
from matrix_pypi_bot.core.envelope import Envelope, StatementId
from matrix_pypi_bot.core.evidence import Evidence, Live
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.judge import SUSPENDING, UNDECIDED, Verdict, raw_cid_lie
from matrix_pypi_bot.core.keyring import MAINTAINER_ORG
from matrix_pypi_bot.core.signers import WATCHER, Keyid
from matrix_pypi_bot.core.statements import read_statement
from matrix_pypi_bot.core.statements.attestation import Attestation
from matrix_pypi_bot.core.statements.refutation import Fault
from matrix_pypi_bot.core.witnesses import Witnesses
from matrix_pypi_bot.ports import Clock, EnvelopeRow, Postman, Store, Transaction, VerdictRow
from matrix_pypi_bot.services.accusations import Accusation, Accusations, Heard, Prove, Verdicts
from matrix_pypi_bot.services.accuser import Accuser
from matrix_pypi_bot.services.index_views import IndexViews
from matrix_pypi_bot.services.known import Known
from matrix_pypi_bot.services.members import Members
from matrix_pypi_bot.services.projects import Projects
from matrix_pypi_bot.services.refutations import Refutations
from matrix_pypi_bot.services.review import review_statements
from matrix_pypi_bot.services.signing import Voice
from matrix_pypi_bot.wire.names import FileName, ProjectName

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Session:
    """One look at one project: what was known at its beginning, and what was judged since."""

    known: Known
    witnesses: Mapping[FileName, Witnesses]
    rulings: Mapping[FileName, tuple[Evidence, Ruling]]
    now_ms: int
    verdicts: list[VerdictRow] = field(default_factory=list)
    mail: bool = False
    acquitted: set[str] = field(default_factory=set)
    judged: Verdicts = field(init=False)

    def __post_init__(self) -> None:
        self.judged = Verdicts(self.known.verdicts)


class Court:
    """Judges. `publishes` False: findings are kept and acted on here, and nothing is signed (a private index stays inside).

    `prove(project, file, bundle)` verifies a bundle of provenance (F5); without it such accusations wait for somebody who can.
    `is_fresh(known)`: whether upstream said lately what it is held to say; nothing older is reviewed by, or told, as what it says now.
    `on_suspended(organisations)` is called, after the commit, when keys of theirs were suspended, or are no more.
    """

    def __init__(
        self,
        *,
        projects: Projects,
        members: Members,
        store: Store,
        clock: Clock,
        voice: Voice,
        postman: Postman,
        refutations: Refutations,
        index_name: str,
        publishes: bool = True,
        prove: Prove | None = None,
        is_fresh: Callable[[Known], bool] = lambda known: True,
        on_suspended: Callable[[frozenset[str]], None] = lambda organisations: None,
    ) -> None:
        self._projects = projects
        self._members = members
        self._store = store
        self._clock = clock
        self._voice = voice
        self._postman = postman
        self._index_name = index_name
        self._publishes = publishes
        self._is_fresh = is_fresh
        self._refutations = refutations
        self._accuser = Accuser(refutations, projects, members)
        self._accusations = Accusations(members, store, prove)
        self._views = IndexViews(voice, index_name)
        self._on_suspended = on_suspended

    async def look(self, project: ProjectName, seen: OtherBytes | None = None, lie: Envelope | None = None) -> Known:
        """Everything said of the project, judged by what is known now; decided anew and announced when it returns. Raises StoreAway.

        `seen` is what the own frontend found under a CID that somebody attested, `lie` an attestation that was never kept, because it
        proves its own falsehood.
        """
        session: Session | None = None
        held = self._projects.held(project)
        heard = await self._accusations.listen(project, Verdicts(held.verdicts if held is not None else ()))

        async def change(tables: Transaction, known: Known) -> Known:
            nonlocal session
            session = self._open(await self._projects.with_claims(tables, known))
            await self._find(tables, session, seen)
            if lie is not None:
                await self._convict(tables, session, lie)
            await self._hear(tables, session, heard)
            await self._judge_again(tables, session)
            if session.verdicts:
                await self._members.read_suspensions(tables)
            if self._speaks() and (not _is_live(session.known) or self._is_fresh(session.known)):
                listed = await self._views.say(tables, session.known, now_ms=session.now_ms)
                session.mail = await self._review(tables, session) or listed or session.mail
            # What was signed just now is a claim too.
            return await self._projects.with_claims(tables, session.known)

        try:
            known = await self._projects.revise(project, change, against_told=True)
        except BaseException:
            await self._recover(session)
            raise
        assert session is not None, "the change was made"
        self._tell(session)
        return known

    def _open(self, known: Known) -> Session:
        rulebook = self._projects.rulebook
        witnesses = rulebook.witnesses(known)
        rulings = {file: rulebook.ruling(known, file, told) for file, told in witnesses.items()}
        return Session(known=known, witnesses=witnesses, rulings=rulings, now_ms=self._clock.now_ms())

    async def _recover(self, session: Session | None) -> None:
        """What was suspended in a transaction that failed is what the database says it is."""
        if session is not None and session.verdicts:
            async with self._store.transaction() as tables:
                await self._members.read_suspensions(tables)

    async def _find(self, tables: Transaction, session: Session, seen: OtherBytes | None) -> None:
        """Own findings, each with a refutation of ours."""
        standing = self._members.standing()
        rulings = {file: ruling for file, (_, ruling) in session.rulings.items()}
        upheld = session.judged.upheld()
        for finding in findings(session.known.claims, standing, session.witnesses, rulings, upheld, seen):
            if any(row.statement_id == finding.accused.statement_id for row in session.verdicts):
                continue  # one proof is enough
            if finding.fault is Fault.EQUIVOCATION and self._is_shown_to_all(session, finding.accused):
                continue
            refutation = await self._refute(tables, session, finding)
            await self._keep(
                tables, session, finding.accused, finding.fault, Verdict.UPHELD, finding.reason, evidence_id=refutation
            )
        for doubt in doubts(session.witnesses, session.rulings):
            # What others accused before is said all the same: liars who accuse each other would silence whoever looks.
            if session.judged.newest(doubt.accused.statement_id, doubt.fault) in (None, Verdict.CONTESTED.value):
                refutation = await self._refute(tables, session, doubt)
                await self._keep(
                    tables, session, doubt.accused, doubt.fault, Verdict.CONFLICT, doubt.reason, evidence_id=refutation
                )

    async def _convict(self, tables: Transaction, session: Session, lie: Envelope) -> None:
        """A raw CID that is not the digest's (F2), unless its key is suspended already: one proof is enough."""
        keys = self._members.keyring.keys
        if raw_cid_lie(lie.to_json(), keys) is not Verdict.UPHELD:
            return
        statement = read_statement(lie.payload, Attestation)
        signer = statement.predicate.signed_by()
        assert signer is not None, "an attestation names its signer"
        if signer.org == self._members.own.name or signer.key in self._members.standing().suspended:
            return
        told = claims_of(statement, org=signer.org, keyid=signer.key, received_ms=session.now_ms)
        found = Finding(fault=Fault.CID_RAW, accused=next(told), carried=lie.to_json())
        refutation = await self._refute(tables, session, found)
        await self._keep(
            tables, session, found.accused, found.fault, Verdict.UPHELD, found.reason, evidence_id=refutation
        )

    def _is_shown_to_all(self, session: Session, accused: Claim) -> bool:
        """Whether it is proved already, and seen without upstream, that the key signs anything: more proofs add nothing.

        But where its organisation says that it was stolen, what it signed before counts, and each false one has to be named.
        """
        rows = (*session.known.verdicts, *session.verdicts)
        return not self._members.keyring.is_compromised(accused.keyid, accused.org) and any(
            row.keyid == accused.keyid and row.fault == Fault.EQUIVOCATION and row.suspends for row in rows
        )

    async def _hear(self, tables: Transaction, session: Session, heard: Iterable[Heard]) -> None:
        """What becomes of others' accusations."""
        claims = session.known.claims
        for one in self._accusations.unsettled(heard, claims, session.judged):
            judged = self._accusations.judge(one.heard, claims)
            if one.is_kept or judged.verdict is Verdict.UPHELD:
                await self._settle(tables, session, one, judged.verdict, judged.reason)

    async def _settle(
        self, tables: Transaction, session: Session, one: Accusation, verdict: Verdict, reason: str
    ) -> None:
        """Keeps what became of an accusation, if that is news; a wrong one costs the accuser only."""
        accused, row, fault = one.accused, one.row, one.fault
        if verdict is Verdict.PENDING:
            verdict, reason = self._verdict_now(session, accused, fault), "by what upstream says"
        newest = session.judged.newest(accused.statement_id, fault)
        if (
            verdict is Verdict.PENDING
            and newest is None
            and self._may_contest(row)
            and accused.org != MAINTAINER_ORG  # nothing is served by a maintainer's word alone, but much is refused
            and not self._names(session, accused)
            and accused.file not in session.known.lasting()
        ):
            verdict, reason = Verdict.CONTESTED, f"accused by {row.org}; it cannot be checked here now"
        if verdict is Verdict.PENDING or (newest == verdict.value and verdict is not Verdict.DISMISSED):
            return
        if verdict is Verdict.DISMISSED:
            log.warning(
                "accusation dismissed alarm",
                extra={"org": row.org, "file": accused.file, "fault": fault, "reason": reason},
            )
        evidence_id = row.id
        if verdict is Verdict.UPHELD:  # everybody who upholds it says so himself
            evidence_id = await self._refutations.repeat(tables, row, now_ms=session.now_ms) or row.id
            session.mail = True
        await self._keep(tables, session, accused, fault, verdict, reason, evidence_id=evidence_id)

    async def _judge_again(self, tables: Transaction, session: Session) -> None:
        """What evidence has settled since, whether or not the accuser is known any more; and what upstream made wrong."""
        claims = {claim.statement_id: claim for claim in session.known.claims}
        for (statement_id, fault), result in session.judged.newest_of_all().items():
            accused = claims.get(StatementId(statement_id))
            is_wrong = result == Verdict.UPHELD.value and fault is Fault.PYPI_DIGEST
            if accused is None or not (is_wrong or result in UNDECIDED):
                continue
            verdict, evidence_id, reason = self._verdict_now(session, accused, fault), None, "by what upstream says"
            if verdict is Verdict.PENDING and self._names(session, accused):
                reason = "upstream names this digest; what lies under its CID nobody here looked at"
            elif (
                verdict is Verdict.PENDING or verdict.value == result or (is_wrong and verdict is not Verdict.DISMISSED)
            ):
                continue
            if verdict is Verdict.UPHELD:
                _, ruling = self._ruling(session, accused)
                found = Finding(fault=fault, accused=accused, sha256=ruling.named)
                evidence_id = await self._refute(tables, session, found)
            if is_wrong:
                session.acquitted.add(accused.org)
            await self._keep(tables, session, accused, fault, verdict, reason, evidence_id=evidence_id)

    def _ruling(self, session: Session, accused: Claim) -> tuple[Evidence, Ruling]:
        told = session.witnesses.get(accused.file, Witnesses())
        return self._projects.rulebook.ruling(session.known, accused.file, told)

    def _verdict_now(self, session: Session, accused: Claim, fault: Fault) -> Verdict:
        evidence, ruling = self._ruling(session, accused)
        return verdict_now(fault, accused, evidence, ruling, self._index_name)

    def _names(self, session: Session, accused: Claim) -> bool:
        """Whether upstream names the accused digest now."""
        evidence, _ = self._ruling(session, accused)
        return evidence.upstream == Live(accused.subject)

    def _may_contest(self, row: EnvelopeRow) -> bool:
        """Whether the accuser is pinned and counts: accounts and keys are free, and must not be able to hold anything up."""
        standing = self._members.standing()
        received = Instant.of_ms(row.first_seen_ms)
        return (
            standing.keyring.counts(Keyid(row.keyid), row.org, received=received, now=standing.now)
            and row.org not in standing.outcasts()
            and any(org.name == row.org for org in standing.pinned)
        )

    def _speaks(self) -> bool:
        """Whether there is anybody to listen, and anything may be said."""
        return self._publishes and self._voice.may_speak and bool(self._members.pinned)

    async def _refute(self, tables: Transaction, session: Session, finding: Finding) -> str | None:
        """Our refutation of a finding; None when nothing is signed now."""
        if not (self._publishes and self._voice.may_speak):
            return None
        before = (*session.known.verdicts, *session.verdicts)
        said = await self._accuser.refute(tables, session.known, before, finding, now_ms=session.now_ms)
        session.mail = session.mail or said is not None
        return said

    async def _keep(
        self,
        tables: Transaction,
        session: Session,
        accused: Claim,
        fault: Fault,
        verdict: Verdict,
        reason: str,
        *,
        evidence_id: str | None,
    ) -> None:
        row = VerdictRow(
            statement_id=accused.statement_id,
            fault=fault.value,
            result=verdict.value,
            project=session.known.project,
            file=accused.file,
            keyid=accused.keyid,
            org=accused.org,
            evidence_id=evidence_id,
            reason=reason,
            suspends=verdict is Verdict.UPHELD and fault in SUSPENDING,
            at_ms=session.now_ms,
        )
        await tables.ledger.judge(row)
        session.verdicts.append(row)
        session.judged.add(row)

    async def _review(self, tables: Transaction, session: Session) -> bool:
        """Reviews what others attest and nothing was said of here; whether anything was signed."""
        if WATCHER not in self._members.own.roles:
            return False
        # Decided again: what was just refuted counts no more.
        fresh = self._open(await self._projects.with_claims(tables, session.known)) if session.verdicts else session
        own = [claim for claim in fresh.known.claims if claim.org == self._members.own.name]
        found = reviews(own, fresh.rulings, fresh.witnesses)
        view = fresh.known.view
        serial = view.page.serial if view is not None and _is_live(fresh.known) else None
        for subjects, predicate in review_statements(fresh.known.project, self._index_name, found, serial=serial):
            await self._voice.say(tables, subjects, predicate, file=None, now_ms=session.now_ms)
        return bool(found)

    def _tell(self, session: Session) -> None:
        """After the commit: mail may leave, people hear of it, and other projects are decided anew."""
        if session.mail:
            self._postman.poke()
        for row in session.verdicts:
            log.warning(
                f"statement {row.result.lower()} alarm",
                extra={
                    "project": row.project,
                    "file": row.file,
                    "org": row.org,
                    "fault": row.fault,
                    "statement": row.statement_id,
                    "reason": row.reason,
                },
            )
        if changed := frozenset(row.org for row in session.verdicts if row.suspends) | session.acquitted:
            self._on_suspended(changed)


def _is_live(known: Known) -> bool:
    return known.view is not None and known.view.state == "live"
