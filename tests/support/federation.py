"""Several organisations, each with the bot's real services over a database of its own; statements travel when a test says so."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from matrix_pypi_bot.adapters.database.engine import open_store
from matrix_pypi_bot.core.envelope import Envelope, read_envelope
from matrix_pypi_bot.core.events import sign_statement
from matrix_pypi_bot.core.evidence import Mode, Terms
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.rejected import Code, Rejected
from matrix_pypi_bot.core.signers import SigningKey
from matrix_pypi_bot.core.statements.attestation import Attestation, Source
from matrix_pypi_bot.core.statements.common import Predicate, SignedBy
from matrix_pypi_bot.ports import Postman, Store, VerdictRow
from matrix_pypi_bot.services.answers import Answers
from matrix_pypi_bot.services.attest import Attester
from matrix_pypi_bot.services.court import Court
from matrix_pypi_bot.services.docket import ROUND_SECONDS, Docket
from matrix_pypi_bot.services.explain import Explainer
from matrix_pypi_bot.services.forks import Forks
from matrix_pypi_bot.services.intake import Intake
from matrix_pypi_bot.services.keys import Organisation, ensure_manifest
from matrix_pypi_bot.services.members import Members
from matrix_pypi_bot.services.override import Overrides
from matrix_pypi_bot.services.projects import Projects
from matrix_pypi_bot.services.provenance import Provenance
from matrix_pypi_bot.services.refresh import Refresher, RefreshSettings
from matrix_pypi_bot.services.refutations import Refutations
from matrix_pypi_bot.services.rule import Rulebook
from matrix_pypi_bot.services.signing import Voice
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import Decision
from matrix_pypi_bot.wire.names import FileName, ProjectName, project_and_version
from matrix_pypi_bot.wire.problems import Problem
from tests.support.bot_world import (
    BASE_URL,
    FRESH_SECONDS,
    CountingPostman,
    ManualClock,
    ScriptedIndex,
    Verification,
    report,
)
from tests.support.dists import Dist


def key(text: str) -> SigningKey:
    """Always the same key for the same text."""
    return SigningKey(hashlib.sha256(text.encode()).digest())


def organisation(name: str) -> Organisation:
    """An organisation with keys made from its name."""
    return Organisation(name, root=key(f"{name} root"), mirror=key(f"{name} mirror"), log=key(f"{name} log"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusting:
    """How the organisations of a test trust one another."""

    mode: Mode = Mode.ACKED
    quorum: int = 2
    acks_missing_allowed: int = 0
    keep_removed: bool = False
    verification: Verification | None = None
    maintainers: Mapping[ProjectName, frozenset[str]] | None = None


class Participant:
    """One organisation. `index` is upstream as it shows itself to this one."""

    def __init__(
        self,
        name: str,
        store: Store,
        index: ScriptedIndex,
        clock: ManualClock,
        others: Iterable[str],
        trust: Trusting,
        *,
        postman: Postman | None = None,
        round_seconds: float = ROUND_SECONDS,
    ) -> None:
        self.name, self.store, self.index, self.clock = name, store, index, clock
        self.organisation = organisation(name)
        self.postman = postman or CountingPostman()
        self.voice = Voice(name, self.organisation.mirror)
        self.heard: dict[str, int] = {}
        self.members = Members(
            store=store,
            clock=clock,
            own=self.organisation.pinned,
            pinned=[organisation(other).pinned for other in others],
            quorum=trust.quorum,
            acks_missing_allowed=trust.acks_missing_allowed,
            maintainers=trust.maintainers,
            on_change=lambda organisations: self.docket.reconsider(organisations),
        )
        self.projects = Projects(
            store=store,
            clock=clock,
            rulebook=Rulebook(
                Terms(mode=trust.mode, keep_removed=trust.keep_removed),
                standing=self.members.standing,
                provenance=trust.verification and trust.verification.policy,
            ),
            upstream=f"pypi {BASE_URL}",
            base_url=BASE_URL,
        )
        self.refresher = Refresher(
            projects=self.projects,
            index=index,
            clock=clock,
            settings=RefreshSettings(
                fresh_seconds=FRESH_SECONDS, retry_seconds=5, negative_seconds=60, keep_removed=trust.keep_removed
            ),
            on_live=self._page_is_live,
        )
        self.attester = Attester(
            projects=self.projects,
            refresher=self.refresher,
            store=store,
            clock=clock,
            voice=self.voice,
            postman=self.postman,
            index_name="pypi",
            attests=True,
        )
        self.provenance = trust.verification and Provenance(
            projects=self.projects,
            store=store,
            clock=clock,
            documents=trust.verification.documents,
            verifier=trust.verification.verifier,
            retry_seconds=60,
        )
        self.court = Court(
            projects=self.projects,
            members=self.members,
            store=store,
            clock=clock,
            voice=self.voice,
            postman=self.postman,
            refutations=Refutations(self.voice),
            index_name="pypi",
            prove=self.provenance and self.provenance.check_bundle,
            is_fresh=self.refresher.is_fresh,
            on_suspended=lambda organisations: self.docket.reconsider(organisations),
        )
        self.forks = Forks(
            store=store,
            clock=clock,
            members=self.members,
            refutations=Refutations(self.voice),
            postman=self.postman,
            on_suspended=lambda organisations: self.docket.reconsider(organisations),
        )
        self.docket = Docket(
            court=self.court,
            forks=self.forks,
            members=self.members,
            projects=self.projects,
            refresher=self.refresher,
            store=store,
            clock=clock,
            provenance=self.provenance,
            round_seconds=round_seconds,
        )
        self.intake = Intake(
            self.members,
            on_statement=self.docket.hear,
            on_other=self.docket.hear_other,
            on_lie=self.docket.hear_lie,
        )
        self.answers = Answers(
            projects=self.projects,
            refresher=self.refresher,
            clock=clock,
            voice=self.voice,
            provenance=self.provenance,
        )
        self.overrides = Overrides(
            projects=self.projects, refresher=self.refresher, clock=clock, voice=self.voice, index_name="pypi"
        )
        self.explainer = Explainer(projects=self.projects, store=store, clock=clock)

    def _page_is_live(self, project: ProjectName) -> None:
        self.attester.page_is_live(project)
        self.docket.page_is_live(project)

    async def start(self) -> None:
        """Its manifest is signed, and what it knew before it knows again."""
        manifest = await ensure_manifest(self.store, self.clock, self.organisation, bot_mxid=f"@pypi:{self.name}")
        self.members.learn_own(manifest)
        await self.members.start()
        await self.projects.start()
        await self.attester.start()

    async def stop(self) -> None:
        await self.attester.stop()
        await self.refresher.stop()

    # What it does --------------------------------------------------------------------------------------------------------

    async def serve(self, *dists: Dist) -> None:
        """Clients ask for the files; the frontend stores and reports what it may serve."""
        for dist in dists:
            decision = await self.decide(dist)
            if decision.serves and decision.sha256 == dist.sha256:
                await self.attester.stored(report(dist))
        await self.settle()

    async def settle(self) -> None:
        """Everything that waits was done."""
        while True:
            await self.docket.work_off()
            busy = self.attester._tasks or self.attester._flights._tasks or self.refresher._flights._tasks
            if not busy and not self.docket._looks and not self.docket._changed:
                return
            await asyncio.sleep(0.001)

    async def said(self) -> list[Envelope]:
        """Its log: everything that it ever signed."""
        async with self.store.transaction() as tables:
            rows = await tables.log.entries(0, await tables.log.size())
        return [_envelope(row) for row in rows]

    async def hear(self, *others: Participant) -> None:
        """Reads what others said since it last read their logs."""
        for other in others:
            said = await other.said()
            await self.take(*said[self.heard.get(other.name, 0) :])
            self.heard[other.name] = len(said)

    async def take(self, *envelopes: Envelope) -> None:
        """Statements arrive, one after the other."""
        for envelope in envelopes:
            try:
                checked = self.intake.check(envelope.to_json())
            except Rejected as rejected:
                if rejected.code is Code.CID_DIGEST:
                    self.intake.tell_of_lie(envelope.to_json())
                continue
            async with self.store.transaction() as tables:
                new = await self.intake.keep(tables, checked, via="log", at_ms=self.clock.now_ms())
            if new:
                self.intake.tell(checked)
        await self.settle()

    def sign(self, subjects: dict[str, str], predicate: Predicate) -> Envelope:
        """Whatever its mirror key is made to sign; its own bot knows nothing of it."""
        told = {name: Sha256(digest) for name, digest in subjects.items()}
        return sign_statement(told, predicate, self.organisation.mirror)

    def lie(self, dist: Dist, *, seq: int = 1_000) -> Envelope:
        """Its signed word that the file is these bytes, whatever it knows."""
        project, version = project_and_version(FileName(dist.filename))
        return self.sign(
            {dist.filename: dist.sha256},
            Attestation(
                signer=SignedBy(org=self.name, key=self.organisation.mirror.keyid),
                seq=seq,
                prev=None,
                issued=Instant.of_ms(self.clock.now_ms()),
                project=project,
                version=version,
                size=dist.size,
                source=Source(kind="pypi", method="bytes", serial=1),
                expires=None,
            ),
        )

    # What a test asks ----------------------------------------------------------------------------------------------------

    async def decide(self, dist: Dist) -> Decision:
        """The decision on a file; of one that nobody here ever heard of R14."""
        try:
            return await self.answers.decision(ProjectName(dist.project), FileName(dist.filename), None)
        except Problem as problem:
            return Decision(
                action="unavailable", http=404, rule="none", reason=problem.detail, project=dist.project,
                file=dist.filename, path="",
            )  # fmt: skip

    async def rule(self, dist: Dist) -> tuple[str, str | None]:
        """The rule, and the digest that is served."""
        decision = await self.decide(dist)
        return decision.rule, decision.sha256 if decision.serves else None

    async def verdicts(self, dist: Dist) -> list[tuple[str, str, str]]:
        """(organisation, fault, result) of everything that was judged about the project, oldest first."""
        async with self.store.transaction() as tables:
            rows: list[VerdictRow] = await tables.ledger.verdicts(ProjectName(dist.project))
        return [(row.org, row.fault, row.result) for row in rows]

    @property
    def outcasts(self) -> frozenset[str]:
        """Organisations that have no weight here."""
        return self.members.standing().outcasts()


@dataclass(slots=True)
class Federation:
    """The organisations by name, with one clock."""

    clock: ManualClock
    by_name: dict[str, Participant] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Participant:
        return self.by_name[name]

    async def exchange(self, *names: str) -> None:
        """Everybody (or those named) hears everybody else, until nobody has anything new to say."""
        chosen = [self.by_name[name] for name in names or self.by_name]
        while True:
            before = [len(await one.said()) for one in chosen]
            for one in chosen:
                await one.hear(*(other for other in chosen if other is not one))
            if before == [len(await one.said()) for one in chosen]:
                return

    def publish(self, *dists: Dist, to: Sequence[str] = (), **told: Any) -> None:
        """Upstream lists the files, to everybody or to those named."""
        for name in to or self.by_name:
            for dist in dists:
                self.by_name[name].index.publish(dist, **told)

    def upstream_off(self, *names: str) -> None:
        """Nobody (or none of those named) reaches upstream, and time passes so that they notice."""
        for name in names or self.by_name:
            self.by_name[name].index.off()
        self.clock.pass_seconds(FRESH_SECONDS + 61)

    def upstream_on(self, *names: str) -> None:
        """Upstream is back, and time passes so that they notice."""
        for name in names or self.by_name:
            self.by_name[name].index.on()
        self.clock.pass_seconds(FRESH_SECONDS + 61)


@asynccontextmanager
async def federation(
    folder: Any, *names: str, clock: ManualClock | None = None, **trust: Any
) -> AsyncIterator[Federation]:
    """Organisations that pin one another, over databases in `folder`; they have read one another's manifests."""
    clock = clock or ManualClock()
    made = Federation(clock)
    async with AsyncExitStack() as stack:
        for name in names:
            store = await stack.enter_async_context(open_store(f"sqlite:{folder}/{name}.db"))
            others = [other for other in names if other != name]
            one = Participant(name, store, ScriptedIndex(), clock, others, Trusting(**trust))
            made.by_name[name] = one
            await one.start()
            stack.push_async_callback(one.stop)
        await made.exchange()
        yield made


def _envelope(row: bytes) -> Envelope:
    return read_envelope(json.loads(row), max_signatures=16)
