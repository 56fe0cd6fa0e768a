"""Organisations that sign: their keys, their attestations, and the events that carry them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from matrix_pypi_bot.core.events import Checked, Post, check_envelope, post_of, sign_statement
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.signers import MIRROR, Keyid, Keys, PinnedKey, SigningKey
from matrix_pypi_bot.core.statements.attestation import Attestation, Source
from matrix_pypi_bot.core.statements.common import SignedBy
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import parse_file_name, project_and_version

NOON = Instant.parse("2026-11-22T12:00:00Z")


@dataclass(frozen=True, slots=True)
class Organisation:
    """An organisation with one mirror key, made from its name."""

    name: str

    @property
    def key(self) -> SigningKey:
        """Always the same one."""
        return SigningKey(hashlib.sha256(self.name.encode()).digest())

    @property
    def keyid(self) -> Keyid:
        """The id of its key."""
        return self.key.keyid

    @property
    def keys(self) -> Keys:
        """The key as others know it."""
        return {self.keyid: PinnedKey(public=self.key.public, org=self.name, roles=frozenset({MIRROR}))}

    def attest(self, file: str, *, sha256: str | None = None, seq: int = 1) -> Checked:
        """Its word that `file` has this digest."""
        name = parse_file_name(file)
        project, version = project_and_version(name)
        attestation = Attestation(
            signer=SignedBy(org=self.name, key=self.keyid),
            seq=seq,
            prev=None,
            issued=NOON,
            project=project,
            version=version,
            size=1_000,
            source=Source(kind="pypi", method="bytes"),
            expires=None,
        )
        digest = Sha256(sha256 or hashlib.sha256(file.encode()).hexdigest())
        envelope = sign_statement({name: digest}, attestation, self.key)
        return check_envelope(envelope.to_json(), self.keys, Attestation)

    def post(self, file: str, *, sha256: str | None = None, seq: int = 1) -> Post:
        """The event that carries its attestation of `file`."""
        return post_of(self.attest(file, sha256=sha256, seq=seq))
