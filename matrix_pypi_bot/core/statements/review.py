"""`review`: I compared these files' digests with the index myself."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import UNSET, UnsetType

from matrix_pypi_bot.core.limits import MAX_REVIEW_ITEMS
from matrix_pypi_bot.core.rejected import Code, Rejected
from matrix_pypi_bot.core.statements.common import OBSERVERS, Chained, Digest, Serial, Subject, Text, check_file


class Review(Chained, frozen=True, kw_only=True):
    """Subjects: 1 to 100 files of one project with the digests that were reviewed; `verdicts` in the same order.

    `ok` is an ack, `bad` an alarm, `unknown` says seen but not checkable yet, and is never an ack. `observed` are the digests
    that the index named, in the same order.
    """

    NAME: ClassVar[str] = "review"
    MAX_SUBJECTS: ClassVar[int] = MAX_REVIEW_ITEMS
    ROLES: ClassVar[frozenset[str]] = OBSERVERS

    project: str
    index: Text
    verdicts: Annotated[tuple[Literal["ok", "bad", "unknown"], ...], msgspec.Meta(max_length=MAX_REVIEW_ITEMS)]
    observed: Annotated[tuple[Digest | None, ...], msgspec.Meta(max_length=MAX_REVIEW_ITEMS)] | UnsetType = UNSET
    serial: Serial | UnsetType = UNSET

    def about_project(self) -> str | None:
        return self.project

    def check_names(self, subjects: tuple[Subject, ...]) -> None:
        observed = subjects if isinstance(self.observed, UnsetType) else self.observed
        if not len(subjects) == len(self.verdicts) == len(observed):
            raise Rejected(Code.FIELDS, "one verdict for each subject")
        for subject in subjects:
            check_file(subject.name, self.project, None)
