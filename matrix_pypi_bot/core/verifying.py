"""Whether the bytes that a lock file accepts for a file are those that organisations attest: the report of `matrix-pypi verify`.

A mirror can hide statements, which leaves a file unattested; it cannot add one. Where it says what signatures or the lock contradict,
the file is not verified, whoever else agrees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from matrix_pypi_bot.core.claims import BYTES
from matrix_pypi_bot.core.evidence import Doubt, Proves
from matrix_pypi_bot.core.gathering import Gathered, Pins
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.keyring import MAINTAINER_ORG
from matrix_pypi_bot.core.provenance import Finding, witness
from matrix_pypi_bot.core.standing import Standing
from matrix_pypi_bot.core.statements.refutation import Fault
from matrix_pypi_bot.core.witnesses import NOBODY, Witnesses, weigh
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName, ProjectName
from matrix_pypi_bot.wire.problems import clean_line

Status = Literal["ok", "unattested", "contradicted", "refuted"]
_ABOUT_BYTES: Final = frozenset({Fault.PROVENANCE.value, Fault.PYPI_DIGEST.value})
_DIGITS: Final = 12


class FileReport(msgspec.Struct, frozen=True, kw_only=True):
    """One file, or one digest of a lock whose file nobody knows (`file` None). `reasons` say why it is not ok, `notes` what else is so.

    `orgs` attest the bytes and hashed them; the statements of `logged` are proved to be in their logs; `built_by_maintainer`: a pinned
    or delegated maintainer says the same; `published_by`: provenance (PEP 740) proves that they published the same.
    """

    project: ProjectName
    version: str | None
    file: FileName | None
    sha256: tuple[Sha256, ...]
    status: Status
    orgs: tuple[str, ...] = ()
    logged: tuple[str, ...] = ()
    built_by_maintainer: bool = False
    published_by: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What the reader asks: so many organisations (`needed`), about files of this `index`; `in_log` only what a log proves counts."""

    needed: int = 1
    index: str = "pypi"
    in_log: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A file and the digests that the lock accepts for it."""

    project: ProjectName
    version: str | None
    file: FileName
    accepted: frozenset[Sha256]


def examine(
    asked: Asked,
    gathered: Gathered,
    pins: Pins,
    bar: Bar,
    *,
    now: Instant,
    lies: Sequence[str] = (),
    provenance: Sequence[Finding] = (),
) -> FileReport:
    """The report on a file. `lies` are what mirrors said of it or sent for it that the lock contradicts, found outside of here;
    `provenance` is what came out of verifying the documents that they showed.
    """
    standing = Standing(
        keyring=gathered.keyring,
        own="",
        pinned=pins.orgs,
        index=bar.index,
        now=now,
        quorum=bar.needed,
        suspended=gathered.suspended,
    )
    said = weigh(gathered.claims, standing, gathered.out, [asked.file]).get(asked.file, NOBODY)
    counted = [claim for claim in said.claims if claim.word == BYTES and claim.subject in asked.accepted]
    logged = {claim.org for claim in counted if claim.statement_id in gathered.logged}
    orgs = logged if bar.in_log else {claim.org for claim in counted}
    told = [*lies, *(f"{address}: {what}" for address, what in gathered.lies), *_unpublished(asked, pins, provenance)]
    status, reasons = _status(asked, gathered, said, orgs, bar, told)
    return FileReport(
        project=asked.project,
        version=asked.version,
        file=asked.file,
        sha256=tuple(sorted(asked.accepted)),
        status=status,
        orgs=tuple(sorted(orgs)),
        logged=tuple(sorted(logged)),
        built_by_maintainer=isinstance(said.maintainer, Proves) and said.maintainer.sha256 in asked.accepted,
        published_by=tuple(sorted(_published(asked, provenance))),
        reasons=reasons,
        notes=_notes(asked, gathered, said) if status == "ok" else (),
    )


def _status(
    asked: Asked, gathered: Gathered, said: Witnesses, orgs: set[str], bar: Bar, lies: list[str]
) -> tuple[Status, tuple[str, ...]]:
    """The first that holds, worst first."""
    accused = _accused(asked, gathered)
    if said.withdrawn:
        return "refuted", ("withdrawn by its maintainer",)
    if accused:
        return "refuted", tuple(accused)
    if lies:
        return "contradicted", tuple(lies)
    if said.maintainer is Doubt.INVALID:
        return "contradicted", ("maintainers name different digests",)
    if isinstance(said.maintainer, Proves) and said.maintainer.sha256 not in asked.accepted:
        return "contradicted", (f"its maintainer built {said.maintainer.sha256[:_DIGITS]}",)
    others = {digest: voices for digest, voices in said.digests.items() if digest not in asked.accepted}
    outvoted = any(len(voices.hashed) >= bar.needed for voices in others.values())
    if outvoted or (others and len(orgs) < bar.needed):
        return "contradicted", _dissent(asked, said)
    if len(orgs) >= bar.needed:
        return "ok", ()
    if reason := _taken_out(asked, gathered):
        return "refuted", (reason,)
    if bar.needed > 1 and orgs:
        return "unattested", (f"{len(orgs)} of {bar.needed} organisations attest it",)
    return "unattested", ("nobody pinned attests these bytes",)


def _unpublished(asked: Asked, pins: Pins, provenance: Sequence[Finding]) -> Iterator[str]:
    """What publishers' signatures say against the bytes."""
    for finding in provenance:
        match witness(finding, pins.publishers.get(asked.project, ()), None, None):
            case Doubt.INVALID:
                yield f"its provenance is invalid: {clean_line(finding.fault, 100)}"
            case Doubt.PUBLISHER_CHANGED:
                yield f"published by {', '.join(map(str, finding.publishers))}, who is not the one that is pinned"
            case Proves(sha256) if sha256 not in asked.accepted:
                yield f"its publisher signed {sha256[:_DIGITS]}"


def _published(asked: Asked, provenance: Sequence[Finding]) -> set[str]:
    return {
        clean_line(str(publisher))
        for finding in provenance
        if finding.sha256 in asked.accepted
        for publisher in finding.publishers
    }


def _accused(asked: Asked, gathered: Gathered) -> list[str]:
    """Accusations of the accepted bytes themselves, which upstream or provenance would have to settle."""
    subjects = {claim.statement_id: claim.subject for claim in gathered.claims if claim.file == asked.file}
    return [
        f"{one.org} says that it is false ({one.fault})"
        for one in gathered.accusations
        if one.fault in _ABOUT_BYTES and subjects.get(one.statement_id) in asked.accepted
    ]


def _taken_out(asked: Asked, gathered: Gathered) -> str:
    """Why what is attested of the accepted bytes counts for nothing; empty when nothing is."""
    for claim in gathered.claims:
        if claim.kind == "attestation" and claim.file == asked.file and claim.subject in asked.accepted:
            if claim.statement_id in gathered.out:
                return f"the attestation of {claim.org} was refuted"
            if claim.keyid in gathered.suspended:
                return f"a key of {claim.org} signed contradictory statements"
    return ""


def _dissent(asked: Asked, said: Witnesses) -> tuple[str, ...]:
    return tuple(
        f"{', '.join(sorted(voices.attested))} attests {digest[:_DIGITS]}"
        for digest, voices in sorted(said.digests.items())
        if digest not in asked.accepted
    )


def _notes(asked: Asked, gathered: Gathered, said: Witnesses) -> tuple[str, ...]:
    """What does not decide, and should be seen."""
    suspects = sorted({gathered.keyring.keys[keyid].org for keyid in gathered.suspended} - {MAINTAINER_ORG})
    notes = [f"{line}, outvoted" for line in _dissent(asked, said)]
    notes += [f"a key of {org} signed contradictory statements" for org in suspects]
    reviewed = sorted(org for digest in asked.accepted if digest in said.digests for org in said.digests[digest].acked)
    return (*notes, *([f"reviewed by {', '.join(reviewed)}"] if reviewed else []))
