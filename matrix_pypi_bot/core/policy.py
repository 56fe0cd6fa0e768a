"""What the operator forbids: the deny list, and names that are refused whatever upstream has under them.

Pure matching; where it comes from is the configuration's business.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName, InvalidName, ProjectName, normalise_project, project_and_version

_PATTERN: Final = re.compile(r"[A-Za-z0-9*]([A-Za-z0-9._*-]{0,212}[A-Za-z0-9*])?", re.ASCII)
_SEPARATORS: Final = re.compile(r"[-_.]+", re.ASCII)


class Versions(str):
    """A PEP 440 specifier, e.g. `>=2,<2.3`, spelled as `packaging` does. Pre-releases count as versions like any other."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Versions:
        """Raises ValueError for what is no specifier, and for one of all versions."""
        try:
            found = str(SpecifierSet(text))
        except InvalidSpecifier as error:
            raise ValueError(f"expected versions such as >=2,<2.3 or ==1.0.*, got {text[:80]!r}") from error
        if not found:
            raise ValueError("versions that exclude nothing: leave the key out")
        return cls(found)

    def hold(self, project: ProjectName, file: FileName) -> bool | None:
        """Whether the file is of one of them; None when its name tells no version of the project."""
        try:
            named, version = project_and_version(file)
        except InvalidName:
            return None
        return _specifiers(self).contains(version, prereleases=True) if named == project else None


@functools.lru_cache(maxsize=1_024)
def _specifiers(versions: Versions) -> SpecifierSet:
    return SpecifierSet(versions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """One entry: matches a file when everything it names matches. A digest alone matches wherever these bytes turn up.

    A file whose name tells no version is denied with any `versions`. At `until_ms` the entry ends; None: never.
    """

    project: ProjectName | None = None
    file: FileName | None = None
    sha256: Sha256 | None = None
    versions: Versions | None = None
    until_ms: int | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        if (self.project, self.file, self.sha256) == (None, None, None):
            raise ValueError("a denial names a project, a file or a sha256")

    def matches(self, project: ProjectName, file: FileName | None, digests: frozenset[Sha256]) -> bool:
        """Whether a file of this name, which may be one of `digests`, is meant."""
        return (
            self.project in (None, project)
            and self.file in (None, file)
            and (self.sha256 is None or self.sha256 in digests)
            and (self.versions is None or (file is not None and self.versions.hold(project, file) is not False))
        )

    @property
    def told(self) -> str:
        """Why, and until when."""
        return (self.reason or "deny list") + until(self.until_ms)


class DenyList:
    """Every denial, found fast: pages of thousands of files are matched against lists of thousands of entries."""

    def __init__(self, denials: Iterable[Denial] = ()) -> None:
        self._by_key: dict[str, list[Denial]] = {}
        self._projects: set[ProjectName | None] = set()
        for denial in denials:
            key = denial.sha256 or denial.file or denial.project
            assert key is not None
            self._by_key.setdefault(key, []).append(denial)
            self._projects.add(denial.project)

    def concerns(self, project: ProjectName) -> bool:
        """Whether an entry may match anything of the project."""
        return project in self._projects or None in self._projects

    def match(
        self, project: ProjectName, file: FileName | None, digests: Iterable[Sha256] = (), *, at_ms: int = 0
    ) -> Denial | None:
        """The first denial in force of the file, which may be these digests; of the project itself when `file` is None."""
        held = frozenset(digests)
        keys = (project, *(() if file is None else (file,)), *held)
        candidates = (denial for key in keys for denial in self._by_key.get(key, ()) if is_on(denial.until_ms, at_ms))
        return next((denial for denial in candidates if denial.matches(project, file, held)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class NameRules:
    """Names as `parse_pattern` writes them. With `allow_only` no other project is served; `reserved` ones never are.

    Upstream is not even asked for what these refuse: the names may be secrets, and whoever knows them could publish under them.
    """

    allow_only: tuple[str, ...] = ()
    reserved: tuple[str, ...] = ()

    def refusal(self, project: ProjectName) -> str | None:
        """Why the project is refused, None when it is not."""
        reserved = _matcher(self.reserved)
        if reserved is not None and reserved.fullmatch(project):
            return "the name is reserved here"
        allowed = _matcher(self.allow_only)
        if allowed is not None and not allowed.fullmatch(project):
            return "not on the list of projects that are allowed here"
        return None


def parse_pattern(text: str) -> str:
    """A project's name, normalised, or a pattern of names in which `*` stands for anything. Raises ValueError."""
    if "*" not in text:
        return normalise_project(text)
    if not _PATTERN.fullmatch(text):
        raise ValueError(f"expected a project's name or a pattern such as acme-*, got {text[:80]!r}")
    if not text.strip("*-._"):
        raise ValueError("a pattern that every project matches")
    return _SEPARATORS.sub("-", text).lower()


def is_on(until_ms: int | None, at_ms: int) -> bool:
    """Whether an entry that ends at `until_ms` still holds."""
    return until_ms is None or at_ms < until_ms


def until(until_ms: int | None) -> str:
    """`, until 2026-12-31T00:00:00Z`; empty for what never ends."""
    return "" if until_ms is None else f", until {Instant.of_ms(until_ms)}"


@functools.lru_cache(maxsize=16)
def _matcher(patterns: tuple[str, ...]) -> re.Pattern[str] | None:
    if not patterns:
        return None
    return re.compile("|".join(".*".join(map(re.escape, pattern.split("*"))) for pattern in patterns), re.ASCII)
