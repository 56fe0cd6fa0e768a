"""Provenance (PEP 740) as evidence: what verifying a document told, and what that means for the project whose file it is about.

The numbered rules are in docs/protocol/provenance.md. Signatures are checked elsewhere; here are the facts that came out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import msgspec

from matrix_pypi_bot.core.evidence import Doubt, Provenance, Proves
from matrix_pypi_bot.core.index_file import IndexFile
from matrix_pypi_bot.core.publisher import Publisher
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName, InvalidName, ProjectName, project_and_version

STEADY_RELEASES: Final = 3  # so many with provenance, and one without is worth a warning
MAX_DOCUMENT_BYTES: Final = 512 << 10  # one has 5 to 30 KB
MAX_CARRIED_BYTES: Final = (
    11_000  # of a bundle in an accusation, which is a statement: `MAX_PAYLOAD_BYTES`, less what it accuses
)


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What verifying one document told: `sha256` is proven by `publishers`, or `fault` says why it is invalid, or `unknown` why
    nobody here can tell.

    `signed` is the second, since the epoch, at which the transparency log signed for the last of its signatures.
    """

    sha256: Sha256 | None = None
    publishers: tuple[Publisher, ...] = ()
    signed: int = 0
    fault: str = ""
    unknown: str = ""


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """The publishers that a project had when it was first verified here, by which file, and when that one was signed."""

    publishers: tuple[Publisher, ...]
    file: FileName
    signed: int


class _Bundle(msgspec.Struct, frozen=True):
    publisher: dict[str, object]
    attestations: list[object]


class _Bundles(msgspec.Struct, frozen=True):
    attestation_bundles: list[_Bundle]


@dataclass(frozen=True, slots=True)
class Provenances:
    """All that was verified of a project's files, and the publisher of first sight."""

    findings: Mapping[FileName, Finding] = field(default_factory=dict)
    pin: Pin | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenancePolicy:
    """How provenance counts. `root` names the trusted root under which it is verified; what was found under another one is found anew.

    `pins` are the publishers that the operator wrote down; `quarantine` False: another publisher is a warning and no refusal.
    `served_at` is where clients find our own documents, without the slash at its end.
    """

    root: str
    quarantine: bool = True
    pins: Mapping[ProjectName, tuple[Publisher, ...]] = field(default_factory=dict)
    served_at: str = ""

    @property
    def fingerprint(self) -> tuple[object, ...]:
        """What decisions depend on, to be hashed."""
        return (self.root, self.quarantine, sorted(self.pins.items()), self.served_at)


def witness(finding: Finding | None, pins: Sequence[Publisher], pin: Pin | None, upload_time: str | None) -> Provenance:
    """S of a file: what the finding says if `pins` (the operator's), or else `pin` (of first sight), are the project's publishers.

    Who signed, and by the page's word uploaded, before the pin of first sight was signed is no new publisher (rule P8).
    """
    if finding is None or finding.unknown:
        return None
    if finding.sha256 is None:
        return Doubt.INVALID
    if pins:
        return Proves(finding.sha256) if _covered(pins, finding.publishers) else Doubt.PUBLISHER_CHANGED
    if pin is None or _covered(pin.publishers, finding.publishers) or _is_before(finding, pin, upload_time):
        return Proves(finding.sha256)
    return Doubt.PUBLISHER_CHANGED


def first_pin(file: FileName, finding: Finding) -> Pin:
    """The pin that a first good finding makes: its repositories, whatever their workflows are called."""
    homes = tuple(dict.fromkeys(publisher.home for publisher in finding.publishers))
    return Pin(publishers=homes, file=file, signed=finding.signed)


def carried(raw: bytes) -> dict[str, object] | None:
    """The bundle of a verified document, cut to its first attestation, to be carried in an accusation (F5); None if it is too large."""
    document = msgspec.json.decode(raw, type=_Bundles)
    bundle = document.attestation_bundles[0]
    cut: dict[str, object] = {"publisher": bundle.publisher, "attestations": bundle.attestations[:1]}
    return cut if len(msgspec.json.encode(cut)) <= MAX_CARRIED_BYTES else None


def vanished(before: Mapping[FileName, IndexFile], now: Mapping[FileName, IndexFile]) -> list[FileName]:
    """Files of a new page that come without provenance, or lost it, in a project where several releases have it (rule P10)."""
    suspects = [
        name
        for name, file in now.items()
        if file.provenance is None and (name not in before or before[name].provenance is not None)
    ]
    if not suspects:
        return []
    with_it = {name for files in (before, now) for name, file in files.items() if file.provenance is not None}
    return suspects if len(_versions(with_it)) >= STEADY_RELEASES else []


def _covered(pins: Iterable[Publisher], publishers: Sequence[Publisher]) -> bool:
    return any(pin.covers(publisher) for pin in pins for publisher in publishers)


def _is_before(finding: Finding, pin: Pin, upload_time: str | None) -> bool:
    uploaded = _second_of(upload_time)
    return finding.signed < pin.signed and uploaded is not None and uploaded < pin.signed


def _second_of(text: str | None) -> float | None:
    try:
        return None if text is None else datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return None


def _versions(files: Iterable[FileName]) -> set[str]:
    versions: set[str] = set()
    for file in files:
        try:
            versions.add(project_and_version(file)[1])
        except InvalidName:
            continue
    return versions
