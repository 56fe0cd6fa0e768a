"""What others say that upstream lists: fetched by the digest in their index statements from whoever has it, read when it matters."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from cachetools import LRUCache

from matrix_pypi_bot.core.envelope import read_envelope
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.list_document import InvalidList, Listed, read_list
from matrix_pypi_bot.core.rejected import Rejected
from matrix_pypi_bot.core.statement_page import Lists
from matrix_pypi_bot.core.statements import read_statement
from matrix_pypi_bot.core.statements.index import IndexView
from matrix_pypi_bot.ports import Clock, EnvelopeRow, LogReader, Peer, Store, Transaction
from matrix_pypi_bot.wire.digests import Sha256, sha256_of
from matrix_pypi_bot.wire.names import FileName, ProjectName
from matrix_pypi_bot.wire.problems import Problem

log = logging.getLogger(__name__)

MAX_WAITING: Final = 1_000
MAX_READ: Final = 32  # lists in memory, read; the largest has thousands of files


class ListShelf:
    """The lists that index statements name and that are kept here, read once. A statement counts until it expires."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._read: LRUCache[Sha256, dict[FileName, Listed]] = LRUCache(MAX_READ)

    async def of(self, tables: Transaction, newest: Mapping[str, EnvelopeRow]) -> Lists:
        """What each organisation last saw listed, by its newest index statement; of those whose list is here and not too old."""
        found: dict[str, dict[FileName, Listed]] = {}
        for org, row in newest.items():
            root = row.sha256
            if root is None or not _is_fresh(row, Instant.of_ms(self._clock.now_ms())):
                continue
            if root not in self._read:
                body = await tables.ledger.document(root)
                if body is None:
                    continue
                self._read[root] = read_list(body)
            found[org] = self._read[root]
        return found


class ListFetcher:
    """Fetches lists, one after the other. `on_new(project)` hears of one that came. Have `run()` run."""

    def __init__(
        self,
        *,
        store: Store,
        reader: LogReader,
        peers: Callable[[], Sequence[Peer]],
        on_new: Callable[[ProjectName], None],
    ) -> None:
        self._store = store
        self._reader = reader
        self._peers = peers
        self._on_new = on_new
        self._wanted: dict[ProjectName, None] = {}
        self._wake = asyncio.Event()

    def want(self, project: ProjectName) -> None:
        """Has the lists of a project fetched soon that are named and not here."""
        if len(self._wanted) < MAX_WAITING:
            self._wanted[project] = None
            self._wake.set()

    async def run(self) -> None:
        """Fetches whatever is wanted, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._wanted:
                project = next(iter(self._wanted))
                del self._wanted[project]
                try:
                    await self.fetch(project)
                except Problem as problem:
                    log.warning("lists must wait", extra={"project": project, "reason": problem.detail})

    async def fetch(self, project: ProjectName) -> None:
        """The lists of a project are here, as far as somebody gives them now. Raises StoreAway."""
        async with self._store.transaction() as tables:
            rows = await tables.ledger.newest_index(project)
            missing = {
                org: row.sha256
                for org, row in rows.items()
                if row.sha256 is not None and await tables.ledger.document(row.sha256) is None
            }
        for org, root in missing.items():
            body = await self._ask_all(org, root)
            if body is None:
                continue
            async with self._store.transaction() as tables:
                await tables.ledger.keep_document(root, body)
            self._on_new(project)

    async def _ask_all(self, org: str, root: Sha256) -> bytes | None:
        """The list, from its organisation or from any other that kept it; None when nobody gives it."""
        for peer in sorted(self._peers(), key=lambda peer: peer.org != org):
            if not peer.url:
                continue
            body = await self._reader.list(peer, root)
            if isinstance(body, bytes) and sha256_of(body) == root:
                try:
                    read_list(body)
                except InvalidList as error:
                    log.warning("signed list cannot be read alarm", extra={"org": org, "reason": str(error)})
                    return None
                return body
        return None


def _is_fresh(row: EnvelopeRow, now: Instant) -> bool:
    try:
        told = read_statement(read_envelope(json.loads(row.envelope)).payload, IndexView).predicate
    except Rejected:
        return False
    return isinstance(told, IndexView) and told.expires > now
