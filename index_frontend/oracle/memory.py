"""Everything the bot has said that may still be used, and the changes that decide whether it may. Bounded; no I/O, no clock."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Final

from index_frontend.oracle.held import Absence, Bounded, HeldDecision, HeldPage
from index_frontend.oracle.link import PageAnswer
from matrix_pypi_bot.wire.messages import Change, Decision
from matrix_pypi_bot.wire.names import ProjectName
from matrix_pypi_bot.wire.problems import Problem

MAX_DECISIONS: Final = 20_000
MAX_ABSENCES: Final = 10_000
MAX_CHANGES: Final = 50_000
DECISION_SECONDS: Final = 30.0  # after this the bot is asked again, which also tells it that the project is in use


@dataclass(frozen=True, slots=True)
class _Changed:
    """The last change of a project, and all files withdrawn by any of its changes."""

    seq: int
    revision: str | None
    withdrawn: frozenset[str]


class Memory:
    """What is held. Whether it is current is looked up in the changes when it is used, so nothing can be forgotten to be dropped."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.epoch = 0  # counts the times that everything was forgotten
        self.heard = 0  # counts the changes
        self.forget()

    def forget(self) -> None:
        """Hold nothing any more: changes were missed, and nobody can say which."""
        self.epoch += 1
        self.bytes_held = 0
        self._pages: OrderedDict[ProjectName, HeldPage] = OrderedDict()
        self._projects: dict[str, ProjectName] = {}
        self._decisions: Bounded[str, HeldDecision] = Bounded(MAX_DECISIONS)
        self._absences: Bounded[str, Absence] = Bounded(MAX_ABSENCES)
        self._changed: Bounded[str, _Changed] = Bounded(MAX_CHANGES)
        self._floor = 0  # a project without an entry in `_changed` may have changed up to here

    def hear(self, change: Change) -> None:
        """Remember a line of the change stream."""
        self.heard += 1
        if change.reset:
            self.forget()
        elif change.project is not None:
            before = self._changed.get(change.project)
            withdrawn = frozenset(change.withdrawn) | (before.withdrawn if before else frozenset())
            gone = self._changed.put(change.project, _Changed(change.seq, change.revision, withdrawn))
            if gone is not None:
                self._floor = max(self._floor, gone[1].seq)
            self._absences.clear()  # what was not there may be there now; asking again is cheap

    def page(self, project: ProjectName) -> HeldPage | None:
        """The document held, current or not; it counts as used."""
        held = self._pages.get(project)
        if held is not None:
            self._pages.move_to_end(project)
        return held

    def page_of(self, key: str) -> HeldPage | None:
        """The document held that names the file under `key`; it counts as used."""
        project = self._projects.get(key)
        return None if project is None else self.page(project)

    def keep_page(
        self, project: ProjectName, answer: PageAnswer, asked_about: HeldPage | None, *, epoch: int, now: float
    ) -> HeldPage:
        """What to use of the bot's answer to a question about `asked_about`: held, unless something newer is held already.

        An answer to a question of an earlier `epoch` counts as outdated: positions in the change stream of two lives of the bot
        cannot be compared. Raises msgspec.MsgspecError for a document that is none.
        """
        if epoch != self.epoch:
            answer = replace(answer, seq=-1)
        held = self._pages.get(project)
        if held is not None and held.seq > answer.seq and self.is_current(held):
            return held  # a later question was answered first
        if answer.raw is None:
            assert asked_about is not None, "the link answers 304 only to those who named a revision"
            asked_about.renew(answer, now)
            new = asked_about
        else:
            new = HeldPage.of(project, answer.raw, answer, now)
        if new is not held:
            self._insert(new)
        self._absences.pop(project, None)
        return new

    def drop_page(self, project: ProjectName) -> None:
        """Hold no document of `project`."""
        held = self._pages.pop(project, None)
        if held is None:
            return
        self.bytes_held -= held.cost
        for key in held.files:
            if self._projects.get(key) == project:
                del self._projects[key]

    def is_current(self, held: HeldPage) -> bool:
        """Whether no change of the project was heard since the bot said this."""
        changed = self._changed.get(held.project)
        if changed is None:
            return held.seq >= self._floor
        return held.seq >= changed.seq or held.revision == changed.revision

    def decision(self, key: str) -> HeldDecision | None:
        """The decision that was asked for alone, unless the file was withdrawn since."""
        held = self._decisions.get(key)
        return held if held is not None and self.is_kept(held.decision) else None

    def keep_decision(self, key: str, decision: Decision, now: float) -> None:
        """Hold it for `DECISION_SECONDS`, longer when the bot is away."""
        self._decisions.put(key, HeldDecision(decision, now + DECISION_SECONDS))

    def is_current_decision(self, decision: Decision) -> bool:
        """Whether no change of its project was heard since the bot said this."""
        changed = self._changed.get(decision.project)
        return decision.seq >= (self._floor if changed is None else changed.seq)

    def before_the_change(self, held: HeldPage, key: str) -> Decision | None:
        """The decision of a page that need not be current: usable when the bot is away, unless the file was withdrawn since."""
        decision = held.decision(key)
        return decision if decision is not None and (self.is_current(held) or self.is_kept(decision)) else None

    def absence(self, key: str, now: float) -> Absence | None:
        """Why there is nothing under a project's name or a file's key, while that is remembered."""
        absence = self._absences.get(key)
        return absence if absence is not None and now < absence.until else None

    def keep_absence(self, key: str, problem: Problem, until: float) -> None:
        """Remember that there is nothing."""
        self._absences.put(key, Absence(problem.code, problem.detail, problem.hint, until))

    def is_kept(self, decision: Decision) -> bool:
        """Whether no change heard since the bot said this withdrew the file."""
        changed = self._changed.get(decision.project)
        if changed is None:
            return decision.seq >= self._floor
        return decision.seq >= changed.seq or decision.file not in changed.withdrawn

    def _insert(self, page: HeldPage) -> None:
        self.drop_page(page.project)
        self._pages[page.project] = page
        self.bytes_held += page.cost
        self._projects.update(dict.fromkeys(page.files, page.project))
        while self.bytes_held > self._max_bytes and len(self._pages) > 1:
            self.drop_page(next(iter(self._pages)))
