"""Every project that is known, in memory as long as there is room, and the one way in which what is known of one changes.

A change is computed, written and announced under one lock: what is in memory is what the database says, and a number of the change
stream is only told to anybody when everything up to it is in memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, NamedTuple

from cachetools import LRUCache

from matrix_pypi_bot import __version__
from matrix_pypi_bot.core.claims import Claim
from matrix_pypi_bot.core.index_document import InvalidPage
from matrix_pypi_bot.core.provenance import Finding, Pin, Provenances
from matrix_pypi_bot.ports import Clock, EnvelopeRow, Ledger, Store, Transaction, VerdictRow, ViewRow
from matrix_pypi_bot.services.known import Known, View, orders_of
from matrix_pypi_bot.services.lists import ListShelf
from matrix_pypi_bot.services.rule import Rulebook
from matrix_pypi_bot.services.stored_page import rebuilt_view, view_of
from matrix_pypi_bot.services.together import Together, together
from matrix_pypi_bot.wire.digests import sha256_of
from matrix_pypi_bot.wire.names import FileName, ProjectName

log = logging.getLogger(__name__)

MAX_HELD_BYTES: Final = 192 << 20
MAX_DUE: Final = 100_000  # projects of which is remembered when time changes an answer; of others frontends learn when they ask again
MAX_BLANKS: Final = 1_000  # names of which nothing is known must not push out those of which something is
_BYTES_PER_PROJECT: Final = 8_000
_BYTES_PER_FILE: Final = 2_000  # a parsed entry, its decision and its digests
_BYTES_PER_CLAIM: Final = 600

Change = Callable[[Transaction, Known], Awaitable[Known]]
"""Writes what is new in the transaction, and gives what is known then; `finished` is not its business."""


class _Claims(NamedTuple):
    """What statements claim of a project, what was judged of them, and each organisation's newest list: as it is being read."""

    claims: asyncio.Task[list[Claim]]
    verdicts: asyncio.Task[list[VerdictRow]]
    newest_index: asyncio.Task[dict[str, EnvelopeRow]]


class Projects:
    """What is known. `upstream` names the index that all of it is about, `base_url` is where its pages are."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        rulebook: Rulebook,
        upstream: str,
        base_url: str,
        max_held_bytes: int = MAX_HELD_BYTES,
    ) -> None:
        self.rulebook = rulebook
        self.upstream = upstream
        self.seq = 0
        self.since = 0  # what was told before this number was decided by other rules
        self._store = store
        self._clock = clock
        self._base_url = base_url
        self._held: LRUCache[ProjectName, Known] = LRUCache(max_held_bytes, getsizeof=_cost)
        self._blank: LRUCache[ProjectName, Known] = LRUCache(MAX_BLANKS)
        self._due: dict[ProjectName, int] = {}  # also of projects that are not in memory any more
        self._lock = asyncio.Lock()
        self._news = asyncio.Event()
        self._in_doubt = False
        self._lists = ListShelf(clock)

    async def start(self) -> None:
        """Takes up the change stream where it was left. Raises StoreAway."""
        now_ms = self._clock.now_ms()
        async with self._store.transaction() as tables:
            self.since = await tables.views.rules_since(self._rules(now_ms), now_ms)
            self.seq = max(self.since, (await tables.views.change_bounds())[1])
        self._due.update(self.rulebook.house.turns(now_ms))

    def page_url(self, project: ProjectName) -> str:
        """The address of the project's page at upstream."""
        return f"{self._base_url}{project}/"

    def held(self, project: ProjectName) -> Known | None:
        """What is in memory of the project."""
        found = self._held.get(project)
        return found if found is not None else self._blank.get(project)

    async def load(self, project: ProjectName) -> Known:
        """What is known of the project, at least that nothing is. Raises StoreAway."""
        if (held := self.held(project)) is not None:
            return held
        async with self._lock:
            return await self._loaded(project)

    async def revise(
        self, project: ProjectName, change: Change, *, redecide: bool = True, against_told: bool = False
    ) -> Known:
        """Changes what is known; durable, decided anew and announced, if the revision is new, when it returns.

        With `redecide` False the change promises that no decision is touched. `against_told`: what is in the database may be newer than
        what frontends were told. What the change raises undoes everything. Raises StoreAway.
        """
        async with self._lock:
            in_memory = self.held(project) is not None
            before, seq = await self._loaded(project), None
            try:
                async with self._store.transaction() as tables:
                    after = await change(tables, before)
                    if redecide:
                        after = self._decided(after)
                    if redecide and against_told and not in_memory:
                        seq = await self._note_all(tables, after)
                    elif redecide:
                        seq = await self._note_change(tables, before, after)
            except BaseException:
                self._doubt(project)
                raise
            self._keep(after)
            if seq is not None:
                self._announce(seq)
            return after

    def due(self) -> list[ProjectName]:
        """Projects about which time has changed an answer since it was decided, whether they are in memory or not."""
        now_ms = self._clock.now_ms()
        return [project for project, due_ms in self._due.items() if due_ms <= now_ms]

    async def redecide(self, project: ProjectName) -> Known:
        """Decides anew, by every statement there is now and whoever is believed now, and announces the difference. Raises StoreAway."""
        async with self._lock:
            before, seq = self.held(project), None
            try:
                async with self._store.transaction() as tables:
                    if before is not None:
                        after = self._decided(await self.with_claims(tables, before))
                        seq = await self._note_change(tables, before, after)
                    else:
                        after = self._decided(await self._read_from(tables, project))
                        seq = await self._note_all(tables, after)
            except BaseException:
                self._doubt(project)
                raise
            self._keep(after)
            if seq is not None:
                self._announce(seq)
            return after

    async def read_again(self, project: ProjectName) -> Known:
        """The same after the database got something that did not come by this way. Raises StoreAway."""
        async with self._lock:
            self._doubt(project)
        return await self.redecide(project)

    async def touch(self, project: ProjectName, change: Callable[[Known], Known]) -> Known:
        """Changes what need not survive a restart and no decision depends on."""
        async with self._lock:
            after = change(await self._loaded(project))
            self._keep(after)
            return after

    async def wait_for_news(self, after: int, timeout_seconds: float) -> None:
        """Returns when the newest number of the change stream is above `after`, or the time is up."""
        news = self._news
        if self.seq <= after:
            try:
                async with asyncio.timeout(timeout_seconds):
                    await news.wait()
            except TimeoutError:
                pass

    def _rules(self, now_ms: int) -> str:
        """What else than pages and statements decides, as one text: the program, the policy, the index asked, who is believed."""
        house, believed = self.rulebook.house, self.rulebook.standing().spelled
        trust = sha256_of(believed.encode()) if believed else ""
        return f"{__version__} {self.rulebook.fingerprint} {house.ended(now_ms)} {self.upstream}{trust and f' {trust}'}"

    def _decided(self, known: Known, at_ms: int | None = None) -> Known:
        finished = self.rulebook.finish(replace(known, at_ms=self._clock.now_ms() if at_ms is None else at_ms))
        return replace(finished, redecide_at_ms=self.rulebook.turns_at(finished))

    async def _loaded(self, project: ProjectName) -> Known:
        held = self.held(project)
        if held is None:
            # What frontends were told before time changed it is what has to be taken back: so as of that moment.
            at_ms = min(self._clock.now_ms(), self._due.get(project, self._clock.now_ms() + 1) - 1)
            held = self._decided(await self._read(project), at_ms)
            self._keep(held)
            if self._in_doubt:
                await self._announce_unheard()
        return held

    def _doubt(self, project: ProjectName) -> None:
        """A change failed, perhaps only the answer to its commit: what became of it the database knows."""
        self._held.pop(project, None)
        self._blank.pop(project, None)
        self._in_doubt = True

    async def _announce_unheard(self) -> None:
        """Tells of what was written although its commit seemed to fail."""
        async with self._store.transaction() as tables:
            newest = (await tables.views.change_bounds())[1]
        self._in_doubt = False
        if newest > self.seq:
            self._announce(newest)

    async def _read(self, project: ProjectName) -> Known:
        async with self._store.transaction(reads_only=True) as tables:
            return await self._read_from(tables, project)

    async def _read_from(self, tables: Transaction, project: ProjectName) -> Known:
        ledger = tables.ledger
        async with together() as group:  # one question to the database, where it can be one
            row = group.create_task(tables.views.get(project))
            accepted = group.create_task(ledger.accepted(project))
            first_seen = group.create_task(ledger.first_seen(project))
            sights = group.create_task(ledger.sights(project)) if self.rulebook.house.cooldown.seconds else None
            overrides = group.create_task(ledger.overrides(project))
            serial_floor = group.create_task(ledger.serial_floor(project, self.upstream))
            findings, pin = self._ask_provenance(group, tables, project)
            claims = _ask_claims(group, ledger, project)
        known = Known(
            project=project,
            accepted=accepted.result(),
            first_seen=first_seen.result(),
            sights=sights.result() if sights is not None else {},
            orders=orders_of(overrides.result()),
            provenance=Provenances(findings.result(), pin.result()) if findings and pin else Provenances(),
            serial_floor=serial_floor.result(),
            view=self._view_of(row.result()),
        )
        return await self._weighable(tables, known, claims)

    def _view_of(self, row: ViewRow | None) -> View | None:
        # What another index said is no page of this one; what was accepted here stays.
        if row is None or row.upstream != self.upstream:
            return None
        try:
            return view_of(row, base_url=self.page_url(row.project))
        except InvalidPage as error:
            log.warning("page kept is not believed any more", extra={"project": row.project, "reason": str(error)})
            return None

    async def with_claims(self, tables: Transaction, known: Known) -> Known:
        """`known` with everything that anybody's statements claim by now, and what was judged of them."""
        async with together() as group:
            claims = _ask_claims(group, tables.ledger, known.project)
        return await self._weighable(tables, known, claims)

    async def _weighable(self, tables: Transaction, known: Known, told: _Claims) -> Known:
        known = replace(known, claims=tuple(told.claims.result()), verdicts=tuple(told.verdicts.result()), lists={})
        if not self.rulebook.is_attested(known):
            return known
        view = known.view or rebuilt_view(known.project)
        lists = await self._lists.of(tables, told.newest_index.result()) if view.state == "down" else {}
        return replace(known, view=view, lists=lists)

    def _ask_provenance(
        self, group: Together, tables: Transaction, project: ProjectName
    ) -> tuple[asyncio.Task[dict[FileName, Finding]] | None, asyncio.Task[Pin | None] | None]:
        policy = self.rulebook.proofs.policy
        if policy is None:
            return None, None
        proofs = tables.provenance
        return group.create_task(proofs.findings(project, policy.root)), group.create_task(proofs.pinned(project))

    async def _note_change(self, tables: Transaction, before: Known, after: Known) -> int | None:
        """The number of the change, None when frontends need not hear of any."""
        old, new = before.finished, after.finished
        if new is None or (old is not None and old.revision == new.revision):
            return None
        withdrawn = sorted(old.served() - new.served()) if old is not None else []
        return await tables.views.change(after.project, new.revision, tuple(withdrawn), self._clock.now_ms())

    async def _note_all(self, tables: Transaction, after: Known) -> int | None:
        """The same of a project of which nobody knows what frontends were told last but the table of changes."""
        new = after.finished
        if new is None or await tables.views.told(after.project) == new.revision:
            return None
        refused = tuple(sorted(new.decisions.keys() - new.served()))
        return await tables.views.change(after.project, new.revision, refused, self._clock.now_ms())

    def _keep(self, known: Known) -> None:
        shelf, other = (self._blank, self._held) if known.is_blank else (self._held, self._blank)
        other.pop(known.project, None)
        if known.redecide_at_ms is None:
            self._due.pop(known.project, None)
        elif known.project in self._due or len(self._due) < MAX_DUE:
            self._due[known.project] = known.redecide_at_ms
        try:
            shelf[known.project] = known
        except ValueError:  # larger than all the room there is: read again each time
            shelf.pop(known.project, None)

    def _announce(self, seq: int) -> None:
        self.seq = seq
        self._news.set()
        self._news = asyncio.Event()


def _ask_claims(group: Together, ledger: Ledger, project: ProjectName) -> _Claims:
    return _Claims(
        group.create_task(ledger.claims(project)),
        group.create_task(ledger.verdicts(project)),
        group.create_task(ledger.newest_index(project)),
    )


def _cost(known: Known) -> int:
    cost = _BYTES_PER_PROJECT + _BYTES_PER_CLAIM * len(known.claims)
    if (finished := known.finished) is not None:
        cost += len(finished.body) + _BYTES_PER_FILE * len(finished.decisions)
    return cost
