"""Copies of what clients were given, in another backend: made as it comes, taken back when it is refused.

One process at a time works for a backend. How far it is stands in the store's index, so a crash costs one copy made twice, which the
backend takes for success. What is gone since is passed over; what is refused, or of which nobody can say how it stands, is put off and
asked about again, and so is a file that the backend does not take although it takes others. A backend that is away or full is asked
again later, and nothing waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import suppress
from typing import Final, Protocol

from index_frontend.ports import Oracle, StorageFull, StorageProblem
from index_frontend.storage.api import BackendProblem, Capability, ContentId, NotFound, WrongContent
from index_frontend.storage.verified import Verified
from matrix_pypi_bot.wire.cids import parse_cid
from matrix_pypi_bot.wire.digests import Sha256, parse_sha256
from matrix_pypi_bot.wire.messages import Change, Stored
from matrix_pypi_bot.wire.names import FileName, ProjectName
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 2.0
"""How often it is looked whether there is something to copy: other processes do not call."""

TURN_SECONDS: Final = 10.0
"""How often another process looks whether it is its turn: after the death of the one that copies."""

FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 60.0
BATCH: Final = 100
TRIES: Final = 5
"""So often a report is tried while the backend is well, before the next one is."""

MAX_WITHDRAWN: Final = 10_000
"""Withdrawals that are remembered, also by a process whose turn it is not; beyond, every copy is asked about when it is."""

RECHECKED_APART_SECONDS: Final = 0.02
"""Between two questions whether a copy of long ago may stay: at the start and after a gap in the change stream, all are asked."""


class Turn(Protocol):
    """The right to work; others may when it is released."""

    def release(self) -> None: ...


class CopyNotes(Protocol):
    """What a store knows of its copies elsewhere. Every call may raise StorageBroken."""

    def turn(self, work: str) -> Turn | None:
        """None while another process has it."""
        ...

    async def reported_after(self, number: int, limit: int) -> list[tuple[int, Stored]]:
        """(number, report) of what clients were given, in order."""
        ...

    async def reported_as(self, project: str, file: str) -> list[tuple[int, Stored]]:
        """(number, report) of every report of a file, also of other bytes under its name."""
        ...

    async def copied_until(self, backend: str) -> int:
        """The number of the last report that is dealt with, 0 at the beginning."""
        ...

    async def note_copied(self, backend: str, number: int) -> None:
        """Everything up to this report is dealt with."""
        ...

    async def put_off(self, backend: str, number: int) -> None:
        """This report comes again, after all that were put off before."""
        ...

    async def settle(self, backend: str, number: int) -> None:
        """It is put off no more."""
        ...

    async def waiting(self, backend: str, limit: int) -> list[tuple[int, Stored]]:
        """(number, report) of what was put off, in turn."""
        ...

    async def askers_of(self, sha256: Sha256) -> tuple[tuple[str, str], ...]:
        """See `ports.BlockStore`."""
        ...


class Copier:
    """Works for one backend. Make it in a running loop and have `run` run."""

    def __init__(self, notes: CopyNotes, source: Verified, target: Verified, oracle: Oracle) -> None:
        self.backend = target.name
        self._notes = notes
        self._source = source
        self._target = target
        self._oracle = oracle
        self._withdrawn: dict[tuple[str, str], None] = {}
        self._recheck_after = 0  # reports from here to what is copied are asked about again
        self._gaps = 0  # how often all of them had to be
        self._failures: Counter[int] = Counter()  # of the reports that are being tried
        self._again_at = 0.0
        self._news = asyncio.Event()
        self._complained = False

    def hear(self, change: Change) -> None:
        """A line of the bot's change stream; after `reset` there may have been changes of which nobody told."""
        if change.reset:
            self._recheck_all()
        elif change.project is not None and change.withdrawn:
            self._withdrawn.update(dict.fromkeys((change.project, file) for file in change.withdrawn))
            if len(self._withdrawn) > MAX_WITHDRAWN:
                self._withdrawn.clear()
                self._recheck_all()
        else:
            return
        self._news.set()

    def _recheck_all(self) -> None:
        self._recheck_after = 0
        self._gaps += 1

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            turn = None
            with suppress(StorageProblem):
                turn = self._notes.turn(f"copies-{self.backend}")
            if turn is None:
                await asyncio.sleep(TURN_SECONDS)
                continue
            try:
                await self._copy_on()
            finally:
                turn.release()

    async def _copy_on(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            self._news.clear()
            try:
                busy = await self._take_back() | await self._recheck() | await self._copy()
            except Problem as problem:  # of the backend, the store or the bot: all come back
                self._complain(problem)
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE_SECONDS, 2 * pause)
                continue
            pause, self._complained = FIRST_PAUSE_SECONDS, False
            if not busy:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._news.wait()

    # Making copies -----------------------------------------------------------------------------------------------------

    async def _copy(self) -> bool:
        """The next reports, in order. Raises Problem when one must wait."""
        name = self.backend
        batch = await self._notes.reported_after(await self._notes.copied_until(name), BATCH)
        for number, report in batch:
            await self._deal_with(number, report)
            await self._notes.note_copied(name, number)
        now = asyncio.get_running_loop().time()
        if now >= self._again_at:
            self._again_at = now + LONGEST_PAUSE_SECONDS
            for number, report in await self._notes.waiting(name, BATCH):
                await self._deal_with(number, report)
        return bool(batch)

    async def _deal_with(self, number: int, report: Stored) -> None:
        """It is copied, or put off. Raises Problem when everything else had better wait too."""
        try:
            may = await self._may_stay(report)
            if may:
                await self._copy_one(report)
        except Problem:
            self._failures[number] += 1
            if self._failures[number] < TRIES or (await self._target.health()).state == "down":
                raise
            may = False  # others may fare better
        del self._failures[number]
        await (self._notes.settle if may else self._notes.put_off)(self.backend, number)

    async def _copy_one(self, report: Stored) -> None:
        content = _content(report)
        if await self._target.stat(content) is not None:
            return
        try:
            async with self._source.read(content) as chunks:
                await self._target.put(content, chunks)
        except (NotFound, WrongContent) as problem:  # evicted, or rotten: it comes again when a client asks for it
            log.warning("file is not copied", extra={"file": report.file, "cause": problem.detail})
            return
        log.info("file copied", extra={"file": report.file, "backend": self.backend, "cid": content.cid})

    # Taking them back --------------------------------------------------------------------------------------------------

    async def _take_back(self) -> bool:
        names = list(self._withdrawn)
        for project, file in names:
            self._withdrawn.pop((project, file), None)  # not afterwards: it may be withdrawn again meanwhile
            try:
                for number, report in await self._notes.reported_as(project, file):
                    await self._take_one_back(number, report)
            except Problem:
                self._withdrawn[project, file] = None
                raise
        return bool(names)

    async def _recheck(self) -> bool:
        """Copies of long ago, some of them: whatever was refused while nobody listened."""
        gaps, until = self._gaps, await self._notes.copied_until(self.backend)
        if self._recheck_after >= until:
            return False
        batch = await self._notes.reported_after(self._recheck_after, BATCH)
        for number, report in batch:
            if number > until:
                break
            await self._take_one_back(number, report)
            if gaps != self._gaps:
                return True  # from the beginning: what was said before does not count
            self._recheck_after = number
            await asyncio.sleep(RECHECKED_APART_SECONDS)
        if gaps == self._gaps and (len(batch) < BATCH or batch[-1][0] > until):
            self._recheck_after = until
        return True

    async def _take_one_back(self, number: int, report: Stored) -> None:
        """Unless it may stay, under this name or another."""
        content = _content(report)
        if Capability.DELETE not in self._target.capabilities or await self._may_stay(report) is not False:
            return
        for project, file in await self._notes.askers_of(content.sha256):
            if await self._may_stay(_renamed(report, project, file)) is not False:
                return
        if await self._target.stat(content) is None:
            return
        if Capability.PIN in self._target.capabilities:
            await self._target.unpin(content)
        await self._target.delete(content)
        await self._notes.put_off(self.backend, number)  # it may be released
        log.warning("copy of a refused file taken back", extra={"file": report.file, "backend": self.backend})

    async def _may_stay(self, report: Stored) -> bool | None:
        """Whether the file is served now as these bytes; None when nobody can say. Raises Problem when the bot cannot be asked."""
        try:
            decision = await self._oracle.standing_of(ProjectName(report.project), FileName(report.file))
        except Problem as problem:
            if problem.code in (ProblemCode.NOT_FOUND, ProblemCode.REFUSED):
                return False
            raise
        if decision.action in ("unavailable", "contested"):
            return None
        return decision.serves and decision.sha256 == report.sha256

    def _complain(self, problem: Problem) -> None:
        if not self._complained:
            level = logging.WARNING if isinstance(problem, BackendProblem | StorageFull) else logging.INFO
            log.log(level, "copies must wait", extra={"backend": self.backend, "cause": problem.detail})
        self._complained = True


def _content(report: Stored) -> ContentId:
    return ContentId(sha256=parse_sha256(report.sha256), size=report.size, cid=parse_cid(report.cid))


def _renamed(report: Stored, project: str, file: str) -> Stored:
    return Stored(
        project=project, file=file, sha256=report.sha256, size=report.size, cid=report.cid, source=report.source
    )
