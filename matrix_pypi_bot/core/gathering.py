"""What mirrors' trust pages on one file prove to somebody who pinned root keys and believes nothing else.

Every signature is checked here, with keys that follow from the pins; so is every proof of a log. Total: whatever a page holds, it is
counted, left aside, or told as a lie of the mirror that showed it.
"""

from __future__ import annotations

import base64
import binascii
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from matrix_pypi_bot.core.claims import Claim, claims_of
from matrix_pypi_bot.core.envelope import StatementId
from matrix_pypi_bot.core.events import Checked, check_envelope
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.judge import Verdict, equivocation, judge, log_fork, raw_cid_lie
from matrix_pypi_bot.core.keyring import Keyring, ManifestRefused, Member, PinnedOrg, build_keyring, take_manifest
from matrix_pypi_bot.core.notes import Checkpoint, InvalidNote, is_signed_by, parse_checkpoint, parse_note
from matrix_pypi_bot.core.publisher import Publisher
from matrix_pypi_bot.core.rejected import Code, Rejected
from matrix_pypi_bot.core.signers import Keyid, keyid_of
from matrix_pypi_bot.core.statements.attestation import Attestation
from matrix_pypi_bot.core.statements.common import Chained
from matrix_pypi_bot.core.statements.keys import Manifest
from matrix_pypi_bot.core.statements.refutation import Refutation
from matrix_pypi_bot.core.strict_json import parse_strict
from matrix_pypi_bot.core.tlog import leaf_hash, verify_inclusion
from matrix_pypi_bot.wire.names import ProjectName
from matrix_pypi_bot.wire.trust import Dsse, Proof, TrustFile

MAX_STATEMENTS: Final = 2_000  # of one page
MAX_MANIFESTS: Final = 100  # of one organisation on one page
_EVER: Final = Instant(
    0
)  # a manifest on the way to the newest one may have expired; the newest is asked when it is counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Pins:
    """Whom the reader believes: organisations by their roots, maintainers' keys (hex) by project, those too that `quorum` delegate.

    `publishers` are the identities that a project's provenance must be of, where the reader wrote some down.
    """

    orgs: tuple[PinnedOrg, ...]
    maintainers: Mapping[ProjectName, frozenset[str]] = field(default_factory=dict)
    publishers: Mapping[ProjectName, tuple[Publisher, ...]] = field(default_factory=dict)
    quorum: int = 2


@dataclass(frozen=True, slots=True)
class Source:
    """A page, and the address of the mirror that showed it."""

    address: str
    page: TrustFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Accusation:
    """A pinned key accuses a statement of something that cannot be checked here."""

    org: str
    fault: str
    statement_id: StatementId


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """What was proved. `out` are statements that count for nothing, `suspended` keys that signed something false, `logged` the
    statements that their organisation's log holds; `lies` are mirrors' (address, what was wrong).
    """

    keyring: Keyring
    claims: tuple[Claim, ...]
    out: frozenset[str]
    suspended: frozenset[Keyid]
    accusations: tuple[Accusation, ...]
    logged: frozenset[str]
    lies: tuple[tuple[str, str], ...]


def gather(sources: Sequence[Source], pins: Pins, *, now: Instant) -> Gathered:
    """Everything in the pages that proves itself."""
    keyring = _keyring(sources, pins)
    known: dict[str, tuple[Checked, object]] = {}
    suspended: set[Keyid] = set()
    for value in _values(
        raw for one in sources for raw in (*one.page.envelopes, *one.page.refutations)[:MAX_STATEMENTS]
    ):
        try:
            checked = check_envelope(value, keyring.keys)
        except Rejected as rejected:
            if rejected.code is Code.CID_DIGEST and raw_cid_lie(value, keyring.keys) is Verdict.UPHELD:
                suspended.add(_signer(value))
            continue
        known.setdefault(checked.statement.id, (checked, value))
    suspended |= _equivocators(known.values(), keyring)
    out, accusations = _judged([checked for checked, _ in known.values()], keyring, suspended)
    logged, lies = _logs(sources, {one: checked for one, (checked, _) in known.items()}, keyring, suspended)
    return Gathered(
        keyring=keyring,
        claims=tuple(claim for checked, _ in known.values() for claim in _claims(checked, keyring, now)),
        out=out,
        suspended=frozenset(suspended),
        accusations=accusations,
        logged=logged,
        lies=lies,
    )


def _keyring(sources: Sequence[Source], pins: Pins) -> Keyring:
    members = []
    for org in pins.orgs:
        chains = (one.page.manifests.get(org.name, ())[:MAX_MANIFESTS] for one in sources)
        members.append(Member(org, _newest_manifest(org, list(_values(itertools.chain.from_iterable(chains))))))
    return build_keyring(members, maintainers=pins.maintainers, quorum=max(1, min(pins.quorum, len(pins.orgs))))


def _newest_manifest(org: PinnedOrg, envelopes: list[object]) -> Manifest | None:
    """The manifest to which the pinned roots lead, each step signed by the roots before it and by its own."""
    held: Manifest | None = None
    while True:
        steps = []
        for envelope in envelopes:
            try:
                taken = take_manifest(org, held, envelope, now=_EVER).statement.predicate
            except (Rejected, ManifestRefused):
                continue
            if isinstance(taken, Manifest):
                steps.append(taken)
        if not steps:
            return held
        # The next one and not the newest at once: a later step may be signed by roots that only an earlier one names.
        held = min(steps, key=lambda manifest: manifest.version)


def _claims(checked: Checked, keyring: Keyring, now: Instant) -> Iterator[Claim]:
    """A reader has no memory: what a key signed that somebody else had is as new as the moment. After a routine end the organisation
    itself answers for the times that it wrote.
    """
    predicate = checked.statement.predicate
    received = now
    if isinstance(predicate, Chained) and not keyring.is_compromised(checked.key.keyid, checked.key.org):
        received = Instant(min(predicate.issued, now))
    return claims_of(checked.statement, org=checked.key.org, keyid=checked.key.keyid, received_ms=int(received) * 1_000)


def _equivocators(known: Iterable[tuple[Checked, object]], keyring: Keyring) -> set[Keyid]:
    """Keys that signed two digests for one file. What else a key signed, which a mirror can show first, must not hide that."""
    first: dict[tuple[Keyid, str], object] = {}
    found: set[Keyid] = set()
    for checked, value in known:
        if isinstance(checked.statement.predicate, Attestation):
            keyid, file = checked.key.keyid, checked.statement.subject.name
            if equivocation(first.setdefault((keyid, file), value), value, keyring.keys) is Verdict.UPHELD:
                found.add(keyid)
    return found


def _judged(
    known: Iterable[Checked], keyring: Keyring, suspended: set[Keyid]
) -> tuple[frozenset[str], tuple[Accusation, ...]]:
    """What refutations take out, and those that cannot be checked here; keys that they prove guilty are added to `suspended`."""
    out: set[str] = set()
    accusations = []
    for checked in known:
        if not isinstance(checked.statement.predicate, Refutation):
            continue
        judgement = judge(checked.statement, keyring, lambda _: None)
        if judgement.verdict is Verdict.DISMISSED:
            continue
        accused = StatementId(checked.statement.subject.sha256)
        out.add(accused)
        if judgement.suspends:
            suspended.add(judgement.accused)
        if judgement.verdict is Verdict.PENDING:
            accusations.append(Accusation(org=checked.key.org, fault=judgement.fault.value, statement_id=accused))
    return frozenset(out), tuple(accusations)


def _logs(
    sources: Sequence[Source], known: Mapping[str, Checked], keyring: Keyring, suspended: set[Keyid]
) -> tuple[frozenset[str], tuple[tuple[str, str], ...]]:
    """Which statements are proved to be in their organisation's log, and which mirrors showed proofs that prove nothing."""
    logged: set[str] = set()
    lies: list[tuple[str, str]] = []
    notes: list[str] = []
    for one in sources:
        log, keys = one.page.log, [key for key in keyring.log_keys() if key.name == one.page.log.origin]
        if log.note is None or not keys:
            continue
        try:
            note = parse_note(log.note)
            head = parse_checkpoint(note.text)
        except InvalidNote as error:
            lies.append((one.address, f"its log's checkpoint is none: {error}"))
            continue
        if head.origin != log.origin or not any(is_signed_by(note, key) for key in keys):
            lies.append((one.address, "its log's checkpoint is not signed by a key of the log"))
            continue
        notes.append(log.note)
        owners = {
            member.org.name
            for member in keyring.members
            if any(key in keys and is_signed_by(note, key) for key in keyring.log_keys_of(member.org.name))
        }
        for statement_id, proof in log.proofs.items():
            checked = known.get(statement_id)
            if checked is None:
                continue
            if not _proves(proof, checked, head):
                lies.append((one.address, f"its log does not hold the statement {statement_id[:16]}"))
            elif checked.key.org in owners:  # somebody else's log says nothing about what its signer published
                logged.add(statement_id)
    for first, second in itertools.combinations(dict.fromkeys(notes), 2):
        if (key := log_fork(first, second, keyring.log_keys())) is not None:
            suspended.add(keyid_of(key.public))
            lies.append((key.name, "this log shows different trees to different readers"))
    return frozenset(logged), tuple(lies)


def _proves(proof: Proof, checked: Checked, head: Checkpoint) -> bool:
    try:
        hashes = [base64.b64decode(one, validate=True) for one in proof.hashes]
    except (binascii.Error, ValueError):
        return False
    return verify_inclusion(proof.leaf, head.size, leaf_hash(checked.envelope.payload), hashes, head.root)


def _values(envelopes: Iterable[Dsse]) -> Iterator[object]:
    for raw in envelopes:
        try:
            yield parse_strict(bytes(raw))
        except Rejected:
            continue


def _signer(value: object) -> Keyid:
    """Of an envelope whose signature was verified."""
    assert isinstance(value, dict)
    return Keyid(value["signatures"][0]["keyid"])
