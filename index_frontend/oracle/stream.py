"""The change stream: read for ever, resumed where it broke."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import msgspec

from index_frontend.oracle.link import BotAway, BotLink
from index_frontend.oracle.memory import Memory
from index_frontend.oracle.pulse import Pulse
from matrix_pypi_bot.wire.messages import Change
from matrix_pypi_bot.wire.problems import Problem

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 2.0


async def follow(
    link: BotLink,
    memory: Memory,
    pulse: Pulse,
    on_change: Callable[[Change], None] = lambda change: None,
    *,
    first_pause_seconds: float = FIRST_PAUSE_SECONDS,
) -> None:
    """Tell `memory` and `on_change` of every change and `pulse` of every sign of life, until cancelled.

    `on_change` gets the line that begins a new stream with `reset` set: of what was before nobody told.
    """
    listener = _Listener(memory, pulse, on_change)
    pause = first_pause_seconds
    while True:
        try:
            async for change in link.changes(listener.after):
                listener.hear(change)
                pause = first_pause_seconds
        except Problem as problem:
            # Whatever the bot says instead of a stream, there is none.
            if pause == first_pause_seconds or not isinstance(problem, BotAway):
                log.warning(
                    "change stream broke",
                    extra={"reason": problem.detail, "hint": problem.hint, "after": listener.after},
                )
        pulse.lost()
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


class _Listener:
    """Where we are in the stream. `after` is None when the next line begins a new one."""

    def __init__(self, memory: Memory, pulse: Pulse, on_change: Callable[[Change], None]) -> None:
        self.after: int | None = None
        self._on_change = on_change
        self._memory = memory
        self._pulse = pulse

    def hear(self, change: Change) -> None:
        if self.after is None:
            self._memory.forget()  # of the changes before this line nobody told us
        if not self._pulse.is_live:
            log.info("change stream speaks", extra={"seq": change.seq, "after": self.after})
        self._pulse.beat()
        self._memory.hear(change)
        self._on_change(change if self.after is not None else msgspec.structs.replace(change, reset=True))
        self.after = None if change.reset else change.seq
