"""Leaves of other organisations' logs on their way into the ledger, through the door that every statement of others takes.

A leaf that does not count is counted and told of, and nothing behind it waits. Manifests are taken before anything vouches for the tree
they stand in, because they prove themselves, and because without their keys nothing else could be checked.
"""

from __future__ import annotations

import asyncio
import collections
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from matrix_pypi_bot.core.events import Checked
from matrix_pypi_bot.core.leaves import Leaf, parsed
from matrix_pypi_bot.core.rejected import Code, Rejected
from matrix_pypi_bot.core.statements.keys import Manifest
from matrix_pypi_bot.ports import Clock, CopyId, StatementDoor, Store, StoreAway, Waiting
from matrix_pypi_bot.wire.names import ProjectName

log = logging.getLogger(__name__)

AT_ONCE: Final = 50  # statements in one transaction: more would hold everybody else up
_CHECKED_AT_ONCE: Final = 10  # signatures, about 2 ms; then others have their turn
_UNKNOWN: Final = frozenset({Code.KEY_UNKNOWN.value})
_SPOILED: Final = _UNKNOWN | {Code.ENVELOPE.value, Code.SIZE.value, Code.SIG.value}
"""Codes that say nothing of the payload: whoever relayed the leaf may have spoiled it."""
_UNREADABLE: Final = "unreadable"
_NOT_NEEDED: Final = "OK"

_Looked = tuple[Waiting, Checked | str]


class Taking:
    """`outcomes` counts leaves by organisation and outcome: `OK`, or the code of the first check that failed.

    `on_project(project)` hears of projects about which a log told something that no room had.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        door: StatementDoor,
        on_project: Callable[[ProjectName], None] = lambda project: None,
    ) -> None:
        self.outcomes: collections.Counter[tuple[str, str]] = collections.Counter()
        self._store = store
        self._clock = clock
        self._door = door
        self._on_project = on_project

    async def introduce(self, leaves: Sequence[Leaf]) -> None:
        """Takes the manifests among leaves that nobody vouches for yet. Raises StoreAway."""
        for leaf in leaves:
            if not leaf.may_be_manifest:
                continue
            try:
                checked = self._door.check(parsed(leaf.envelope))
            except Rejected:
                continue  # it is looked at again in its turn
            if isinstance(checked.statement.predicate, Manifest):
                async with self._store.transaction() as tables:
                    new = await self._door.keep(tables, checked, via="log", at_ms=self._clock.now_ms())
                if new:
                    self._tell(checked)

    async def take(self, org: str, copy: CopyId) -> None:
        """Takes in every leaf that a verified head bears and that was not taken yet. Raises StoreAway."""
        while True:
            async with self._store.transaction() as tables:
                head = await tables.peer_logs.head(copy)
                if head is None or head.taken >= head.size:
                    return
                end = min(head.size, head.taken + AT_ONCE)
                waiting = await tables.peer_logs.waiting(copy, head.taken, end, AT_ONCE)
            await self._take(org, copy, waiting, taken=end)

    async def take_again(self, org: str, copy: CopyId) -> None:
        """Looks again at leaves whose key was not known: the keyring may have grown. Raises StoreAway."""
        start = 0
        while True:
            async with self._store.transaction() as tables:
                waiting = await tables.peer_logs.uncounted(copy, _UNKNOWN, AT_ONCE, start=start)
            if not waiting:
                return
            start = waiting[-1].n + 1
            await self._take(org, copy, waiting, taken=None)

    async def spoiled(self, copy: CopyId, limit: int) -> list[int]:
        """Leaves that were relayed with no signature that can be checked: the log itself may have them whole. Raises StoreAway."""
        async with self._store.transaction() as tables:
            found = await tables.peer_logs.uncounted(copy, _SPOILED, limit, relayed_only=True)
        return [each.n for each in found]

    async def mend(self, org: str, copy: CopyId, n: int, leaf: Leaf) -> None:
        """Puts the log's own envelope of a leaf in the place of the relayed one, and takes it. Raises StoreAway."""
        async with self._store.transaction() as tables:
            if await tables.peer_logs.subtree(copy, 0, n) != leaf.hash:
                return
            await tables.peer_logs.mend(copy, n, leaf.envelope)
            waiting = await tables.peer_logs.waiting(copy, n, n + 1, 1)
        await self._take(org, copy, waiting, taken=None)

    async def _take(self, org: str, copy: CopyId, waiting: Sequence[Waiting], *, taken: int | None) -> None:
        """One batch; when that fails, one by one, so that only what cannot be taken is put away."""
        looked = [(each, await self._look(n, each)) for n, each in enumerate(waiting)]
        try:
            news = await self._commit(copy, looked, taken=taken)
        except StoreAway:
            raise
        except Exception:
            if len(waiting) > 1:
                for each in waiting:
                    await self._take(org, copy, [each], taken=None)
                looked = []
            else:
                log.exception("leaf could not be taken, put away", extra={"org": org, "leaf": waiting[0].n})
                looked = [(waiting[0], _UNREADABLE)]
            news = await self._commit(copy, looked, taken=taken)
        for checked in news:
            self._tell(checked)
        self._count(org, looked)

    async def _commit(self, copy: CopyId, looked: Sequence[_Looked], *, taken: int | None) -> list[Checked]:
        """Keeps what counts, notes what does not and where we are, in one transaction; what was new."""
        news: list[Checked] = []
        async with self._store.transaction() as tables:
            for each, found in looked:
                if isinstance(found, Checked):
                    new = await self._door.keep(tables, found, via="log", at_ms=self._clock.now_ms())
                    if new:
                        news.append(found)
                    if new or await tables.ledger.envelope(found.statement.id) is not None:
                        await tables.peer_logs.kept(copy, each.n)
                    else:  # as a manifest that is older than the one held
                        await tables.peer_logs.found(copy, each.n, _NOT_NEEDED)
                else:
                    await tables.peer_logs.found(copy, each.n, found)
            head = await tables.peer_logs.head(copy)
            if taken is not None and head is not None:
                await tables.peer_logs.put_head(copy, replace(head, taken=taken))
        return news

    async def _look(self, n: int, each: Waiting) -> Checked | str:
        if n % _CHECKED_AT_ONCE == 0:
            await asyncio.sleep(0)
        try:
            return self._door.check(parsed(each.envelope))
        except Rejected as rejected:
            if rejected.code is Code.CID_DIGEST:
                self._door.tell_of_lie(parsed(each.envelope))
            return rejected.code.value

    def _count(self, org: str, looked: Sequence[_Looked]) -> None:
        for each, found in looked:
            outcome = "OK" if isinstance(found, Checked) else found
            self.outcomes[org, outcome] += 1
            if outcome in ("OK", each.outcome):
                continue
            told = {"org": org, "leaf": each.n, "code": outcome}
            if outcome in _UNKNOWN:
                log.info("leaf by an unknown key waits", extra=told)
            else:
                log.warning("leaf of another organisation does not count alarm", extra=told)

    def _tell(self, checked: Checked) -> None:
        try:
            self._door.tell(checked)
            if (project := checked.statement.predicate.about_project()) is not None:
                self._on_project(ProjectName(project))
        except Exception:  # what was kept stays kept, whatever those do who hear of it
            log.exception("statement kept, but not told of", extra={"statement": checked.statement.id})
