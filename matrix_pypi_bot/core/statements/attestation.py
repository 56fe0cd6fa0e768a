"""`attestation`: this file is these bytes, and this is their CID."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import UNSET, UnsetType

from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.limits import MAX_ATTESTATION_BYTES
from matrix_pypi_bot.core.rejected import Code, Rejected
from matrix_pypi_bot.core.signers import Keyid
from matrix_pypi_bot.core.statements.common import (
    ATTESTERS,
    Chained,
    Digest,
    Form,
    Serial,
    Size,
    Subject,
    Text,
    check_file,
    keyid16,
)
from matrix_pypi_bot.wire.cids import RAW, Cid, InvalidCid, split_cid

UploadTime = Annotated[
    str, msgspec.Meta(pattern=r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z\Z")
]


class Source(Form, frozen=True, kw_only=True):
    """How the signer knows: `bytes` = hashed them, `index` = read it there; from an index (`pypi`) or an own build."""

    kind: Literal["pypi", "build"]
    method: Literal["bytes", "index"]
    index: Text | UnsetType = UNSET
    serial: Serial | UnsetType = UNSET
    upload_time: UploadTime | UnsetType = UNSET


class CoreMetadata(Form, frozen=True, kw_only=True):
    """The digest of the wheel's METADATA (PEP 658)."""

    sha256: Digest


class Attestation(Chained, frozen=True, kw_only=True):
    """Subject: the file and its sha256. `expires` is null as a rule: facts do not expire, keys and views do."""

    NAME: ClassVar[str] = "attestation"
    MAX_BYTES: ClassVar[int] = MAX_ATTESTATION_BYTES
    ROLES: ClassVar[frozenset[str]] = ATTESTERS

    project: str
    version: str
    size: Size
    source: Source
    expires: Instant | None
    told_cid: object = msgspec.field(name="cid", default=UNSET)  # any JSON here: what is wrong with it has its own code
    core_metadata: CoreMetadata | UnsetType = UNSET
    ext: dict[str, object] | UnsetType = UNSET  # never decides anything

    @property
    def cid(self) -> Cid | None:
        """The CID, if one was told. Raises Rejected(E_CID)."""
        if self.told_cid is UNSET:
            return None
        if not isinstance(self.told_cid, str):
            raise Rejected(Code.CID, "a CID is text")
        try:
            split_cid(self.told_cid)
        except InvalidCid as error:
            raise Rejected(Code.CID, error.detail) from error
        return Cid(self.told_cid)

    @property
    def index(self) -> str:
        """The upstream's name."""
        return "pypi" if isinstance(self.source.index, UnsetType) else self.source.index

    def about_project(self) -> str | None:
        return self.project

    def check_names(self, subjects: tuple[Subject, ...]) -> None:
        check_file(subjects[0].name, self.project, self.version)

    def check_cid(self, subjects: tuple[Subject, ...]) -> None:
        if self.cid is None:
            return
        parts = split_cid(self.cid)
        if parts.codec == RAW and parts.sha256 != subjects[0].sha256:
            raise Rejected(Code.CID_DIGEST, "the raw CID names other bytes than the subject")

    def hint(self, subjects: tuple[Subject, ...]) -> dict[str, object] | None:
        subject = subjects[0]
        return {"file": subject.name, "org": self.signer.org, "sha256": subject.sha256, "size": self.size}

    def state_key(self, keyid: Keyid, subjects: tuple[Subject, ...]) -> str | None:
        return f"{keyid16(keyid)}/{subjects[0].name}"
