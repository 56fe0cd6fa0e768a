"""Evidence gathered, every file decided, the page finished. Pure but for its inputs: the same knowledge gives the same revision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import msgspec

from matrix_pypi_bot.core.annotate import annotate
from matrix_pypi_bot.core.cooldown import Cooldown, Cooling
from matrix_pypi_bot.core.decide import Rule, Ruling, decide
from matrix_pypi_bot.core.evidence import Absence, Evidence, Level, Live, Terms, Upstream
from matrix_pypi_bot.core.index_file import IndexFile
from matrix_pypi_bot.core.policy import Denial, NameRules
from matrix_pypi_bot.core.provenance import ProvenancePolicy
from matrix_pypi_bot.core.standing import Standing, alone
from matrix_pypi_bot.core.statement_page import attested_files, entry_of
from matrix_pypi_bot.core.witnesses import NOBODY, Witnesses, combined, weigh
from matrix_pypi_bot.ports import Accepted
from matrix_pypi_bot.services.house_rules import HouseRules
from matrix_pypi_bot.services.known import Finished, Known, View
from matrix_pypi_bot.services.proofs import ProofRules
from matrix_pypi_bot.wire.digests import Sha256, sha256_of
from matrix_pypi_bot.wire.messages import FileDecision
from matrix_pypi_bot.wire.names import FileName

GONE_REVISION: Final = "gone"  # of a project that has no page any more
_DIGITS: Final = 12  # of a digest in a reason: enough to compare by eye

_Class = tuple[object, bool | None, bool | None, Cooling | None, object]


class Rulebook:
    """The operator's policy, applied to everything known of a project. `fingerprint` is another one for any other policy;
    `standing()` tells who is believed now. Without a policy of `provenance` nobody verifies any here.
    """

    def __init__(
        self,
        terms: Terms,
        denials: Sequence[Denial] = (),
        *,
        names: NameRules | None = None,
        cooldown: Cooldown | None = None,
        standing: Callable[[], Standing] = alone,
        provenance: ProvenancePolicy | None = None,
    ) -> None:
        self.terms = terms
        self.house = HouseRules(denials, names or NameRules(), cooldown or Cooldown())
        self.proofs = ProofRules(provenance)
        spelled = (terms, self.house.spelled, *self.proofs.fingerprint)
        self.fingerprint = sha256_of(msgspec.json.encode(spelled))
        self.standing = standing

    def finish(self, known: Known) -> Known:
        """`known` with every file decided and its page finished; without a view there is nothing to finish."""
        view = known.view
        if view is None:
            return replace(known, finished=None)
        standing = self.standing()
        decisions, files = self._decide_all(known, view, _weighed(known, standing), standing)
        shown = {name: file for name, file in files.items() if decisions[name].rule != Rule.R10}
        if view.state == "gone" and not shown:
            finished = Finished(decisions=decisions, files={}, revision=GONE_REVISION, body=b"")
        else:
            page = annotate(replace(view.page, files=shown), decisions)
            finished = Finished(
                decisions=decisions,
                files=files,
                revision=page.revision,
                body=page.body,
                nothing=_nothing(view, decisions),
            )
        return replace(known, finished=finished)

    def refused_project(self, known: Known) -> FileDecision | None:
        """Why the whole project is refused, None when it is not."""
        detail = self.house.denied(known, None, ())
        return None if detail is None else decide(Evidence(upstream=Absence.DOWN, denied=True), self.terms).told(detail)

    def turns_at(self, known: Known) -> int | None:
        """The first moment after `known.at_ms` at which time alone may change an answer about the project, None when there is none."""
        ends = self.house.ends(known)
        finished, view = known.finished, known.view
        if self.house.cooldown.seconds and finished is not None and view is not None:
            waiting = [name for name, decision in finished.decisions.items() if decision.rule == Rule.R7]
            witnesses = self.witnesses(known) if waiting else {}
            for name in waiting:
                attested = None if name in view.page.files else finished.files[name]
                cooling = self.house.cooling(known, name, witnesses.get(name, NOBODY), attested=attested)
                ends += [] if cooling is None else [cooling.ends_ms]
        return min(ends, default=None)

    def decide_unlisted(self, known: Known, file: FileName) -> FileDecision | None:
        """The decision on a file that the page does not list; None when nobody here ever heard of it."""
        view, accepted, first = known.view, known.lasting().get(file), known.first_seen.get(file)
        if view is not None and file in view.page.conflicted:
            one, other, *_ = sorted(view.page.conflicted[file])
            evidence = Evidence(upstream=Live(one), accepted=other, first_seen=other)
            return self._told(known, file, evidence, "listed twice, with different digests")
        if accepted is None and first is None:
            return None
        digest = accepted.sha256 if accepted is not None else None
        proof = self.proofs.proof(known, file)
        evidence = Evidence(upstream=_upstream_of(view, None), accepted=digest, first_seen=first, provenance=proof)
        return self._told(known, file, evidence)

    def is_attested(self, known: Known) -> bool:
        """Whether another organisation says anything of the project, whatever its word is worth now."""
        own = self.standing().own
        return any(claim.org != own and claim.kind == "attestation" for claim in known.claims)

    def witnesses(self, known: Known) -> Mapping[FileName, Witnesses]:
        """What counts of others' statements now, file by file."""
        return _weighed(known, self.standing())

    def evidence(
        self,
        known: Known,
        file: FileName,
        witnesses: Witnesses = NOBODY,
        *,
        attested: IndexFile | None = None,
        standing: Standing | None = None,
    ) -> tuple[Evidence, str | None]:
        """What `decide()` is told of one file, and why it is denied. `attested` is its entry when only others name it.

        `standing` is who is believed at the moment of the decision, None: now.
        """
        view = known.view
        listed = view.page.files.get(file) if view is not None else None
        remembered = known.lasting().get(file)
        accepted = remembered.sha256 if remembered is not None else None
        named = attested.sha256 if attested is not None else listed.sha256 if listed is not None else None
        digests = [one for one in (named, accepted) if one is not None]
        detail = self.house.denied(known, file, digests)
        if detail is None and witnesses.withdrawn:
            detail = "withdrawn by its maintainer"
        upstream = Absence.DOWN if attested is not None else _upstream_of(view, listed)
        provenance = witnesses.maintainer
        voices: Mapping[Sha256, Level] = {}
        if witnesses.digests:
            voices = witnesses.levels(standing or self.standing(), alive=upstream is Absence.DOWN and accepted is None)
        if (approved := known.orders.approvals().get(file)) is not None and approved.sha256 == accepted:
            # Decision 23: an operator's approval sets aside what contradicts it.
            voices = {digest: level for digest, level in voices.items() if digest == accepted}
            provenance = None
        return (
            Evidence(
                upstream=upstream,
                accepted=accepted,
                first_seen=known.first_seen.get(file),
                attested=voices,
                provenance=combined(self.proofs.proof(known, file), provenance),
                cooling=self.house.cooling(known, file, witnesses, attested=attested) is not None,
                denied=detail is not None,
            ),
            detail,
        )

    def ruling(self, known: Known, file: FileName, witnesses: Witnesses) -> tuple[Evidence, Ruling]:
        """What is known of an attested file, and the decision as `decide` gives it."""
        view = known.view
        entry = None
        if view is not None and view.state == "down" and file not in view.page.files:
            entry = _attested(known, view, {file: witnesses}, self.standing()).get(file)
        evidence, _ = self.evidence(known, file, witnesses, attested=entry)
        return evidence, decide(evidence, self.terms)

    def _decide_all(
        self, known: Known, view: View, witnesses: Mapping[FileName, Witnesses], standing: Standing
    ) -> tuple[dict[FileName, FileDecision], dict[FileName, IndexFile]]:
        """Each listed, each removed and each attested file: its decision, and its entry with the digest that was decided.

        Files about which the same is known in the same relation share one decision, so a page of thousands costs a few calls. A file
        that others say something of is decided by itself.
        """
        lasting, first_seen = known.lasting(), known.first_seen
        decisions: dict[FileName, FileDecision] = {}
        files = dict(view.page.files)
        classes: dict[_Class, tuple[FileDecision, bool]] = {}
        may_be_denied, watch = self.house.concerns(known), self.house.watch(known, view)
        for name, file in view.page.files.items():
            if (told := witnesses.get(name)) is not None:
                decisions[name], files[name] = self._decide_attested(known, name, file, told, standing)
                continue
            digest, accepted, first = file.sha256, lasting.get(name), first_seen.get(name)
            same = None if accepted is None else accepted.sha256 == digest
            denied = self.house.denied(known, name, _digests(file, accepted)) if may_be_denied else None
            cooling = None if watch is None else watch(file)
            proof = self.proofs.relation(known, file, None if accepted is None else accepted.sha256)
            key = (denied, same, None if first is None else first == digest, cooling, proof)
            found = classes.get(key)
            if found is None:
                found = classes[key] = self._decide_class(known, name)
            decisions[name] = found[0]
            if found[1] and not same:
                files[name] = _as_remembered(file, accepted)
        changed = {name for name, decision in decisions.items() if decision.rule == Rule.R3 and name not in witnesses}
        decisions.update({name: self._told_changed(known, name, files[name]) for name in changed})
        for name, file in view.removed.items():
            decision, _ = self._decide_class(known, name, witnesses.get(name, NOBODY))
            decisions[name], files[name] = decision, _as_remembered(file, lasting.get(name))
        if view.state == "down" and view.page.status != "quarantined":
            self._add_attested(known, view, witnesses, standing, decisions, files)
        self.proofs.tell(known, decisions, files)
        return decisions, files

    def _add_attested(
        self,
        known: Known,
        view: View,
        witnesses: Mapping[FileName, Witnesses],
        standing: Standing,
        decisions: dict[FileName, FileDecision],
        files: dict[FileName, IndexFile],
    ) -> None:
        for name, entry in _attested(known, view, witnesses, standing).items():
            told = witnesses[name]
            evidence, detail = self.evidence(known, name, told, attested=entry, standing=standing)
            ruling = decide(evidence, self.terms)
            until = self.house.until(ruling, known, name, told, attested=entry)
            decisions[name] = ruling.told(detail or until or _voices_told(ruling, told, standing))
            files[name] = entry if evidence.accepted is None else _as_remembered(entry, known.lasting().get(name))

    def _decide_attested(
        self, known: Known, name: FileName, file: IndexFile, witnesses: Witnesses, standing: Standing
    ) -> tuple[FileDecision, IndexFile]:
        evidence, detail = self.evidence(known, name, witnesses, standing=standing)
        ruling = decide(evidence, self.terms)
        if ruling.rule is Rule.R3:
            return self._told_changed(known, name, file), file
        until = self.house.until(ruling, known, name)
        decision = ruling.told(detail or until or _voices_told(ruling, witnesses, standing))
        if ruling.sha256 is None or ruling.sha256 == file.sha256:
            return decision, file
        accepted = known.lasting().get(name)
        if accepted is not None and accepted.sha256 == ruling.sha256:
            return decision, _as_remembered(file, accepted)
        return decision, entry_of(name, witnesses, standing, known.lists)

    def _decide_class(self, known: Known, file: FileName, witnesses: Witnesses = NOBODY) -> tuple[FileDecision, bool]:
        """The decision, and whether the digest to serve is the remembered one instead of the page's."""
        evidence, detail = self.evidence(known, file, witnesses)
        ruling = decide(evidence, self.terms)
        told = ruling.told(detail or self.house.until(ruling, known, file))
        return told, ruling.serves and not isinstance(evidence.upstream, Live)

    def _told_changed(self, known: Known, name: FileName, file: IndexFile) -> FileDecision:
        evidence, _ = self.evidence(known, name)
        before = evidence.remembered or ""
        ruling: Ruling = decide(evidence, self.terms)
        return ruling.told(f"{before[:_DIGITS]} before, {file.sha256[:_DIGITS]} now")

    def _told(self, known: Known, file: FileName, evidence: Evidence, detail: str = "") -> FileDecision:
        denied = self.house.denied(known, file, [evidence.accepted] if evidence.accepted else [])
        return decide(replace(evidence, denied=denied is not None), self.terms).told(denied or detail)


def _weighed(known: Known, standing: Standing) -> Mapping[FileName, Witnesses]:
    if not known.claims:
        return {}
    listed = known.view.page.files if known.view is not None else ()
    return weigh(known.claims, standing, _not_counted(known), listed)


def _not_counted(known: Known) -> frozenset[str]:
    """What is contested or in conflict is held off from what rests on others' word alone. Where it can be judged it counts: else
    whoever accuses honest organisations while upstream is away would clear the way for an upstream that lies.
    """
    out, refuted = known.out, known.refuted
    if len(out) == len(refuted):
        return refuted
    shown = known.view.page.files if known.view is not None and known.view.state == "live" else {}
    lasting = known.lasting()
    return out - {
        claim.statement_id
        for claim in known.claims
        if claim.statement_id in out
        and claim.statement_id not in refuted
        and (claim.file in shown or claim.file in lasting)
    }


def _attested(
    known: Known, view: View, witnesses: Mapping[FileName, Witnesses], standing: Standing
) -> dict[FileName, IndexFile]:
    """Entries of files that upstream never showed here, as others attest them."""
    shown = (view.page.files, view.removed, view.page.conflicted, known.first_seen)

    def is_known(name: FileName) -> bool:
        return any(name in files for files in shown)

    serial = None if view.rebuilt else (view.page.serial or 0)
    return attested_files(witnesses, standing, known=is_known, serial=serial, lists=known.lists)


def _voices_told(ruling: Ruling, witnesses: Witnesses, standing: Standing) -> str:
    """Who it is that a refusal rests on, or who is missing."""
    if ruling.rule in (Rule.R5, Rule.R12, Rule.R15):
        return witnesses.told()
    if ruling.rule is not Rule.R18:
        return ""
    [digest] = witnesses.digests
    hashed = sorted(witnesses.digests[digest].hashed - standing.silent())
    if len(hashed) < standing.needed:
        return f"{len(hashed)} of {standing.needed} needed: {', '.join(hashed) or 'none'}"
    return f"missing: {', '.join(witnesses.missing(standing, digest))}"


def _upstream_of(view: View | None, listed: IndexFile | None) -> Upstream:
    if view is None:
        return Absence.DOWN
    if view.page.status == "quarantined" and view.state != "gone":
        return Absence.QUARANTINED
    if view.state == "gone" or listed is None:
        return Absence.GONE
    return Live(listed.sha256) if view.state == "live" else Absence.DOWN


def _digests(file: IndexFile, accepted: Accepted | None) -> list[Sha256]:
    return [file.sha256] if accepted is None else [file.sha256, accepted.sha256]


def _as_remembered(file: IndexFile, accepted: Accepted | None) -> IndexFile:
    """The page's entry, saying the bytes that were accepted here instead of those that upstream named last."""
    if accepted is None or accepted.sha256 == file.sha256:
        return file
    return msgspec.structs.replace(file, sha256=accepted.sha256, size=accepted.size, core_metadata=False)


def _nothing(view: View, decisions: Mapping[FileName, FileDecision]) -> FileDecision | None:
    if view.state != "down" or view.page.status == "quarantined" or not decisions:
        return None
    if any(decision.serves for decision in decisions.values()):
        return None
    return next((decision for decision in decisions.values() if decision.http == 503), None)
