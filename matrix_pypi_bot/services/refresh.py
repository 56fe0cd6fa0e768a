"""A project's view, brought up to date: who asks gets the page upstream shows now, or the last one and how it stands.

Gone and unreachable never share a path: a page that was there and answers 404 is asked for again past every cache, and only then
counts as gone; what is unreachable keeps its last page.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from cachetools import LRUCache

from matrix_pypi_bot.core.index_document import InvalidPage
from matrix_pypi_bot.ports import Absent, Away, Clock, FetchedPage, Index, NotModified, Wrong
from matrix_pypi_bot.services.breaker import Breaker
from matrix_pypi_bot.services.flights import Flights
from matrix_pypi_bot.services.known import Known, View
from matrix_pypi_bot.services.news import report_news
from matrix_pypi_bot.services.origins import origins_of_files
from matrix_pypi_bot.services.outcomes import checked, gone, is_no_news, shown, still_so, why_wrong
from matrix_pypi_bot.services.projects import Projects
from matrix_pypi_bot.services.stored_page import read_page
from matrix_pypi_bot.wire.names import ProjectName
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

log = logging.getLogger(__name__)

MAX_ATTEMPTS: Final = 10_000
MAX_USED: Final = 10_000
DURABLE_MS: Final = (
    3_600_000  # that a page is still right is written down so often: what it lacks is no older (see `Sight`)
)
FORCED_APART_MS: Final = 5_000  # a client's `no-cache` is heard at most so often for one project
PATIENCE_SECONDS: Final = 0.8  # a held page is answered after so long, whatever upstream is up to

_Answer = FetchedPage | NotModified | Absent | Away | Wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshSettings:
    """See the section `index` of the configuration; `keep_removed` is `policy.removed_upstream: keep`."""

    fresh_seconds: float
    retry_seconds: float
    negative_seconds: float
    keep_removed: bool = False
    patience_seconds: float = PATIENCE_SECONDS


@dataclass(slots=True)
class _Attempt:
    """The last attempt on a project. Until `until_ms` there is no other; `code` and `detail` say why there is no page, if none is."""

    begun_ms: int
    running: bool = True
    until_ms: int = 0
    code: ProblemCode | None = None
    detail: str = ""


class Refresher:
    """Keeps views up to date. `on_live(project)` is called after every success. Must be made in a running loop."""

    def __init__(
        self,
        *,
        projects: Projects,
        index: Index,
        clock: Clock,
        settings: RefreshSettings,
        on_live: Callable[[ProjectName], None] = lambda project: None,
    ) -> None:
        self.used: LRUCache[ProjectName, int] = LRUCache(MAX_USED)
        self._projects = projects
        self._index = index
        self._clock = clock
        self._settings = settings
        self._on_live = on_live
        self._attempts: LRUCache[ProjectName, _Attempt] = LRUCache(MAX_ATTEMPTS)
        self._breaker = Breaker(int(settings.retry_seconds * 1000))
        self._flights: Flights[None] = Flights()

    async def up_to_date(self, project: ProjectName, *, refresh: bool = False) -> Known:
        """What is known of the project, its view as fresh as it can be had in time; it always has one.

        `refresh` asks upstream now, past every cache, if nobody did within five seconds. Raises Problem: NOT_FOUND, UPSTREAM_AWAY or
        UPSTREAM_WRONG when there is no page at all; REFUSED, without asking anybody, when policy refuses the project; StoreAway.
        """
        if (forbidden := await self._forbidden(project)) is not None:
            raise Problem(f"{project}: {forbidden}", code=ProblemCode.REFUSED)
        now_ms = self._clock.now_ms()
        self.used[project] = now_ms
        attempt = self._attempts.get(project)
        if refresh and (attempt is None or now_ms - attempt.begun_ms >= FORCED_APART_MS):
            await self._fly(project, no_cache=True)
        elif attempt is not None and attempt.code is not None and now_ms < attempt.until_ms:
            raise _problem(project, attempt)
        else:
            known = await self._projects.load(project)
            if self._is_due(known.view, attempt, now_ms):
                await self._wait(project, known, attempt, now_ms)
        known = await self._projects.load(project)
        if known.view is None:
            raise _problem(project, self._attempts.get(project))
        return known

    async def read_again(self, project: ProjectName) -> None:
        """Asks upstream, unless a failure is too fresh, without counting the project as asked for. Raises StoreAway."""
        attempt = self._attempts.get(project)
        due = attempt is None or self._clock.now_ms() >= attempt.until_ms
        if due and await self._forbidden(project) is None:
            await self._fly(project, no_cache=False)

    def asked_ms(self, project: ProjectName) -> int:
        """When upstream was last asked about the project; 0 when nobody remembers."""
        return self._attempts[project].begun_ms if project in self._attempts else 0

    async def exists(self, project: ProjectName) -> bool:
        """Whether upstream has the project, or had it when it was last heard of. Raises Problem when nobody can tell.

        One that is denied is none, and upstream is not asked: its name may be a secret of this organisation.
        """
        if self._projects.rulebook.refused_project(await self._projects.load(project)) is not None:
            return False
        try:
            known = await self.up_to_date(project)
        except Problem as problem:
            if problem.code is ProblemCode.NOT_FOUND:
                return False
            raise
        return known.view is not None and known.view.state != "gone"

    def fresh_seconds(self, known: Known) -> float:
        """How long the view may be used before asking again is worth it."""
        view, now_ms = known.view, self._clock.now_ms()
        if view is None:
            return 0.0
        if view.state == "down":
            attempt = self._attempts.get(known.project)
            left = (attempt.until_ms - now_ms) / 1000 if attempt is not None else 0.0
            return min(max(0.0, left), self._settings.retry_seconds)
        return max(0.0, self._settings.fresh_seconds - view.age_seconds(now_ms))

    def is_fresh(self, known: Known) -> bool:
        """Whether the view is live and young enough to decide by without asking upstream."""
        return known.view is not None and known.view.state == "live" and self.fresh_seconds(known) > 0

    async def stop(self) -> None:
        """Nobody is asked any more."""
        await self._flights.stop()

    async def _forbidden(self, project: ProjectName) -> str | None:
        return self._projects.rulebook.house.forbidden(await self._projects.load(project))

    def _is_due(self, view: View | None, attempt: _Attempt | None, now_ms: int) -> bool:
        if attempt is not None and now_ms < attempt.until_ms:
            return False
        stale = view is None or view.age_seconds(now_ms) >= self._settings.fresh_seconds
        return stale or (view is not None and view.state == "down")

    async def _wait(self, project: ProjectName, known: Known, attempt: _Attempt | None, now_ms: int) -> None:
        """Until upstream answered; when a page is held, until the patience of those who ask is over."""
        if known.view is None or known.view.rebuilt:
            await self._fly(project, no_cache=False)
            return
        patience = self._settings.patience_seconds
        if attempt is not None and attempt.running:
            patience -= (now_ms - attempt.begun_ms) / 1000
        if patience > 0:
            try:
                async with asyncio.timeout(patience):
                    await self._fly(project, no_cache=False)
            except TimeoutError:
                log.info("page answered before upstream did", extra={"project": project})

    async def _fly(self, project: ProjectName, *, no_cache: bool) -> None:
        await self._flights.join(project, lambda: self._attempt(project, no_cache=no_cache))

    async def _attempt(self, project: ProjectName, *, no_cache: bool) -> None:
        attempt = self._attempts[project] = _Attempt(self._clock.now_ms())
        try:
            known = await self._projects.load(project)
            answer = await self._ask(known, no_cache=no_cache)
            if isinstance(answer, Absent) and _was_there(known):
                answer = await self._confirmed(known)
            await self._take(known, answer, attempt)
        finally:
            attempt.running = False

    async def _ask(self, known: Known, *, no_cache: bool, conditional: bool = True) -> _Answer:
        now_ms = self._clock.now_ms()
        if not self._breaker.allows(known.project, now_ms):
            return Away("upstream failed several times in a row and is left alone for a moment")
        conditional = conditional and not known.floor_is_forgotten
        etag = known.view.etag if known.view is not None and conditional else None
        answer = await self._index.fetch(known.project, etag=etag, no_cache=no_cache)
        if isinstance(answer, Away):
            self._breaker.failed(known.project, self._clock.now_ms())
        else:
            self._breaker.answered()
        return answer

    async def _confirmed(self, known: Known) -> _Answer:
        """A project that was there does not go by one answer of some cache."""
        if known.view is not None and known.view.state == "gone":
            return Absent()
        return await self._ask(known, no_cache=True, conditional=False)

    async def _take(self, known: Known, answer: _Answer, attempt: _Attempt) -> None:
        """Makes the answer what is known."""
        outcome = await self._shown(known, answer) if isinstance(answer, FetchedPage) else answer
        match outcome:
            case NotModified():
                await self._confirm(known)
            case Absent():
                await self._absent(known, attempt)
            case Away(reason):
                is_news = known.view is None or known.view.rebuilt or known.view.state == "live"
                what = {"project": known.project, "reason": reason}
                log.log(logging.WARNING if is_news else logging.DEBUG, "upstream away", extra=what)
                # Without a page a client may try again at once: only several failures in a row close the way.
                pause_seconds = self._settings.retry_seconds if known.view is not None else 0
                await self._failed(known, attempt, ProblemCode.UPSTREAM_AWAY, reason, pause_seconds)
            case Wrong(reason):
                log.warning("upstream answered wrongly alarm", extra={"project": known.project, "reason": reason})
                await self._failed(known, attempt, ProblemCode.UPSTREAM_WRONG, reason, self._settings.retry_seconds)
        if not isinstance(outcome, Away | Wrong):
            self._on_live(known.project)

    async def _shown(self, known: Known, fetched: FetchedPage) -> NotModified | Wrong | None:
        """Takes the page; what else the answer amounts to when it is no news, or no page."""
        try:
            page = read_page(fetched.raw, known.project, base_url=self._projects.page_url(known.project))
        except InvalidPage as error:
            return Wrong(str(error))
        if fetched.serial is not None:
            page = replace(page, serial=fetched.serial)
        if (reason := why_wrong(page, known)) is not None:
            return Wrong(reason)
        if fetched.opens_files:
            origins = origins_of_files(page) | set(fetched.opened_origins)
            fetched = replace(fetched, opened_origins=tuple(sorted(origins)))
        keep = self._settings.keep_removed
        if is_no_news(known, page, fetched, keep_removed=keep):
            return NotModified()
        upstream, now_ms = self._projects.upstream, self._clock.now_ms()
        change = shown(page, fetched, upstream=upstream, now_ms=now_ms, keep_removed=keep)
        after = await self._projects.revise(known.project, change)
        report_news(known, after)
        return None

    async def _confirm(self, known: Known) -> None:
        """The page is the one we have."""
        now_ms, view = self._clock.now_ms(), known.view
        if view is not None and view.state == "live" and now_ms // DURABLE_MS > view.checked_ms // DURABLE_MS:
            await self._projects.revise(known.project, checked("live", now_ms=now_ms), redecide=False)
        elif view is not None and view.state == "live":
            await self._projects.touch(known.project, lambda known: still_so(known, now_ms))
        else:
            await self._projects.revise(known.project, checked("live", now_ms=now_ms))

    async def _absent(self, known: Known, attempt: _Attempt) -> None:
        now_ms = self._clock.now_ms()
        if not _was_there(known):
            attempt.until_ms = now_ms + int(self._settings.negative_seconds * 1000)
            attempt.code, attempt.detail = ProblemCode.NOT_FOUND, "upstream has no such project"
            return
        if known.view is not None and known.view.state == "gone":
            await self._projects.touch(known.project, lambda known: still_so(known, now_ms))
            return
        log.warning("project gone alarm", extra={"project": known.project})
        keep = self._settings.keep_removed
        change = gone(upstream=self._projects.upstream, now_ms=now_ms, keep_removed=keep)
        await self._projects.revise(known.project, change)

    async def _failed(
        self, known: Known, attempt: _Attempt, code: ProblemCode, reason: str, pause_seconds: float
    ) -> None:
        attempt.until_ms = self._clock.now_ms() + int(pause_seconds * 1000)
        if known.view is None:
            attempt.code, attempt.detail = code, reason
        elif known.view.rebuilt:
            return  # what others attest is all there is, and it was decided as that
        elif known.view.state == "live":  # gone stays gone, and down is no news
            await self._projects.revise(known.project, checked("down", now_ms=None))


def _was_there(known: Known) -> bool:
    """Whether upstream showed the project, here or to others who attest its files: that it is gone is then worth remembering."""
    return known.view is not None or bool(known.accepted) or bool(known.first_seen)


def _problem(project: ProjectName, attempt: _Attempt | None) -> Problem:
    if attempt is None or attempt.code is None:
        return Problem(f"{project}: upstream was not asked in time", code=ProblemCode.UPSTREAM_AWAY)
    return Problem(f"{project}: {attempt.detail}", code=attempt.code)
