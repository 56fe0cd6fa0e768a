"""Pages of other organisations' logs, read within what each organisation may cost in a day."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from matrix_pypi_bot.core.leaves import Leaf, NotALeaf, read_leaf
from matrix_pypi_bot.ports import Clock, Entries, LogReader, Peer, Store
from matrix_pypi_bot.wire.problems import clean_line

log = logging.getLogger(__name__)

PAGE_ENTRIES: Final = 1_000
_LEAVES_AT_ONCE: Final = 50  # read, about 3 ms; then others have their turn
_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Source:
    """Where an organisation's log is read: at itself, or (`of`) in a peer's copy of it."""

    peer: Peer
    of: str | None = None

    @property
    def log_of(self) -> str:
        """The organisation whose log it is."""
        return self.of or self.peer.org


@dataclass(frozen=True, slots=True)
class Budget:
    """What one organisation may send in a day (UTC), of its own log or of others': so nobody can spend another one's budget."""

    statements_per_day: int
    bytes_per_day: int


class LogPages:
    """Reads leaves. When a budget is spent, operators are told once a day, and there are none until the next."""

    def __init__(self, *, store: Store, clock: Clock, reader: LogReader, budget: Budget) -> None:
        self._store = store
        self._clock = clock
        self._reader = reader
        self._budget = budget
        self._spent: dict[str, tuple[int, int, int]] = {}  # day, statements, bytes
        self._told: dict[str, int] = {}
        self._complaints: dict[str, str] = {}

    async def leaves(self, source: Source, start: int, end: int) -> list[Leaf]:
        """Leaves from `start` on, none from `end` on; none at all when they cannot be had now. Raises StoreAway."""
        if await self._is_spent(source.peer.org):
            return []
        answer = await self._reader.entries(source.peer, source.of, start, min(end, start + PAGE_ENTRIES))
        if not isinstance(answer, Entries):
            self.complain(source.peer.org, answer.reason)
            return []
        leaves: list[Leaf] = []
        for line in answer.lines:
            try:
                leaves.append(read_leaf(line))
            except NotALeaf as error:
                self.complain(source.peer.org, f"leaf {start + len(leaves)}: {error}")
                break
            if len(leaves) % _LEAVES_AT_ONCE == 0:
                await asyncio.sleep(0)
        await self._spend(source.peer.org, len(leaves), answer.size_bytes)
        return leaves

    def complain(self, org: str, reason: str) -> None:
        """Says once what is wrong with an organisation's answers, until all was well or something else is wrong."""
        if self._complaints.get(org) != reason:
            self._complaints[org] = reason
            log.warning("log cannot be read", extra={"org": org, "reason": clean_line(reason)})

    def all_is_well(self, org: str) -> None:
        """The organisation answered."""
        self._complaints.pop(org, None)

    async def _is_spent(self, org: str) -> bool:
        spent = self._spent.get(org)
        if spent is None or spent[0] != self._day():
            spent = await self._spend(org, 0, 0)
        day, statements, size_bytes = spent
        if statements < self._budget.statements_per_day and size_bytes < self._budget.bytes_per_day:
            return False
        if self._told.get(org) != day:
            self._told[org] = day
            what = {"org": org, "statements": statements, "bytes": size_bytes}
            log.warning("log is pulled later, the budget of the day is spent alarm", extra=what)
        return True

    async def _spend(self, org: str, statements: int, size_bytes: int) -> tuple[int, int, int]:
        day = self._day()
        async with self._store.transaction() as tables:
            sums = await tables.peer_logs.spend(org, day, statements, size_bytes)
        self._spent[org] = (day, *sums)
        return self._spent[org]

    def _day(self) -> int:
        return self._clock.now_ms() // _DAY_MS
