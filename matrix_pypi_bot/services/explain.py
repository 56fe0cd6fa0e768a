"""Why a file is served or refused: the decision, and everything that was known when it was made, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from matrix_pypi_bot.core.cooldown import Sight
from matrix_pypi_bot.core.decide import decide
from matrix_pypi_bot.core.evidence import Absence, Doubt
from matrix_pypi_bot.core.evidence import Evidence as Input
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.ports import PROJECT_ROOM, Clock, EnvelopeRow, Store, Transaction
from matrix_pypi_bot.services.known import Known
from matrix_pypi_bot.services.projects import Projects
from matrix_pypi_bot.wire.messages import Evidence, Explanation, FileDecision
from matrix_pypi_bot.wire.names import FileName, ProjectName
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

_MANY: Final = 100  # attestations of one file, as far as anybody looks
_WAYS: Final = {"own": "signed here", "room": "seen in a room", "log": "read in a log"}


class Explainer:
    """Explains what is known; asks nobody and changes nothing."""

    def __init__(self, *, projects: Projects, store: Store, clock: Clock) -> None:
        self._projects = projects
        self._store = store
        self._clock = clock

    async def explain(self, project: ProjectName, file: FileName | None = None) -> Explanation:
        """The decision and the evidence of `file`, or of every file of the project. Raises Problem (NOT_FOUND), StoreAway."""
        known = await self._projects.load(project)
        decisions = self.decisions(known, file)
        if not decisions and (refused := self._projects.rulebook.refused_project(known)) is not None:
            return self._as_a_whole(known, refused)
        if known.is_blank or (file is not None and not decisions):
            raise Problem(
                f"nothing is known of {file or project}",
                hint="ask for its page or its file first",
                code=ProblemCode.NOT_FOUND,
            )
        async with self._store.transaction() as tables:
            statements = await _attestations(tables, project, file)
            leaves = await tables.log.places([row.id for row in statements if row.file in decisions])
            room = await tables.mail.room(f"{PROJECT_ROOM}{project}")
            sights = await tables.ledger.sights(project)
        view = known.view
        return Explanation(
            project=project,
            state=view.told_state if view is not None else "down",
            view_age_seconds=view.age_seconds(self._clock.now_ms()) if view is not None else 0.0,
            serial=view.page.serial if view is not None else known.serial_floor,
            room=room.room_id if room is not None else None,
            files=decisions,
            evidence={
                name: tuple(self._evidence(known, FileName(name), statements, leaves, sights.get(FileName(name))))
                for name in decisions
            },
        )

    def _as_a_whole(self, known: Known, refused: FileDecision) -> Explanation:
        """Of a project of which nothing is known but that it is refused: told under its own name."""
        evidence = Evidence(kind="policy", sha256=None, detail=refused.reason)
        return Explanation(
            project=known.project,
            state="down",
            view_age_seconds=0.0,
            serial=known.serial_floor,
            room=None,
            files={known.project: refused},
            evidence={known.project: (evidence,)},
        )

    def decisions(self, known: Known, file: FileName | None) -> dict[str, FileDecision]:
        """Of every file that is listed now or was accepted here, or of the one."""
        told = known.finished.decisions if known.finished is not None else {}
        names = sorted({*told, *known.lasting()}) if file is None else [file]
        found: dict[str, FileDecision] = {}
        for name in names:
            decision = told.get(name) or self._projects.rulebook.decide_unlisted(known, name)
            decision = decision or self._said_by_others(known, FileName(name))
            if decision is not None:
                found[name] = decision
        return found

    def _said_by_others(self, known: Known, file: FileName) -> FileDecision | None:
        """The decision on a file that is known from statements alone, of a project whose page upstream shows."""
        if known.view is None or known.view.state == "down" or all(claim.file != file for claim in known.claims):
            return None
        return decide(Input(upstream=Absence.GONE), self._projects.rulebook.terms).told()

    def _evidence(
        self,
        known: Known,
        file: FileName,
        statements: Sequence[EnvelopeRow],
        leaves: Mapping[str, int],
        sight: Sight | None,
    ) -> Iterator[Evidence]:
        view = known.view
        if view is not None:
            listed = view.page.files.get(file)
            what = "names it" if listed is not None else "does not list it"
            state = {"live": "upstream", "down": "upstream, before it went away,", "gone": "upstream"}[view.state]
            sha256 = listed.sha256 if listed is not None else None
            yield Evidence(kind="upstream", sha256=sha256, detail=f"{state} {what}", at=_moment(view.checked_ms))
            for sha in sorted(view.page.conflicted.get(file, ())):
                yield Evidence(kind="upstream", sha256=sha, detail="listed twice, with different digests")
        if (first := known.first_seen.get(file)) is not None:
            at = None if sight is None else _moment(sight.at_ms)
            yield Evidence(kind="first-seen", sha256=first, detail="the first digest that upstream ever named", at=at)
        if (accepted := known.accepted.get(file)) is not None:
            size = f", {accepted.size} bytes" if accepted.size is not None else ""
            detail = f"accepted here when it was served{size}"
            yield Evidence(kind="ledger", sha256=accepted.sha256, detail=detail, at=_moment(accepted.at_ms))
        yield from self._proof(known, file)
        for order in (known.orders.project, known.orders.files.get(file)):
            if order is not None:
                yield Evidence(
                    kind="override",
                    sha256=order.sha256,
                    detail=f"{order.action}: {order.reason}",
                    at=_moment(order.at_ms),
                    statement_id=order.statement_id,
                )
        yield from self._policy(known, file)
        for row in statements:
            if row.file == file:
                yield Evidence(
                    kind="attestation",
                    sha256=row.sha256,
                    detail=f"by {row.org}, {_WAYS.get(row.via, row.via)}{_place(leaves.get(row.id))}",
                    at=_moment(row.first_seen_ms),
                    statement_id=row.id,
                )
        yield from _verdicts(known, file)

    def _proof(self, known: Known, file: FileName) -> Iterator[Evidence]:
        """What the file's provenance told, and who the project's publisher is."""
        proofs, finding = self._projects.rulebook.proofs, known.provenance.findings.get(file)
        if proofs.policy is None:
            return
        if finding is not None:
            by = ", ".join(map(str, finding.publishers))
            told = finding.fault and f"invalid: {finding.fault}"
            told = told or (finding.unknown and f"cannot be judged: {finding.unknown}")
            told = told or f"verified, by {by}"
            if proofs.unforgiving(known, file) is Doubt.PUBLISHER_CHANGED:
                told = f"another publisher: {by}"
            at = str(Instant(finding.signed)) if finding.signed else None
            yield Evidence(kind="provenance", sha256=finding.sha256, detail=told, at=at)
        elif known.view is not None and (listed := known.view.page.files.get(file)) is not None:
            told = "not looked at yet" if listed.provenance is not None else "none"
            yield Evidence(kind="provenance", sha256=None, detail=told)
        if expected := proofs.expected(known):
            how = "pinned by the operator" if known.project in proofs.policy.pins else "of first sight"
            yield Evidence(kind="publisher", sha256=None, detail=f"{how}: {expected}")

    def _policy(self, known: Known, file: FileName) -> Iterator[Evidence]:
        """Which of the operator's rules meets the file, and when it ends."""
        rulebook = self._projects.rulebook
        _, denied = rulebook.evidence(known, file)
        if denied is not None:
            yield Evidence(kind="policy", sha256=None, detail=denied)
        if (cooling := rulebook.house.cooling(known, file)) is not None:
            yield Evidence(kind="policy", sha256=None, detail=f"cooldown {cooling.detail}")
        if (exemption := rulebook.house.exemption(known, file)) is not None:
            yield Evidence(kind="policy", sha256=None, detail=f"exempt from the cooldown: {exemption.told}")


def _verdicts(known: Known, file: FileName) -> Iterator[Evidence]:
    """The newest word on each accusation of a statement about the file."""
    digests: dict[str, str] = {claim.statement_id: claim.subject for claim in known.claims}
    newest = {(row.statement_id, row.fault): row for row in known.verdicts if row.file == file}
    for row in newest.values():
        suspended = "; its key is suspended" if row.suspends else ""
        yield Evidence(
            kind="verdict",
            sha256=digests.get(row.statement_id),
            detail=f"{row.fault}: {row.result}, signed by {row.org}: {row.reason}{suspended}",
            at=_moment(row.at_ms),
            statement_id=row.statement_id,
        )


def told_of(explanation: Explanation, file: FileName) -> tuple[FileDecision, tuple[Evidence, ...]]:
    """The decision on a file and its evidence; where the whole project is refused, those of the project."""
    name = file if file in explanation.files else explanation.project
    return explanation.files[name], explanation.evidence[name]


async def _attestations(tables: Transaction, project: ProjectName, file: FileName | None) -> Sequence[EnvelopeRow]:
    """Those of the project; of the file alone without reading the envelopes of all others."""
    if file is None:
        return await tables.ledger.attestations(project)
    claims = await tables.ledger.claims_on(project, file)
    ids = [claim.statement_id for claim in claims if claim.file == file and claim.kind == "attestation"]
    rows = [await tables.ledger.envelope(statement_id) for statement_id in ids[-_MANY:]]
    return [row for row in rows if row is not None]


def _place(leaf: int | None) -> str:
    return "" if leaf is None else f", leaf {leaf} of the log"


def _moment(milliseconds: int) -> str:
    return str(Instant.of_ms(milliseconds))
