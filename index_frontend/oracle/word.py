"""The Oracle port: answers from memory while the bot's change stream vouches for it, asks the bot when it must."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Final

from index_frontend.oracle.held import Bounded, HeldPage, key_of, key_of_name
from index_frontend.oracle.link import BotAway, BotLink
from index_frontend.oracle.memory import Memory
from index_frontend.oracle.pulse import Pulse
from index_frontend.oracle.questions import Patience, Questions
from index_frontend.oracle.stream import follow
from index_frontend.ports import Page, ProjectNames
from matrix_pypi_bot.wire.messages import Change, Decision, Observed, Stored
from matrix_pypi_bot.wire.names import FileName, FilePath, ProjectName, parse_file_path
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

log = logging.getLogger(__name__)

REFRESH_APART_SECONDS: Final = 5.0
MAX_REFRESHED: Final = 10_000
IDLE_SECONDS: Final = 3600.0
"""So long after a page was fresh its word on a file counts while the bot is asked again; later the answer is waited for. The bot
looks after the pages of projects that are in use; of others it may know no more than this page does."""

_ASKS: Final = 2  # an answer that a change overtook is asked for once more, not for ever


class BotOracle:
    """The bot's word. `follow()` must run beside it: without the change stream every question goes to the bot.

    `on_change` is told of every line of that stream; of one that begins a new stream with `reset` set.
    """

    def __init__(
        self,
        link: BotLink,
        *,
        max_stale_seconds: float,
        serve_when_down: bool = False,
        memory_bytes: int = 32 << 20,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[Change], None] = lambda change: None,
    ) -> None:
        self._link = link
        self._clock = clock
        self._on_change = on_change
        self._memory = Memory(memory_bytes)
        self._pulse = Pulse(clock, max_stale_seconds, serve_when_down=serve_when_down)
        self._questions = Questions(link, self._memory, self._pulse, patience or Patience(), clock)
        self._refreshed: Bounded[ProjectName, float] = Bounded(MAX_REFRESHED)

    @property
    def pulse(self) -> Pulse:
        """Whether the bot is there."""
        return self._pulse

    async def follow(self) -> None:
        """Read the change stream until cancelled."""
        await follow(self._link, self._memory, self._pulse, self._on_change)

    async def close(self) -> None:
        """End every question under way."""
        await self._questions.close()

    def glance(self, project: ProjectName) -> Page | None:
        """See the port."""
        held = self._memory.page(project)
        if held is None or not self._pulse.is_live or not self._memory.is_current(held):
            return None
        now = self._clock()
        return held.page(now, hit=True) if now < held.fresh_until else None

    async def page(self, project: ProjectName, *, refresh: bool = False) -> Page:
        """See the port."""
        now = self._clock()
        held = self._memory.page(project)
        refresh = refresh and self._may_refresh(project, now)
        if self._pulse.is_live and not refresh:
            if held is not None and now < held.fresh_until and self._memory.is_current(held):
                return held.page(now, hit=True)
            if held is None and (absence := self._memory.absence(project, now)) is not None:
                raise absence.again()
        if held is not None and self._pulse.is_away and self._pulse.allows_held:
            self._questions.page(project, refresh=refresh)  # nobody waits for it: it finds out when the bot is back
            return held.page(now, hit=True, doubtful=True)
        return await self._asked_page(project, held, refresh=refresh)

    async def standing(self, path: FilePath) -> Decision:
        """See the port."""
        return await self._standing(key_of(path), path.file, lambda: self._questions.decision(path))

    async def standing_of(self, project: ProjectName, file: FileName) -> Decision:
        """See the port."""
        held = self._memory.page(project)
        path = None if held is None else held.path_of(file)
        if path is not None:
            return await self.standing(parse_file_path(path))
        return await self.whereabouts(project, file)

    async def whereabouts(self, project: ProjectName, file: FileName) -> Decision:
        """See the port."""
        return await self._standing(
            key_of_name(project, file), file, lambda: self._questions.decision_of(project, file)
        )

    def projects(self, revision: str | None) -> AbstractAsyncContextManager[ProjectNames]:
        """See the port."""
        return self._link.projects(revision)

    async def report_stored(self, stored: Stored) -> bool:
        """See the port."""
        try:
            await self._link.stored(stored)
        except BotAway:
            return False
        except Problem as problem:
            what = {"project": stored.project, "file": stored.file, "reason": problem.detail}
            log.exception("the bot refuses a report", extra=what)  # and would refuse it again: keeping it is no use
        return True

    async def report_observed(self, observed: Observed) -> None:
        """See the port."""
        try:
            await self._link.observed(observed)
        except Problem as problem:
            log.warning("wrong bytes not reported", extra={"file": observed.file, "reason": problem.detail})

    async def _asked_page(self, project: ProjectName, held: HeldPage | None, *, refresh: bool) -> Page:
        """The bot's answer, or what is held when there is none."""
        for asks_left in reversed(range(_ASKS)):
            try:
                task = self._questions.page(project, refresh=refresh)
                answered = await self._questions.wait(task, patient=held is None or refresh)
            except BotAway:
                held = self._memory.page(project)
                if held is None or not self._pulse.allows_held:
                    raise
                return held.page(self._clock(), hit=True, doubtful=True)
            page = answered.page(self._clock(), hit=not answered.looked)
            if self._memory.is_current(answered):
                return page
            if not asks_left:
                return replace(page, remaining_seconds=0.0)
        raise AssertionError("unreachable")

    async def _standing(self, key: str, file: FileName, ask: Callable[[], asyncio.Task[Decision]]) -> Decision:
        if self._pulse.is_live and (valid := self._valid(key)) is not None:
            return valid
        known = self._known(key)
        if known is not None and self._pulse.is_away:
            ask()  # as above
            return known
        return await self._asked_decision(key, file, ask, patient=known is None)

    async def _asked_decision(
        self, key: str, file: FileName, ask: Callable[[], asyncio.Task[Decision]], *, patient: bool
    ) -> Decision:
        """The bot's answer, or what was decided before when there is none; not one that a withdrawal of the file overtook."""
        try:
            for _ in range(_ASKS):
                decision = await self._questions.wait(ask(), patient=patient)
                if not decision.serves or self._memory.is_kept(decision):
                    return decision
        except BotAway as away:
            known = self._known(key)
            if known is None:
                raise _unavailable(away) from away
            return known
        except Problem as problem:
            if problem.code is not ProblemCode.UPSTREAM_AWAY:
                raise
            raise _unavailable(problem) from problem
        told = f"matrix-pypi: the decision on {file} changes while it is asked for, try again"
        raise Problem(told, code=ProblemCode.FILE_UNAVAILABLE)

    def _valid(self, key: str) -> Decision | None:
        """The decision that holds now, while the stream lives. Raises Problem when it is known that there is none."""
        now = self._clock()
        held = self._memory.page_of(key)
        if held is not None and self._memory.is_current(held) and (decision := held.decision(key)) is not None:
            if now >= held.fresh_until + IDLE_SECONDS:
                return None
            if now >= held.fresh_until:
                self._questions.page(held.project)  # nobody waits for it: it tells the bot that the project is in use
            return decision
        alone = self._memory.decision(key)
        if alone is not None and now < alone.fresh_until and self._memory.is_current_decision(alone.decision):
            return alone.decision
        if (absence := self._memory.absence(key, now)) is not None:
            raise absence.again()
        return None

    def _known(self, key: str) -> Decision | None:
        """What was decided before and may be used without the bot; never of a file that was withdrawn since."""
        if not self._pulse.allows_held:
            return None
        held = self._memory.page_of(key)
        if held is not None and (decision := self._memory.before_the_change(held, key)) is not None:
            return decision
        alone = self._memory.decision(key)
        return alone.decision if alone is not None else None

    def _may_refresh(self, project: ProjectName, now: float) -> bool:
        """Whether a look at upstream is due, or under way and worth joining."""
        if self._questions.is_refreshing(project):
            return True
        if now - self._refreshed.get(project, float("-inf")) < REFRESH_APART_SECONDS:
            return False
        self._refreshed.put(project, now)
        return True


def _unavailable(problem: Problem) -> Problem:
    """The problem as a file's answer: 503 ends pip in a traceback, 504 in our sentence."""
    return Problem(problem.detail, hint=problem.hint, code=ProblemCode.FILE_UNAVAILABLE)
