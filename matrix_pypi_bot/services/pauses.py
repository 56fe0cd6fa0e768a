"""How long what failed is left alone: longer after each failure in a row, up to a bound, never for good."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class _Pause:
    until: float
    failures: int


class Pauses:
    """Growing pauses by key. Times are the event loop's, in seconds."""

    def __init__(self, *, first_seconds: float, longest_seconds: float) -> None:
        self._first = first_seconds
        self._longest = longest_seconds
        self._pauses: dict[str, _Pause] = {}

    def failed(self, key: str, now: float) -> float:
        """One more failure in a row; the seconds of the pause that begins.

        A failure during a pause is not one more: what was under way when the pause began fails for the reason that is known already.
        """
        if left := self.left(key, now):
            return left
        failures = self._pauses[key].failures + 1 if key in self._pauses else 1
        seconds = min(self._longest, self._first * 2.0 ** min(failures - 1, 30))
        self._pauses[key] = _Pause(now + seconds, failures)
        return seconds

    def wait_until(self, key: str, moment: float) -> None:
        """A pause that is nobody's failure."""
        failures = self._pauses[key].failures if key in self._pauses else 0
        self._pauses[key] = _Pause(moment, failures)

    def succeeded(self, key: str) -> None:
        """The next failure is a first one again."""
        self._pauses.pop(key, None)

    def left(self, key: str, now: float) -> float:
        """Seconds until the pause is over; 0 when there is none."""
        pause = self._pauses.get(key)
        return max(0.0, pause.until - now) if pause else 0.0

    def end_all(self) -> None:
        """Nothing is left alone any longer."""
        self._pauses.clear()
