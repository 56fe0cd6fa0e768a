"""`override`: an operator's decision, with weight only in the operator's own organisation."""

from __future__ import annotations

from typing import ClassVar, Literal

from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.rejected import Code, Rejected
from matrix_pypi_bot.core.statements.common import (
    Chained,
    Reason,
    Subject,
    Text,
    check_name_subject,
)
from matrix_pypi_bot.wire.names import InvalidName, parse_file_name, parse_project


class Override(Chained, frozen=True, kw_only=True):
    """Subject: the file and the digest decided about, or the project (or file without a digest) and the sha256 of its name."""

    NAME: ClassVar[str] = "override"

    action: Literal["approve", "quarantine", "release"]
    scope: Literal["file", "project"]
    project: str
    file: str | None
    index: Text
    reason: Reason
    expires: Instant | None

    def __post_init__(self) -> None:
        if (self.scope == "file") != (self.file is not None) or (self.scope, self.action) == ("project", "approve"):
            raise ValueError("a file where the scope is a file; an approval is of one file")

    def about_project(self) -> str | None:
        return self.project

    def check_names(self, subjects: tuple[Subject, ...]) -> None:
        try:
            parse_project(self.project)
        except InvalidName as error:
            raise Rejected(Code.FIELDS, error.detail) from error
        if self.file is None:
            check_name_subject(subjects, self.project)
            return
        try:
            parse_file_name(self.file)  # not only attestable files: an operator decides about any
        except InvalidName as error:
            raise Rejected(Code.FILENAME, error.detail) from error
        if subjects[0].name != self.file:
            raise Rejected(Code.NAME_MISMATCH, "the subject is the file")
