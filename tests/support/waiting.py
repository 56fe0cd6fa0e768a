"""Waiting for a condition, with a deadline: what a test does instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
POLL_SECONDS = 0.05


def wait_until(condition: Callable[[], T | None], what: str, *, timeout_seconds: float = 30) -> T:
    """The first true value of `condition()`. Raises AssertionError, which names `what`, when there is none in time."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {timeout_seconds:g} s in vain until {what}"
        time.sleep(POLL_SECONDS)
