"""The bot's services over a real database, with an upstream that says what a test writes down and a clock that a test moves."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from matrix_pypi_bot.adapters.database.engine import open_store
from matrix_pypi_bot.core.cooldown import Cooldown
from matrix_pypi_bot.core.evidence import Mode, Terms
from matrix_pypi_bot.core.keyring import PinnedOrg
from matrix_pypi_bot.core.policy import Denial, NameRules
from matrix_pypi_bot.core.provenance import ProvenancePolicy
from matrix_pypi_bot.core.publisher import Publisher
from matrix_pypi_bot.core.signers import MIRROR, WATCHER, PinnedKey, SigningKey
from matrix_pypi_bot.ports import Absent, Away, Document, FetchedPage, NotModified, Store, Verifier, Wrong
from matrix_pypi_bot.services.announce import Peers
from matrix_pypi_bot.services.answers import Answers
from matrix_pypi_bot.services.attest import Attester
from matrix_pypi_bot.services.clockwork import Clockwork
from matrix_pypi_bot.services.explain import Explainer
from matrix_pypi_bot.services.override import Overrides
from matrix_pypi_bot.services.projects import Projects
from matrix_pypi_bot.services.provenance import Provenance
from matrix_pypi_bot.services.refresh import Refresher, RefreshSettings
from matrix_pypi_bot.services.rule import Rulebook
from matrix_pypi_bot.services.signing import Voice
from matrix_pypi_bot.wire.cids import CidBuilder
from matrix_pypi_bot.wire.messages import Change, Stored
from matrix_pypi_bot.wire.names import FileName, ProjectName
from matrix_pypi_bot.wire.problems import Problem
from tests.support.dists import Dist, wheel

BASE_URL = "https://index.example/simple/"
FILES_URL = "https://files.example"
MIRROR_SEED = bytes([1]) * 32
ORG = "orga"
FRESH_SECONDS = 600
START_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
KEY = SigningKey(MIRROR_SEED)
KEYS = {KEY.keyid: PinnedKey(public=KEY.public, org=ORG, roles=frozenset({MIRROR, WATCHER}))}
MXA = ProjectName("mxa")
ONE, TWO = wheel("mxa", "1.0", requires_python=">=3.8"), wheel("mxa", "2.0")
OTHER_ONE = wheel("mxa", "1.0", salt="other")  # the name of the first, other bytes
Answer = FetchedPage | NotModified | Absent | Away | Wrong


@dataclass(slots=True)
class ManualClock:
    """`ports.Clock` that a test moves."""

    ms: int = START_MS

    def now_ms(self) -> int:
        return self.ms

    def pass_seconds(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)


@dataclass(slots=True)
class Listing:
    """What upstream says of a project."""

    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    serial: int | None = 1
    extra: dict[str, Any] = field(default_factory=dict)

    def raw(self, project: str) -> bytes:
        serial = {} if self.serial is None else {"_last-serial": self.serial}
        page = {"meta": {"api-version": "1.4", **serial}, "name": project, "files": list(self.files.values())}
        return json.dumps(page | self.extra).encode()


@dataclass(frozen=True, slots=True)
class Asked:
    """One request to upstream."""

    project: str
    etag: str | None
    no_cache: bool


class ScriptedIndex:
    """`ports.Index`: listings, or for one project or for all something else; `gate` holds every answer back while it is set."""

    def __init__(self) -> None:
        self.listings: dict[str, Listing] = {}
        self.instead: dict[str, list[Answer]] = {}
        self.everything: Answer | None = None
        self.gate: asyncio.Event | None = None
        self.asked: list[Asked] = []

    def publish(self, dist: Dist, **told: Any) -> None:
        """Lists a file, in place of one of the same name; `told` replaces keys of its entry, None removes one."""
        listing = self.listings.setdefault(dist.project, Listing())
        entry: dict[str, Any] = {
            "filename": dist.filename,
            "url": FILES_URL + dist.path,
            "hashes": {"sha256": dist.sha256},
            "size": dist.size,
            "upload-time": "2024-01-02T03:04:05.678901Z",
            "core-metadata": {"sha256": dist.metadata_sha256} if dist.metadata else False,
            **told,
        }
        listing.files[dist.filename] = {key: value for key, value in entry.items() if value is not None}
        listing.serial = None if listing.serial is None else listing.serial + 1

    def remove(self, dist: Dist) -> None:
        """Lists a file no more."""
        listing = self.listings[dist.project]
        del listing.files[dist.filename]
        listing.serial = None if listing.serial is None else listing.serial + 1

    def off(self, reason: str = "nobody answers") -> None:
        """Away until `on()`."""
        self.everything = Away(reason)

    def on(self) -> None:
        """Well again."""
        self.everything = None
        self.instead.clear()

    def count(self, project: str) -> int:
        """How often it was asked about a project."""
        return len([asked for asked in self.asked if asked.project == project])

    async def fetch(self, project: ProjectName, *, etag: str | None, no_cache: bool) -> Answer:
        self.asked.append(Asked(project, etag, no_cache))
        if self.gate is not None:
            await self.gate.wait()
        if self.everything is not None:
            return self.everything
        if queued := self.instead.get(project):
            return queued.pop(0)
        listing = self.listings.get(project)
        if listing is None:
            return Absent()
        raw = listing.raw(project)
        tag = f'"{hashlib.sha256(raw).hexdigest()[:16]}"'
        if etag == tag:
            return NotModified()
        return FetchedPage(raw=raw, etag=tag, serial=listing.serial, opened_origins=())


@dataclass(slots=True)
class ScriptedDocuments:
    """`ports.Documents`: what stands at each address; nothing at others. Counts who asks."""

    answers: dict[str, bytes | Absent | Away | Wrong] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def fetch(self, url: str, *, opened: Collection[str]) -> Document | Absent | Away | Wrong:
        self.asked.append(url)
        answer = self.answers.get(url, Absent())
        return Document(answer) if isinstance(answer, bytes) else answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """That provenance is verified, by whom and how it counts."""

    verifier: Verifier
    documents: ScriptedDocuments
    pins: Mapping[ProjectName, tuple[Publisher, ...]] = field(default_factory=dict)
    quarantine: bool = True
    served_at: str = ""

    @property
    def policy(self) -> ProvenancePolicy:
        """As the rules want it."""
        return ProvenancePolicy(
            root=self.verifier.root, quarantine=self.quarantine, pins=self.pins, served_at=self.served_at
        )


class CountingPostman:
    """`ports.Postman` that only counts."""

    def __init__(self) -> None:
        self.pokes = 0

    def poke(self) -> None:
        self.pokes += 1


class World:
    """One life of the bot."""

    def __init__(
        self,
        store: Store,
        index: ScriptedIndex,
        clock: ManualClock,
        *,
        denials: Sequence[Denial] = (),
        names: NameRules | None = None,
        cooldown: Cooldown | None = None,
        keep_removed: bool = False,
        attests: bool = True,
        upstream: str = f"pypi {BASE_URL}",
        patience_seconds: float = 5.0,
        max_held_bytes: int = 1 << 20,
        verification: Verification | None = None,
        pinned: Sequence[PinnedOrg] = (),
    ) -> None:
        self.store, self.index, self.clock = store, index, clock
        self.postman = CountingPostman()
        self.voice = Voice(ORG, KEY)
        self.projects = Projects(
            store=store,
            clock=clock,
            rulebook=Rulebook(
                Terms(mode=Mode.ACKED, keep_removed=keep_removed),
                denials,
                names=names,
                cooldown=cooldown,
                provenance=None if verification is None else verification.policy,
            ),
            upstream=upstream,
            base_url=BASE_URL,
            max_held_bytes=max_held_bytes,
        )
        self.refresher = Refresher(
            projects=self.projects,
            index=index,
            clock=clock,
            settings=RefreshSettings(
                fresh_seconds=FRESH_SECONDS,
                retry_seconds=5,
                negative_seconds=60,
                keep_removed=keep_removed,
                patience_seconds=patience_seconds,
            ),
            on_live=lambda project: self.attester.page_is_live(project),
        )
        self.attester = Attester(
            projects=self.projects,
            refresher=self.refresher,
            store=store,
            clock=clock,
            voice=self.voice,
            postman=self.postman,
            index_name="pypi",
            attests=attests,
        )
        self.provenance = verification and Provenance(
            projects=self.projects,
            store=store,
            clock=clock,
            documents=verification.documents,
            verifier=verification.verifier,
            retry_seconds=60,
        )
        self.revoked: set[str] = set()
        self.peers = Peers(store=store, clock=clock, pinned=pinned, counts=lambda row: row.keyid not in self.revoked)
        self.answers = Answers(
            projects=self.projects,
            refresher=self.refresher,
            clock=clock,
            voice=self.voice,
            provenance=self.provenance,
            peers=self.peers,
        )
        self.overrides = Overrides(
            projects=self.projects, refresher=self.refresher, clock=clock, voice=self.voice, index_name="pypi"
        )
        self.explainer = Explainer(projects=self.projects, store=store, clock=clock)
        self.clockwork = Clockwork(
            projects=self.projects,
            refresher=self.refresher,
            attester=self.attester,
            store=store,
            clock=clock,
            refresh_served_seconds=3600,
            retry_seconds=5,
            daily=self._daily,
        )
        self.days = 0

    async def _daily(self) -> None:
        self.days += 1

    async def start(self) -> None:
        await self.peers.start()
        await self.projects.start()
        await self.attester.start()

    async def stop(self) -> None:
        if self.provenance is not None:
            await self.provenance.stop()
        await self.attester.stop()
        await self.refresher.stop()

    # How a test begins ---------------------------------------------------------------------------------------------------

    async def mirror(self, *dists: Dist, stored: Sequence[Dist] = ()) -> None:
        """Upstream lists the files, the bot reads their pages, and frontends report that they stored some of them."""
        for dist in dists:
            self.index.publish(dist)
        for project in dict.fromkeys(dist.project for dist in dists):
            await self.page(project)
        for dist in stored:
            await self.store_file(dist)

    def later(self, *published: Dist) -> None:
        """Upstream lists the files, and it is time to read every page again."""
        for dist in published:
            self.index.publish(dist)
        self.clock.pass_seconds(FRESH_SECONDS + 1)

    # What a test asks ----------------------------------------------------------------------------------------------------

    async def page(self, project: str, *, refresh: bool = False) -> dict[str, Any]:
        """The finished page as JSON."""
        answer = await self.answers.page(ProjectName(project), refresh=refresh)
        document: dict[str, Any] = json.loads(answer.document())
        return document

    async def refused(self, project: str, *, refresh: bool = False) -> Problem:
        """Why there is no page."""
        try:
            page = await self.page(project, refresh=refresh)
        except Problem as problem:
            return problem
        raise AssertionError(f"there is a page: {page}")

    async def rules(self, project: str) -> dict[str, str]:
        """The rule of each file on the page."""
        return {file["filename"]: file["_decision"]["rule"] for file in (await self.page(project))["files"]}

    async def rule(self, dist: Dist) -> tuple[str, int]:
        """The rule and the page-side status of one file."""
        decision = await self.answers.decision(ProjectName(dist.project), FileName(dist.filename), None)
        return decision.rule, decision.http

    async def store_file(self, dist: Dist, **told: Any) -> None:
        """A frontend reports that it stored the file."""
        await self.attester.stored(report(dist, **told))

    async def settled(self) -> None:
        """Returns when nothing goes on in the background."""
        while self.attester._tasks or self.attester._flights._tasks or self.refresher._flights._tasks:
            await asyncio.sleep(0.001)

    async def attestations(self, project: str) -> list[str]:
        """The digests that this organisation attested, oldest first."""
        async with self.store.transaction() as tables:
            return [str(row.sha256) for row in await tables.ledger.attestations(ProjectName(project))]

    async def changes(self, after: int = 0) -> list[Change]:
        """The change table."""
        async with self.store.transaction() as tables:
            return await tables.views.changes(after, 1_000)

    async def reports(self, project: str) -> list[Stored]:
        """Reports that wait."""
        async with self.store.transaction() as tables:
            return await tables.views.reports(ProjectName(project))

    async def mail(self) -> list[dict[str, Any]]:
        """Rows of the outbox as (room, type, state key, content)."""
        found = []
        async with self.store.transaction() as tables:
            for room in await tables.mail.rooms_with_mail():
                row = await tables.mail.next_to(room)
                assert row is not None
                found.append(
                    {
                        "room": row.room,
                        "type": row.type,
                        "state_key": row.state_key,
                        "content": json.loads(row.content),
                    }
                )
        return found


def report(dist: Dist, **told: Any) -> Stored:
    """What a frontend says of a file that it stored."""
    builder = CidBuilder()
    builder.update(dist.content)
    fields: dict[str, Any] = {
        "project": dist.project,
        "file": dist.filename,
        "sha256": dist.sha256,
        "size": dist.size,
        "cid": builder.finish(),
        "source": "upstream",
    }
    return Stored(**(fields | told))


@asynccontextmanager
async def living(url: str, index: ScriptedIndex, clock: ManualClock, **options: Any) -> AsyncIterator[World]:
    """A bot over the database at `url` while the block runs; what it knew is in the database afterwards."""
    async with open_store(url) as store:
        world = World(store, index, clock, **options)
        await world.start()
        try:
            yield world
        finally:
            await world.stop()
