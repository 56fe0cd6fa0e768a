"""The one fetch of an object in this process; between processes the store says whose turn it is.

    claim free        fetch it: source by source, until the digest is right, then store it
    claim taken       follow the part that the other process writes, and claim again and again: when it dies, it is our turn

Nobody's departure ends a flight. What goes out of it is decided by each reader's `Transfer`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from index_frontend.digest_gate import DigestMismatch, releasable
from index_frontend.fill.incoming import Incoming
from index_frontend.fill.transfer import Transfer
from index_frontend.ports import (
    ContentStore,
    Held,
    Part,
    Source,
    SourceAway,
    SourceGone,
    SourceWrong,
    Wanted,
    Writer,
    known_to_others,
    nowhere,
)
from matrix_pypi_bot.wire.problems import Problem

FIRST_POLL_SECONDS: Final = 0.005
POLL_SECONDS: Final = 0.025

Wrong = Callable[[Wanted, DigestMismatch, str, str | None], Awaitable[None]]
"""Told of the wrong whole, of who sent it, and of the CID by whose blocks alone it came."""


class Flight:
    """Clients are `reading` one transfer; `run` is the work, to be done once, and `end` follows it."""

    def __init__(
        self, wanted: Wanted, store: ContentStore, sources: Sequence[Source], hashing: Executor, on_wrong: Wrong
    ) -> None:
        self.wanted = wanted
        self.source = "cache"
        self._store = store
        self._sources = sources
        self._hashing = hashing
        self._on_wrong = on_wrong
        self._transfer: Transfer | None = None
        self._incoming: Incoming | None = None
        self._outcome: Held | Problem | None = None
        self._changed = asyncio.Event()

    @property
    def is_verified(self) -> bool:
        """Whether the bytes are right, and here; only storing them is not done yet."""
        return self._transfer is not None and self._transfer.verified

    @asynccontextmanager
    async def reading(self, before: Transfer | None = None) -> AsyncIterator[Transfer | Held]:
        """A transfer after `before`, which failed, readable while the block lasts; or the file, when it is stored.

        The transfer's length is known, or it is verified. Raises the problem that the flight ended with.
        """
        while True:
            transfer = self._transfer
            if transfer is not None and transfer is not before:
                with transfer.reading():
                    await transfer.head()
                    if transfer.failure is None:
                        yield transfer
                        return
                before = transfer
            elif isinstance(self._outcome, Problem):
                raise self._outcome
            elif self._outcome is not None:
                yield self._outcome
                return
            else:
                await self._changed.wait()

    async def run(self) -> Held | Problem:
        """Brings the object into the store. What came of it is for `end`."""
        followed: _Followed | None = None
        seconds = FIRST_POLL_SECONDS
        try:
            while True:
                async with self._store.writer(self.wanted.sha256) as got:
                    if got is not None:
                        if followed is not None:
                            followed.over(got if isinstance(got, Held) else None)
                        return got if isinstance(got, Held) else await self._fetch(got)
                followed = self._look(followed)
                await asyncio.sleep(seconds)
                seconds = min(POLL_SECONDS, seconds * 1.5)
        except Problem as problem:
            return problem
        finally:
            if followed is not None:
                followed.over(None)

    def end(self, outcome: Held | Problem | None) -> None:
        """Tells the readers; None when the work was stopped. Whoever asks for the object from now on must find another flight."""
        self._outcome = _stopped(self.wanted) if outcome is None else outcome
        if self._incoming is not None:
            self._incoming.drop(self._outcome if isinstance(self._outcome, Problem) else _stopped(self.wanted))
        self._wake()

    async def _fetch(self, writer: Writer) -> Held:
        """From the first source that has the right bytes. Raises the problem to tell when none has, or the store cannot take them.

        Whoever only went on after others did not send what was wrong, or not alone: he is asked once more, for all of it.
        """
        problems: list[Problem] = []
        incoming, wrong = self._begin(writer), None
        ways = deque(self._ways())
        while ways:
            source, way = ways.popleft()
            if wrong is not None:
                await writer.restart()
                incoming.drop(wrong)
                incoming, wrong = self._begin(writer), None
            went_on = incoming.count > 0
            try:
                await incoming.receive(source, way)
                self.source = incoming.transfer.source
                return await incoming.store()
            except (SourceGone, SourceAway, SourceWrong) as problem:
                problems.append(problem)
            except DigestMismatch as mismatch:
                # Readers are told when there is another way to go, or by `end`: not while who asks again would join what is over.
                problems.append(wrong := _wrong_bytes(self.wanted, incoming.senders))
                await self._on_wrong(self.wanted, mismatch, incoming.senders, incoming.cid)
                if went_on:
                    ways.appendleft((source, way))
        raise _worst(problems, self.wanted)

    def _begin(self, writer: Writer) -> Incoming:
        self._incoming = Incoming(self.wanted, writer, self._hashing)
        self._show(self._incoming.transfer)
        return self._incoming

    def _ways(self) -> Iterator[tuple[Source, Wanted]]:
        for source in self._sources:
            for way in source.ways(self.wanted):
                yield source, way

    def _look(self, followed: _Followed | None) -> _Followed | None:
        """How far the other process is. A part that it threw away is followed no more, and its readers are told."""
        if followed is not None and followed.part.is_gone():
            followed.over(None)
            followed = None
        if followed is None and (part := self._store.follow(self.wanted.sha256)) is not None:
            followed = _Followed(part, Transfer("upstream"), self.wanted)
            self._show(followed.transfer)
        if followed is not None:
            followed.look()
        return followed

    def _show(self, transfer: Transfer) -> None:
        self._transfer = transfer
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


@dataclass(frozen=True, slots=True)
class _Followed:
    """What another process writes, as our readers see it."""

    part: Part
    transfer: Transfer
    wanted: Wanted

    def look(self) -> None:
        """Lets out what the part holds by now, but for the tail."""
        if self.transfer.total is None and self.part.total is not None:
            self.transfer.expect(self.part.total)
        self.transfer.grow(self.part, releasable(self.part.length(), self.transfer.total))

    def over(self, held: Held | None) -> None:
        """It ended as `held`, or not. Readers of other bytes than those held must not go on. Idempotent."""
        if held is not None and self.part.became(held):
            self.transfer.succeed(held.size)
        self.transfer.fail(_stopped(self.wanted))
        self.transfer.end()


def _stopped(wanted: Wanted) -> SourceAway:
    return SourceAway(f"matrix-pypi: {wanted.name}: whoever fetched it stopped")


def _wrong_bytes(wanted: Wanted, sender: str) -> SourceWrong:
    return SourceWrong(f"matrix-pypi: {wanted.name}: {sender} sent other bytes than the index names")


def _worst(problems: Sequence[Problem], wanted: Wanted) -> Problem:
    """The one to tell: a wrong answer rather than none, none rather than a plain no, which may have come from a second-best source."""
    for kind in (SourceWrong, SourceAway, SourceGone):
        for problem in problems:
            if isinstance(problem, kind):
                return problem if wanted.urls or kind is SourceWrong else known_to_others(wanted, problem)
    return nowhere(wanted)
