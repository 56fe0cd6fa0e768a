"""Whose key is this, what may it sign, and does what it signed count now?

The root of trust are the root keys that the operator pinned; nothing is ever learnt from Matrix. An organisation's online keys
come from its manifest, checked as TUF checks its root file. Pure: time is an argument.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from matrix_pypi_bot.core.events import Checked, check_envelope, manifest_root
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.notes import NoteKey
from matrix_pypi_bot.core.signers import LOG, MAINTAINER, ROOT, WITNESS, Keyid, Keys, PinnedKey, keyid_of
from matrix_pypi_bot.core.statements.keys import ListedKey, Manifest
from matrix_pypi_bot.wire.names import ProjectName

MAINTAINER_ORG = "maint"
"""The organisation that a maintainer's key signs as. It has no weight: maintainers never count towards a quorum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedOrg:
    """An organisation as the operator pinned it: root keys (32 raw bytes each), how many must sign, which roles it is given.

    `log_url` is where its log answers, `gateway` where its mirror gives blocks, `user` the id of its bot; empty where the operator
    named none.
    """

    name: str
    roots: tuple[bytes, ...]
    threshold: int
    roles: frozenset[str]
    log_url: str = ""
    gateway: str = ""
    user: str = ""


def witness_name(org: str) -> str:
    """The name under which an organisation cosigns the heads of others."""
    return f"{org}/witness"


class Refusal(enum.Enum):
    """Why a well-signed manifest is not taken."""

    OLD_VERSION = "its version is not above the one held"
    THRESHOLD = "too few of the roots trusted now signed it"
    NEW_THRESHOLD = "too few of the roots that it names signed it"
    EXPIRED = "expired"


class ManifestRefused(Exception):
    """The manifest is not taken; the one held, if any, stays."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal


def root_keys(org: PinnedOrg, held: Manifest | None) -> Keys:
    """The roots that are trusted now: those of the manifest held, else those pinned."""
    publics = org.roots if held is None else tuple(bytes.fromhex(root.key) for root in held.roots)
    return {keyid_of(public): manifest_root(org.name, public.hex()) for public in publics}


def take_manifest(org: PinnedOrg, held: Manifest | None, envelope: object, *, now: Instant) -> Checked:
    """The manifest in `envelope` as the one to hold from now on.

    It must be signed by the threshold of the roots trusted so far and by that of the roots it names itself, so that a change
    of roots is signed by both. Raises Rejected as `check_envelope` does, and ManifestRefused.
    """
    trusted = root_keys(org, held)
    checked = check_envelope(envelope, trusted, Manifest)
    manifest = checked.statement.predicate
    assert isinstance(manifest, Manifest)
    signers = {signature.keyid for signature in checked.envelope.signatures}
    if held is not None and manifest.version <= held.version:
        raise ManifestRefused(Refusal.OLD_VERSION)
    if len(signers & trusted.keys()) < (org.threshold if held is None else held.threshold):
        raise ManifestRefused(Refusal.THRESHOLD)
    if len(signers & {keyid_of(bytes.fromhex(root.key)) for root in manifest.roots}) < manifest.threshold:
        raise ManifestRefused(Refusal.NEW_THRESHOLD)
    if manifest.expires <= now:
        raise ManifestRefused(Refusal.EXPIRED)
    return checked


@dataclass(frozen=True, slots=True)
class Member:
    """A pinned organisation and the manifest held of it."""

    org: PinnedOrg
    manifest: Manifest | None


@dataclass(frozen=True, slots=True)
class _Standing:
    """Where a key comes from: `listed` and `manifest` None for maintainers and roots."""

    key: PinnedKey
    manifest: Manifest | None = None
    listed: ListedKey | None = None


@dataclass(frozen=True, slots=True)
class Keyring:
    """Every key that is known, revoked ones too: what they signed is still evidence against them.

    `conflicts` are keys that several organisations list: each statement of such a key says for whom it is.
    """

    members: tuple[Member, ...]
    keys: Keys
    conflicts: frozenset[Keyid]
    _standings: Mapping[Keyid, tuple[_Standing, ...]] = field(repr=False)

    def counts(self, keyid: Keyid, org: str = "", *, received: Instant, now: Instant) -> bool:
        """Whether a statement by this key, first received here at `received`, counts for something now.

        As a key of `org`; empty: of whoever lists it first. Not with an expired manifest. After a revocation only what was received
        before the compromise, or before the routine end, counts: times that the signer wrote himself prove nothing.
        """
        standing = self._standing(keyid, org)
        if standing is None or ROOT in standing.key.roles:
            return False
        if standing.manifest is None or standing.listed is None:
            return True
        if standing.manifest.expires <= now:
            return False
        revoked = standing.listed.revoked
        if revoked is None:
            return True
        return received < (revoked.at if revoked.compromised_since is None else revoked.compromised_since)

    def is_compromised(self, keyid: Keyid, org: str = "") -> bool:
        """Whether the organisation itself says that somebody else had the key: what it signed then is no word of the organisation."""
        standing = self._standing(keyid, org)
        if standing is None or standing.listed is None or standing.listed.revoked is None:
            return False
        return standing.listed.revoked.compromised_since is not None

    def log_keys(self) -> tuple[NoteKey, ...]:
        """The keys that sign checkpoints, by the origin of their log."""
        return tuple(
            NoteKey(standing.manifest.log.origin, standing.key.public)
            for standing in self._all()
            if standing.manifest is not None and LOG in standing.key.roles
        )

    def org_of_log(self, key: NoteKey) -> str | None:
        """The organisation whose log this key signs."""
        return next(
            (
                standing.key.org
                for standing in self._all()
                if standing.manifest is not None
                and LOG in standing.key.roles
                and (standing.manifest.log.origin, standing.key.public) == (key.name, key.public)
            ),
            None,
        )

    def log_keys_of(self, org: str) -> tuple[NoteKey, ...]:
        """The keys that sign the heads of the organisation's log now: those that ended do not."""
        return self._note_keys(org, LOG, lambda manifest: manifest.log.origin)

    def witness_keys_of(self, org: str) -> tuple[NoteKey, ...]:
        """The keys with which the organisation cosigns the heads of others now."""
        return self._note_keys(org, WITNESS, lambda manifest: witness_name(org))

    def _note_keys(self, org: str, role: str, name: Callable[[Manifest], str]) -> tuple[NoteKey, ...]:
        return tuple(
            NoteKey(name(standing.manifest), standing.key.public)
            for standing in self._all()
            if standing.manifest is not None
            and standing.listed is not None
            and standing.listed.revoked is None
            and standing.key.org == org
            and role in standing.key.roles
        )

    def _all(self) -> Iterator[_Standing]:
        for standings in self._standings.values():
            yield from standings

    def _standing(self, keyid: Keyid, org: str) -> _Standing | None:
        for one in self._standings.get(keyid, ()):  # asked for every claim of a project: twice as fast as `next`
            if org in ("", one.key.org):
                return one
        return None

    def member(self, org: str) -> Member | None:
        """The pinned organisation of this name."""
        return next((member for member in self.members if member.org.name == org), None)


def build_keyring(
    members: Iterable[Member], *, maintainers: Mapping[ProjectName, frozenset[str]] | None = None, quorum: int = 1
) -> Keyring:
    """The keyring of these organisations.

    `maintainers` are the operator's own pins (project to public keys in hex); a key that at least `quorum` organisations
    delegate a project to is a maintainer too.
    """
    held = tuple(members)
    standings: dict[Keyid, tuple[_Standing, ...]] = {}
    for member in held:
        for standing in _standings_of(member):
            keyid = standing.key.keyid
            standings[keyid] = (*standings.get(keyid, ()), standing)
    for public, projects in _maintainers(held, maintainers or {}, quorum).items():
        key = PinnedKey(
            public=bytes.fromhex(public),
            org=MAINTAINER_ORG,
            roles=frozenset({MAINTAINER}),
            projects=frozenset(projects),
        )
        standings[key.keyid] = (*standings.get(key.keyid, ()), _Standing(key))
    keys: dict[str, PinnedKey] = {
        keyid: replace(first.key, also=tuple(one.key for one in others))
        for keyid, (first, *others) in standings.items()
    }
    conflicts = frozenset(key.keyid for key in keys.values() if key.also)
    return Keyring(held, keys, conflicts, standings)


def _standings_of(member: Member) -> Iterable[_Standing]:
    for key in root_keys(member.org, member.manifest).values():
        yield _Standing(key)
    if member.manifest is None:
        return
    given = member.org.roles | {LOG, WITNESS}
    for listed in member.manifest.keys:
        public = bytes.fromhex(listed.key)
        yield _Standing(
            PinnedKey(public=public, org=member.org.name, roles=frozenset(listed.roles) & given),
            member.manifest,
            listed,
        )


def _maintainers(
    members: tuple[Member, ...], pinned: Mapping[ProjectName, frozenset[str]], quorum: int
) -> dict[str, set[str]]:
    """Public key in hex to the projects it may speak for."""
    voices: dict[tuple[str, str], set[str]] = {}
    for member in members:
        for delegation in member.manifest.delegations if member.manifest else ():
            voices.setdefault((delegation.key, delegation.project), set()).add(member.org.name)
    found: dict[str, set[str]] = {}
    own = ((public, project) for project, publics in pinned.items() for public in publics)
    for public, project in (*own, *(claim for claim, orgs in voices.items() if len(orgs) >= quorum)):
        found.setdefault(public, set()).add(project)
    return found
