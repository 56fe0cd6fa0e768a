"""Tells the bot which files clients were given: noted in the store first, then posted until the bot has it, also after a restart.

The bot attests what was stored because a client asked for it. A file that was held before anybody asked (or whose note a crash
took away) is reported when it is first served, with source `cache`. Of METADATA, which nobody attests, it is only noted which wheel it
is of: other mirrors may ask for it as a block.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from typing import Final

from cachetools import LRUCache

from index_frontend.ports import ContentStore, Held, Oracle, StorageProblem
from index_frontend.serve_plan import METADATA
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import Stored
from matrix_pypi_bot.wire.problems import Problem

log = logging.getLogger(__name__)

MAX_QUEUED: Final = 10_000
NOTES_AT_ONCE: Final = 100
KNOWN_REPORTS: Final = 50_000
FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 60.0
"""How often the notes are looked through for what another process, now dead, has left unreported."""


class Reporter:
    """Run it as a task. `asked` costs a set look-up when the file was asked for before."""

    def __init__(self, store: ContentStore, oracle: Oracle) -> None:
        self._store = store
        self._oracle = oracle
        self._known: LRUCache[tuple[str, str, str], bool] = LRUCache(KNOWN_REPORTS)
        self._to_note: deque[Stored] = deque()
        self._to_post: deque[Stored] = deque()
        self._noting = asyncio.Event()
        self._posting = asyncio.Event()

    def asked(self, project: str, file: str, held: Held, source: str) -> None:
        """A client was given this file, or this METADATA (`<file>.metadata`). Returns at once."""
        key = (project, file, held.sha256)
        if key in self._known or len(self._to_note) + len(self._to_post) >= MAX_QUEUED:
            return  # a full queue is no loss: the next client who gets the file brings it again
        self._known[key] = True
        stored = Stored(project=project, file=file, sha256=held.sha256, size=held.size, cid=held.cid, source=source)
        self._to_note.append(stored)
        self._noting.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._note())
            tasks.create_task(self._post())

    async def _note(self) -> None:
        while True:
            await self._noting.wait()
            self._noting.clear()
            while self._to_note:
                batch = [self._to_note.popleft() for _ in range(min(NOTES_AT_ONCE, len(self._to_note)))]
                noted = await asyncio.gather(*(self._is_news(stored) for stored in batch))
                self._to_post.extend(stored for stored, news in zip(batch, noted, strict=True) if news)
                self._posting.set()

    async def _is_news(self, stored: Stored) -> bool:
        """Whether it is this process that must tell the bot."""
        is_metadata = stored.file.endswith(METADATA)
        try:
            if not is_metadata:
                return await self._store.note_asked(stored)
            wheel = stored.file.removesuffix(METADATA)
            await self._store.note_metadata(Sha256(stored.sha256), stored.project, wheel)
        except StorageProblem as problem:
            log.warning("report is not noted", extra={"file": stored.file, "cause": problem.detail})
            return not is_metadata  # told all the same, as long as this process lives
        return False

    async def _post(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        await self._look_through()
        while True:
            if not self._to_post:
                await self._wait_for_news()
            elif await self._tell(self._to_post[0]):
                pause = FIRST_PAUSE_SECONDS
                await self._done(self._to_post.popleft())
            else:
                self._to_post.rotate(-1)  # one that the bot never takes must not hold up the others
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE_SECONDS, pause * 2)

    async def _wait_for_news(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await self._posting.wait()
        self._posting.clear()
        if not self._to_post:
            await self._look_through()

    async def _look_through(self) -> None:
        try:
            for project, file, sha256 in await self._store.wanted():
                held = self._store.held(sha256) or await self._taken_over(sha256)
                if held is not None:  # its process died between storing it and noting that
                    self.asked(project, file, held, "upstream")
            self._to_post.extend(await self._store.unreported())
        except StorageProblem as problem:
            log.warning("notes cannot be read", extra={"cause": problem.detail})

    async def _taken_over(self, sha256: Sha256) -> Held | None:
        """What a process that died had fetched whole; None while another one fetches it, and when there is nothing whole."""
        async with self._store.writer(sha256) as got:
            return got if isinstance(got, Held) else None

    async def _tell(self, stored: Stored) -> bool:
        try:
            return await self._oracle.report_stored(stored)
        except Problem as problem:
            log.warning("bot does not take a report", extra={"file": stored.file, "cause": problem.detail})
            return False

    async def _done(self, stored: Stored) -> None:
        try:
            await self._store.reported(stored)
        except StorageProblem as problem:  # told again after a restart; the bot takes it twice
            log.warning("report is not ticked off", extra={"file": stored.file, "cause": problem.detail})
