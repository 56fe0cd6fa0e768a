"""Moments in time as statements write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

_WRITTEN: Final = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})Z", re.ASCII)

LAST_SECOND: Final = 253_402_300_799
"""The last moment that can be written: the end of the year 9999."""


class Instant(int):
    """Whole seconds since the epoch, UTC; written as `2026-11-22T13:00:00Z` and in no other way."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Instant:
        """The moment that `text` writes. Raises ValueError for another form and for days that do not exist."""
        match = _WRITTEN.fullmatch(text)
        if match is None:
            raise ValueError("a time is written YYYY-MM-DDThh:mm:ssZ")
        year, month, day, hour, minute, second = (int(part) for part in match.groups())
        return cls(int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()))

    @classmethod
    def of_ms(cls, milliseconds: int) -> Instant:
        """The moment of a clock that counts milliseconds, cut to its second."""
        return cls(milliseconds // 1_000)

    def __str__(self) -> str:
        return datetime.fromtimestamp(int(self), tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    __repr__ = __str__
