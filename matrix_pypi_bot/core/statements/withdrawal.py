"""`withdrawal`: I take back my attestation."""

from __future__ import annotations

from typing import ClassVar, Literal

from matrix_pypi_bot.core.rejected import Code, Rejected
from matrix_pypi_bot.core.signers import Keyid
from matrix_pypi_bot.core.statements.common import ATTESTERS, Chained, Subject, check_file, keyid16


class Withdrawal(Chained, frozen=True, kw_only=True):
    """Subject: `attestation` and the id of the statement taken back. Scope `version` takes back all files of the version."""

    NAME: ClassVar[str] = "withdrawal"
    ROLES: ClassVar[frozenset[str]] = ATTESTERS

    project: str
    version: str
    file: str
    reason: Literal["error", "cid-gone", "superseded", "key-compromise"]
    scope: Literal["file", "version"]

    def about_project(self) -> str | None:
        return self.project

    def check_names(self, subjects: tuple[Subject, ...]) -> None:
        if subjects[0].name != "attestation":
            raise Rejected(Code.SUBJECT, "a withdrawal's subject is an attestation")
        check_file(self.file, self.project, self.version)

    def state_key(self, keyid: Keyid, subjects: tuple[Subject, ...]) -> str | None:
        return f"{keyid16(keyid)}/{self.file}"
