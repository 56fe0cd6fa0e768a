"""What provenance says about the files of a project, by the operator's policy. Pure: everything was verified before."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

import msgspec

from matrix_pypi_bot.core.decide import Rule
from matrix_pypi_bot.core.evidence import Doubt, Provenance, Proves
from matrix_pypi_bot.core.index_file import IndexFile
from matrix_pypi_bot.core.provenance import ProvenancePolicy, witness
from matrix_pypi_bot.services.known import Known
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import PROVENANCE, FileDecision
from matrix_pypi_bot.wire.names import FileName
from matrix_pypi_bot.wire.problems import clean_line

_DIGITS: Final = 12  # of a digest in a reason: enough to compare by eye
_DOUBTED: Final = frozenset({Rule.R4, Rule.R6, Rule.R11, Rule.R16})  # provenance is why


class ProofRules:
    """The policy applied; without one nothing proves anything."""

    def __init__(self, policy: ProvenancePolicy | None) -> None:
        self.policy = policy

    @property
    def fingerprint(self) -> tuple[object, ...]:
        """What decisions depend on beside what is known, to be hashed."""
        return () if self.policy is None else self.policy.fingerprint

    def proof(self, known: Known, file: FileName) -> Provenance:
        """S of a file, as far as it was verified. An operator's approval sets it aside (decision 23)."""
        if self.policy is None or file not in known.provenance.findings or _is_approved(known, file):
            return None
        told = self.unforgiving(known, file)
        return None if told is Doubt.PUBLISHER_CHANGED and not self.policy.quarantine else told

    def unforgiving(self, known: Known, file: FileName) -> Provenance:
        """The same, whatever an operator approved or lets pass."""
        if self.policy is None:
            return None
        listed = known.view.page.files.get(file) if known.view is not None else None
        return witness(
            known.provenance.findings.get(file),
            self.policy.pins.get(known.project, ()),
            known.provenance.pin,
            listed.upload_time if listed is not None else None,
        )

    def asks(self, known: Known, file: IndexFile) -> bool:
        """Whether a look at the file's provenance may tell more: nobody looked yet, or it was invalid then."""
        if self.policy is None or file.provenance is None:
            return False
        finding = known.provenance.findings.get(file.name)
        return finding is None or bool(finding.fault)

    def relation(self, known: Known, file: IndexFile, accepted: Sha256 | None) -> object:
        """What files that are decided alike have in common: whether the page's digest, and L, is the one that is proven."""
        if file.name not in known.provenance.findings:
            return None
        proof = self.proof(known, file.name)
        return (proof.sha256 == file.sha256, proof.sha256 == accepted) if isinstance(proof, Proves) else proof

    def tell(self, known: Known, decisions: dict[FileName, FileDecision], files: dict[FileName, IndexFile]) -> None:
        """Makes decisions say when to ask about provenance and what is wrong with it, and entries where our copy of it is."""
        if self.policy is None:
            return
        asking: dict[FileDecision, FileDecision] = {}
        folder = f"{self.policy.served_at or '../..'}{PROVENANCE}/{known.project}/"
        for name, file in files.items():
            decision = decisions[name]
            if decision.rule in _DOUBTED and (why := self._why(known, name)):
                told = clean_line(f"{decision.reason} ({why})")
                decision = decisions[name] = msgspec.structs.replace(decision, reason=told)
            if self.asks(known, file) and self._may_settle(known, decision):
                if decision not in asking:
                    asking[decision] = msgspec.structs.replace(decision, ask=True)
                decisions[name] = asking[decision]
            finding = known.provenance.findings.get(name)
            if finding is not None and finding.sha256 is not None and file.provenance is not None:
                files[name] = msgspec.structs.replace(file, provenance=f"{folder}{quote(name)}")

    def _may_settle(self, known: Known, decision: FileDecision) -> bool:
        """Whether a look at the file's provenance may change its decision.

        Where a quorum contradicts upstream, only that of a publisher who was known before may: whoever shows us another file than
        others can show a document of his own with it.
        """
        if decision.rule == Rule.R5:
            return bool(self.expected(known))
        return decision.serves or decision.rule in _DOUBTED

    def _why(self, known: Known, file: FileName) -> str:
        """What is wrong, or who the publisher is and who he should be; empty when it is not this file's provenance."""
        finding, proof = known.provenance.findings.get(file), self.proof(known, file)
        if finding is None or proof is None:
            return ""
        if isinstance(proof, Proves):
            return f"it proves {proof.sha256[:_DIGITS]}"
        by = ", ".join(map(str, finding.publishers))
        return finding.fault or f"by {by}, before {self.expected(known)}"

    def expected(self, known: Known) -> str:
        """The project's publishers: the operator's pins, else those of first sight."""
        pins = self.policy.pins.get(known.project, ()) if self.policy is not None else ()
        seen = known.provenance.pin.publishers if known.provenance.pin is not None else ()
        return ", ".join(map(str, pins or seen))


def _is_approved(known: Known, file: FileName) -> bool:
    """Whether an operator's approval of the file's digest stands, which nothing accepted later."""
    order = known.orders.files.get(file)
    if order is None or order.action != "approve":
        return False
    accepted = known.lasting().get(file)
    return accepted is not None and order.sha256 == accepted.sha256
