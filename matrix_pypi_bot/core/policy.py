"""What the operator forbids: the deny list. Pure matching; where it comes from is the configuration's business."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName, ProjectName


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """One entry: matches a file when everything it names matches. A digest alone matches wherever these bytes turn up."""

    project: ProjectName | None = None
    file: FileName | None = None
    sha256: Sha256 | None = None
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
        )


class DenyList:
    """Every denial, found fast: pages of thousands of files are matched against lists of thousands of entries."""

    def __init__(self, denials: Iterable[Denial] = ()) -> None:
        self._by_key: dict[str, list[Denial]] = {}
        for denial in denials:
            key = denial.sha256 or denial.file or denial.project
            assert key is not None
            self._by_key.setdefault(key, []).append(denial)

    def match(self, project: ProjectName, file: FileName | None, digests: Iterable[Sha256] = ()) -> Denial | None:
        """The first denial of the file, which may be these digests; of the project itself when `file` is None."""
        held = frozenset(digests)
        keys = (project, *(() if file is None else (file,)), *held)
        candidates = (denial for key in keys for denial in self._by_key.get(key, ()))
        return next((denial for denial in candidates if denial.matches(project, file, held)), None)
