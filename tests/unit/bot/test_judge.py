"""The judge: faults that prove themselves, and accusations that do not."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from matrix_pypi_bot.core.envelope import StatementId
from matrix_pypi_bot.core.events import check_envelope
from matrix_pypi_bot.core.evidence import Doubt, Provenance, Proves
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.judge import (
    Judgement,
    Verdict,
    equivocation,
    judge,
    log_fork,
    raw_cid_lie,
    signed_when_compromised,
)
from matrix_pypi_bot.core.keyring import Keyring, Member, PinnedOrg, build_keyring, take_manifest
from matrix_pypi_bot.core.notes import Checkpoint, NoteKey, sign_checkpoint
from matrix_pypi_bot.core.signers import SigningKey
from matrix_pypi_bot.core.statements.keys import Manifest
from matrix_pypi_bot.core.statements.refutation import Fault
from matrix_pypi_bot.wire.digests import Sha256
from tests.support.plain_statements import (
    EVIL,
    FALSE,
    GENUINE,
    KEYS,
    NOW,
    ORGA,
    ORGB,
    RAW_CID,
    ROOTA,
    ROOTA2,
    ROOTB,
    WHEEL,
    Json,
    attestation,
    envelope_of,
    id_of,
    listed_key,
    manifest,
    payload_of,
    refutation,
)

ROLES = frozenset({"mirror", "watcher"})


def member(name: str, root: SigningKey, key: SigningKey, *, online: bool = True) -> Member:
    org = PinnedOrg(name=name, roots=(root.public,), threshold=1, roles=ROLES)
    if not online:
        return Member(org, None)
    value = manifest(name, roots=(root,), keys=[listed_key(key)])
    held = take_manifest(org, None, envelope_of(value, root), now=NOW).statement.predicate
    assert isinstance(held, Manifest)
    return Member(org, held)


RING = build_keyring([member("orga", ROOTA, ORGA), member("orgb", ROOTB, ORGB)])


def never_seen(_: StatementId) -> Instant | None:
    return None


def judged(value: Json, ring: Keyring = RING, first_seen: Any = never_seen) -> Judgement:
    return judge(check_envelope(envelope_of(value, ORGB), KEYS).statement, ring, first_seen)


def accusation(fault: Fault, accused: Json, *others: Json, signer: SigningKey = ORGA, **evidence: object) -> Json:
    envelopes = [envelope_of(each, signer) for each in (accused, *others)]
    return refutation(fault, ("attestation", id_of(accused)), {"envelopes": envelopes, **evidence})


# ---- F1 ---------------------------------------------------------------------------------------------------------------

TRUE_WORD, FALSE_WORD = attestation(), attestation(sha256=FALSE)
OTHER_SIZE = attestation(size=1)


def both(a: Any, b: Any, signer_b: SigningKey = ORGA) -> Verdict:
    return equivocation(envelope_of(a), envelope_of(b, signer_b), KEYS)


@pytest.mark.parametrize("other", [FALSE_WORD, OTHER_SIZE])
def test_two_digests_or_sizes_of_one_file_by_one_key_are_fraud(other: Json) -> None:
    assert both(TRUE_WORD, other) is both(other, TRUE_WORD) is Verdict.UPHELD


def test_a_statement_that_would_not_count_still_counts_against_its_signer() -> None:
    broken = FALSE_WORD | {"predicate": "nonsense", "extra": 1}
    assert both(TRUE_WORD, broken) is Verdict.UPHELD
    doubled = TRUE_WORD | {"subject": TRUE_WORD["subject"] + FALSE_WORD["subject"]}
    assert both(doubled, TRUE_WORD) is Verdict.UPHELD


UPPER = TRUE_WORD | {"subject": [{"name": WHEEL, "digest": {"sha256": GENUINE.upper()}}]}
ELSEWHERE = TRUE_WORD | {"subject": [{"name": "a-1.zip", "digest": {"sha256": FALSE}}]}


@pytest.mark.parametrize(
    "other",
    [
        attestation(cid=RAW_CID, seq=2),
        UPPER,
        ELSEWHERE,
        FALSE_WORD | {"predicateType": "urn:matrix-pypi:withdrawal:v1"},
        FALSE_WORD | {"_type": "x"},
        FALSE_WORD | {"subject": None},
        FALSE_WORD | {"subject": [None, {"name": 1, "digest": {"sha256": FALSE}}, {"name": WHEEL, "digest": {}}]},
        FALSE_WORD | {"subject": [{"name": WHEEL, "digest": {"sha256": "not a digest"}}]},
        FALSE_WORD | {"subject": [{"name": WHEEL, "digest": FALSE}]},
        attestation(size="9"),
        attestation(size=True),
        [],
    ],
)
def test_nothing_else_is(other: Any) -> None:
    assert both(TRUE_WORD, payload_of(other)) is Verdict.DISMISSED


def test_two_readings_of_one_payload_convict_nobody() -> None:
    payload = payload_of(FALSE_WORD).replace(b'"_type"', b'"_type":1,"_type"')
    assert both(TRUE_WORD, payload) is Verdict.DISMISSED


@pytest.mark.parametrize("signer", [ORGB, EVIL])
def test_another_keys_word_is_its_own(signer: SigningKey) -> None:
    assert both(TRUE_WORD, FALSE_WORD, signer) is Verdict.DISMISSED


def test_an_upheld_equivocation_suspends_the_key() -> None:
    told = judged(accusation(Fault.EQUIVOCATION, FALSE_WORD, TRUE_WORD))
    assert (told.verdict, told.fault, told.accused, told.suspends) == (
        Verdict.UPHELD,
        Fault.EQUIVOCATION,
        ORGA.keyid,
        True,
    )
    assert not judged(accusation(Fault.EQUIVOCATION, TRUE_WORD)).suspends


BOTH: Json = {"envelopes": [envelope_of(FALSE_WORD), envelope_of(TRUE_WORD)]}


@pytest.mark.parametrize(
    "value",
    [
        refutation("equivocation", ("attestation", "ab" * 32), BOTH),
        refutation("equivocation", ("attestation", id_of(FALSE_WORD)), BOTH, accused=EVIL.keyid),
        accusation(Fault.EQUIVOCATION, FALSE_WORD, TRUE_WORD, signer=EVIL),
    ],
    ids=["another statement", "another key", "an unknown key"],
)
def test_an_accusation_must_carry_the_accused_statement_of_the_accused_key(value: Json) -> None:
    assert judged(value).verdict is Verdict.DISMISSED


def test_an_accusation_is_about_the_file_that_it_names() -> None:
    other = attestation(version="1") | {"subject": [{"name": "rfc8785-1.zip", "digest": {"sha256": FALSE}}]}
    assert judged(accusation(Fault.CID_RAW, other)).verdict is Verdict.DISMISSED


# ---- F2 ---------------------------------------------------------------------------------------------------------------

LIE = attestation(sha256=FALSE, cid=RAW_CID)


def test_a_raw_cid_of_other_bytes_is_fraud_by_arithmetic() -> None:
    assert raw_cid_lie(envelope_of(LIE), KEYS) is Verdict.UPHELD
    assert judged(accusation(Fault.CID_RAW, LIE)).verdict is Verdict.UPHELD
    assert judged(accusation(Fault.CID_RAW, LIE, attestation(cid=RAW_CID))).verdict is Verdict.DISMISSED


@pytest.mark.parametrize(
    "value",
    [
        attestation(cid=RAW_CID),
        attestation(),
        attestation(cid="QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"),
        attestation(cid="bafybeigmix7t42i6jacydtquhet7srwvgpizfg7gjbq7627d35mjomtu64"),
        LIE | {"subject": []},
        [],
    ],
)
def test_every_other_cid_needs_the_blocks(value: Any) -> None:
    assert raw_cid_lie(envelope_of(payload_of(value)), KEYS) is Verdict.DISMISSED


# ---- F3 ---------------------------------------------------------------------------------------------------------------

ORIGIN = "orga/matrix-pypi"
LOG = NoteKey(ORIGIN, ORGA.public)


def head(size: int, root: bytes, origin: str = ORIGIN, key: SigningKey = ORGA) -> str:
    return str(sign_checkpoint(Checkpoint(origin, size, root * 32), key))


def fork_accusation(a: str, b: str, **changes: object) -> Json:
    origin = hashlib.sha256(ORIGIN.encode()).hexdigest()
    more = {"project": None, "file": None, **changes}
    return refutation("log-fork", ("log", origin), {"notes": [a, b]}, **more)


def test_two_roots_of_one_size_are_a_fork() -> None:
    assert log_fork(head(3, b"a"), head(3, b"b"), [NoteKey("x", ORGB.public), LOG]) == LOG
    told = judged(fork_accusation(head(3, b"a"), head(3, b"b")))
    assert (told.verdict, told.suspends) == (Verdict.UPHELD, True)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (head(3, b"a"), head(3, b"a")),
        (head(3, b"a"), head(4, b"b")),
        (head(3, b"a"), head(3, b"b", key=ORGB)),
        (head(3, b"a"), head(3, b"b", origin="orgb/matrix-pypi")),
        (head(3, b"a"), "no note"),
        (head(3, b"a"), "no checkpoint\n\n\u2014 a AAAAAAA=\n"),
    ],
)
def test_nothing_else_is_a_fork(a: str, b: str) -> None:
    assert log_fork(a, b, [LOG]) is None
    assert judged(fork_accusation(a, b)).verdict is Verdict.DISMISSED


def test_a_fork_blames_the_key_that_signed_it() -> None:
    forked = head(3, b"a"), head(3, b"b")
    assert judged(fork_accusation(*forked, accused=ORGB.keyid)).verdict is Verdict.DISMISSED
    wrong_log = fork_accusation(*forked) | {"subject": [{"name": "log", "digest": {"sha256": "ab" * 32}}]}
    assert judged(wrong_log).verdict is Verdict.DISMISSED


# ---- F4 ---------------------------------------------------------------------------------------------------------------

STOLEN = Instant(NOW + 100)


def revoking(*roots: SigningKey, org: str = "orga", since: Instant | None = STOLEN, **changes: object) -> Json:
    told = {"at": str(Instant(NOW + 200)), "reason": "x", "compromised_since": None if since is None else str(since)}
    keys = [listed_key(ORGB, revoked=told), listed_key(ORGA, revoked=told)]
    return envelope_of(manifest(org, roots=roots, version=2, keys=keys, **changes), *roots)


def seen_at(moment: Instant | None) -> Any:
    return lambda statement: moment if statement == id_of(FALSE_WORD) else None


@pytest.mark.parametrize(
    ("moment", "verdict"),
    [
        (None, Verdict.UPHELD),
        (STOLEN, Verdict.UPHELD),
        (Instant(STOLEN - 1), Verdict.DISMISSED),
    ],
)
def test_what_a_stolen_key_signed_counts_only_if_it_was_known_before(moment: Instant | None, verdict: Verdict) -> None:
    value = accusation(Fault.REVOKED_KEY, FALSE_WORD, manifest=revoking(ROOTA))
    told = judged(value, first_seen=seen_at(moment))
    assert (told.verdict, told.suspends) == (verdict, False)


@pytest.mark.parametrize(
    "told",
    [
        revoking(ROOTA, since=None),
        revoking(ROOTB, org="orgb"),
        envelope_of(manifest(), ROOTA),
        envelope_of(manifest(roots=(ROOTA2,)), ROOTA2),
        {},
    ],
)
def test_only_the_own_roots_revoke_a_key(told: Json) -> None:
    assert signed_when_compromised(envelope_of(FALSE_WORD), told, RING, never_seen) is Verdict.DISMISSED


def test_a_revocation_needs_the_threshold() -> None:
    org = PinnedOrg(name="orga", roots=(ROOTA.public, ROOTA2.public), threshold=2, roles=ROLES)
    both_roots = manifest(roots=(ROOTA, ROOTA2), threshold=2)
    held = take_manifest(org, None, envelope_of(both_roots, ROOTA, ROOTA2), now=NOW).statement.predicate
    assert isinstance(held, Manifest)
    ring = build_keyring([Member(org, held)])
    told = envelope_of(
        manifest(keys=[listed_key(ORGA, revoked={"at": str(NOW), "reason": "", "compromised_since": str(NOW)})]), ROOTA
    )
    assert signed_when_compromised(envelope_of(FALSE_WORD), told, ring, never_seen) is Verdict.DISMISSED


def test_a_key_that_nobody_pinned_is_nobodys_to_revoke() -> None:
    ring = build_keyring([member("orga", ROOTA, ORGA, online=False)])
    assert signed_when_compromised(envelope_of(FALSE_WORD), revoking(ROOTA), ring, never_seen) is Verdict.DISMISSED
    stray = Keyring((), KEYS, frozenset(), {})
    assert signed_when_compromised(envelope_of(FALSE_WORD), revoking(ROOTA), stray, never_seen) is Verdict.DISMISSED


# ---- F5 ---------------------------------------------------------------------------------------------------------------

BUNDLE: Json = {"publisher": {}, "attestations": []}


@pytest.mark.parametrize(
    ("accused", "provenance", "verdict"),
    [
        (FALSE_WORD, Proves(Sha256(GENUINE)), Verdict.UPHELD),
        (TRUE_WORD, Proves(Sha256(GENUINE)), Verdict.DISMISSED),
        (FALSE_WORD, Doubt.INVALID, Verdict.DISMISSED),
        (FALSE_WORD, Doubt.PUBLISHER_CHANGED, Verdict.DISMISSED),
        (FALSE_WORD, None, Verdict.PENDING),
    ],
)
def test_what_the_pinned_publisher_proves_convicts_who_attested_other_bytes(
    accused: Json, provenance: Provenance, verdict: Verdict
) -> None:
    bundles: list[object] = []

    def proven(bundle: object) -> Provenance:
        bundles.append(bundle)
        return provenance

    value = accusation(Fault.PROVENANCE, accused, bundle=BUNDLE)
    told = judge(check_envelope(envelope_of(value, ORGB), KEYS).statement, RING, never_seen, proven)
    assert (told.verdict, told.suspends) == (verdict, verdict is Verdict.UPHELD)
    assert bundles == [BUNDLE]


def test_a_bundle_is_not_looked_at_for_a_statement_that_nobody_signed() -> None:
    value = accusation(Fault.PROVENANCE, FALSE_WORD, signer=ORGB, bundle=BUNDLE)
    statement = check_envelope(envelope_of(value, ORGB), KEYS).statement
    told = judge(statement, RING, never_seen, lambda _: Proves(Sha256(GENUINE)))
    assert told.verdict is Verdict.DISMISSED


# ---- F5 to F8 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "evidence"),
    [
        (Fault.PROVENANCE, {"bundleCid": RAW_CID}),
        (Fault.PROVENANCE, {"bundle": BUNDLE}),
        (Fault.PYPI_DIGEST, {"sha256": GENUINE, "at": str(NOW)}),
        (Fault.CID_CONTENT, {}),
        (Fault.PYPI_ABSENT, {"at": str(NOW)}),
    ],
)
def test_what_needs_the_outside_stays_pending_until_somebody_looked(fault: Fault, evidence: Json) -> None:
    told = judged(accusation(fault, FALSE_WORD, **evidence))
    assert (told.verdict, told.suspends) == (Verdict.PENDING, False)
