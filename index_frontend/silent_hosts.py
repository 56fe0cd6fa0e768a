"""File hosts where nobody is: after several connections in a row that came to nothing, one is left alone for some seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from cachetools import LRUCache

from matrix_pypi_bot.process.outbound import Origin

FAILURES: Final = 3
PAUSE_SECONDS: Final = 5.0  # what clients are told in Retry-After
KNOWN_HOSTS: Final = 1_000  # pages may name as many as they like


@dataclass(slots=True)
class _Host:
    failures: int = 0
    closed_until: float = -math.inf
    answered_at: float = -math.inf


class SilentHosts:
    """Each origin by itself. What counts is a connection that was not made in time: every other failure says that somebody is there,
    or costs no time, and is about one file perhaps. Times are seconds of any one monotonic clock.
    """

    def __init__(self) -> None:
        self._hosts: LRUCache[Origin, _Host] = LRUCache(KNOWN_HOSTS)

    def allows(self, origin: Origin, now: float) -> bool:
        """Whether to ask it now. When a pause ends one asker is let through, to find out, and the next one a pause later."""
        host = self._hosts.get(origin)
        if host is None or host.failures < FAILURES:
            return True
        if now < host.closed_until:
            return False
        host.closed_until = now + PAUSE_SECONDS
        return True

    def failed(self, origin: Origin, began: float, now: float) -> None:
        """Nobody took the connection. It does not count if others have had an answer meanwhile: the host is busy, not absent."""
        host = self._hosts.setdefault(origin, _Host())
        if host.answered_at < began:
            host.failures += 1
            host.closed_until = now + PAUSE_SECONDS

    def answered(self, origin: Origin, now: float) -> None:
        """It said something, whatever it was."""
        self._hosts[origin] = _Host(answered_at=now)
