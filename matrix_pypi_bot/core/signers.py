"""Ed25519 keys: whose they are, what they may sign, and signing with one."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NewType, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

Keyid = NewType("Keyid", str)
"""hex(sha256(raw public key)), 64 digits. The first 16 stand in state keys: an address, not a security claim."""

MIRROR = "mirror"
WATCHER = "watcher"
LOG = "log"
WITNESS = "witness"
MAINTAINER = "maintainer"
ROOT = "root"


def keyid_of(public: bytes) -> Keyid:
    """The id of a raw public key of 32 bytes."""
    return Keyid(hashlib.sha256(public).hexdigest())


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedKey:
    """A key that is known here. `projects` empty means every project, but a maintainer signs for those named alone.

    Listing a key needs no private half, so several organisations may list one: `also` is what it is to the others. What its holder
    signs names the organisation for which he speaks.
    """

    public: bytes
    org: str
    roles: frozenset[str]
    projects: frozenset[str] = frozenset()
    also: tuple[PinnedKey, ...] = ()

    @property
    def keyid(self) -> Keyid:
        """The key's id, always computed from the key itself."""
        return keyid_of(self.public)

    @property
    def everywhere(self) -> tuple[PinnedKey, ...]:
        """The key as each organisation lists it."""
        return (self, *self.also)

    def of(self, org: str) -> PinnedKey:
        """The key as this organisation lists it; as the first one does when it does not."""
        return next((key for key in self.everywhere if key.org == org), self)

    def may_act_as(self, roles: frozenset[str], project: str | None) -> bool:
        """Whether the key holds one of `roles` for `project` (None: the organisation's own affairs)."""
        held = self.roles & roles
        if project is not None and project in self.projects:
            return bool(held)
        return bool(held - {MAINTAINER}) and not self.projects


Keys: TypeAlias = Mapping[str, PinnedKey]
"""Known keys by their id."""


class SigningKey:
    """A private key, from its seed of 32 bytes."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._key.public_key().public_bytes_raw()
        self.keyid = keyid_of(self.public)

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return self._key.sign(message)


def verifies(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` is that key's over `message`. Total: a malformed key or signature verifies nothing."""
    try:
        _loaded(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


@functools.lru_cache(maxsize=1_024)
def _loaded(public: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(public)
