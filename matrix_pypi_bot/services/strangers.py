"""How much people nobody here knows may have us do: accusations by anybody are looked into, a flood of them is not."""

from __future__ import annotations

from typing import Final

from cachetools import LRUCache

PER_MINUTE: Final = 30
"""Accusations by users of one homeserver that are looked into in a minute; checking one takes less than a millisecond."""

ALL_PER_MINUTE: Final = 600
MAX_SERVERS: Final = 1_000
_MINUTE_MS: Final = 60_000


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
