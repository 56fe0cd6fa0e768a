"""What we said while another organisation's homeserver joined a room, and which it may have missed, is brought to it by one event more.

An event goes to the servers that are in the room as its sender knows it, and a joiner throws away what reaches it before its join is
kept (measured with Synapse 1.163: 6 of 60 under load). Any later event makes it ask for what came before; in a quiet room none comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cachetools import TTLCache

from matrix_pypi_bot.ports import Clock, Store

log = logging.getLogger(__name__)

TIE: Final = "org.matrix.dummy_event"
"""Synapse's own type for an event that only ties others together; clients do not show it."""

SAME_MOMENT_SECONDS: Final = 60.0  # a word and a join that are less apart may have crossed
SOON_SECONDS: Final = 5.0
LATER_SECONDS: Final = 60.0  # for a joiner that was busy with a large room when the first one came
APART_SECONDS: Final = 30.0  # so often at most is one said soon, whoever comes and goes
MAX_REMEMBERED: Final = 10_000  # rooms


@dataclass(slots=True)
class _Due:
    """Moments of the event loop; the next one comes soon unless it was just said."""

    later: float
    soon: float | None

    @property
    def next(self) -> float:
        return self.later if self.soon is None else min(self.soon, self.later)


class Latecomers:
    """Make it in a running loop and have `run()` run. `poke()` is called when something was queued.

    What is due is lost by a restart.
    """

    def __init__(self, *, store: Store, clock: Clock, poke: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._poke = poke
        self._loop = asyncio.get_running_loop()
        self._said, self._joined = self._remembered(SAME_MOMENT_SECONDS), self._remembered(SAME_MOMENT_SECONDS)
        self._tied = self._remembered(APART_SECONDS)
        self._due: dict[str, _Due] = {}
        self._wake = asyncio.Event()

    def _remembered(self, seconds: float) -> TTLCache[str, bool]:
        return TTLCache(MAX_REMEMBERED, seconds, self._loop.time)

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
        if room not in self._said or room not in self._joined:
            return
        if room not in self._due and len(self._due) >= MAX_REMEMBERED:
            return
        now = self._loop.time()
        due = self._due.setdefault(room, _Due(now, None))
        due.later = now + LATER_SECONDS
        if due.soon is None and room not in self._tied:
            due.soon = now + SOON_SECONDS
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._wake.clear()
            now = self._loop.time()
            for room in [room for room, due in self._due.items() if due.next <= now]:
                await self._tie(room, now)
            seconds = min((due.next - self._loop.time() for due in self._due.values()), default=None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake.wait()

    async def _tie(self, room: str, now: float) -> None:
        due = self._due[room]
        due.soon = None
        if due.later <= now:
            del self._due[room]
        self._tied[room] = True
        try:
            async with self._store.transaction() as t:
                await t.mail.send(room, TIE, None, b"{}", self._clock.now_ms())
        except Exception:  # whatever it is: logs bring what is missing, and nobody else is to wait for this
            log.exception("what was said during a join is not followed up", extra={"room": room})
            return
        self._poke()
