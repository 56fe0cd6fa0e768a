"""How much others may have us do by what they say in rooms: strangers who accuse, and organisations that say a great deal."""

from __future__ import annotations

import logging
from typing import Final

from cachetools import LRUCache

from matrix_pypi_bot.core.events import Checked
from matrix_pypi_bot.core.statements.keys import Manifest
from matrix_pypi_bot.ports import Clock, Transaction

log = logging.getLogger(__name__)

PER_MINUTE: Final = 30
"""Accusations by users of one homeserver that are looked into in a minute; checking one takes less than a millisecond."""

ALL_PER_MINUTE: Final = 600
MAX_SERVERS: Final = 1_000
_MINUTE_MS: Final = 60_000
_DAY_MS: Final = 86_400_000


class Strangers:
    """Counts by homeserver: accounts are free, homeservers are less so. And by everybody: those are not very dear either."""

    def __init__(self) -> None:
        self._minute = -1
        self._all = 0
        self._by_server: LRUCache[str, int] = LRUCache(MAX_SERVERS)

    def may(self, sender: str, now_ms: int) -> bool:
        """Whether this one is looked into."""
        if (minute := now_ms // _MINUTE_MS) != self._minute:
            self._minute, self._all = minute, 0
            self._by_server.clear()
        server = sender.partition(":")[2]
        count = self._by_server.get(server, 0)
        if count >= PER_MINUTE or self._all >= ALL_PER_MINUTE:
            return False
        self._by_server[server] = count + 1
        self._all += 1
        return True


class RoomBudgets:
    """A day's budget of statements and bytes for each pinned organisation; logs are read within the same one.

    Beyond it nothing is lost: what a room brought is forgotten, and the organisation's log brings it on another day. `own` is never
    counted.
    """

    def __init__(self, clock: Clock, *, own: str = "", statements_per_day: int = 0, bytes_per_day: int = 0) -> None:
        self._clock = clock
        self._own = own
        self._statements = statements_per_day
        self._bytes = bytes_per_day
        self._told: dict[str, int] = {}

    async def is_over(self, tables: Transaction, checked: Checked | None, size_bytes: int) -> bool:
        """Whether the statement is beyond its organisation's budget; it is counted.

        Not what is known: whoever repeats what an organisation said, as strangers can, does not spend its budget. Nor manifests, of
        which old ones are kept no second time: there are few, and keys come from them.
        """
        if checked is None or not self._statements or checked.key.org == self._own:
            return False
        statement = checked.statement
        if isinstance(statement.predicate, Manifest) or await tables.ledger.envelope(statement.id) is not None:
            return False
        org, day = checked.key.org, self._clock.now_ms() // _DAY_MS
        statements, total_bytes = await tables.peer_logs.spend(org, day, 1, size_bytes)
        if statements <= self._statements and total_bytes <= self._bytes:
            return False
        if self._told.get(org) != day:
            self._told[org] = day
            log.warning("budget of the day is spent alarm", extra={"org": org, "statements": statements})
        return True
