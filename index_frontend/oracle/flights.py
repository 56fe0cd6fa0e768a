"""One task a key, however many wait for it; it goes on when they leave, and what it learns is kept for the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, TypeVar

V = TypeVar("V")


class Flights:
    """The questions under way."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[Any]] = {}

    def has(self, key: Hashable) -> bool:
        """Whether one is under way under `key`."""
        return key in self._tasks

    def join(self, key: Hashable, ask: Callable[[], Coroutine[Any, Any, V]]) -> asyncio.Task[V]:
        """The task under `key`, begun with `ask()` when there is none."""
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(ask())
            task.add_done_callback(lambda done: self._landed(key, done))
        return task

    async def close(self) -> None:
        """End all; idempotent."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _landed(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        del self._tasks[key]
        if not task.cancelled():
            task.exception()  # seen: perhaps nobody waits any more
