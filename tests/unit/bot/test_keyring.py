"""The keyring: pinned roots, manifests taken as TUF takes its root file, and what a key's word is worth now."""

from __future__ import annotations

from typing import Any

import pytest

from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.keyring import (
    MAINTAINER_ORG,
    Keyring,
    ManifestRefused,
    Member,
    PinnedOrg,
    Refusal,
    build_keyring,
    root_keys,
    take_manifest,
)
from matrix_pypi_bot.core.notes import NoteKey
from matrix_pypi_bot.core.rejected import Code, Rejected
from matrix_pypi_bot.core.signers import PinnedKey, SigningKey
from matrix_pypi_bot.core.statements.keys import Manifest
from matrix_pypi_bot.wire.names import ProjectName
from tests.support.plain_statements import (
    EVIL,
    MAINT,
    NOW,
    ORGA,
    ORGB,
    ROOTA,
    ROOTA2,
    ROOTB,
    Json,
    envelope_of,
    listed_key,
    manifest,
)

DAY = 86_400
ROLES = frozenset({"mirror", "watcher"})
PINNED = PinnedOrg(name="orga", roots=(ROOTA.public,), threshold=1, roles=ROLES)
PINNED_B = PinnedOrg(name="orgb", roots=(ROOTB.public,), threshold=1, roles=ROLES)


def later(days: int) -> Instant:
    return Instant(NOW + days * DAY)


def taken(
    value: Json, *signers: SigningKey, held: Manifest | None = None, org: PinnedOrg = PINNED, now: Instant = NOW
) -> Manifest:
    found = take_manifest(org, held, envelope_of(value, *signers), now=now).statement.predicate
    assert isinstance(found, Manifest)
    return found


def refusal(value: Json, *signers: SigningKey, **more: Any) -> Refusal:
    with pytest.raises(ManifestRefused) as caught:
        taken(value, *signers, **more)
    return caught.value.refusal


FIRST = taken(manifest(), ROOTA)


def test_the_first_manifest_is_taken_on_the_pinned_roots_word() -> None:
    assert (FIRST.version, FIRST.org, root_keys(PINNED, FIRST)) == (1, "orga", root_keys(PINNED, None))


def test_a_version_never_goes_down_nor_comes_twice() -> None:
    second = taken(manifest(version=2), ROOTA, held=FIRST)
    assert refusal(manifest(version=1), ROOTA, held=second) is Refusal.OLD_VERSION
    assert refusal(manifest(version=2, keys=[]), ROOTA, held=second) is Refusal.OLD_VERSION


def test_roots_change_only_with_the_old_and_the_new_ones_consent() -> None:
    value = manifest(version=2, roots=(ROOTA2,))
    assert refusal(value, ROOTA, held=FIRST) is Refusal.NEW_THRESHOLD
    with pytest.raises(Rejected) as caught:
        taken(value, ROOTA2, held=FIRST)
    assert caught.value.code is Code.KEY_UNKNOWN
    second = taken(value, ROOTA, ROOTA2, held=FIRST)
    assert taken(manifest(version=3, roots=(ROOTA2,)), ROOTA2, held=second).version == 3
    with pytest.raises(Rejected):
        taken(manifest(version=3), ROOTA, held=second)


def test_a_threshold_counts_distinct_roots() -> None:
    both = PinnedOrg(name="orga", roots=(ROOTA.public, ROOTA2.public), threshold=2, roles=ROLES)
    value = manifest(roots=(ROOTA, ROOTA2), threshold=2)
    assert refusal(value, ROOTA, org=both) is Refusal.THRESHOLD
    held = taken(value, ROOTA, ROOTA2, org=both)
    assert refusal(manifest(version=2), ROOTA, held=held, org=both) is Refusal.THRESHOLD


def test_an_expired_manifest_is_not_taken() -> None:
    assert refusal(manifest(), ROOTA, now=later(90)) is Refusal.EXPIRED
    assert taken(manifest(), ROOTA, now=later(89)) == FIRST


def test_an_organisation_speaks_for_itself_alone() -> None:
    foreign = PinnedOrg(name="orgb", roots=(ROOTA.public,), threshold=1, roles=ROLES)
    with pytest.raises(Rejected) as caught:
        taken(manifest("orga"), ROOTA, org=foreign)
    assert caught.value.code is Code.SIGNER_MISMATCH


def ring(*keys: Json, **changes: object) -> Keyring:
    return build_keyring([Member(PINNED, taken(manifest(keys=list(keys), **changes), ROOTA))])


def test_a_key_counts_while_its_manifest_lives() -> None:
    keyring = ring(listed_key(ORGA))
    assert keyring.keys[ORGA.keyid] == PinnedKey(
        public=ORGA.public, org="orga", roles=frozenset({"mirror", "watcher", "log"})
    )
    assert keyring.counts(ORGA.keyid, received=NOW, now=later(89))
    assert not keyring.counts(ORGA.keyid, received=NOW, now=later(90))
    assert not keyring.counts(EVIL.keyid, received=NOW, now=NOW)
    assert not keyring.counts(ROOTA.keyid, received=NOW, now=NOW)


@pytest.mark.parametrize(
    ("since", "received", "counts"),
    [
        (later(1), NOW, True),
        (later(1), later(1), False),
        (later(1), later(5), False),
        (None, later(5), True),
        (None, later(10), False),
    ],
)
def test_after_a_revocation_only_what_was_received_before_counts(
    since: Instant | None, received: Instant, counts: bool
) -> None:
    told = {"at": str(later(10)), "reason": "stolen", "compromised_since": None if since is None else str(since)}
    keyring = ring(listed_key(ORGA, revoked=told))
    assert keyring.counts(ORGA.keyid, received=received, now=later(20)) is counts
    assert ORGA.keyid in keyring.keys  # still evidence against it


def test_an_organisation_gives_only_roles_that_it_was_given() -> None:
    watching = PinnedOrg(name="orga", roots=(ROOTA.public,), threshold=1, roles=frozenset({"watcher"}))
    keyring = build_keyring([Member(watching, FIRST)])
    assert keyring.keys[ORGA.keyid].roles == {"watcher", "log"}


def test_log_keys_are_known_by_their_origin() -> None:
    keyring = ring(listed_key(ORGA, "mirror"), listed_key(ORGB, "log"))
    assert keyring.log_keys() == (NoteKey("orga/matrix-pypi", ORGB.public),)


def test_a_pinned_organisation_without_a_manifest_has_its_roots_alone() -> None:
    member = Member(PINNED, None)
    keyring = build_keyring([member])
    assert (set(keyring.keys), keyring.member("orga"), keyring.member("orgb")) == ({ROOTA.keyid}, member, None)
    assert keyring.log_keys() == ()


def test_a_key_that_two_claim_stays_with_the_first_and_is_told() -> None:
    thief = taken(manifest("orgb", roots=(ROOTB,)), ROOTB, org=PINNED_B)
    keyring = build_keyring([Member(PINNED, FIRST), Member(PINNED_B, thief)])
    assert (keyring.keys[ORGA.keyid].org, keyring.conflicts) == ("orga", {ORGA.keyid})


def delegating(org: PinnedOrg, root: SigningKey, key: SigningKey) -> Member:
    value = manifest(
        org.name, roots=(root,), keys=[listed_key(key)], delegations=[{"project": "rfc8785", "key": MAINT.public.hex()}]
    )
    return Member(org, taken(value, root, org=org))


@pytest.mark.parametrize(("quorum", "known"), [(1, True), (2, True), (3, False)])
def test_a_maintainer_is_who_enough_organisations_delegate_to(quorum: int, known: bool) -> None:
    members = [delegating(PINNED, ROOTA, ORGA), delegating(PINNED_B, ROOTB, ORGB)]
    keyring = build_keyring(members, quorum=quorum)
    assert (MAINT.keyid in keyring.keys) is known
    assert keyring.counts(MAINT.keyid, received=NOW, now=later(500)) is known


def test_a_maintainer_is_who_the_operator_pinned_for_the_project() -> None:
    keyring = build_keyring([], maintainers={ProjectName("rfc8785"): frozenset({MAINT.public.hex()})})
    assert keyring.keys[MAINT.keyid] == PinnedKey(
        public=MAINT.public, org=MAINTAINER_ORG, roles=frozenset({"maintainer"}), projects=frozenset({"rfc8785"})
    )
