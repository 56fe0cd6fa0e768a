"""One place to get blocks from, and what is known of it while the process lives: how quick it is, whether it fails, whether it lies."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Final, Literal

from index_frontend.dag.blocks import LEAF_BYTES
from index_frontend.storage.api import BackendProblem, NotFound, StorageBackend, Unavailable, WrongContent
from matrix_pypi_bot.wire.cids import Cid

log = logging.getLogger(__name__)

ATTEMPT_SECONDS: Final = 20.0
"""A neighbour has so long for a block: 50 kB/s for the largest leaf."""

FIRST_LIMIT: Final = 2.0
MAX_LIMIT: Final = 16.0
FAILURES: Final = 3  # one after the other, and it is left alone for a while
STALL_SECONDS: Final = 4.0  # a block that nobody waited for any more after so long is a failure too
FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 60.0
FIRST_BLAME_SECONDS: Final = 60.0
LONGEST_BLAME_SECONDS: Final = 3_600.0
_NEW: Final = 0.3  # how much the last block counts in what a block takes
_SLOWER: Final = 2.0  # than the best: it has enough to do at once
_TOO_SLOW: Final = 6.0  # too much
_FORGOTTEN: Final = 1.002  # the best is not the best for ever

Kind = Literal["peer", "kubo"]
"""What answers call it, in `X-Matrix-PyPI-Source`."""


class Neighbour:
    """A backend that gives blocks, checked (`storage.verified`). It is asked for as many at once as it delivers without delay."""

    def __init__(self, backend: StorageBackend, kind: Kind, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = backend.name
        self.kind: Kind = kind
        self.in_flight = 0
        self.limit = FIRST_LIMIT
        self.block_seconds = 0.0
        self.waiting: dict[
            asyncio.Future[None], None
        ] = {}  # to be told of room, in this order; who waits enters and removes himself
        self._backend = backend
        self._clock = clock
        self._best_seconds = math.inf
        self._failures = 0
        self._stalls = 0
        self._wrongs = 0
        self._until = float("-inf")

    @property
    def is_usable(self) -> bool:
        """Whether it is asked at all now."""
        return self._clock() >= self._until

    @property
    def has_room(self) -> bool:
        """Whether it is asked for one more block now."""
        return self.in_flight < self.limit

    @property
    def due_seconds(self) -> float:
        """How long a block asked for now would take; 0 of one that nobody has asked yet, so that it is tried."""
        return (self.in_flight + 1) * self.block_seconds

    def get(self, cid: Cid) -> asyncio.Task[bytes]:
        """The block, right, under way. Raises NotFound, WrongContent, or another BackendProblem, and remembers it."""
        self.in_flight += 1
        task = asyncio.create_task(self._get(cid))
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[bytes]) -> None:
        self.in_flight -= 1
        free = math.ceil(self.limit - self.in_flight) if self.is_usable else len(self.waiting)
        for waiter in self.waiting:
            if free <= 0:
                return
            if not waiter.done():
                waiter.set_result(None)
                free -= 1

    async def _get(self, cid: Cid) -> bytes:
        with self._judging():
            begun = self._clock()
            try:
                async with asyncio.timeout(ATTEMPT_SECONDS):
                    data = await self._backend.get_block(cid)
            except asyncio.CancelledError:  # others were quicker, or nobody waits for it any more
                self._abandon(self._clock() - begun)
                raise
            except TimeoutError as error:
                raise Unavailable(f"does not send a block in {ATTEMPT_SECONDS:g} s", backend=self.name) from error
        self._deliver(self._clock() - begun, len(data))
        return data

    @contextmanager
    def _judging(self) -> Iterator[None]:
        try:
            yield
        except NotFound:
            self._failures = 0
            raise
        except WrongContent as problem:
            self._blame(problem)
            raise
        except BackendProblem as problem:
            self._fail(problem)
            raise

    def _deliver(self, seconds: float, size: int) -> None:
        """More at once does not make blocks come faster when each of them takes a multiple of what one takes alone."""
        self._failures = 0
        known = self.block_seconds or seconds
        self.block_seconds = known + _NEW * (seconds - known)
        if size < LEAF_BYTES:
            return  # says little about leaves
        self._stalls = 0
        self._best_seconds = min(self._best_seconds * _FORGOTTEN, seconds)
        if seconds > _TOO_SLOW * self._best_seconds:
            self.limit = max(1.0, self.limit * 0.7)
        elif seconds <= _SLOWER * self._best_seconds:
            self.limit = min(MAX_LIMIT, self.limit + 1 / self.limit)

    def _abandon(self, seconds: float) -> None:
        """Only a leaf makes up for it: a peer may give roots at once, and then nothing."""
        self.block_seconds = max(self.block_seconds, seconds)
        if seconds >= STALL_SECONDS:
            self._stalls += 1
            self._rest(self._stalls, f"let wait for a block for {seconds:.0f} s")

    def _fail(self, problem: BackendProblem) -> None:
        self._failures += 1
        self.limit = max(1.0, self.limit / 2)
        self._rest(self._failures, problem.detail)

    def _rest(self, count: int, cause: str) -> None:
        """A pause, when it failed so often."""
        if count >= FAILURES:
            seconds = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(30, count - FAILURES))
            self._pause(seconds)
            log.warning("block source fails", extra={"source": self.name, "cause": cause, "seconds": seconds})

    def _blame(self, problem: WrongContent) -> None:
        self._wrongs += 1
        self.limit = 1.0
        seconds = min(LONGEST_BLAME_SECONDS, FIRST_BLAME_SECONDS * 4 ** min(30, self._wrongs - 1))
        self._pause(seconds)
        log.error(
            "block source sent wrong bytes", extra={"source": self.name, "cause": problem.detail, "seconds": seconds}
        )

    def _pause(self, seconds: float) -> None:
        self._until = max(self._until, self._clock() + seconds)


def usable(neighbours: Collection[Neighbour]) -> bool:
    """Whether any of them is asked now."""
    return any(neighbour.is_usable for neighbour in neighbours)
