"""Blocking work in threads, so that the event loop never waits for a disk."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import Executor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(threads: Executor, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns. A caller who is cancelled still waits until it has ended: nobody cleans up under a running thread."""
    future = asyncio.get_running_loop().run_in_executor(threads, functools.partial(work, *args, **kwargs))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        if not future.cancelled():
            future.exception()  # seen: asyncio complains about failures that nobody looked at
        raise
