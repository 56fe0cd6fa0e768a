"""The entries of the configuration's section `policy`. What could never match is refused: it would forbid nothing, silently."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, Self

from msgspec import Meta

from matrix_pypi_bot.core.cooldown import Exemption
from matrix_pypi_bot.core.policy import Denial, Versions, parse_pattern
from matrix_pypi_bot.process.settings import Section
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName, InvalidName, ProjectName, normalise_project, parse_file_name

Reason = Annotated[str, Meta(min_length=1, max_length=200)]

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_MOMENT: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2})", re.ASCII)


class Until(int):
    """The moment at which an entry ends, in milliseconds since the epoch."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, text: str, folder: Path) -> Self:
        """`2026-12-31` (that day included, UTC) or `2026-12-31T18:00:00Z`."""
        try:
            moment = datetime.fromisoformat(text if _MOMENT.fullmatch(text) else f"{text}T00:00:00Z")
            if _DATE.fullmatch(text):
                moment += timedelta(days=1)
            return cls(int(moment.timestamp()) * 1000)
        except (ValueError, OverflowError) as error:
            raise ValueError(
                f"expected a date such as 2026-12-31 or a time such as 2026-12-31T18:00:00Z, got {text!r}"
            ) from error


class VersionRange(str):
    """Which versions of a project are meant, e.g. `>=2,<2.3`."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, text: str, folder: Path) -> Self:
        """`text` as PEP 440 specifies."""
        return cls(Versions.parse(text))


class NamePattern(str):
    """A project's name, or a pattern of names such as `acme-*`."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, text: str, folder: Path) -> Self:
        """`text`, normalised."""
        try:
            return cls(parse_pattern(text))
        except InvalidName as error:
            raise ValueError(error.detail) from error


class DeniedFile(Section, frozen=True, kw_only=True):
    """Something never to be served: a project, some of its `versions`, one of its files (`file`), or a digest of them (`sha256`)."""

    project: str
    reason: Reason
    file: str | None = None
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")] | None = None
    versions: VersionRange | None = None
    until: Until | None = None

    def __post_init__(self) -> None:
        """Names that no file could ever match would deny nothing, silently."""
        _check_names(self.project, self.file)

    @property
    def project_name(self) -> ProjectName:
        """`project`, normalised."""
        return normalise_project(self.project)

    @property
    def file_name(self) -> FileName | None:
        """`file`, None when every file of the project is meant."""
        return None if self.file is None else parse_file_name(self.file)

    def denial(self) -> Denial:
        """The entry as it is decided by."""
        return Denial(
            project=self.project_name,
            file=self.file_name,
            sha256=None if self.sha256 is None else Sha256(self.sha256),
            versions=None if self.versions is None else Versions(self.versions),
            until_ms=self.until,
            reason=self.reason,
        )


class ExemptProject(Section, frozen=True, kw_only=True):
    """What need not wait out the cooldown: a project, or some of its `versions`."""

    project: str
    reason: Reason
    versions: VersionRange | None = None
    until: Until | None = None

    def __post_init__(self) -> None:
        """As above."""
        _check_names(self.project, None)

    def exemption(self) -> Exemption:
        """The entry as it is decided by."""
        return Exemption(
            project=normalise_project(self.project),
            reason=self.reason,
            versions=None if self.versions is None else Versions(self.versions),
            until_ms=self.until,
        )


def _check_names(project: str, file: str | None) -> None:
    try:
        normalise_project(project)
        if file is not None:
            parse_file_name(file)
    except InvalidName as error:
        raise ValueError(error.detail) from error
