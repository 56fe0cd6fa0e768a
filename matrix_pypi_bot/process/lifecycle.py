"""Start in order, stop in reverse order, every stop within its bound; SIGTERM and SIGINT begin the stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Self, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

STOP_SECONDS: Final = 8.0  # of the whole process; whoever started it may wait 10 s before it kills
PART_STOP_SECONDS: Final = 3.0
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Lifecycle:
    """The parts of a process: entered in order, left in reverse order, no part able to keep the others from being stopped.

    ```
    async with Lifecycle() as life:
        database = await life.enter("database", open_database())
        life.task("inbox", drain(database))
        await life.forever()
    ```
    A task that ends with an exception ends `forever()` with that exception: half a process is worse than none.
    """

    def __init__(self) -> None:
        self._stops: list[tuple[str, Callable[[], Awaitable[object]], float]] = []
        self._failed: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        """Nothing is started yet."""
        self._failed = asyncio.get_running_loop().create_future()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all parts, newest first. What goes wrong while stopping is logged, not raised."""
        while self._stops:
            name, stop, seconds = self._stops.pop()
            try:
                async with asyncio.timeout(seconds):
                    await stop()
            except TimeoutError:
                log.warning("part did not stop in time", extra={"part": name, "seconds": seconds})
            except asyncio.CancelledError:
                log.warning("stop of a part was interrupted", extra={"part": name})
            except Exception:
                log.exception("part failed while stopping", extra={"part": name})
        if self._failed is not None and self._failed.done() and not self._failed.cancelled():
            self._failed.exception()  # seen: without this asyncio complains when nobody waited in forever()

    async def enter(
        self, name: str, context: contextlib.AbstractAsyncContextManager[T], *, stop_seconds: float = PART_STOP_SECONDS
    ) -> T:
        """What `context` gives when entered; it is left when the process stops."""
        value = await context.__aenter__()
        self.on_stop(name, lambda: context.__aexit__(None, None, None), stop_seconds=stop_seconds)
        return value

    def on_stop(
        self, name: str, stop: Callable[[], Awaitable[object]], *, stop_seconds: float = PART_STOP_SECONDS
    ) -> None:
        """Have `stop()` awaited when the process stops, before everything that was registered earlier."""
        self._stops.append((name, stop, stop_seconds))

    def task(self, name: str, work: Coroutine[Any, Any, object], *, stop_seconds: float = PART_STOP_SECONDS) -> None:
        """Run `work` beside the others; it is cancelled and awaited when the process stops."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._task_ended)

        async def stop() -> None:
            task.cancel()
            await asyncio.wait([task])

        self.on_stop(name, stop, stop_seconds=stop_seconds)

    async def forever(self) -> None:
        """Wait until cancelled, or raise what one of the tasks raised."""
        assert self._failed is not None, "only inside `async with`"
        await self._failed

    def _task_ended(self, task: asyncio.Task[object]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.error("task ended", extra={"task": task.get_name()}, exc_info=error)
        if self._failed is not None and not self._failed.done():
            self._failed.set_exception(error)


def run_until_signal(
    main: Callable[[], Coroutine[Any, Any, None]], *, stop_seconds: float = STOP_SECONDS, prefer_uvloop: bool = True
) -> None:
    """Run `main()` on a new event loop (uvloop's where installed and preferred) until it ends, or SIGTERM or SIGINT comes.

    A signal cancels it and gives it `stop_seconds` to clean up; then the process is ended hard, with status 1, so that nobody waits
    for ever. Returns normally after a signal; raises what `main()` raises of its own.
    """
    with asyncio.Runner(loop_factory=_loop_factory() if prefer_uvloop else None) as runner:
        runner.run(_until_signal(main, stop_seconds))


async def _until_signal(main: Callable[[], Coroutine[Any, Any, None]], stop_seconds: float) -> None:
    loop = asyncio.get_running_loop()
    work = asyncio.create_task(main(), name="main")
    signalled = False

    def begin_stop(number: int) -> None:
        nonlocal signalled
        if not signalled:
            signalled = True
            log.info("stopping", extra={"signal": signal.Signals(number).name})
            work.cancel()
            loop.call_later(stop_seconds, _end_hard, stop_seconds)

    for number in _SIGNALS:
        loop.add_signal_handler(number, begin_stop, number)
    try:
        await work
    except asyncio.CancelledError:
        if not signalled:
            raise
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
    if signalled:
        log.info("stopped")


def _end_hard(stop_seconds: float) -> None:
    log.error("did not stop in time, ending now", extra={"seconds": stop_seconds})
    os._exit(1)  # threads that hang would keep sys.exit() waiting


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
