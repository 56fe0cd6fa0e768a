"""Copies of other organisations' logs, as they are given to everybody: who is cut off from an organisation gets its statements here."""

from __future__ import annotations

from matrix_pypi_bot.ports import CopyHead, CopyId, Store, Transaction
from matrix_pypi_bot.services.log import MAX_ENTRIES, Page
from matrix_pypi_bot.wire.digests import Sha256


class ShownCopies:
    """Reads what is verified; what is only staged nobody vouches for."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def note(self, org: str) -> str | None:
        """The newest verified head of the organisation's log with our cosignature; None when there is none. Raises StoreAway."""
        async with self._store.transaction() as tables:
            _, head = await _newest(tables, org)
        return head.note if head is not None else None

    async def entries(self, org: str, start: int, end: int) -> list[bytes]:
        """As `LogKeeper.entries`, of the newest copy. Raises StoreAway."""
        async with self._store.transaction() as tables:
            copy, head = await _newest(tables, org)
        if copy is None or head is None:
            return []
        page = Page(start, min(end, head.size, start + MAX_ENTRIES))
        while page.wants_more:
            async with self._store.transaction() as tables:
                page.take(await tables.peer_logs.entries(copy, *page.next_range()))
        return page.entries

    async def list(self, sha256: Sha256) -> bytes | None:
        """The list of files with this digest that an index statement stands for; None when it is not here. Raises StoreAway."""
        async with self._store.transaction() as tables:
            return await tables.ledger.document(sha256)


async def _newest(tables: Transaction, org: str) -> tuple[CopyId | None, CopyHead | None]:
    copy = await tables.peer_logs.newest_copy(org)
    return copy, await tables.peer_logs.head(copy) if copy is not None else None
