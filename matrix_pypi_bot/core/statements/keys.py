"""`keys`: an organisation's key manifest, signed by its roots."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.limits import MAX_DELEGATIONS, MAX_MANIFEST_KEYS, MAX_MANIFEST_SECONDS
from matrix_pypi_bot.core.signers import ROOT, Keyid
from matrix_pypi_bot.core.statements.common import (
    OWNED,
    Count,
    Form,
    HexKey,
    Predicate,
    Reason,
    Subject,
    Text,
    check_name_subject,
)
from matrix_pypi_bot.wire.names import parse_project


class RootKey(Form, frozen=True, kw_only=True):
    """A key that signs manifests and nothing else."""

    key: HexKey
    scheme: Literal["ed25519"]


class Revoked(Form, frozen=True, kw_only=True):
    """When and why a key ended. `compromised_since` null: a routine end, what was signed before stays good."""

    at: Instant
    reason: Reason
    compromised_since: Instant | None = msgspec.field(name="compromised_since")


class ListedKey(Form, frozen=True, kw_only=True):
    """An online key of the organisation and what it may do."""

    key: HexKey
    scheme: Literal["ed25519"]
    roles: Annotated[tuple[Literal["mirror", "watcher", "log", "witness"], ...], msgspec.Meta(min_length=1)]
    added: Instant
    revoked: Revoked | None


class Log(Form, frozen=True, kw_only=True):
    """The organisation's transparency log, by the origin line of its checkpoints."""

    origin: Text


class Delegation(Form, frozen=True, kw_only=True):
    """A maintainer's public key and the project that it may speak for."""

    project: str
    key: HexKey

    def __post_init__(self) -> None:
        parse_project(self.project)


class Manifest(Predicate, frozen=True, kw_only=True):
    """Subject: the organisation. `version` never goes down; it expires at most 90 days after it was issued."""

    NAME: ClassVar[str] = "keys"
    ROLES: ClassVar[frozenset[str]] = frozenset({ROOT})

    org: Text
    version: Count
    issued: Instant
    expires: Instant
    roots: Annotated[tuple[RootKey, ...], msgspec.Meta(min_length=1, max_length=MAX_MANIFEST_KEYS)]
    threshold: Count
    keys: Annotated[tuple[ListedKey, ...], msgspec.Meta(max_length=MAX_MANIFEST_KEYS)]
    log: Log
    delegations: Annotated[tuple[Delegation, ...], msgspec.Meta(max_length=MAX_DELEGATIONS)]

    def __post_init__(self) -> None:
        roots, keys = {root.key for root in self.roots}, {key.key for key in self.keys}
        if len(roots) != len(self.roots) or len(keys) != len(self.keys) or roots & keys:
            raise ValueError("a key is listed once, as a root or as an online key")
        if self.threshold > len(roots):
            raise ValueError("the threshold is above the number of roots")
        if not self.issued < self.expires <= self.issued + MAX_MANIFEST_SECONDS:
            raise ValueError("a manifest expires within 90 days")

    def check_names(self, subjects: tuple[Subject, ...]) -> None:
        check_name_subject(subjects, self.org)

    def state_key(self, keyid: Keyid, subjects: tuple[Subject, ...]) -> str | None:
        return OWNED
