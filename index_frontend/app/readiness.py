"""Whether clients should be sent here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

from index_frontend.oracle.pulse import Pulse
from index_frontend.ports import StorageProblem

CHECKED_SECONDS: Final = 2.0  # anybody may ask, and each look at the store writes to the disk


class Checked(Protocol):
    """A store that knows whether it can store."""

    async def check(self) -> None:
        """Raises StorageProblem when nothing can be stored now."""
        ...


class Readiness:
    """Names what is missing: the bot's change stream, which must have spoken once, or a store that can be written."""

    def __init__(self, pulse: Pulse, store: Checked, clock: Callable[[], float] = time.monotonic) -> None:
        self._pulse = pulse
        self._store = store
        self._clock = clock
        self._checking = asyncio.Lock()
        self._checked_at = float("-inf")
        self._defect: str | None = None

    async def missing(self) -> str | None:
        """What keeps requests from being answered well, None when nothing does."""
        if not self._pulse.has_ever_beaten:
            return "the bot has not been heard yet"
        if not self._pulse.is_live and not self._pulse.allows_held:
            return "the bot has been away for longer than oracle.max_stale_seconds"
        async with self._checking:
            if self._clock() - self._checked_at >= CHECKED_SECONDS:
                self._defect = await self._check()
                self._checked_at = self._clock()
        return self._defect

    async def _check(self) -> str | None:
        try:
            await self._store.check()
        except StorageProblem as problem:
            return problem.detail
        return None
