"""Whether upstream is worth asking: after several failures in a row it is left alone for a while, then asked once."""

from __future__ import annotations

from typing import Final

FAILURES: Final = 3


class Breaker:
    """Closes the way to a page that failed three times, and to all pages once three different ones failed, with no answer in between.

    So one page that upstream cannot show closes the way to no other, however often somebody asks for it. Times are milliseconds of
    any one clock.
    """

    def __init__(self, retry_ms: int) -> None:
        self._retry_ms = retry_ms
        self._failures: dict[str, int] = {}
        self._closed_until = 0

    def allows(self, project: str, now_ms: int) -> bool:
        """Whether to ask about `project` now. While its way is closed, one asker in every interval is let through, to find out."""
        if len(self._failures) < FAILURES and self._failures.get(project, 0) < FAILURES:
            return True
        if now_ms < self._closed_until:
            return False
        self._closed_until = now_ms + self._retry_ms
        return True

    def failed(self, project: str, now_ms: int) -> None:
        """Upstream was away when it was asked about `project`."""
        if project in self._failures or len(self._failures) < FAILURES:
            self._failures[project] = self._failures.get(project, 0) + 1
        self._closed_until = now_ms + self._retry_ms

    def answered(self) -> None:
        """Upstream said something, whatever it was."""
        self._failures.clear()
