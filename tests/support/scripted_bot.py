"""The bot as the oracle's unit tests need it: no sockets, every answer and every line of the change stream said by the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from index_frontend.oracle import BotAway, PageAnswer
from index_frontend.ports import ProjectNames
from matrix_pypi_bot.wire.messages import Change, Decision, Observed, Stored
from matrix_pypi_bot.wire.names import FileName, ProjectName
from matrix_pypi_bot.wire.problems import Problem, ProblemCode
from tests.support.bot_pages import page


class ScriptedBot:
    """Says what was put into `pages` and `decisions`; counts what it was asked in `asked`.

    `down` makes every question raise BotAway; while `held` (a gate closed by the test) answers wait.
    """

    def __init__(self) -> None:
        self.pages: dict[str, bytes | Problem] = {}
        self.revisions: dict[str, str] = {}
        self.decisions: dict[str, Decision | Problem] = {}
        self.names: list[str] = []
        self.asked: list[tuple[str, ...]] = []
        self.stored_reports: list[Stored] = []
        self.observed_reports: list[Observed] = []
        self.seq = 1
        self.fresh_seconds = 60.0
        self.age_seconds = 0.0
        self.state: Any = "live"
        self.has_peers = False
        self.down = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.connections: list[int | None] = []
        self._lines: asyncio.Queue[Change | None] = asyncio.Queue()

    def publish(self, project: str, files: Sequence[dict[str, Any]] = (), *, revision: str, **more: Any) -> None:
        """Have a page of `project` with these entries."""
        self.pages[project] = page(project, files, revision=revision, seq=self.seq, **more)
        self.revisions[project] = revision

    def say(self, change: Change) -> None:
        """A line of the change stream."""
        self.seq = max(self.seq, change.seq)
        self._lines.put_nowait(change)

    def break_stream(self) -> None:
        """The connection of the change stream is lost."""
        self._lines.put_nowait(None)

    async def page(self, project: ProjectName, *, revision: str | None, refresh: bool) -> PageAnswer:
        """See BotLink."""
        self.asked.append(("page", project, *(("refresh",) if refresh else ())))
        seq, found = self.seq, self.pages.get(project)
        current = self.revisions.get(project, "")
        await self._answer()
        if found is None:
            raise Problem(f"no project {project}", code=ProblemCode.NOT_FOUND)
        if isinstance(found, Problem):
            raise found
        return PageAnswer(
            raw=None if revision == current else found,
            revision=current,
            state=self.state,
            age_seconds=self.age_seconds,
            fresh_seconds=self.fresh_seconds,
            seq=seq,
            has_peers=self.has_peers,
        )

    async def decision(self, project: ProjectName, file: FileName, path: str | None) -> Decision:
        """See BotLink."""
        self.asked.append(("decide", project, file))
        found = self.decisions.get(file)
        await self._answer()
        if found is None or (isinstance(found, Decision) and found.project != project):
            raise Problem(f"no file {file}", code=ProblemCode.NOT_FOUND)
        if isinstance(found, Problem):
            raise found
        return found

    @asynccontextmanager
    async def projects(self, revision: str | None) -> AsyncIterator[ProjectNames]:
        """See BotLink."""
        await self._answer()

        async def batches() -> AsyncIterator[list[str]]:
            yield self.names

        now = str(len(self.names))
        yield ProjectNames(revision=now, unchanged=revision == now, batches=batches())

    async def changes(self, after: int | None) -> AsyncIterator[Change]:
        """See BotLink."""
        self.connections.append(after)
        if self.down:
            raise BotAway("connection refused")
        while (change := await self._lines.get()) is not None:
            yield change
        raise BotAway("the connection was lost")

    async def stored(self, stored: Stored) -> None:
        """See BotLink."""
        await self._answer()
        self.stored_reports.append(stored)

    async def observed(self, observed: Observed) -> None:
        """See BotLink."""
        await self._answer()
        self.observed_reports.append(observed)

    async def _answer(self) -> None:
        if self.down:
            raise BotAway("connection refused")
        await self.gate.wait()


async def until(condition: Callable[[], object]) -> None:
    """Let other tasks run until `condition()` holds; a test that would wait for ever fails instead."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("what was waited for did not happen")
