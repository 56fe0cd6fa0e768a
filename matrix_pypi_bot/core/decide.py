"""The decision: may this file be served, and which bytes is it? Rules R1 to R19, the first that matches wins.

Total over its inputs, pure, and the only place where any of this is decided. Known invariants, each a property test: while
upstream is live only its digest is served; never against the own memory; never with contradicting provenance; only what was
checked live and now is attested; one minority liar turns no serve into a refusal.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

from matrix_pypi_bot.core.evidence import Absence, Doubt, Evidence, Level, Live, Mode, Provenance, Proves, Terms
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import Action, FileDecision
from matrix_pypi_bot.wire.problems import clean_line


class Rule(enum.StrEnum):
    """The rules by their names in answers, headers and documents, each with the line that people read."""

    R1 = "R1"
    R2 = "R2"
    R3 = "R3"
    R4 = "R4"
    R5 = "R5"
    R6 = "R6"
    R7 = "R7"
    R8 = "R8"
    R9 = "R9"
    R10 = "R10"
    R11 = "R11"
    R12 = "R12"
    R13 = "R13"
    R14 = "R14"
    R15 = "R15"
    R16 = "R16"
    R17 = "R17"
    R18 = "R18"
    R19 = "R19"


REASONS: Final[dict[Rule, str]] = {
    Rule.R1: "denied by policy",
    Rule.R2: "the project is quarantined upstream",
    Rule.R3: "the digest changed upstream",
    Rule.R4: "provenance is invalid or proves another digest",
    Rule.R5: "a quorum contradicts upstream",
    Rule.R6: "the publisher changed",
    Rule.R7: "younger than the cooldown",
    Rule.R9: "removed upstream, kept here",
    Rule.R10: "removed upstream",
    Rule.R11: "provenance is invalid or proves another digest than the one accepted here",
    Rule.R12: "a quorum contradicts what was accepted here, until upstream is back",
    Rule.R14: "upstream is away and nobody is known to have this file",
    Rule.R15: "upstream is away and organisations name different digests",
    Rule.R16: "provenance is invalid or contradicts the organisations",
    Rule.R17: "upstream is away and this file was never verified here",
    Rule.R18: "upstream is away and too few organisations have confirmed this file",
}
"""One line each, for what is refused or worth a warning; R8, R13 and R19 are ordinary serves."""

_HTTP: Final[dict[Action, int]] = {
    "serve+attest": 200,
    "serve": 200,
    "refuse": 403,
    "quarantine": 403,
    "unavailable": 503,
    "contested": 503,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """The answer. `sha256` is the digest to serve, None unless served; `refute` the attested digests that are thereby false.

    `named` is the digest that makes those false, also where none is served (R7). `http` is the page-side status: 200, 403, 404 or
    503. A file's 503 is told as 504 by whoever answers for files.
    """

    action: Action
    rule: Rule
    http: int
    sha256: Sha256 | None = None
    refute: frozenset[Sha256] = frozenset()
    named: Sha256 | None = field(default=None, compare=False)

    @property
    def attest(self) -> bool:
        """Whether the bytes, once hashed, are attested."""
        return self.action == "serve+attest"

    @property
    def serves(self) -> bool:
        """Whether bytes may leave."""
        return self.sha256 is not None

    def told(self, detail: str = "") -> FileDecision:
        """The ruling as pages and answers carry it. `detail` names who or what, e.g. `orgb, orgc`; it is cleaned here."""
        text = REASONS.get(self.rule, "")
        if text:
            text = clean_line(
                f"matrix-pypi: {self.rule} {text} ({detail})" if detail else f"matrix-pypi: {self.rule} {text}"
            )
        return FileDecision(action=self.action, http=self.http, rule=self.rule.value, reason=text)


def decide(evidence: Evidence, terms: Terms) -> Ruling:
    """What happens to the file, by the first rule that matches."""
    if evidence.denied:
        return _no("refuse", Rule.R1)
    match evidence.upstream:
        case Live(sha256):
            return _live(evidence, sha256)
        case Absence.QUARANTINED:
            return _no("refuse", Rule.R2)
        case Absence.GONE:
            return _gone(evidence, terms)
        case _:  # down
            if evidence.accepted is not None:
                return _down_with_memory(evidence, terms, evidence.accepted)
            return _down_without_memory(evidence, terms)


def _live(evidence: Evidence, named: Sha256) -> Ruling:
    refute = _others(evidence, named)
    if evidence.remembered not in (None, named):
        return _no("quarantine", Rule.R3)
    if _contradicts(evidence.provenance, named):
        return _no("quarantine", Rule.R4)
    if evidence.remembered is None and _outvoted(evidence, named):
        return _no("quarantine", Rule.R5)
    if evidence.provenance is Doubt.PUBLISHER_CHANGED:
        return _no("quarantine", Rule.R6)
    if evidence.cooling:
        return _no("refuse", Rule.R7, refute, named)
    return Ruling(action="serve+attest", rule=Rule.R8, http=200, sha256=named, refute=refute, named=named)


def _gone(evidence: Evidence, terms: Terms) -> Ruling:
    kept = evidence.accepted
    if (
        kept is not None
        and terms.keep_removed
        and not _others(evidence, kept)
        and not _contradicts(evidence.provenance, kept)
    ):
        return Ruling(action="serve", rule=Rule.R9, http=200, sha256=kept)
    return Ruling(action="refuse", rule=Rule.R10, http=404)


def _down_with_memory(evidence: Evidence, terms: Terms, accepted: Sha256) -> Ruling:
    if _contradicts(evidence.provenance, accepted):
        return _no("quarantine", Rule.R11)
    if terms.mode is not Mode.SELF and _outvoted(evidence, accepted):
        return _no("quarantine", Rule.R12)
    return Ruling(
        action="serve",
        rule=Rule.R13,
        http=200,
        sha256=accepted,
        refute=_others(evidence, accepted),
        named=accepted,
    )


def _down_without_memory(evidence: Evidence, terms: Terms) -> Ruling:
    if not evidence.attested:
        return _no("unavailable", Rule.R14)
    if len(evidence.attested) > 1:
        return _no("contested", Rule.R15)
    [(told, level)] = evidence.attested.items()
    if _contradicts(evidence.provenance, told):
        return _no("quarantine", Rule.R16)
    if evidence.provenance is Doubt.PUBLISHER_CHANGED:
        return _no("quarantine", Rule.R6)
    if terms.mode is Mode.SELF:
        return _no("unavailable", Rule.R17)
    if level < (Level.ACKED if terms.mode is Mode.ACKED else Level.QUORUM):
        return _no("unavailable", Rule.R18)
    if evidence.cooling:
        return _no("refuse", Rule.R7)
    return Ruling(action="serve", rule=Rule.R19, http=200, sha256=told)


def _no(action: Action, rule: Rule, refute: frozenset[Sha256] = frozenset(), named: Sha256 | None = None) -> Ruling:
    return Ruling(action=action, rule=rule, http=_HTTP[action], refute=refute, named=named)


def _others(evidence: Evidence, digest: Sha256) -> frozenset[Sha256]:
    return frozenset(evidence.attested) - {digest}


def _contradicts(provenance: Provenance, digest: Sha256) -> bool:
    return provenance is Doubt.INVALID or (isinstance(provenance, Proves) and provenance.sha256 != digest)


def _outvoted(evidence: Evidence, digest: Sha256) -> bool:
    """A quorum stands behind another digest, none behind this one, and provenance does not prove this one.

    Relative on purpose: k colluders cannot block a file that k others confirm.
    """
    return (
        any(evidence.attested[other] >= Level.QUORUM for other in _others(evidence, digest))
        and evidence.attested.get(digest, 0) < Level.QUORUM
        and evidence.provenance != Proves(digest)
    )
