"""Whether upstream is worth asking: after several failures in a row it is left alone for a while, then asked once."""

from __future__ import annotations

from typing import Final

FAILURES: Final = 3  # one broken page must not close the way to all others


class Breaker:
    """Counts failures over all projects. Times are milliseconds of any one clock."""

    def __init__(self, retry_ms: int) -> None:
        self._retry_ms = retry_ms
        self._failures = 0
        self._closed_until = 0

    def allows(self, now_ms: int) -> bool:
        """Whether to ask now. While it is open, one asker in every interval is let through, to find out."""
        if self._failures < FAILURES:
            return True
        if now_ms < self._closed_until:
            return False
        self._closed_until = now_ms + self._retry_ms
        return True

    def failed(self, now_ms: int) -> None:
        """Upstream was away."""
        self._failures += 1
        self._closed_until = now_ms + self._retry_ms

    def answered(self) -> None:
        """Upstream said something, whatever it was."""
        self._failures = 0
