"""The bot's word, and how long it holds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from matrix_pypi_bot.wire.messages import Decision, Observed, ProjectDocument, Stored
from matrix_pypi_bot.wire.names import FileName, FilePath, ProjectName


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A finished project document as the bot sent it, and how it stands now.

    `raw` is the undecoded body (with `_view`, `_decision`, `_path`, `_url`); `stale` that the last attempt to refresh it failed or that
    the bot is away; `remaining_seconds` how long it may still be called fresh; `hit` that upstream was not asked for this answer.
    """

    document: ProjectDocument
    raw: bytes
    stale: bool
    remaining_seconds: float
    hit: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectNames:
    """The names of all projects that the bot knows, in runs of any length, in order.

    `unchanged` (then there are no runs) when the list still is the one of the revision that was asked about; `revision` None when
    the bot does not tell one.
    """

    revision: str | None
    unchanged: bool
    batches: AsyncIterator[list[str]]


class Oracle(Protocol):
    """The bot's word, and how long it holds."""

    def glance(self, project: ProjectName) -> Page | None:
        """The project's page when it is held, current and fresh, so that nobody need be asked; None when `page` must be."""
        ...

    async def page(self, project: ProjectName, *, refresh: bool = False) -> Page:
        """The project's page. A held, fresh page costs no I/O; concurrent misses ask the bot once.

        `refresh` (a client's `Cache-Control: no-cache`) asks the bot to revalidate upstream, at most once per project per 5 s.
        Raises Problem: 404 unknown project, 403 refused project, 502 upstream wrong, 503 upstream or bot away.
        """
        ...

    async def standing(self, path: FilePath) -> Decision:
        """The decision on the file at `path`, without I/O when a valid page that names it is held.

        Raises Problem: 404 when no page names that path (after one refresh by the bot), 504 when the bot is away and nothing
        valid is held. A refusal is not a Problem: it is the Decision itself.
        """
        ...

    async def standing_of(self, project: ProjectName, file: FileName) -> Decision:
        """The same of a file by its name, for those who have its bytes and know no path. Raises as `standing`."""
        ...

    async def whereabouts(self, project: ProjectName, file: FileName) -> Decision:
        """The same with what pages leave out: the CIDs that were attested. Asks the bot, at most once in 30 s. Raises as `standing`."""
        ...

    def projects(self, revision: str | None) -> AbstractAsyncContextManager[ProjectNames]:
        """The projects known here, streamed from the bot; `revision` is what the asker has. Raises Problem, also while it is read."""
        ...

    async def report_stored(self, stored: Stored) -> bool:
        """True when the bot has the report in its database; False when it cannot be reached now (the caller keeps it)."""
        ...

    async def report_observed(self, observed: Observed) -> None:
        """Tells the bot of wrong bytes; best effort, never raises for an absent bot."""
        ...
