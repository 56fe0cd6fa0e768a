"""What the oracle asks of the bot, free of any transport, so that tests can be the bot."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from index_frontend.ports import ProjectNames
from matrix_pypi_bot.wire.messages import Change, Decision, Observed, Stored, ViewState
from matrix_pypi_bot.wire.names import FileName, ProjectName
from matrix_pypi_bot.wire.problems import Problem, ProblemCode


class BotAway(Problem):
    """No answer of the bot: it cannot be reached, or is silent for too long."""

    code = ProblemCode.ORACLE_AWAY


class BotBroken(BotAway):
    """An answer that is none: a failure inside the bot, a refused token, or not the bot at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageAnswer:
    """A project's document and how it stands towards upstream. `raw` is None when `revision` is the one that was asked about.

    `has_peers`: other organisations are pinned.
    """

    raw: bytes | None
    revision: str
    state: ViewState
    age_seconds: float
    fresh_seconds: float
    seq: int
    has_peers: bool = False


class BotLink(Protocol):
    """The bot's internal API. Every method raises BotAway when there is no answer, and Problem for an answer that is an error."""

    async def page(self, project: ProjectName, *, revision: str | None, refresh: bool) -> PageAnswer:
        """The project's document; `revision` is what the caller holds, `refresh` asks for a look at upstream first."""
        ...

    async def decision(self, project: ProjectName, file: FileName, path: str | None) -> Decision:
        """The decision on the file, at `path` if one is given. Raises Problem with status 404 when no page of the project names it."""
        ...

    def projects(self, revision: str | None) -> AbstractAsyncContextManager[ProjectNames]:
        """The names of all projects that the bot knows; see `ProjectNames`."""
        ...

    def changes(self, after: int | None) -> AsyncIterator[Change]:
        """The change stream from behind `after`, or from now on; ends only by raising BotAway, also after a silence."""
        ...

    async def stored(self, stored: Stored) -> None:
        """Returns when the bot has the report in its database."""
        ...

    async def observed(self, observed: Observed) -> None:
        """Returns when the bot has the report."""
        ...
