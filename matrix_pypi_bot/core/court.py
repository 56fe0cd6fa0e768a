"""What a participant finds out himself about others' statements, and how he judges accusations that need upstream. Pure.

Nobody's word is an input: own findings rest on signatures and on what `decide` said, and an accusation is upheld only by the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from matrix_pypi_bot.core.claims import BUILD, Claim
from matrix_pypi_bot.core.decide import Rule, Ruling
from matrix_pypi_bot.core.envelope import StatementId
from matrix_pypi_bot.core.evidence import Absence, Evidence, Live
from matrix_pypi_bot.core.judge import Verdict
from matrix_pypi_bot.core.keyring import MAINTAINER_ORG
from matrix_pypi_bot.core.standing import Standing
from matrix_pypi_bot.core.statements.refutation import Fault
from matrix_pypi_bot.core.witnesses import Witnesses
from matrix_pypi_bot.wire.cids import RAW, split_cid
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName

CONFLICTING: Final = frozenset({Rule.R3, Rule.R4, Rule.R5, Rule.R6, Rule.R12})
"""Witnesses disagree and none can be believed: nothing is served, and nobody is suspended yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The accused statement, what is wrong with it, and what shows it: another statement (F1), the digest that is right (F6).

    `carried` is the accused envelope where it was never kept (F2).
    """

    fault: Fault
    accused: Claim
    other: StatementId | None = None
    sha256: Sha256 | None = None
    is_doubt: bool = False
    carried: Mapping[str, object] | None = None

    @property
    def reason(self) -> str:
        """One line for people."""
        if self.is_doubt:
            return f"upstream names {self.sha256} here, and a quorum says otherwise"
        match self.fault:
            case Fault.EQUIVOCATION:
                return "one key attested two digests or sizes of this file"
            case Fault.CID_RAW:
                return "the raw CID names other bytes than the digest"
            case Fault.CID_CONTENT:
                return "the CID is not that of the bytes with this digest"
            case _:
                return f"the digest is {self.sha256}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherBytes:
    """A CID led to bytes that are not the file with `sha256`. `is_whole` False: to none of the size expected, but of `size`."""

    file: FileName
    sha256: Sha256
    cid: str
    is_whole: bool
    size: int


def findings(
    claims: Iterable[Claim],
    standing: Standing,
    witnesses: Mapping[FileName, Witnesses],
    rulings: Mapping[FileName, Ruling],
    upheld: frozenset[tuple[str, str]],
    seen: OtherBytes | None = None,
) -> Iterator[Finding]:
    """Everything that shows now; `upheld` are the (statement id, fault) found before. `rulings` are those of files with witnesses.

    `seen` is what the own frontend found under a CID.
    """
    held = list(claims)
    yield from _two_digests(held, standing, upheld)
    yield from _wrong_cids(held, standing, upheld, seen)
    for file, ruling in rulings.items():
        for claim in witnesses[file].claims:
            if claim.subject in ruling.refute and (claim.statement_id, Fault.PYPI_DIGEST) not in upheld:
                yield Finding(fault=Fault.PYPI_DIGEST, accused=claim, sha256=ruling.named)


def doubts(
    witnesses: Mapping[FileName, Witnesses], rulings: Mapping[FileName, tuple[Evidence, Ruling]]
) -> Iterator[Finding]:
    """What upstream contradicts here although a quorum stands behind it (R5). Nothing is judged by that, upstream may have lied to us
    alone; but who cannot look has to hear of it, or colluders silence whoever looks for the first time.
    """
    for file, (evidence, ruling) in rulings.items():
        if ruling.rule is Rule.R5 and isinstance(evidence.upstream, Live):
            named = evidence.upstream.sha256
            for claim in witnesses[file].claims:
                if claim.subject != named:
                    yield Finding(fault=Fault.PYPI_DIGEST, accused=claim, sha256=named, is_doubt=True)


def verdict_now(fault: Fault, claim: Claim, evidence: Evidence, ruling: Ruling, index: str) -> Verdict:
    """What can be said of an accusation (F6, F8) at this moment; PENDING when upstream would have to be asked.

    The own memory and a page that is live are knowledge; what is served on others' word alone (R19) is not. `index` is the upstream
    here: it refutes nothing that is said of another one, or of what somebody built.
    """
    if fault in (Fault.PYPI_DIGEST, Fault.PYPI_ABSENT) and (claim.index != index or claim.word == BUILD):
        return Verdict.DISMISSED
    knows = isinstance(evidence.upstream, Live) or evidence.accepted is not None
    if fault is Fault.PYPI_ABSENT:
        if knows and evidence.upstream is not Absence.GONE:
            return Verdict.DISMISSED
        return Verdict.CONTESTED if ruling.rule is Rule.R10 else Verdict.PENDING
    if fault is not Fault.PYPI_DIGEST or not knows or evidence.upstream is Absence.GONE:
        return Verdict.PENDING
    if ruling.named is not None:  # what was refuted is not among what was weighed, so `refute` cannot name it
        return Verdict.DISMISSED if claim.subject == ruling.named else Verdict.UPHELD
    return Verdict.CONFLICT if ruling.rule in CONFLICTING else Verdict.PENDING


def _two_digests(claims: list[Claim], standing: Standing, upheld: frozenset[tuple[str, str]]) -> Iterator[Finding]:
    """F1. A key that nobody here knows any more still signed what it signed; the own key's second signer is for others to accuse."""
    first: dict[tuple[str, FileName], Claim] = {}
    for claim in claims:
        if claim.kind != "attestation" or claim.org == standing.own:
            continue
        before = first.setdefault((claim.keyid, claim.file), claim)
        differs = before.subject != claim.subject or before.facts.size != claim.facts.size
        if differs and (claim.statement_id, Fault.EQUIVOCATION) not in upheld:
            yield Finding(fault=Fault.EQUIVOCATION, accused=claim, other=before.statement_id)


def _wrong_cids(
    claims: list[Claim], standing: Standing, upheld: frozenset[tuple[str, str]], seen: OtherBytes | None
) -> Iterator[Finding]:
    """F7, by arithmetic: the profile gives a content one CID, and this organisation hashed that, or what lies under the CID."""
    own = _own_cids(claims, standing)
    for claim in claims:
        if claim.kind != "attestation" or claim.org in (standing.own, MAINTAINER_ORG) or claim.facts.cid is None:
            continue
        is_raw = split_cid(claim.facts.cid).codec == RAW  # then it was checked at the door, and is no other content's
        differs = not is_raw and claim.facts.cid != own.get(claim.subject, claim.facts.cid)
        wrong = differs or _is_seen(claim, seen)
        if wrong and (claim.statement_id, Fault.CID_CONTENT) not in upheld:
            yield Finding(fault=Fault.CID_CONTENT, accused=claim, sha256=claim.subject)


def _own_cids(claims: list[Claim], standing: Standing) -> dict[Sha256, str]:
    """Under which CID this organisation has each content. Not what a key of ours signed that somebody else may have, and not where two
    words of ours differ: one of them came from a frontend that was wrong, and that is nobody else's fault.
    """
    told: dict[Sha256, set[str]] = {}
    for claim in claims:
        if claim.org == standing.own and claim.facts.cid is not None and standing.counts(claim):
            told.setdefault(claim.subject, set()).add(claim.facts.cid)
    return {digest: cids.pop() for digest, cids in told.items() if len(cids) == 1}


def _is_seen(claim: Claim, seen: OtherBytes | None) -> bool:
    """Whether what was found under the CID convicts who attested it: the size alone does not convict who said another one."""
    if seen is None or (claim.file, claim.subject, claim.facts.cid) != (seen.file, seen.sha256, seen.cid):
        return False
    return seen.is_whole or claim.facts.size != seen.size


def reviews(
    own: Iterable[Claim], rulings: Mapping[FileName, tuple[Evidence, Ruling]], witnesses: Mapping[FileName, Witnesses]
) -> dict[FileName, tuple[Sha256, str]]:
    """What is to be reviewed: one attested digest a file at a time, with the word for it.

    `ok` only after upstream itself named that digest; `bad` for one that is thereby false; `unknown` while upstream is away, once.
    """
    said = {(claim.file, claim.subject): claim.word for claim in own if claim.kind in ("attestation", "review")}
    found: dict[FileName, tuple[Sha256, str]] = {}
    for file, (evidence, ruling) in rulings.items():
        for digest in witnesses[file].digests:
            before = said.get((file, digest))
            word = _word(digest, evidence, ruling)
            if word is not None and before != word and (before is None or before == "unknown"):
                found[file] = (digest, word)
                break
    return found


def _word(digest: Sha256, evidence: Evidence, ruling: Ruling) -> str | None:
    if isinstance(evidence.upstream, Live):
        if digest in ruling.refute:
            return "bad"
        return "ok" if evidence.upstream.sha256 == digest and ruling.rule in (Rule.R7, Rule.R8) else None
    return "unknown" if evidence.upstream is Absence.DOWN and evidence.accepted is None else None
