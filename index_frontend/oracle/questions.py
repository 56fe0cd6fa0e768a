"""Asking the bot: each question once however many want the answer, bounded in time, its answer put into memory."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from index_frontend.oracle.flights import Flights
from index_frontend.oracle.held import HeldPage, key_of, key_of_name
from index_frontend.oracle.link import BotAway, BotBroken, BotLink
from index_frontend.oracle.memory import Memory
from index_frontend.oracle.pulse import Pulse
from matrix_pypi_bot.wire.messages import Decision
from matrix_pypi_bot.wire.names import (
    FileName,
    FilePath,
    InvalidName,
    ProjectName,
    candidate_projects,
    file_path,
    project_and_version,
)
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

PAGE_ABSENCE_SECONDS: Final = 10.0
FILE_ABSENCE_SECONDS: Final = 5.0
_SEPARATORS: Final = re.compile(r"[-_.]+", re.ASCII)
_AGE_PRECISION_SECONDS: Final = 0.001
_ABSENT: Final = frozenset({403, 404})

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an answer is waited for: `short_seconds` when there is something else to serve or the bot may be gone, else
    `long_seconds`, which is what a slow upstream may cost before pip gives up (15 s).
    """

    short_seconds: float = 2.5
    long_seconds: float = 13.0
    step_seconds: float = 0.5


class Questions:
    """The questions under way, and what becomes of their answers."""

    def __init__(
        self, link: BotLink, memory: Memory, pulse: Pulse, patience: Patience, clock: Callable[[], float]
    ) -> None:
        self._link = link
        self._memory = memory
        self._pulse = pulse
        self._patience = patience
        self._clock = clock
        self._flights = Flights()

    async def close(self) -> None:
        """End all of them."""
        await self._flights.close()

    def page(self, project: ProjectName, *, refresh: bool = False) -> asyncio.Task[HeldPage]:
        """The project's page, under way. Gives the bot's answer, which may have been overtaken by a change already."""
        return self._flights.join(("page", project, refresh), lambda: self._fetch_page(project, refresh=refresh))

    def is_refreshing(self, project: ProjectName) -> bool:
        """Whether a look at upstream is under way."""
        return self._flights.has(("page", project, True))

    def decision(self, path: FilePath) -> asyncio.Task[Decision]:
        """The decision on one file, under way."""
        return self._flights.join(("file", key_of(path)), lambda: self._fetch_decision(path))

    def decision_of(self, project: ProjectName, file: FileName) -> asyncio.Task[Decision]:
        """The decision on one file by its name, under way."""
        key = key_of_name(project, file)
        return self._flights.join(("file", key), lambda: self._fetch_decision_of(project, file, key))

    async def wait(self, task: asyncio.Task[V], *, patient: bool) -> V:
        """What `task` gives. Raises BotAway when that takes longer than it is worth waiting; the task goes on."""
        begun, short = self._clock(), self._patience.short_seconds
        limit = self._patience.long_seconds if patient else short
        while not task.done():
            waited = self._clock() - begun
            if waited >= limit or (waited >= short and not self._pulse.is_lively):
                self._pulse.is_away = not self._pulse.is_lively
                raise BotAway("the bot does not answer", hint="look at the bot's log")
            await asyncio.wait([task], timeout=min(self._patience.step_seconds, max(limit - waited, 0.001)))
        return task.result()

    async def _fetch_page(self, project: ProjectName, *, refresh: bool) -> HeldPage:
        held, epoch, heard = self._memory.page(project), self._memory.epoch, self._memory.heard
        begun = self._clock()
        try:
            with self._feeling_the_pulse():
                answer = await self._link.page(project, revision=held.revision if held else None, refresh=refresh)
            kept = self._memory.keep_page(project, answer, held, epoch=epoch, now=self._clock())
            kept.looked = answer.age_seconds <= self._clock() - begun + _AGE_PRECISION_SECONDS
            return kept
        except msgspec.MsgspecError as error:
            raise BotBroken(f"the bot's page of {project} is none: {error}") from error
        except BotAway:
            raise
        except Problem as problem:
            self._memory.drop_page(project)  # the bot's word against what it said before
            if problem.code.status in _ABSENT and heard == self._memory.heard:
                self._memory.keep_absence(project, problem, self._clock() + PAGE_ABSENCE_SECONDS)
            raise

    async def _fetch_decision(self, path: FilePath) -> Decision:
        held, key = self._memory.page_of(key_of(path)), key_of(path)
        if held is None:
            return await self._from_candidates(path, _projects_of(path.file))
        may_tell = not (held.asks(key) and self._memory.is_current(held))
        if may_tell and (decision := await self._from_page(held.project, path)) is not None:
            return decision
        return await self._from_candidates(path, (held.project,) if held.asks(key) else _projects_of(path.file))

    async def _from_page(self, project: ProjectName, path: FilePath) -> Decision | None:
        """By asking for the page that named the file: with it, all other files of the project are known again too."""
        try:
            page = await asyncio.shield(self.page(project))
        except BotAway:
            raise
        except Problem:
            return None  # the page is refused or gone: of the file itself the bot may know more
        return page.decision(key_of(path))

    async def _fetch_decision_of(self, project: ProjectName, file: FileName, key: str) -> Decision:
        epoch, heard = self._memory.epoch, self._memory.heard
        try:
            with self._feeling_the_pulse():
                decision = await self._link.decision(project, file, None)
        except Problem as problem:
            if problem.code.status == 404 and heard == self._memory.heard:
                self._memory.keep_absence(key, problem, self._clock() + FILE_ABSENCE_SECONDS)
            raise
        if epoch == self._memory.epoch:
            self._memory.keep_decision(key, decision, self._clock())
        return decision

    async def _from_candidates(self, path: FilePath, projects: Sequence[ProjectName]) -> Decision:
        text, key = file_path(path.address, path.file), key_of(path)
        epoch, heard = self._memory.epoch, self._memory.heard
        for project in projects:
            try:
                with self._feeling_the_pulse():
                    decision = await self._link.decision(project, path.file, text)
            except Problem as problem:
                if problem.code.status == 404:
                    continue
                raise
            if decision.serves and decision.path != text:
                continue  # a good file under an address that is not its own
            if epoch == self._memory.epoch:
                self._memory.keep_decision(key, decision, self._clock())
            return decision
        absent = Problem(f"no page names {text}", code=ProblemCode.NOT_FOUND)
        if heard == self._memory.heard:
            self._memory.keep_absence(key, absent, self._clock() + FILE_ABSENCE_SECONDS)
        raise absent

    @contextmanager
    def _feeling_the_pulse(self) -> Iterator[None]:
        """Every answer, also a refusal, is a sign of life; no answer is none."""
        try:
            yield
        except BotAway as away:
            self._pulse.is_away = not isinstance(away, BotBroken)
            raise
        except Problem:
            self._pulse.is_away = False
            raise
        self._pulse.is_away = False


def _projects_of(file: FileName) -> tuple[ProjectName, ...]:
    """Whose file it may be, best guess first. A wheel's name says it; of the others, those after whose name a version could follow.

    Asking about more would only make the bot ask upstream for projects that nobody ever thought of.
    """
    candidates = candidate_projects(file)
    if file.endswith(".whl"):
        with suppress(InvalidName):
            return (project_and_version(file)[0],)
    pieces = file.split("-")
    heads = ("-".join(pieces[:end]) for end in range(1, len(pieces)) if pieces[end][:1].isdigit())
    plausible = {_SEPARATORS.sub("-", head).lower() for head in heads}
    return tuple(project for project in candidates if project in plausible) or candidates[:1]
