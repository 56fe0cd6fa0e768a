"""An operator decides in the open: a signed statement in the own log, and the decisions that follow from it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from matrix_pypi_bot.core.limits import MAX_REASON_CHARACTERS
from matrix_pypi_bot.core.statements.override import Override as OverrideStatement
from matrix_pypi_bot.ports import Clock, OverrideRow, Transaction
from matrix_pypi_bot.services.known import Known, orders_of
from matrix_pypi_bot.services.projects import Projects
from matrix_pypi_bot.services.refresh import Refresher
from matrix_pypi_bot.services.signing import Chain, Voice
from matrix_pypi_bot.wire.digests import Sha256, parse_sha256, sha256_of
from matrix_pypi_bot.wire.messages import FileDecision, Override, OverrideDone
from matrix_pypi_bot.wire.names import (
    FileName,
    InvalidName,
    ProjectName,
    candidate_projects,
    normalise_project,
    parse_file_name,
)
from matrix_pypi_bot.wire.problems import Problem, ProblemCode, clean_line

log = logging.getLogger(__name__)


class Overrides:
    """Carries out operators' decisions."""

    def __init__(
        self, *, projects: Projects, refresher: Refresher, clock: Clock, voice: Voice, index_name: str
    ) -> None:
        self._projects = projects
        self._refresher = refresher
        self._clock = clock
        self._voice = voice
        self._index_name = index_name

    async def apply(self, override: Override) -> OverrideDone:
        """Signed, logged, in force and announced when it returns.

        Raises Problem: BAD_REQUEST or INVALID_NAME for a target, digest or reason that cannot be meant; NOT_FOUND for a file of no
        project, and for an approval without a digest of a file that upstream does not name now; StoreAway.
        """
        reason = _checked_reason(override)
        project, file = await self._target(override.target)
        sha256 = await self._approved(project, file, override) if override.action == "approve" else None
        now_ms, statement_id = self._clock.now_ms(), ""

        async def change(tables: Transaction, known: Known) -> Known:
            nonlocal statement_id
            subject = file if file is not None else project
            digest = sha256 if sha256 is not None else sha256_of(subject.encode())
            predicate = self._predicate(override, project, file, reason)
            checked = await self._voice.say(tables, {subject: digest}, predicate, file=file, now_ms=now_ms)
            statement_id = checked.statement.id
            await tables.ledger.override(
                OverrideRow(
                    statement_id=statement_id,
                    project=project,
                    file=file,
                    action=override.action,
                    sha256=sha256,
                    reason=reason,
                    at_ms=now_ms,
                )
            )
            floor = await tables.ledger.serial_floor(project, self._projects.upstream)
            return replace(known, orders=orders_of(await tables.ledger.overrides(project)), serial_floor=floor)

        known = await self._projects.revise(project, change)
        what = {"project": project, "file": file, "reason": reason, "statement": statement_id}
        log.warning(f"operator: {override.action}", extra=what)
        return OverrideDone(
            statement_id=statement_id,
            scope="project" if file is None else "file",
            project=project,
            file=file,
            decisions=self._decisions(known, file),
        )

    def _predicate(
        self, override: Override, project: ProjectName, file: FileName | None, reason: str
    ) -> Callable[[Chain], OverrideStatement]:
        def predicate(chain: Chain) -> OverrideStatement:
            signer, seq, prev, issued = chain
            return OverrideStatement(
                action=override.action,
                scope="project" if file is None else "file",
                project=project,
                file=file,
                index=self._index_name,
                reason=reason,
                expires=None,
                signer=signer,
                seq=seq,
                prev=prev,
                issued=issued,
            )

        return predicate

    async def _target(self, target: str) -> tuple[ProjectName, FileName | None]:
        """The project, and the file when it is one. Of an old, ambiguous name the project that has the file here."""
        try:
            file = parse_file_name(target)
        except InvalidName:
            return normalise_project(target), None
        candidates = candidate_projects(file)
        for project in candidates:
            known = await self._projects.load(project)
            listed = known.view is not None and file in known.view.page.files
            if listed or file in known.first_seen or file in known.accepted:
                return project, file
        if not candidates:
            raise Problem(f"{file} tells no project", code=ProblemCode.NOT_FOUND)
        return candidates[0], file

    async def _approved(self, project: ProjectName, file: FileName | None, override: Override) -> Sha256:
        """The digest that is approved: the one given, or what upstream names now."""
        if file is None:
            raise Problem("an approval is of one file, not of a project", code=ProblemCode.BAD_REQUEST)
        if override.sha256 is not None:
            return parse_sha256(override.sha256)
        known = await self._refresher.up_to_date(project)
        listed = known.view.page.files.get(file) if known.view is not None and known.view.state == "live" else None
        if listed is None:
            raise Problem(
                f"upstream names no digest of {file} now",
                hint="say which digest is approved: --sha256",
                code=ProblemCode.NOT_FOUND,
            )
        return listed.sha256

    def _decisions(self, known: Known, file: FileName | None) -> dict[str, FileDecision]:
        """How the file, or every file of the project, stands now; empty for what nobody heard of yet."""
        told = known.finished.decisions if known.finished is not None else {}
        if file is None:
            return {name: told[name] for name in sorted(told)}
        decision = told.get(file) or self._projects.rulebook.decide_unlisted(known, file)
        return {} if decision is None else {file: decision}


def _checked_reason(override: Override) -> str:
    reason = clean_line(override.reason, MAX_REASON_CHARACTERS)
    if not reason:
        raise Problem("a decision needs a reason", code=ProblemCode.BAD_REQUEST)
    if override.sha256 is not None and override.action != "approve":
        raise Problem("a sha256 belongs to an approval", code=ProblemCode.BAD_REQUEST)
    return reason
