"""Whether the bot is there: what its change stream and its answers tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from matrix_pypi_bot.wire.messages import HEARTBEAT_SECONDS, STREAM_SILENCE_SECONDS

_LIVELY_SECONDS: Final = (
    HEARTBEAT_SECONDS + 2
)  # one heartbeat is overdue: something may be wrong, waiting long is no use


class Pulse:
    """The bot's pulse. `max_stale_seconds` is how long, counted from its last beat, what is held may be used without it."""

    def __init__(self, clock: Callable[[], float], max_stale_seconds: float, *, serve_when_down: bool) -> None:
        self._clock = clock
        self._max_stale_seconds = max_stale_seconds
        self._serve_when_down = serve_when_down
        self._connected = False
        self._beat_at: float | None = None
        self.is_away = False  # the last question got no answer; cleared by any sign of life

    def beat(self) -> None:
        """The change stream said something."""
        self._connected = True
        self._beat_at = self._clock()
        self.is_away = False

    def lost(self) -> None:
        """The change stream broke."""
        self._connected = False

    @property
    def has_ever_beaten(self) -> bool:
        """Whether the change stream has been connected once."""
        return self._beat_at is not None

    @property
    def is_live(self) -> bool:
        """Whether the stream tells us of every change: what is held and current is valid."""
        return self._connected and self._silence() <= STREAM_SILENCE_SECONDS

    @property
    def is_lively(self) -> bool:
        """Whether the bot certainly runs, so that it is worth waiting for an answer that takes long."""
        return self._connected and self._silence() <= _LIVELY_SECONDS

    @property
    def allows_held(self) -> bool:
        """Whether what is held may be used although the bot does not answer."""
        return self._serve_when_down or self._silence() <= self._max_stale_seconds

    def _silence(self) -> float:
        return float("inf") if self._beat_at is None else self._clock() - self._beat_at
