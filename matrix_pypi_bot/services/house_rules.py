"""The operator's own policy, asked about what is known of a project: what it refuses, what has to wait, and when that ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from matrix_pypi_bot.core.cooldown import Cooldown, Cooling, Exemption, Sight
from matrix_pypi_bot.core.decide import Rule, Ruling
from matrix_pypi_bot.core.index_file import IndexFile
from matrix_pypi_bot.core.policy import Denial, DenyList, NameRules
from matrix_pypi_bot.core.witnesses import NOBODY, Witnesses
from matrix_pypi_bot.services.known import Known, View
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName, ProjectName


class HouseRules:
    """Everything is asked as of `known.at_ms`. `spelled` is another text for any other policy."""

    def __init__(self, denials: Sequence[Denial], names: NameRules, cooldown: Cooldown) -> None:
        self.cooldown = cooldown
        self.spelled = msgspec.json.encode((tuple(denials), names, cooldown), enc_hook=str).decode()
        self._denials = DenyList(denials)
        self._names = names
        self._ends: dict[ProjectName, list[int]] = {}
        entries: tuple[Denial | Exemption, ...] = (*denials, *cooldown.exemptions)
        for one in entries:
            if one.project is not None and one.until_ms is not None:
                self._ends.setdefault(one.project, []).append(one.until_ms)

    def forbidden(self, known: Known) -> str | None:
        """Why the whole project is refused, so that nobody outside is asked about it; None when it is not."""
        if self._denials.concerns(known.project):
            denial = self._denials.match(known.project, None, at_ms=known.at_ms)
            if denial is not None:
                return denial.told
        return self._names.refusal(known.project)

    def concerns(self, known: Known) -> bool:
        """Whether a file of the project may be denied."""
        orders = known.orders.project is not None or bool(known.orders.files)
        return orders or self._denials.concerns(known.project) or self._names.refusal(known.project) is not None

    def denied(self, known: Known, file: FileName | None, digests: Sequence[Sha256]) -> str | None:
        """Why the file (None: the project) is denied by policy or by an operator's order; None when it is not."""
        if (forbidden := self.forbidden(known)) is not None:
            return forbidden
        if file is not None and self._denials.concerns(known.project):
            denial = self._denials.match(known.project, file, digests, at_ms=known.at_ms)
            if denial is not None:
                return denial.told
        order = known.orders.project if file is None else known.orders.quarantine(file)
        return None if order is None else f"quarantined by an operator: {order.reason}"

    def cooling(
        self, known: Known, file: FileName, witnesses: Witnesses = NOBODY, *, attested: IndexFile | None = None
    ) -> Cooling | None:
        """The cooldown that the file is in. One that only others name is no older than the first statement on it that came here."""
        watch = self.cooldown.watch(known.project, known.at_ms)
        if watch is None or known.view is None:
            return None
        if attested is not None:
            first_ms = min((claim.received_ms for claim in witnesses.claims), default=known.at_ms)
            return watch.of(file, attested.upload_time, Sight(first_ms))
        if (listed := known.view.page.files.get(file)) is None:
            return None
        return watch.of(file, listed.upload_time, known.sights.get(file, Sight(known.view.fetched_ms)))

    def until(
        self,
        ruling: Ruling,
        known: Known,
        file: FileName,
        witnesses: Witnesses = NOBODY,
        *,
        attested: IndexFile | None = None,
    ) -> str:
        """How long a file that is in its cooldown has to wait; empty for all others."""
        cooling = self.cooling(known, file, witnesses, attested=attested) if ruling.rule is Rule.R7 else None
        return "" if cooling is None else cooling.detail

    def watch(self, known: Known, view: View) -> Callable[[IndexFile], Cooling | None] | None:
        """The same of each file of the page, for thousands of them; None when nothing has to wait."""
        watch, sights, page = self.cooldown.watch(known.project, known.at_ms), known.sights, Sight(view.fetched_ms)
        if watch is None:
            return None
        return lambda file: watch.of(file.name, file.upload_time, sights.get(file.name, page))

    def exemption(self, known: Known, file: FileName) -> Exemption | None:
        """Why the file need not wait out the cooldown."""
        watch = self.cooldown.watch(known.project, known.at_ms)
        return None if watch is None else watch.exemption(file)

    def ends(self, known: Known) -> list[int]:
        """The moments still to come at which an entry about the project ends."""
        return [end for end in self._ends.get(known.project, ()) if end > known.at_ms]

    def turns(self, after_ms: int) -> dict[ProjectName, int]:
        """Projects about which an entry ends after that moment, and when the first one does."""
        later = {project: [end for end in ends if end > after_ms] for project, ends in self._ends.items()}
        return {project: min(ends) for project, ends in later.items() if ends}

    def ended(self, at_ms: int) -> int:
        """How many entries have ended by then: what is left are other rules than the same entries made before."""
        return sum(end <= at_ms for ends in self._ends.values() for end in ends)
