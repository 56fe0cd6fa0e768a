"""A block from whichever neighbour has it: the quickest first, others beside it when it is slow, after it when it fails."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from index_frontend.blocks.neighbour import Neighbour
from index_frontend.ports import SourceAway, SourceGone
from index_frontend.storage.api import BackendProblem, NotFound, WrongContent
from matrix_pypi_bot.wire.cids import Cid
from matrix_pypi_bot.wire.problems import Problem

FIRST_HEDGE_SECONDS: Final = 0.5  # of one that is not known yet
LEAST_HEDGE_SECONDS: Final = 0.25
_HEDGE_TIMES: Final = 3.0  # as long as a block is used to take, before another one is asked too
_TRIES: Final = 2  # of one that failed, not of one that does not have it or lies
_RETRY_SECONDS: Final = 0.1
_FULL_SECONDS: Final = (
    1.0  # after which it is looked for room that nobody told of, when all have as much to do as they can
)

Wrong = Callable[[str, WrongContent], Awaitable[None]]


class Getter:
    """For one file: who sent a wrong block of it, or does not have its root, is not asked again."""

    def __init__(self, neighbours: Collection[Neighbour], on_wrong: Wrong) -> None:
        self._neighbours = neighbours
        self._on_wrong = on_wrong
        self._dropped: set[Neighbour] = set()
        self._lacking: set[Neighbour] = set()

    async def get(self, cid: Cid, *, is_root: bool = False) -> tuple[bytes, Neighbour]:
        """The block, and who sent it. Raises SourceGone when all say that they do not have it, else SourceAway."""
        asked: dict[asyncio.Task[bytes], Neighbour] = {}
        tries: Counter[Neighbour] = Counter()
        problems: list[BackendProblem] = []
        try:
            while True:
                chosen = await self._choose(tries, wait=not asked)
                if chosen is not None:
                    tries[chosen] += 1
                    asked[chosen.get(cid)] = chosen
                elif not asked:
                    raise _nobody(cid, problems)
                done, _ = await asyncio.wait(
                    asked, timeout=self._patience(asked, tries), return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    neighbour = asked.pop(task)
                    try:
                        return task.result(), neighbour
                    except BackendProblem as problem:
                        problems.append(problem)
                        await self._judge(neighbour, problem, tries, is_root=is_root)
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def _judge(
        self, neighbour: Neighbour, problem: BackendProblem, tries: Counter[Neighbour], *, is_root: bool
    ) -> None:
        if isinstance(problem, NotFound):
            tries[neighbour] = _TRIES
            if is_root:
                self._lacking.add(neighbour)
        elif isinstance(problem, WrongContent):
            self._dropped.add(neighbour)
            await self._on_wrong(neighbour.name, problem)

    async def _choose(self, tries: Counter[Neighbour], *, wait: bool) -> Neighbour | None:
        """Who to ask next; None when there is nobody, or nobody with room now and something else to wait for."""
        while True:
            candidates = self._candidates(tries)
            if not candidates:
                return None
            chosen = min(
                (neighbour for neighbour in candidates if neighbour.has_room),
                key=lambda neighbour: (tries[neighbour], neighbour.due_seconds, neighbour.in_flight),
                default=None,
            )
            if chosen is not None:
                if tries[chosen]:
                    if not wait:
                        return None
                    await asyncio.sleep(_RETRY_SECONDS * tries[chosen])
                return chosen
            if not wait:
                return None
            await _room(candidates)

    def _candidates(self, tries: Counter[Neighbour]) -> list[Neighbour]:
        unfit = self._dropped | self._lacking
        return [one for one in self._neighbours if one.is_usable and one not in unfit and tries[one] < _TRIES]

    def _patience(self, asked: dict[asyncio.Task[bytes], Neighbour], tries: Counter[Neighbour]) -> float | None:
        """Seconds until another one is asked beside those; None when there is none. Who is slow must not be waited for longer
        the slower he is: what counts is how long the quicker of both is used to take.
        """
        others = [one.block_seconds or math.inf for one in self._candidates(tries) if not tries[one]]
        if not others:
            return None
        known = min(max(one.block_seconds for one in asked.values()), *others)
        return max(LEAST_HEDGE_SECONDS, _HEDGE_TIMES * known) if known else FIRST_HEDGE_SECONDS


async def _room(neighbours: Collection[Neighbour]) -> None:
    """Returns when one of them may have room. Those who wait are many, when many files are fetched: looking again and again costs."""
    told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    for one in neighbours:
        one.waiting[told] = None
    try:
        await asyncio.wait([told], timeout=_FULL_SECONDS)
    finally:
        for one in neighbours:
            one.waiting.pop(told, None)


def _nobody(cid: Cid, problems: list[BackendProblem]) -> Problem:
    if problems and all(isinstance(problem, NotFound) for problem in problems):
        return SourceGone(f"matrix-pypi: no peer has the block {cid}")
    told = problems[-1].detail if problems else "none can be asked now"
    return SourceAway(f"matrix-pypi: no peer sends the block {cid}: {told}")
