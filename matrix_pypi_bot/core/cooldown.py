"""The cooldown: a file is left alone until it has been out for some time, so that others find out what is wrong with it.

What upstream says of a file's age counts only as far as our own looks at its pages bear it out: a file that a page lacked is no
older than that page, whatever its upload-time says, and none is younger than the moment at which it was seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.policy import Versions, is_on, until
from matrix_pypi_bot.wire.names import FileName, ProjectName

TOLERANCE_MS: Final = 3_600_000
"""Caches before an index show pages that are some minutes old, and clocks differ: an hour is no lie."""

_DAY_MS: Final = 86_400_000  # more than any offset from UTC that a time may be written with


@dataclass(frozen=True, slots=True)
class Sight:
    """When a file was first seen, and when upstream last said that a page without it is right (None: we had no page before)."""

    at_ms: int
    lacked_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exemption:
    """Files of a project that need not wait, e.g. because they mend something worse; all of them when `versions` is None."""

    project: ProjectName
    reason: str
    versions: Versions | None = None
    until_ms: int | None = None

    @property
    def told(self) -> str:
        """Why, and until when."""
        return self.reason + until(self.until_ms)


@dataclass(frozen=True, slots=True)
class Cooling:
    """A file in its cooldown. `detail` says when that ends, and why then if not for its upload-time."""

    ends_ms: int
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cooldown:
    """The operator's choice; 0 seconds: there is none."""

    seconds: float = 0
    exemptions: tuple[Exemption, ...] = ()

    def watch(self, project: ProjectName, at_ms: int) -> Watch | None:
        """The cooldown of a project's files at one moment; None when there is none."""
        if not self.seconds:
            return None
        exemptions = (one for one in self.exemptions if one.project == project and is_on(one.until_ms, at_ms))
        return Watch(project, int(self.seconds * 1000), at_ms, tuple(exemptions))


class Watch:
    """See `Cooldown.watch`."""

    def __init__(self, project: ProjectName, length_ms: int, at_ms: int, exemptions: tuple[Exemption, ...]) -> None:
        self._project = project
        self._length_ms = length_ms
        self._at_ms = at_ms
        self._exemptions = exemptions
        self._over_ms = at_ms - length_ms
        self._long_ago = str(Instant.of_ms(max(0, at_ms - length_ms - _DAY_MS)))

    def of(self, file: FileName, upload_time: str | None, sight: Sight) -> Cooling | None:
        """The file's cooldown; None when it is over, or the file is exempt."""
        if sight.at_ms <= self._over_ms:
            return None
        if upload_time is not None and upload_time < self._long_ago and sight.lacked_ms is None:
            return None  # nearly every file of a page that is new here: no time need be read
        started_ms, why = _started(upload_time, sight)
        ends_ms = started_ms + self._length_ms
        if ends_ms <= self._at_ms or self.exemption(file) is not None:
            return None
        return Cooling(ends_ms, f"until {Instant.of_ms(ends_ms + 999)}{why}")

    def exemption(self, file: FileName) -> Exemption | None:
        """The exemption in force under which the file falls."""
        return next(
            (one for one in self._exemptions if one.versions is None or one.versions.hold(self._project, file)), None
        )


def is_back_dated(upload_time: str | None, sight: Sight) -> bool:
    """Whether the upload-time is one at which we saw that the file was not there."""
    uploaded_ms = _milliseconds(upload_time)
    return uploaded_ms is not None and sight.lacked_ms is not None and uploaded_ms < sight.lacked_ms - TOLERANCE_MS


def back_dated(upload_times: Mapping[FileName, str | None], sights: Mapping[FileName, Sight]) -> list[FileName]:
    """Of files and their upload-times those that are back-dated, in order."""
    return [file for file, told in upload_times.items() if file in sights and is_back_dated(told, sights[file])]


def _started(upload_time: str | None, sight: Sight) -> tuple[int, str]:
    """From when a file's age counts, and why if not from its upload-time."""
    uploaded_ms = _milliseconds(upload_time)
    if uploaded_ms is None:
        return sight.at_ms, ", counted from when it was first seen: upstream tells no upload-time"
    if is_back_dated(upload_time, sight):
        return (
            sight.at_ms,
            ", counted from when it was first seen: a page of a later time than its upload-time lacked it",
        )
    return min(uploaded_ms, sight.at_ms), ""


def _milliseconds(upload_time: str | None) -> int | None:
    """The moment, None for none and for a day that does not exist."""
    if upload_time is None:
        return None
    try:
        moment = datetime.fromisoformat(upload_time)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
