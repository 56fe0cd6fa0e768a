"""`index`: the project's file list at the index, as I saw it."""

from __future__ import annotations

from typing import ClassVar, Literal

from msgspec import UNSET, UnsetType

from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.limits import MAX_INDEX_VIEW_SECONDS
from matrix_pypi_bot.core.rejected import Code, Rejected
from matrix_pypi_bot.core.signers import Keyid
from matrix_pypi_bot.core.statements.common import OBSERVERS, Chained, Serial, Subject, Text, keyid16
from matrix_pypi_bot.wire.names import InvalidName, parse_project


class IndexView(Chained, frozen=True, kw_only=True):
    """Subject: the project and the sha256 of the list document. Expires at most 72 hours after it was issued."""

    NAME: ClassVar[str] = "index"
    ROLES: ClassVar[frozenset[str]] = OBSERVERS

    project: str
    index: Text
    serial: Serial | None
    status: Literal["active", "archived", "deprecated", "quarantined"]
    count: Serial
    expires: Instant
    list_cid: str | UnsetType = UNSET

    def __post_init__(self) -> None:
        if not self.issued < self.expires <= self.issued + MAX_INDEX_VIEW_SECONDS:
            raise ValueError("a view of an index expires within 72 hours")

    def about_project(self) -> str | None:
        return self.project

    def check_names(self, subjects: tuple[Subject, ...]) -> None:
        try:
            parse_project(self.project)
        except InvalidName as error:
            raise Rejected(Code.FIELDS, error.detail) from error
        if subjects[0].name != self.project:
            raise Rejected(Code.NAME_MISMATCH, "the subject is the project")

    def state_key(self, keyid: Keyid, subjects: tuple[Subject, ...]) -> str | None:
        return keyid16(keyid)
