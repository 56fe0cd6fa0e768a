"""What waits to be judged: projects of which something new was said, upstream asked about them, and whose word became worth another.

Judging what is here costs little and is done at once; asking upstream is paced, however many statements, or accusations, arrive.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from aiolimiter import AsyncLimiter
from cachetools import LRUCache

from matrix_pypi_bot.core.court import OtherBytes
from matrix_pypi_bot.core.decide import Rule
from matrix_pypi_bot.core.envelope import Envelope
from matrix_pypi_bot.core.events import Checked
from matrix_pypi_bot.core.statements import read_statement
from matrix_pypi_bot.core.statements.attestation import Attestation
from matrix_pypi_bot.core.statements.refutation import Refutation
from matrix_pypi_bot.ports import Clock, Store
from matrix_pypi_bot.services.court import Court
from matrix_pypi_bot.services.forks import Forks
from matrix_pypi_bot.services.known import Known
from matrix_pypi_bot.services.members import Members
from matrix_pypi_bot.services.projects import Projects
from matrix_pypi_bot.services.provenance import Provenance
from matrix_pypi_bot.services.refresh import Refresher
from matrix_pypi_bot.services.together import together
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import Observed
from matrix_pypi_bot.wire.names import FileName, ProjectName
from matrix_pypi_bot.wire.problems import Problem

log = logging.getLogger(__name__)

ASKS_PER_MINUTE: Final = 120  # pages of upstream, for files that others attest and nobody asked for here
APART_MS: Final = 60_000  # one project is asked about so often at most, whatever the number of accusations
MAX_REMEMBERED: Final = 10_000
ROUND_SECONDS: Final = 5.0
MAX_PROOFS: Final = 16  # of one project, looked at in one go
_BATCH: Final = 200


class Docket:
    """Make it in a running loop and have `run()` run. `want_lists(project)` hears of projects whose page upstream does not show now.

    `provenance` looks at that of files about which a quorum contradicts upstream; None: it is not verified here.
    """

    def __init__(
        self,
        *,
        court: Court,
        forks: Forks,
        members: Members,
        projects: Projects,
        refresher: Refresher,
        store: Store,
        clock: Clock,
        want_lists: Callable[[ProjectName], None] = lambda project: None,
        provenance: Provenance | None = None,
        round_seconds: float = ROUND_SECONDS,
    ) -> None:
        self._court = court
        self._forks = forks
        self._members = members
        self._projects = projects
        self._refresher = refresher
        self._store = store
        self._clock = clock
        self._want_lists = want_lists
        self._provenance = provenance
        self._round_seconds = round_seconds
        self._limiter = AsyncLimiter(ASKS_PER_MINUTE, 60)
        self._looks: dict[ProjectName, None] = {}
        self._asks: dict[ProjectName, None] = {}
        self._waiting: dict[ProjectName, None] = {}
        self._left_out = True  # there is something in the database that ought to be waiting
        self._taken_up_to = ""
        self._changed: set[str] = set()
        self._others: deque[Checked] = deque(maxlen=MAX_REMEMBERED)
        self._lies: deque[tuple[ProjectName, Envelope]] = deque(maxlen=MAX_REMEMBERED)
        self._seen: deque[tuple[ProjectName, OtherBytes]] = deque(maxlen=MAX_REMEMBERED)
        self._asked_ms: LRUCache[ProjectName, int] = LRUCache(MAX_REMEMBERED)
        self._wake = asyncio.Event()

    def hear(self, project: ProjectName, org: str) -> None:
        """Something new about the project was kept; `org` said it, empty when nobody here knows who."""
        if org != self._members.own.name:
            self._looks[project] = None
            self._ask_about(project)
            self._wake.set()

    def hear_other(self, checked: Checked) -> None:
        """A statement about no project was kept: it may be that a log forked."""
        if isinstance(checked.statement.predicate, Refutation):
            self._others.append(checked)
            self._wake.set()

    def hear_lie(self, envelope: Envelope) -> None:
        """An attestation was turned away that proves its own falsehood (F2)."""
        project = read_statement(envelope.payload, Attestation).predicate.about_project()
        if project is not None:
            self._lies.append((ProjectName(project), envelope))
            self._wake.set()

    def hear_observed(self, observed: Observed) -> None:
        """A frontend of this organisation found other bytes under a CID that somebody attested."""
        if observed.kind == "cid-content" and observed.cid is not None:
            seen = OtherBytes(
                file=FileName(observed.file),
                sha256=Sha256(observed.expected_sha256),
                cid=observed.cid,
                is_whole=observed.sha256 is not None,
                size=observed.size,
            )
            self._seen.append((ProjectName(observed.project), seen))
            self._wake.set()

    def hear_list(self, project: ProjectName) -> None:
        """A list that somebody's index statement stands for is here."""
        self._looks[project] = None
        self._wake.set()

    def page_is_live(self, project: ProjectName) -> None:
        """Upstream answered about the project: what could not be checked before can be now."""
        self._waiting.pop(project, None)
        known = self._projects.held(project)
        if known is not None and self._members.pinned and (known.claims or known.accepted):
            self._looks[project] = None
            self._wake.set()

    def reconsider(self, organisations: frozenset[str]) -> None:
        """What these organisations said is worth another: every project of theirs is decided anew."""
        self._changed |= organisations
        self._wake.set()

    async def run(self) -> None:
        """Works off whatever waits, until cancelled."""
        async with together() as group:
            group.create_task(self._judge(), name="docket judges")
            group.create_task(self._inquire(), name="docket asks upstream")

    async def work_off(self) -> None:
        """Judges what waits, and asks upstream once about what needs it. Raises Problem when the database is away."""
        await self._judge_all()
        for project in list(self._asks):
            del self._asks[project]
            await self._ask(project)
        await self._judge_all()

    async def _judge(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._round_seconds):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            self._members.look_at_the_time()
            try:
                await self._judge_all()
            except Problem as problem:
                log.warning("judging must wait", extra={"reason": problem.detail})
                await asyncio.sleep(self._round_seconds)

    async def _judge_all(self) -> None:
        """What was said comes before what is only worth another: a file that was refuted is refused at once."""
        while self._others:
            await self._forks.accused(self._others[0])
            self._others.popleft()
        while self._lies:
            project, lie = self._lies[0]
            await self._look(project, lie=lie)
            self._lies.popleft()
        while self._seen:
            await self._look(*self._seen[0])
            self._seen.popleft()
        while self._looks or self._changed:
            while self._looks:
                await self._look_at_next()
            if self._changed:
                organisation = self._changed.pop()
                try:
                    await self._decide_anew(organisation)
                except BaseException:
                    self._changed.add(organisation)
                    raise

    async def _look_at_next(self) -> None:
        project = next(iter(self._looks))
        del self._looks[project]  # what is said of it from now on is another reason to look
        try:
            await self._look(project)
        except BaseException:
            self._looks[project] = None
            raise

    async def _look(self, project: ProjectName, seen: OtherBytes | None = None, *, lie: Envelope | None = None) -> None:
        """Looks at it. What cannot be judged at all, whatever it is, keeps nobody else waiting. Raises Problem."""
        try:
            known = await self._court.look(project, seen, lie)
        except Problem:
            raise
        except Exception:
            log.exception("project cannot be judged alarm", extra={"project": project})
            return
        if known.view is not None and known.view.state == "down":
            self._want_lists(project)
        if self._provable(known):
            self._asks[project] = None

    async def _decide_anew(self, organisation: str) -> None:
        after = ""
        while True:
            async with self._store.transaction() as tables:
                projects = await tables.ledger.projects_of(organisation, after, _BATCH)
            for project in projects:
                if self._looks:  # newer, and smaller
                    break
                if organisation in self._members.standing().outcasts():
                    await self._projects.redecide(project)
                else:  # what it said may count (again), and was not judged while it did not
                    await self._look(project)
                after = project
                await asyncio.sleep(0)
            if self._looks:
                await self._look_at_next()
            elif len(projects) < _BATCH:
                return

    async def _inquire(self) -> None:
        while True:
            if self._left_out and len(self._waiting) < MAX_REMEMBERED // 2:
                await self._take_up()
            if not self._asks:
                await asyncio.sleep(self._round_seconds)
                if not self._asks and self._waiting:  # one finds out whether upstream is back
                    self._ask_about(next(iter(self._waiting)))
                continue
            project = next(iter(self._asks))
            del self._asks[project]
            async with self._limiter:
                try:
                    await self._ask(project)
                except Problem as problem:
                    self._wait(project)
                    log.info("project cannot be reviewed now", extra={"project": project, "reason": problem.detail})

    async def _take_up(self) -> None:
        """What was not compared with upstream, or not settled, in an earlier life or for want of room, is waiting again."""
        try:
            while len(self._waiting) < MAX_REMEMBERED:
                async with self._store.transaction() as tables:
                    projects = await tables.ledger.unreviewed(self._members.own.name, self._taken_up_to, _BATCH)
                    unsettled = await tables.ledger.unsettled(self._taken_up_to, _BATCH)
                found = sorted({*projects, *unsettled})[:_BATCH]
                self._waiting |= dict.fromkeys(found)
                if len(found) < _BATCH:
                    self._taken_up_to, self._left_out = "", False
                    return
                self._taken_up_to = found[-1]
                await asyncio.sleep(0)
        except Problem as problem:
            log.warning("unreviewed statements are not looked for", extra={"reason": problem.detail})

    def _ask_about(self, project: ProjectName) -> None:
        apart_ms = self._clock.now_ms() - self._asked_ms.get(project, -APART_MS)
        if apart_ms >= APART_MS and len(self._asks) < MAX_REMEMBERED:
            self._asks[project] = None
        else:
            self._wait(project)

    def _wait(self, project: ProjectName) -> None:
        """Behind all others: one of which upstream never tells anything must not be the only one that is tried."""
        self._waiting.pop(project, None)
        if len(self._waiting) < MAX_REMEMBERED:
            self._waiting[project] = None
        else:
            self._left_out = True

    async def _ask(self, project: ProjectName) -> None:
        """Upstream's page of the project, when it is not live and fresh here; it is judged again if anything came of it."""
        known = before = await self._projects.load(project)
        if self._projects.rulebook.house.forbidden(known) is not None:  # nobody outside is asked about it
            self._waiting.pop(project, None)
            return
        if not self._refresher.is_fresh(known):
            self._asked_ms[project] = self._clock.now_ms()
            await self._refresher.read_again(project)
            known = await self._projects.load(project)
        if self._refresher.is_fresh(known) or (known.view is not None and known.view.state == "gone"):
            self._waiting.pop(project, None)
            self._asks |= dict.fromkeys(list(self._waiting)[:_BATCH])  # upstream is there
        else:
            self._wait(project)
        known = await self._proved(known)
        if known is not before:
            self._looks[project] = None
            self._wake.set()

    def _provable(self, known: Known) -> list[FileName]:
        """Files that a quorum and upstream name differently, where provenance that nobody looked at may tell who is right."""
        if self._provenance is None or known.finished is None:
            return []
        decisions = known.finished.decisions
        return [file for file, decision in decisions.items() if decision.rule == Rule.R5 and decision.ask]

    async def _proved(self, known: Known) -> Known:
        for file in self._provable(known)[:MAX_PROOFS]:
            assert self._provenance is not None, "nothing is provable without it"
            await self._provenance.look(known.project, file)
        return await self._projects.load(known.project)
