"""Several things at the same time, of which the first that fails ends all.

`asyncio.TaskGroup` cancels the task that waits for it, and up to Python 3.12 leaves that cancellation counted, so that a timeout around
it is mistaken. Here nobody is cancelled but the tasks themselves, and what failed is raised as it is, in no group.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Together:
    """The tasks of one block."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[Any]] = []

    def create_task(self, work: Coroutine[Any, Any, T], *, name: str | None = None) -> asyncio.Task[T]:
        """Begins one more."""
        task = asyncio.create_task(work, name=name)
        self._tasks.append(task)
        return task

    async def ended(self) -> None:
        """Returns when all have; raises what the first of them raised, while others may be running."""
        while running := [task for task in self._tasks if not task.done()]:
            await asyncio.wait(running, return_when=asyncio.FIRST_EXCEPTION)
            self._raise_failure()
        self._raise_failure()

    async def stop(self) -> None:
        """Returns when none runs any more, however often it is cancelled meanwhile."""
        cancelled: asyncio.CancelledError | None = None
        for task in self._tasks:
            task.cancel()
        while running := [task for task in self._tasks if not task.done()]:
            try:
                await asyncio.wait(running)
            except asyncio.CancelledError as error:
                cancelled = error
        for task in self._tasks:
            if not task.cancelled():
                task.exception()  # one failure is told, and asyncio is not to complain of the others
        if cancelled is not None:
            raise cancelled

    def _raise_failure(self) -> None:
        for task in self._tasks:
            if task.done() and not task.cancelled() and (failure := task.exception()) is not None:
                raise failure


@contextlib.asynccontextmanager
async def together() -> AsyncIterator[Together]:
    """Tasks, all of which have ended when the block has. They are begun in the block, which waits for nothing itself."""
    tasks = Together()
    try:
        yield tasks
        await tasks.ended()
    finally:
        await tasks.stop()
