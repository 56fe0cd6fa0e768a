"""Judging accusations: the same evidence gives the same verdict everywhere, and who accuses does not matter.

Strict to trust, liberal to convict: an attestation must pass every check to count for something, but a good signature alone is
enough to count against its signer. F1 to F4 prove themselves and are judged here, F5 too if somebody verifies its bundle. F6 to F8
need upstream or the blocks: here they stay PENDING, once the accused statement is known to be its key's.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from matrix_pypi_bot.core.envelope import Envelope, StatementId, read_envelope, verify
from matrix_pypi_bot.core.events import check_envelope
from matrix_pypi_bot.core.evidence import Provenance, Proves
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.keyring import Keyring
from matrix_pypi_bot.core.notes import InvalidNote, NoteKey, is_signed_by, parse_checkpoint, parse_note
from matrix_pypi_bot.core.rejected import Rejected
from matrix_pypi_bot.core.signers import Keyid, Keys, keyid_of
from matrix_pypi_bot.core.statements import Statement, read_statement
from matrix_pypi_bot.core.statements.attestation import Attestation
from matrix_pypi_bot.core.statements.common import IN_TOTO
from matrix_pypi_bot.core.statements.keys import Manifest
from matrix_pypi_bot.core.statements.refutation import Fault, Refutation
from matrix_pypi_bot.core.strict_json import parse_strict
from matrix_pypi_bot.wire.cids import RAW, InvalidCid, split_cid
from matrix_pypi_bot.wire.digests import InvalidDigest, parse_sha256, sha256_of


class Verdict(enum.Enum):
    """What a participant holds of an accusation."""

    UPHELD = "UPHELD"
    DISMISSED = "DISMISSED"
    CONTESTED = "CONTESTED"  # cannot be checked now, by a pinned organisation, of a file never verified here
    CONFLICT = "CONFLICT"  # witnesses disagree and none can be believed yet: nothing is served, nobody is suspended
    PENDING = "PENDING"  # well formed; needs upstream, provenance or the blocks


UNDECIDED: Final = frozenset({Verdict.CONTESTED.value, Verdict.CONFLICT.value})
"""Results that other evidence may change. Where upstream or the own memory tells of the file, the statement is weighed all the same."""

UNSERVABLE: Final = UNDECIDED | {Verdict.UPHELD.value}
"""Results by which no file is served on the word of the accused statement."""

SUSPENDING: Final = frozenset(
    {Fault.EQUIVOCATION, Fault.CID_RAW, Fault.LOG_FORK, Fault.PROVENANCE, Fault.CID_CONTENT, Fault.PYPI_DIGEST}
)
"""Faults whose upholding suspends the key. A revoked key needs no suspension; a file absent upstream blames nobody."""


BY_KNOWLEDGE: Final = frozenset({Fault.PYPI_DIGEST, Fault.PYPI_ABSENT})
"""Faults judged by what a participant knows itself: two accusations of one statement end alike. Others rest on what each carries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A verdict, and whom it blames: never the reporter's word, always the key whose signature is on the false statement."""

    verdict: Verdict
    fault: Fault
    accused: Keyid
    reason: str

    @property
    def suspends(self) -> bool:
        """Whether the accused key counts for nothing from now on."""
        return self.verdict is Verdict.UPHELD and self.fault in SUSPENDING


FirstSeen: TypeAlias = Callable[[StatementId], Instant | None]
"""When a statement was first received here, or cosigned by a peer before; None when it is new."""

Proven: TypeAlias = Callable[[Mapping[str, object]], Provenance]
"""What a bundle of provenance proves of the accused file, verified under the own trusted root; None when nobody can tell now."""


def judge(refutation: Statement, keyring: Keyring, first_seen: FirstSeen, proven: Proven = lambda _: None) -> Judgement:
    """The verdict on a checked refutation. Total: whatever its evidence holds, one of the five verdicts."""
    predicate = refutation.predicate
    assert isinstance(predicate, Refutation)
    verdict, reason = _judged(refutation, predicate, keyring, first_seen, proven)
    return Judgement(verdict=verdict, fault=predicate.fault, accused=predicate.accused, reason=reason)


def carried(refutation: Envelope) -> tuple[object, ...]:
    """The envelopes of accused statements that a refutation carries, at most 2. Nothing of it is believed, its signature neither."""
    try:
        predicate = read_statement(refutation.payload, Refutation).predicate
    except Rejected:
        return ()
    envelopes = predicate.evidence.envelopes if isinstance(predicate, Refutation) else None
    return envelopes if isinstance(envelopes, tuple) else ()


def equivocation(a: object, b: object, keys: Keys) -> Verdict:
    """F1: UPHELD when one known key signed two digests, or two sizes, for one file name; else DISMISSED.

    The same digest again with another CID or number is a refresh, no equivocation.
    """
    first, second = _signed(a, keys), _signed(b, keys)
    if first is None or second is None or first.keyid != second.keyid:
        return Verdict.DISMISSED
    for name, digest in first.digests:
        for other_name, other_digest in second.digests:
            if name == other_name and (digest != other_digest or _differ(first.size, second.size)):
                return Verdict.UPHELD
    return Verdict.DISMISSED


def raw_cid_lie(envelope: object, keys: Keys) -> Verdict:
    """F2: UPHELD when a known key signed a raw CID that names other bytes than the subject's sha256."""
    signed = _signed(envelope, keys)
    if signed is None or not isinstance(signed.cid, str) or len(signed.digests) != 1:
        return Verdict.DISMISSED
    try:
        parts = split_cid(signed.cid)
    except InvalidCid:
        return Verdict.DISMISSED
    [(_, digest)] = signed.digests
    return Verdict.UPHELD if parts.codec == RAW and parts.sha256 != digest else Verdict.DISMISSED


def log_fork(a: str, b: str, keys: Iterable[NoteKey]) -> NoteKey | None:
    """F3: the log key that signed two checkpoints of one size and different roots; None when none did."""
    try:
        notes = parse_note(a), parse_note(b)
        heads = parse_checkpoint(notes[0].text), parse_checkpoint(notes[1].text)
    except InvalidNote:
        return None
    if (heads[0].origin, heads[0].size) != (heads[1].origin, heads[1].size) or heads[0].root == heads[1].root:
        return None
    suspects = (key for key in keys if key.name == heads[0].origin)
    return next((key for key in suspects if all(is_signed_by(note, key) for note in notes)), None)


def signed_when_compromised(envelope: object, manifest: object, keyring: Keyring, first_seen: FirstSeen) -> Verdict:
    """F4: UPHELD when the signer's organisation revokes the key as compromised and the statement was not known here before.

    `first_seen` must answer from the own ledger and cosigned logs: what the signer wrote as its time proves nothing.
    """
    try:
        accused = read_envelope(envelope)
        key = verify(accused, keyring.keys)
        revoking = check_envelope(manifest, keyring.keys, Manifest)
    except Rejected:
        return Verdict.DISMISSED
    listed = revoking.statement.predicate
    assert isinstance(listed, Manifest)
    member = keyring.member(listed.org)
    if member is None or key.of(listed.org).org != listed.org:
        return Verdict.DISMISSED
    roots = {keyid_of(root) for root in member.org.roots} | {
        keyid_of(bytes.fromhex(root.key)) for root in (member.manifest.roots if member.manifest else ())
    }
    threshold = member.manifest.threshold if member.manifest else member.org.threshold
    verified = {signature.keyid for signature in revoking.envelope.signatures if signature.keyid in keyring.keys}
    if len(verified & roots) < threshold:
        return Verdict.DISMISSED
    since = next(
        (k.revoked.compromised_since for k in listed.keys if k.revoked and bytes.fromhex(k.key) == key.public), None
    )
    seen = first_seen(accused.id)
    late = since is not None and (seen is None or seen >= since)
    return Verdict.UPHELD if late else Verdict.DISMISSED


def disproved(digests: Iterable[str], provenance: Provenance) -> Verdict:
    """F5: UPHELD when the pinned publisher proves another digest than the accused statement names for the file."""
    if provenance is None:
        return Verdict.PENDING
    named = set(digests)
    upheld = isinstance(provenance, Proves) and bool(named - {provenance.sha256})
    return Verdict.UPHELD if upheld else Verdict.DISMISSED


@dataclass(frozen=True, slots=True)
class _Signed:
    """What a known key signed, read as liberally as can be read in one way only."""

    id: str
    keyid: Keyid
    digests: tuple[tuple[str, str], ...]
    size: object
    cid: object


def _signed(value: object, keys: Keys) -> _Signed | None:
    """The attestation in an envelope, whatever else is wrong with it; None when no known key signed it or it is none."""
    try:
        envelope = read_envelope(value)
        keyid = verify(envelope, keys).keyid
        document = parse_strict(envelope.payload)
    except Rejected:
        return None
    if not isinstance(document, dict) or document.get("_type") != IN_TOTO:
        return None
    subjects, predicate = document.get("subject"), document.get("predicate")
    if document.get("predicateType") != Attestation.type() or not isinstance(subjects, list):
        return None
    fields = predicate if isinstance(predicate, dict) else {}
    digests = tuple(found for subject in subjects if (found := _name_and_digest(subject)) is not None)
    return _Signed(envelope.id, keyid, digests, fields.get("size"), fields.get("cid"))


def _name_and_digest(subject: object) -> tuple[str, str] | None:
    if not isinstance(subject, dict) or not isinstance(subject.get("digest"), dict):
        return None
    name, digest = subject.get("name"), subject["digest"].get("sha256")
    if not isinstance(name, str) or not isinstance(digest, str):
        return None
    try:
        return name, parse_sha256(digest.lower())  # upper case is no other digest
    except InvalidDigest:
        return None


def _differ(size: object, other: object) -> bool:
    return type(size) is int and type(other) is int and size != other


def _judged(
    statement: Statement, told: Refutation, keyring: Keyring, first_seen: FirstSeen, proven: Proven
) -> tuple[Verdict, str]:
    notes, envelopes = told.evidence.notes, told.evidence.envelopes
    if isinstance(notes, tuple):
        key = log_fork(notes[0], notes[1], keyring.log_keys())
        fits = key is not None and keyid_of(key.public) == told.accused
        named = key is not None and statement.subject.sha256 == sha256_of(key.name.encode())
        return (
            (Verdict.UPHELD, "two heads of one size") if fits and named else (Verdict.DISMISSED, "no fork of this log")
        )
    assert isinstance(envelopes, tuple)
    accused = [signed for envelope in envelopes if (signed := _signed(envelope, keyring.keys)) is not None]
    subject = next((signed for signed in accused if signed.id == statement.subject.sha256), None)
    if subject is None or subject.keyid != told.accused:
        return Verdict.DISMISSED, "the accused statement is not here, or not signed by the accused key"
    if told.file not in {name for name, _ in subject.digests}:
        return Verdict.DISMISSED, "the accused statement is about another file"
    match told.fault:
        case Fault.EQUIVOCATION:
            verdict = equivocation(envelopes[0], envelopes[-1], keyring.keys)
            return verdict, "two attestations of one file by one key"
        case Fault.CID_RAW:
            verdicts = {raw_cid_lie(envelope, keyring.keys) for envelope in envelopes}
            return (Verdict.UPHELD if verdicts == {Verdict.UPHELD} else Verdict.DISMISSED), "the raw CID of other bytes"
        case Fault.REVOKED_KEY:
            verdicts = {
                signed_when_compromised(envelope, told.evidence.manifest, keyring, first_seen) for envelope in envelopes
            }
            return (Verdict.UPHELD if verdicts == {Verdict.UPHELD} else Verdict.DISMISSED), "signed by a stolen key"
        case Fault.PROVENANCE if isinstance(bundle := told.evidence.bundle, dict):
            digests = [digest for name, digest in subject.digests if name == told.file]
            return disproved(digests, proven(bundle)), "what the pinned publisher signed"
        case _:
            return Verdict.PENDING, "needs upstream, a bundle or the blocks"
