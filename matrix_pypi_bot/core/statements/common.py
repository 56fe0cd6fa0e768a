"""What all kinds of statements share: the fields' grammars, the subject, and what each kind tells the ordered check.

A kind is one msgspec struct: its predicate, with every field and its bounds; what it does not name is refused. The rules that
have an error code of their own (names, roles, CIDs) are methods, called in the contract's order by `events`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, TypeAlias

import msgspec

from matrix_pypi_bot.core.envelope import StatementId
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.limits import (
    MAX_FILE_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_REASON_CHARACTERS,
    MAX_TEXT_CHARACTERS,
    MAX_URL_CHARACTERS,
)
from matrix_pypi_bot.core.rejected import Code, Rejected
from matrix_pypi_bot.core.signers import MAINTAINER, MIRROR, WATCHER, Keyid
from matrix_pypi_bot.wire.digests import Sha256, sha256_of
from matrix_pypi_bot.wire.names import InvalidName, is_attestable, parse_file_name, project_and_version

IN_TOTO: Final = "https://in-toto.io/Statement/v1"
URN: Final = "urn:matrix-pypi:"
EVENT_PREFIX: Final = "io.matrix_pypi."

_HEX: Final = msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")
HexKey: TypeAlias = Annotated[str, _HEX]
"""A raw public key of 32 bytes in hex."""
Digest: TypeAlias = Annotated[Sha256, _HEX]
Id: TypeAlias = Annotated[StatementId, _HEX]
KeyidHex: TypeAlias = Annotated[Keyid, _HEX]
Text: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT_CHARACTERS)]
Url: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_URL_CHARACTERS)]
Reason: TypeAlias = Annotated[str, msgspec.Meta(max_length=MAX_REASON_CHARACTERS)]
Size: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=MAX_FILE_BYTES)]
Serial: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]


class Form(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """An object of which every field is known."""


class SubjectDigest(Form, frozen=True, kw_only=True):
    """`{"sha256": ...}` and no other algorithm."""

    sha256: Digest


class Subject(Form, frozen=True, kw_only=True):
    """What a statement is about: a file and its digest, or a name that stands for something else."""

    name: str
    digest: SubjectDigest

    @property
    def sha256(self) -> Sha256:
        """The digest."""
        return self.digest.sha256


class SignedBy(Form, frozen=True, kw_only=True):
    """Who says it, as part of what is said."""

    org: Text
    key: KeyidHex


class Predicate(Form, frozen=True, kw_only=True):
    """The base of all kinds. A kind names its type and overrides what differs."""

    NAME: ClassVar[str]
    MAX_SUBJECTS: ClassVar[int] = 1
    MAX_BYTES: ClassVar[int] = MAX_PAYLOAD_BYTES
    ROLES: ClassVar[frozenset[str]] = frozenset({MIRROR})

    @classmethod
    def type(cls) -> str:
        """E.g. `urn:matrix-pypi:attestation:v1`."""
        return f"{URN}{cls.NAME}:v1"

    @classmethod
    def event_type(cls) -> str:
        """E.g. `io.matrix_pypi.attestation.v1`."""
        return f"{EVENT_PREFIX}{cls.NAME}.v1"

    def signed_by(self) -> SignedBy | None:
        """The signer that the statement names; None for a manifest, which its roots sign."""
        return None

    def about_project(self) -> str | None:
        """The project in whose room it belongs; None for an organisation's own affairs, told in its trust room."""
        return None

    def check_names(self, subjects: tuple[Subject, ...]) -> None:
        """Raises Rejected: E_SUBJECT, E_FILENAME or E_NAME_MISMATCH when subject and fields do not fit one another."""
        raise NotImplementedError

    def check_cid(self, subjects: tuple[Subject, ...]) -> None:
        """Raises Rejected: E_CID or F_CID_DIGEST."""

    def hint(self, subjects: tuple[Subject, ...]) -> dict[str, object] | None:
        """What an event's hint must say, when it has one; None when it may have none."""
        return None

    def state_key(self, keyid: Keyid, subjects: tuple[Subject, ...]) -> str | None:
        """The state key of its event; None for a timeline event. `OWNED` for the slot of the sender's own user id."""
        return None


OWNED: Final = "@"


class Chained(Predicate, frozen=True, kw_only=True):
    """A statement in the chain of its key and project: `prev` is the statement with `seq` - 1. A gap invalidates nothing."""

    signer: SignedBy
    seq: Count
    prev: Id | None
    issued: Instant

    def signed_by(self) -> SignedBy | None:
        return self.signer


OBSERVERS: Final = frozenset({MIRROR, WATCHER})
ATTESTERS: Final = frozenset({MIRROR, MAINTAINER})


def keyid16(keyid: Keyid) -> str:
    """The first 16 digits, as they stand in state keys."""
    return keyid[:16]


def check_file(file: str, project: str, version: str | None) -> None:
    """Raises Rejected: E_FILENAME, or E_NAME_MISMATCH when the name tells another project or (unless None) version."""
    if not is_attestable(file):
        raise Rejected(Code.FILENAME, "not the name of an attestable file")
    try:
        told = project_and_version(parse_file_name(file))
    except InvalidName as error:
        raise Rejected(Code.FILENAME, error.detail) from error
    if told != (project, version if version is not None else told[1]):
        raise Rejected(Code.NAME_MISMATCH, f"{file} tells {told[0]} {told[1]}")


def check_name_subject(subjects: tuple[Subject, ...], name: str) -> None:
    """Raises Rejected(E_SUBJECT) unless the subject is `name` with the digest of that name, as what has no content has."""
    if subjects[0].name != name or subjects[0].sha256 != sha256_of(name.encode()):
        raise Rejected(Code.SUBJECT, f"the subject is {name} and the sha256 of that name")


def from_json_text(kind: type, value: object) -> object:
    """The hook by which msgspec reads our own types. Raises ValueError."""
    if kind is object:
        return value
    if kind is Instant and isinstance(value, str):
        return Instant.parse(value)
    raise ValueError("not in the form that is expected here")
