"""The rest of the outside: the time, the upstream index, whoever delivers our mail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from matrix_pypi_bot.wire.names import ProjectName


class Clock(Protocol):
    """The time, asked for in one place."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch, UTC."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedPage:
    """A page that upstream sent: PEP 691 JSON in `raw`, not read yet; `serial` only where upstream tells it beside the page.

    `opened_origins` are those that the operator's configuration opens although http or private; with `opens_files` also the ones
    that the page names for files, because the operator's upstream is http or private itself.
    """

    raw: bytes
    etag: str | None
    serial: int | None
    opened_origins: tuple[str, ...]
    opens_files: bool = False


@dataclass(frozen=True, slots=True)
class NotModified:
    """Upstream said that the page is the one we have."""


@dataclass(frozen=True, slots=True)
class Absent:
    """Upstream answered that there is no such project (404 or 410). Not the same as being away."""


@dataclass(frozen=True, slots=True)
class Away:
    """Upstream could not be reached, or answered 5xx, 429 or too slowly."""

    reason: str


@dataclass(frozen=True, slots=True)
class Wrong:
    """Upstream answered, but not with a page of this project that may be believed."""

    reason: str


class Index(Protocol):
    """The upstream index. Never raises for what upstream does: every outcome is one of the five answers."""

    async def fetch(
        self, project: ProjectName, *, etag: str | None, no_cache: bool
    ) -> FetchedPage | NotModified | Absent | Away | Wrong:
        """Asks for the project's page within the configured caps of time and decoded bytes."""
        ...


class Postman(Protocol):
    """Whoever empties the outbox."""

    def poke(self) -> None:
        """There is new mail; returns at once."""
        ...
