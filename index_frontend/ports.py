"""What the frontend's parts promise one another. Handlers and fills are written against these, never against an adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from matrix_pypi_bot.wire.cids import Cid
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import Decision, Observed, ProjectDocument, Stored
from matrix_pypi_bot.wire.names import FilePath, ProjectName


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A finished project document as the bot sent it, and how it stands now.

    `raw` is the undecoded body (with `_view`, `_decision`, `_path`, `_url`); `stale` that the last attempt to refresh it failed or that
    the bot is away; `remaining_seconds` how long it may still be called fresh; `hit` whether it was answered without asking the bot.
    """

    document: ProjectDocument
    raw: bytes
    stale: bool
    remaining_seconds: float
    hit: bool


class Oracle(Protocol):
    """The bot's word, and how long it holds."""

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

    async def report_stored(self, stored: Stored) -> bool:
        """True when the bot has the report in its database; False when it cannot be reached now (the caller keeps it)."""
        ...

    async def report_observed(self, observed: Observed) -> None:
        """Tells the bot of wrong bytes; best effort, never raises for an absent bot."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A complete, verified file in the store."""

    sha256: Sha256
    size: int
    cid: Cid
    path: Path


class Writer(Protocol):
    """One object on its way into the store; nothing of it is visible to readers of the store until `commit` returns."""

    path: Path
    size: int

    async def write(self, chunk: bytes) -> None:
        """Appends; returns when other readers of `path` can see the bytes. Raises StorageFull when the disk is."""
        ...

    async def commit(self) -> Held:
        """Durable and visible: fsynced, its sha256 and CID known, renamed into place, its row written. Idempotent per content.

        Raises DigestMismatch when the bytes are not `sha256`; then nothing is kept.
        """
        ...

    async def discard(self) -> None:
        """Leaves no trace."""
        ...


class ContentStore(Protocol):
    """Complete files by sha256. Whatever happens in between, a file that is found here was verified and is whole."""

    def held(self, sha256: Sha256) -> Held | None:
        """The file, when it is here. No waiting: an index in memory and at most one stat."""
        ...

    def writer(self, sha256: Sha256) -> AbstractAsyncContextManager[Writer]:
        """A place to write it to; leaving the block without `commit` discards."""
        ...

    async def note_asked(self, stored: Stored) -> None:
        """Remembers, durably, that a client was given this file, until `reported` says the bot knows."""
        ...

    async def unreported(self) -> list[Stored]:
        """What the bot has not been told yet, oldest first."""
        ...

    async def reported(self, stored: Stored) -> None:
        """The bot has it in its database."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One object to fetch: the digest that decides, and where it may be found."""

    sha256: Sha256
    size: int | None
    urls: tuple[str, ...]
    opened_origins: frozenset[str]
    project: ProjectName
    name: str  # file name, or `<file>.metadata`
    max_bytes: int


class Source(Protocol):
    """Somewhere bytes come from. They are nobody's word until hashed."""

    name: str

    def fetch(self, wanted: Wanted, start: int = 0) -> AbstractAsyncContextManager[SourceBody]:
        """The body from byte `start` on. Raises SourceGone (404/410), SourceAway (refused, timeout, 5xx, 429) or SourceWrong."""
        ...


class SourceBody(Protocol):
    """An open transfer. `size` is the whole object's length as the source declares it, None when it does not."""

    size: int | None

    def chunks(self) -> AsyncIterator[bytes]:
        """Non-empty chunks of any length. Raises SourceAway when the transfer breaks off."""
        ...
