"""What this bot knows of a project at one moment, as values: the page, what was accepted, what was seen, what operators said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from matrix_pypi_bot.core.claims import Claim
from matrix_pypi_bot.core.cooldown import Sight
from matrix_pypi_bot.core.index_document import IndexPage
from matrix_pypi_bot.core.index_file import IndexFile
from matrix_pypi_bot.core.judge import UNSERVABLE, Verdict
from matrix_pypi_bot.core.provenance import Provenances
from matrix_pypi_bot.core.statement_page import Lists
from matrix_pypi_bot.ports import Accepted, OverrideRow, VerdictRow
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import FileDecision, ViewState
from matrix_pypi_bot.wire.names import FileName, ProjectName


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The last page of a project, and how the last attempt to read it went (see `ports.ViewRow`).

    `removed` are files that upstream took off its page and that were accepted here, kept for `removed_upstream: keep`. `root` is the
    digest of what is kept of the page: equal roots are equal pages. `rebuilt`: upstream never showed a page here; there is a view
    because others attest files of the project.
    """

    state: Literal["live", "down", "gone"]
    page: IndexPage
    removed: Mapping[FileName, IndexFile]
    root: Sha256
    etag: str | None
    fetched_ms: int
    checked_ms: int
    opened_origins: tuple[str, ...]
    rebuilt: bool = False

    @property
    def told_state(self) -> ViewState:
        """The state as answers tell it: a quarantine is one whether upstream can be reached or not."""
        return "quarantined" if self.page.status == "quarantined" and self.state != "gone" else self.state

    def age_seconds(self, now_ms: int) -> float:
        """Seconds since upstream last said that it is so."""
        return max(0.0, (now_ms - self.checked_ms) / 1000)


@dataclass(frozen=True, slots=True)
class Orders:
    """Operators' decisions that stand: the quarantine of the project, and the last word on each file."""

    project: OverrideRow | None = None
    files: Mapping[FileName, OverrideRow] = field(default_factory=dict)

    def quarantine(self, file: FileName) -> OverrideRow | None:
        """The quarantine under which the file is."""
        if self.project is not None:
            return self.project
        order = self.files.get(file)
        return order if order is not None and order.action == "quarantine" else None

    def approvals(self) -> dict[FileName, OverrideRow]:
        """The approvals that stand."""
        return {file: order for file, order in self.files.items() if order.action == "approve"}


def orders_of(overrides: Sequence[OverrideRow]) -> Orders:
    """What stands of `overrides`, oldest first: the last one on a project or a file counts, a release ends what was before."""
    project: OverrideRow | None = None
    files: dict[FileName, OverrideRow] = {}
    for order in overrides:
        if order.file is None:
            project = order if order.action == "quarantine" else None
        elif order.action == "release":
            files.pop(order.file, None)
        else:
            files[order.file] = order
    return Orders(project, files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What frontends are told: every file's decision, the page they get, and its revision.

    `files` are those of the page with the digest that was decided. `body` is the PEP 691 document without its `_view`.
    `nothing` is why no page can be had although there is one: the decision that every file of it got while upstream is away.
    """

    decisions: Mapping[FileName, FileDecision]
    files: Mapping[FileName, IndexFile]
    revision: str
    body: bytes
    nothing: FileDecision | None = None

    def served(self) -> frozenset[FileName]:
        """The files that may leave."""
        return frozenset(file for file, decision in self.decisions.items() if decision.serves)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Everything known of a project. `accepted` are rows of files served here; approvals are in `orders`.

    A page with a serial below `serial_floor` is not believed; None: upstream never told one, or an operator had it forgotten. `claims`
    are what anybody's statements say of the project's files, `verdicts` what was judged of them, both oldest first; `lists` is what
    other organisations last saw listed, read while upstream is away. `sights` tells when
    each file was first seen, where that matters to a policy. `at_ms` is the moment at which all this was decided, `redecide_at_ms` the
    first one after it at which time alone may change an answer.
    """

    project: ProjectName
    view: View | None = None
    accepted: Mapping[FileName, Accepted] = field(default_factory=dict)
    first_seen: Mapping[FileName, Sha256] = field(default_factory=dict)
    sights: Mapping[FileName, Sight] = field(default_factory=dict)
    orders: Orders = field(default_factory=Orders)
    provenance: Provenances = field(default_factory=Provenances)
    serial_floor: int | None = None
    claims: tuple[Claim, ...] = ()
    verdicts: tuple[VerdictRow, ...] = ()
    lists: Lists = field(default_factory=dict)
    finished: Finished | None = None
    at_ms: int = 0
    redecide_at_ms: int | None = None

    @property
    def is_blank(self) -> bool:
        """Whether nothing is known at all."""
        if self.claims or self.view is not None:
            return False
        return not self.accepted and not self.first_seen and self.orders == Orders()

    @property
    def out(self) -> frozenset[str]:
        """Ids of the statements that nothing may be served by: by the newest word on them refuted, contested or in conflict."""
        return self._last_judged(UNSERVABLE)

    @property
    def refuted(self) -> frozenset[str]:
        """Ids of the statements that are false."""
        return self._last_judged(frozenset({Verdict.UPHELD.value}))

    def _last_judged(self, results: frozenset[str]) -> frozenset[str]:
        newest = {(row.statement_id, row.fault): row.result for row in self.verdicts}
        return frozenset(statement_id for (statement_id, _), result in newest.items() if result in results)

    @property
    def floor_is_forgotten(self) -> bool:
        """Whether the page held has a serial and none is guarded: the next page is to bring one, so it must come whole."""
        return self.serial_floor is None and self.view is not None and self.view.page.serial is not None

    def lasting(self) -> Mapping[FileName, Accepted]:
        """L of each file: the newest of what was accepted by serving it and what an operator approved."""
        approvals = self.orders.approvals()
        if not approvals:
            return self.accepted
        merged = dict(self.accepted)
        for file, order in approvals.items():
            served = self.accepted.get(file)
            if order.sha256 is not None and (served is None or served.at_ms <= order.at_ms):
                size = served.size if served is not None and served.sha256 == order.sha256 else None
                merged[file] = Accepted(
                    project=self.project,
                    file=file,
                    sha256=order.sha256,
                    size=size,
                    at_ms=order.at_ms,
                    by="approved",
                    serial=None,
                )
        return merged
