"""`refutation`: that attestation is false, and here is what shows it."""

from __future__ import annotations

import enum
from typing import Annotated, ClassVar, Final

import msgspec
from msgspec import UNSET, UnsetType

from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.rejected import Code, Rejected
from matrix_pypi_bot.core.signers import MAINTAINER, MIRROR, WATCHER
from matrix_pypi_bot.core.statements.common import (
    Count,
    Digest,
    Form,
    KeyidHex,
    Predicate,
    Serial,
    SignedBy,
    Subject,
    check_file,
)


class Fault(enum.StrEnum):
    """What is wrong with the accused statement (F1 to F8 in this order)."""

    EQUIVOCATION = "equivocation"
    CID_RAW = "cid-raw"
    LOG_FORK = "log-fork"
    REVOKED_KEY = "revoked-key"
    PROVENANCE = "provenance"
    PYPI_DIGEST = "pypi-digest"
    CID_CONTENT = "cid-content"
    PYPI_ABSENT = "pypi-absent"


_Object = dict[str, object]


class Evidence(Form, frozen=True, kw_only=True):
    """What is carried with an accusation, so that it survives the redaction of the original. Fields depend on the fault."""

    envelopes: Annotated[tuple[_Object, ...], msgspec.Meta(min_length=1, max_length=2)] | UnsetType = UNSET
    notes: Annotated[tuple[str, ...], msgspec.Meta(min_length=2, max_length=2)] | UnsetType = UNSET
    manifest: _Object | UnsetType = UNSET
    bundle: _Object | UnsetType = UNSET
    bundle_cid: str | UnsetType = UNSET
    sha256: Digest | UnsetType = UNSET
    at: Instant | UnsetType = UNSET
    serial: Serial | UnsetType = UNSET
    size: Count | UnsetType = UNSET

    def told(self) -> frozenset[str]:
        """The fields that are there, as they are written in JSON."""
        names = zip(self.__struct_fields__, self.__struct_encode_fields__, strict=True)
        return frozenset(written for name, written in names if getattr(self, name) is not UNSET)


_ALLOWED: Final[dict[Fault, tuple[frozenset[str], ...]]] = {
    Fault.EQUIVOCATION: (frozenset({"envelopes"}),),
    Fault.CID_RAW: (frozenset({"envelopes"}),),
    Fault.LOG_FORK: (frozenset({"notes"}),),
    Fault.REVOKED_KEY: (frozenset({"envelopes", "manifest"}),),
    Fault.PROVENANCE: (frozenset({"envelopes", "bundle"}), frozenset({"envelopes", "bundleCid"})),
    Fault.PYPI_DIGEST: (
        frozenset({"envelopes", "sha256", "at"}),
        frozenset({"envelopes", "sha256", "at", "serial"}),
    ),
    Fault.CID_CONTENT: (frozenset({"envelopes"}), frozenset({"envelopes", "size"})),
    Fault.PYPI_ABSENT: (frozenset({"envelopes", "at"}),),
}


class Refutation(Predicate, frozen=True, kw_only=True):
    """Subject: `attestation` and the accused statement's id; for a log fork `log` and the sha256 of the log's origin."""

    NAME: ClassVar[str] = "refutation"
    ROLES: ClassVar[frozenset[str]] = frozenset({MIRROR, WATCHER, MAINTAINER})

    fault: Fault = msgspec.field(name="class")
    project: str | None
    file: str | None
    accused: KeyidHex
    observed: Instant
    reporter: SignedBy
    evidence: Evidence

    def __post_init__(self) -> None:
        if self.evidence.told() not in _ALLOWED[self.fault]:
            raise ValueError(f"not the evidence for {self.fault}")
        if {self.project is None, self.file is None} != {self.fault is Fault.LOG_FORK}:
            raise ValueError("project and file are named, but for a log fork")

    def signed_by(self) -> SignedBy | None:
        return self.reporter

    def about_project(self) -> str | None:
        return self.project

    def check_names(self, subjects: tuple[Subject, ...]) -> None:
        if subjects[0].name != ("log" if self.fault is Fault.LOG_FORK else "attestation"):
            raise Rejected(Code.SUBJECT, "a refutation's subject is an attestation, or the log that forked")
        if self.project is not None and self.file is not None:
            check_file(self.file, self.project, None)
