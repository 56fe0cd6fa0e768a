"""Statements as people read them: who says what, in one line, and the facts below it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final, Literal

from msgspec import UnsetType

from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.statements.attestation import Attestation
from matrix_pypi_bot.core.statements.common import Chained, Predicate
from matrix_pypi_bot.core.statements.override import Override
from matrix_pypi_bot.core.statements.refutation import Refutation
from matrix_pypi_bot.core.statements.review import Review
from matrix_pypi_bot.core.statements.withdrawal import Withdrawal
from matrix_pypi_bot.services.trust_pages import Told
from matrix_pypi_bot.wire.digests import Sha256

Tone = Literal["good", "bad", "plain"]
_WAYS: Final = {"own": "signed here", "room": "read in the Matrix room", "log": "read in its log"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """`who` says `what`; `tone` whether that speaks for the digest decided, against it, or neither."""

    who: str
    what: str
    tone: Tone
    facts: tuple[tuple[str, str], ...]
    envelope: str


def card_of(told: Told, sha256: Sha256 | None) -> Card:
    """The card of a statement on a page that is about `sha256`."""
    predicate = told.statement.predicate
    what, tone, facts = _said(told, predicate, sha256)
    return Card(
        who=told.row.org,
        what=what,
        tone=tone,
        facts=(*facts, *_origin(told, predicate)),
        envelope=json.dumps(json.loads(told.row.envelope)),
    )


def _said(told: Told, predicate: Predicate, sha256: Sha256 | None) -> tuple[str, Tone, tuple[tuple[str, str], ...]]:
    match predicate:
        case Attestation():
            return _attested(told, predicate, sha256)
        case Review():
            return _reviewed(told, predicate, sha256)
        case Withdrawal(reason=reason, scope=scope):
            what = "takes its attestation back" if scope == "file" else "takes its attestations of this version back"
            return what, "bad", (("reason", reason), ("statement", told.statement.subject.sha256))
        case Override(action=action, reason=reason, file=file):
            what = f"an operator's {action} of {'the project' if file is None else 'the file'}"
            return what, "good" if action == "approve" else "plain", (("reason", reason),)
        case Refutation(fault=fault, accused=accused, observed=observed):
            facts = [
                ("accused key", accused),
                ("statement", told.statement.subject.sha256),
                ("observed", str(observed)),
            ]
            if not isinstance(predicate.evidence.sha256, UnsetType):
                facts.append(("digest instead", predicate.evidence.sha256))
            return f"accuses a statement: {fault.value}", "bad", tuple(facts)
        case _:
            return f"says {predicate.NAME}", "plain", ()


def _attested(
    told: Told, attestation: Attestation, sha256: Sha256 | None
) -> tuple[str, Tone, tuple[tuple[str, str], ...]]:
    digest = told.statement.subject.sha256
    built = attestation.source.kind == "build"
    agrees = sha256 is None or digest == sha256
    what = "built these bytes" if built else "attests these bytes"
    facts = [("sha256", digest), ("size", f"{attestation.size:,} bytes")]
    if attestation.cid is not None:
        facts.append(("CID", attestation.cid))
    if not built:
        how = "hashed the bytes" if attestation.source.method == "bytes" else "read it in the index"
        facts.append(("how", f"{how}, index {attestation.index}"))
    return (what if agrees else f"{what}, others than those decided about"), "good" if agrees else "bad", tuple(facts)


def _reviewed(told: Told, review: Review, sha256: Sha256 | None) -> tuple[str, Tone, tuple[tuple[str, str], ...]]:
    """Of the file that the page is about only what is said of the digest decided, else what is said of any."""
    said = [
        (subject.sha256, verdict)
        for subject, verdict in zip(told.statement.subjects, review.verdicts, strict=True)
        if sha256 in (None, subject.sha256)
    ]
    if not said:
        return "reviewed this file, not these bytes", "plain", ()
    digest, verdict = said[0]
    tones: dict[str, Tone] = {"ok": "good", "bad": "bad"}
    return f"reviewed: {verdict}", tones.get(verdict, "plain"), (("sha256", digest),)


def _origin(told: Told, predicate: Predicate) -> tuple[tuple[str, str], ...]:
    facts = [("key", told.row.keyid)]
    if isinstance(predicate, Chained):
        facts.append(("issued", str(predicate.issued)))
    facts.append(("came", f"{_WAYS.get(told.row.via, told.row.via)}, {Instant.of_ms(told.row.first_seen_ms)}"))
    if told.proof is not None:
        count = len(told.proof.hashes)
        facts.append(
            ("log", f"leaf {told.proof.leaf}, {count} {'hash' if count == 1 else 'hashes'} to the checkpoint below")
        )
    facts.append(("id", told.row.id))
    return tuple(facts)
