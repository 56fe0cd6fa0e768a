"""What others say of each file of a project, weighed: which digest has how many organisations behind it, and who is missing.

Strict to trust: a claim counts when its key counts now, its organisation was never proved to lie, and the statement was not taken
back, refuted or contested. One organisation is one voice, whatever the number of its keys, accounts and homeservers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from matrix_pypi_bot.core.claims import BAD, BUILD, BYTES, OK, Claim
from matrix_pypi_bot.core.evidence import Doubt, Level, Provenance, Proves
from matrix_pypi_bot.core.keyring import MAINTAINER_ORG
from matrix_pypi_bot.core.standing import Standing
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName, InvalidName, project_and_version

_DIGITS: Final = 12  # of a digest in a reason: enough to compare by eye


@dataclass(frozen=True, slots=True, kw_only=True)
class Voices:
    """Who stands behind a digest: `hashed` hashed the bytes; `attested` are these and who only read the index; `acked` reviewed it."""

    hashed: frozenset[str] = frozenset()
    attested: frozenset[str] = frozenset()
    acked: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Witnesses:
    """What is said of one file. `digests` holds those that an organisation attests; `claims` the attestations that count, oldest first.

    `maintainer` is what keys say that may speak for the project; `withdrawn` whether one of them took the version back.
    """

    digests: Mapping[Sha256, Voices] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    maintainer: Provenance = None
    withdrawn: bool = False

    def levels(self, standing: Standing, *, alive: bool) -> dict[Sha256, Level]:
        """E: how much stands behind each digest. `alive`: whoever's log shows no life does not count towards a quorum or as an ack."""
        silent = standing.silent() if alive else frozenset()
        return {digest: _level(voices, standing, silent) for digest, voices in self.digests.items()}

    def missing(self, standing: Standing, digest: Sha256) -> tuple[str, ...]:
        """The watchers that have neither attested nor reviewed the digest, or have shown no life since."""
        return _missing(self.digests.get(digest, Voices()), standing, standing.silent())

    def told(self) -> str:
        """Who says what, e.g. `orgb, orgc say 0123456789ab; orgd says ba9876543210`."""
        return "; ".join(
            f"{', '.join(sorted(voices.attested))} {'say' if len(voices.attested) > 1 else 'says'} {digest[:_DIGITS]}"
            for digest, voices in sorted(self.digests.items())
        )


NOBODY: Final = Witnesses()


def weigh(
    claims: Iterable[Claim],
    standing: Standing,
    out: frozenset[str] = frozenset(),
    listed: Iterable[FileName] = (),
) -> dict[FileName, Witnesses]:
    """The witnesses of every file that anybody but this organisation says something of.

    `out` are ids of statements that count for nothing, for they were refuted or are contested. `listed` are the files of the project's
    page: a maintainer who takes back a version means those too.
    """
    counted, taken_back, withdrawn = _counted(claims, standing, out, listed)
    by_file: dict[FileName, list[Claim]] = {}
    for claim in counted:
        if claim.statement_id not in taken_back.get(_voice(claim), ()):
            by_file.setdefault(claim.file, []).append(claim)
    files = dict.fromkeys((*by_file, *withdrawn))
    return {file: _witnesses(by_file.get(file, []), standing, file in withdrawn) for file in files}


def _counted(
    claims: Iterable[Claim], standing: Standing, out: frozenset[str], listed: Iterable[FileName]
) -> tuple[list[Claim], dict[str, set[str]], set[FileName]]:
    """Attestations and reviews that count, what each voice took back, and the files that a maintainer took back."""
    outcasts = standing.outcasts()
    counted: list[Claim] = []
    taken_back: dict[str, set[str]] = {}
    versions: set[str] = set()
    held = [claim for claim in claims if claim.org != standing.own]
    for claim in held:
        if claim.kind == "withdrawal":
            taken_back.setdefault(_voice(claim), set()).add(claim.subject)  # taking back never needs to be believed
            if claim.org == MAINTAINER_ORG and claim.statement_id not in out and standing.counts(claim):
                versions.add(_version(claim.file) if claim.word == "version" else claim.file)
        elif claim.statement_id not in out and claim.org not in outcasts and standing.counts(claim):
            counted.append(claim)
    files = {*listed, *(claim.file for claim in held)} if versions else set()
    return counted, taken_back, {file for file in files if file in versions or _version(file) in versions}


def _witnesses(claims: list[Claim], standing: Standing, withdrawn: bool) -> Witnesses:
    attestations = tuple(
        claim
        for claim in claims
        if claim.kind == "attestation" and claim.org != MAINTAINER_ORG and claim.index == standing.index
        and claim.word != BUILD
    )  # fmt: skip
    reviews = [claim for claim in claims if claim.kind == "review" and claim.index == standing.index]
    # Whoever saw it be wrong once acks it no more, in whatever order his words arrived.
    alarms = {(claim.org, claim.subject) for claim in reviews if claim.word == BAD}
    acks = [claim for claim in reviews if claim.word == OK and (claim.org, claim.subject) not in alarms]
    built = {claim.subject for claim in claims if claim.kind == "attestation" and claim.org == MAINTAINER_ORG}
    digests = dict.fromkeys(claim.subject for claim in attestations)
    return Witnesses(
        digests={
            digest: Voices(
                hashed=frozenset(c.org for c in attestations if c.subject == digest and c.word == BYTES),
                attested=frozenset(c.org for c in attestations if c.subject == digest),
                acked=frozenset(c.org for c in acks if c.subject == digest),
            )
            for digest in digests
        },
        claims=attestations,
        maintainer=None if not built else Proves(next(iter(built))) if len(built) == 1 else Doubt.INVALID,
        withdrawn=withdrawn,
    )


def _level(voices: Voices, standing: Standing, silent: frozenset[str]) -> Level:
    if len(voices.hashed - silent) < standing.needed:
        return Level.MINORITY
    missing = _missing(voices, standing, silent)
    return Level.ACKED if len(missing) <= standing.acks_missing_allowed else Level.QUORUM


def _missing(voices: Voices, standing: Standing, silent: frozenset[str]) -> tuple[str, ...]:
    spoke = (voices.attested | voices.acked) - silent
    return tuple(org for org in standing.watchers if org not in spoke)


def _voice(claim: Claim) -> str:
    """Whose word it is: an organisation may take back what an earlier key of it signed, a maintainer what his own key did."""
    return claim.keyid if claim.org == MAINTAINER_ORG else claim.org


def _version(file: FileName) -> str:
    """What stands for all files of the same version; the file's own name where it tells none."""
    try:
        return " ".join(project_and_version(file))
    except InvalidName:
        return file


def combined(provenance: Provenance, maintainer: Provenance) -> Provenance:
    """S of its two sources: what the publisher's provenance proves, and what delegated maintainers attest."""
    if provenance is None or maintainer is None:
        return provenance or maintainer
    if isinstance(provenance, Proves) and isinstance(maintainer, Proves):
        return provenance if provenance == maintainer else Doubt.INVALID
    return provenance if isinstance(provenance, Doubt) else maintainer
