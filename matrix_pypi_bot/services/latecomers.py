"""What we said while another organisation's homeserver joined a room, and which it may have missed, is brought to it by one event more.

An event goes to the servers that are in the room as its sender knows it, and a joiner throws away what reaches it before its join is
kept (measured with Synapse 1.163: 6 of 60 under load). Any later event makes it ask for what came before; in a quiet room none comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from cachetools import TTLCache

from matrix_pypi_bot.ports import Clock, Store, StoreAway

log = logging.getLogger(__name__)

TIE: Final = "org.matrix.dummy_event"
"""Synapse's own type for an event that only ties others together; clients do not show it."""

SAME_MOMENT_SECONDS: Final = 60.0  # a word and a join that are less apart may have crossed
AFTER_SECONDS: Final = (
    5.0,
    60.0,
)  # the second one for a joiner that was busy with a large room when the first one came
MAX_REMEMBERED: Final = 10_000  # rooms


class Latecomers:
    """Make it in a running loop and have `run()` run. `poke()` is called when something was queued."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        poke: Callable[[], None],
        same_moment_seconds: float = SAME_MOMENT_SECONDS,
        after_seconds: tuple[float, ...] = AFTER_SECONDS,
    ) -> None:
        self._store = store
        self._clock = clock
        self._poke = poke
        self._after_seconds = after_seconds
        self._loop = asyncio.get_running_loop()
        self._said: TTLCache[str, bool] = TTLCache(MAX_REMEMBERED, same_moment_seconds, self._loop.time)
        self._joined: TTLCache[str, bool] = TTLCache(MAX_REMEMBERED, same_moment_seconds, self._loop.time)
        self._due: dict[str, list[float]] = {}
        self._wake = asyncio.Event()

    def said(self, room: str, type: str) -> None:
        """An event of ours is in the room with this key."""
        if type != TIE:
            self._said[room] = True
            self._look(room)

    def joined(self, room: str) -> None:
        """Another organisation's bot is in the room with this key now."""
        self._joined[room] = True
        self._look(room)

    def _look(self, room: str) -> None:
        """What is due already is enough for everybody who comes meanwhile."""
        if room in self._said and room in self._joined and room not in self._due and len(self._due) < MAX_REMEMBERED:
            now = self._loop.time()
            self._due[room] = [now + seconds for seconds in self._after_seconds]
            self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._wake.clear()
            now = self._loop.time()
            for room in [room for room, moments in self._due.items() if moments[0] <= now]:
                await self._tie(room)
            seconds = min((moments[0] - self._loop.time() for moments in self._due.values()), default=None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake.wait()

    async def _tie(self, room: str) -> None:
        moments = self._due[room]
        del moments[0]
        if not moments:
            del self._due[room]
        try:
            async with self._store.transaction() as t:
                await t.mail.send(room, TIE, None, b"{}", self._clock.now_ms())
        except StoreAway as problem:
            log.warning(
                "what was said during a join is not followed up", extra={"room": room, "reason": problem.detail}
            )
            return
        self._poke()
