"""Bytes were stored: accepted, and attested in this organisation's name, if and only if its own rule R8 names them now.

A frontend can report what it likes: what is signed is the digest that upstream named to this bot on a page that is live, and one
digest a file for ever. A report that cannot be judged now waits in the database for the next live page.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any

from matrix_pypi_bot.core.claims import claims_of
from matrix_pypi_bot.core.decide import Rule
from matrix_pypi_bot.core.envelope import StatementId
from matrix_pypi_bot.core.events import Checked, post_of
from matrix_pypi_bot.core.index_file import IndexFile
from matrix_pypi_bot.core.rejected import Rejected
from matrix_pypi_bot.ports import PROJECT_ROOM, Accepted, Clock, Postman, Store, Transaction
from matrix_pypi_bot.services.attestation import draft, read_report
from matrix_pypi_bot.services.flights import Flights
from matrix_pypi_bot.services.known import Known
from matrix_pypi_bot.services.projects import Projects
from matrix_pypi_bot.services.refresh import Refresher
from matrix_pypi_bot.services.signing import Voice
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import Stored
from matrix_pypi_bot.wire.names import FileName, ProjectName, is_attestable
from matrix_pypi_bot.wire.problems import Problem

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What becomes of a report: `wait`, or else it is settled; `accept` its digest, and `attest` with the page's entry.

    `believe_size` False: upstream tells another one for the same digest, so one of the two is wrong.
    """

    wait: bool = False
    accept: bool = False
    believe_size: bool = True
    attest: IndexFile | None = None
    alarm: str = ""


class Attester:
    """Takes reports. `attests` False: nothing is signed, what was stored is only accepted. Must be made in a running loop."""

    def __init__(
        self,
        *,
        projects: Projects,
        refresher: Refresher,
        store: Store,
        clock: Clock,
        voice: Voice,
        postman: Postman,
        index_name: str,
        attests: bool,
    ) -> None:
        self._projects = projects
        self._refresher = refresher
        self._store = store
        self._clock = clock
        self._voice = voice
        self._postman = postman
        self._index_name = index_name
        self._attests = attests
        self._waiting: set[ProjectName] = set()
        self._flights: Flights[None] = Flights()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Learns which projects have reports from an earlier life. Raises StoreAway."""
        async with self._store.transaction() as tables:
            self._waiting = set(await tables.views.reported_projects())

    async def stored(self, stored: Stored) -> None:
        """Returns when the report is in the database, judged or waiting. Raises Problem (BAD_REQUEST) for one that is none."""
        report = read_report(stored)
        project = ProjectName(report.project)
        known = await self._projects.load(project)
        if self._refresher.is_fresh(known):
            await self._settle(project, report)
            return
        async with self._store.transaction() as tables:
            await tables.views.report(report, self._clock.now_ms())
        self._waiting.add(project)
        self._begin(project)

    def page_is_live(self, project: ProjectName) -> None:
        """Upstream answered about the project: what waited for that is settled soon."""
        if project in self._waiting:
            self._spawn(self._flights.join(project, lambda: self._settle_all(project)))

    async def try_again(self, limit: int) -> None:
        """Has upstream asked about some of the projects that have waiting reports, of which it may hear. Raises StoreAway."""
        await self.start()
        for project in list(self._waiting):
            if limit and self._projects.rulebook.house.forbidden(await self._projects.load(project)) is None:
                limit -= 1
                self._begin(project)

    async def stop(self) -> None:
        """Nothing more is settled; what waits stays in the database."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._flights.stop()

    def _begin(self, project: ProjectName) -> None:
        async def ask() -> None:
            known = await self._refresher.up_to_date(project)
            if self._refresher.is_fresh(known):
                self.page_is_live(project)

        self._spawn(ask())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(_quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _settle_all(self, project: ProjectName) -> None:
        settled = True
        while settled and project in self._waiting:  # again when it was: a report may have come meanwhile
            self._waiting.discard(project)
            async with self._store.transaction() as tables:
                reports = await tables.views.reports(project)
            settled = all([await self._settle(project, report) for report in reports])

    async def _settle(self, project: ProjectName, report: Stored) -> bool:
        """Whether it is settled; otherwise it waits in the database."""
        try:
            verdict = await self._carry_out(project, report, attests=self._attests)
        except (Rejected, ValueError) as error:
            # Upstream's own words (a time, a requirement) made a statement that nobody would take. The bytes are right.
            log.warning("statement cannot be made", extra={"file": report.file, "reason": str(error)})
            verdict = await self._carry_out(project, report, attests=False)
        if verdict.alarm:
            log.warning(
                f"{verdict.alarm} alarm", extra={"project": project, "file": report.file, "sha256": report.sha256}
            )
        return not verdict.wait

    async def _carry_out(self, project: ProjectName, report: Stored, *, attests: bool) -> _Verdict:
        verdict, accepted, now_ms = _Verdict(wait=True), None, self._clock.now_ms()
        signed: StatementId | None = None

        async def change(tables: Transaction, known: Known) -> Known:
            nonlocal verdict, accepted, signed
            verdict = _judge(known, report)
            if verdict.wait:
                await tables.views.report(report, now_ms)
                return known
            size = report.size if verdict.believe_size else None
            if verdict.accept and (accepted := _news(known, report, size, now_ms)) is not None:
                await tables.ledger.accept(accepted)
                known = replace(known, accepted={**known.accepted, accepted.file: accepted})
            if (listed := verdict.attest) is not None and attests:
                if not self._voice.may_speak:
                    verdict = replace(verdict, wait=True)
                    await tables.views.report(report, now_ms)
                    return known
                checked = await self._attest(tables, known, report, listed, now_ms)
                if checked is not None:
                    claims = claims_of(
                        checked.statement, org=self._voice.org, keyid=checked.key.keyid, received_ms=now_ms
                    )
                    signed, known = checked.statement.id, replace(known, claims=(*known.claims, *claims))
            await tables.views.settled(report)
            return known

        # The accepted digest is the one that R8 names, so no decision can change by it.
        try:
            await self._projects.revise(project, change, redecide=False)
        finally:
            # Also when the database went away: what it did not get to confirm may have been done, and who asks again signs nothing.
            if signed is not None:
                self._postman.poke()
        if accepted is not None:
            log.info("file accepted", extra={"project": project, "file": report.file, "sha256": report.sha256})
        if signed is not None:
            log.info("file attested", extra={"project": project, "file": report.file, "statement": signed})
        if verdict.wait:
            self._waiting.add(project)
        return verdict

    async def _attest(
        self, tables: Transaction, known: Known, report: Stored, listed: IndexFile, now_ms: int
    ) -> Checked | None:
        """Signs, keeps, logs and queues the attestation; None when this key has one of the file already."""
        file, sha256 = FileName(report.file), Sha256(report.sha256)
        if (before := await tables.ledger.signed(self._voice.keyid, file)) is not None:
            if before != sha256:
                log.warning("second digest of a file is not signed alarm", extra={"file": file, "signed": before})
            return None
        subjects, predicate = draft(known, report, listed, index_name=self._index_name)
        await tables.ledger.sign_once(self._voice.keyid, file, sha256)
        checked = await self._voice.say(tables, subjects, predicate, file=file, now_ms=now_ms)
        post = post_of(checked)
        content = json.dumps(post.content, sort_keys=True, separators=(",", ":")).encode()
        await tables.mail.send(f"{PROJECT_ROOM}{known.project}", post.type, post.state_key, content, now_ms)
        return checked


def _judge(known: Known, report: Stored) -> _Verdict:
    """What the page that is known says of a report."""
    if known.view is not None and known.view.state == "down":
        return _Verdict(wait=True)
    file = FileName(report.file)
    listed = known.view.page.files.get(file) if known.view is not None else None
    decision = known.finished.decisions.get(file) if known.finished is not None else None
    if listed is None and decision is not None and decision.serves:
        return _Verdict()  # removed upstream and kept here: it was accepted long ago
    if listed is None or decision is None:
        return _Verdict(alarm="stored file that upstream does not list")
    if decision.rule != Rule.R8:
        return _Verdict(alarm=f"stored file that is not served ({decision.rule})")
    if listed.sha256 != report.sha256:
        return _Verdict(alarm="stored digest is not the one upstream names")
    if listed.size not in (None, report.size):
        return _Verdict(accept=True, believe_size=False, alarm="upstream tells another size than the bytes have")
    return _Verdict(accept=True, attest=listed if is_attestable(file) else None)


def _news(known: Known, report: Stored, size: int | None, now_ms: int) -> Accepted | None:
    """L of the file from now on; None when it is that digest already."""
    file, sha256 = FileName(report.file), Sha256(report.sha256)
    before = known.accepted.get(file)
    if before is not None and before.sha256 == sha256:
        return None
    return Accepted(
        project=known.project,
        file=file,
        sha256=sha256,
        size=size,
        at_ms=now_ms,
        by="served",
        serial=known.view.page.serial if known.view is not None else None,
    )


async def _quietly(work: Coroutine[Any, Any, None]) -> None:
    """Nobody waits for it: what other systems do wrong is logged where it happens, and tried again later."""
    try:
        await work
    except Problem as problem:
        log.info("report must wait", extra={"reason": problem.detail})
