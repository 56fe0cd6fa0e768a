"""Making room: what was used longest ago goes when the store holds too much, or its disk has too little left."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator
from concurrent.futures import Executor
from contextlib import aclosing, contextmanager, suppress
from functools import partial
from typing import Final

from index_frontend.ports import StorageFull, StorageProblem
from index_frontend.storage.filestore import rows
from index_frontend.storage.filestore.claims import try_claim
from index_frontend.storage.filestore.disk import Disk, Space
from index_frontend.storage.filestore.index import Index
from index_frontend.storage.filestore.layout import Layout
from index_frontend.storage.filestore.limits import Excess, Limits, excess, surplus
from index_frontend.storage.filestore.pins import Pins
from index_frontend.storage.filestore.threads import in_thread
from matrix_pypi_bot.wire.digests import Sha256

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 10.0
"""How often uses are written, and the disk is looked at: others fill it, too."""
PAUSE_SECONDS: Final = 1.0
TURN_SECONDS: Final = 10.0
"""How long a file waits for the room that somebody else is making."""
FULL_BYTES: Final = 64 << 20
"""At least so much goes when the disk says that it is full although the limits say that it is not."""
MAX_USES: Final = 100_000
_POLL_SECONDS: Final = 0.05
_PAGE: Final = 100


class Eviction:
    """One for each process; one process of all evicts at a time. A use costs a hit nothing: many are written at once."""

    def __init__(
        self,
        layout: Layout,
        index: Index,
        disk: Disk,
        threads: Executor,
        limits: Limits,
        evict: Callable[[Sha256], Awaitable[bool]],
    ) -> None:
        self._layout = layout
        self._index = index
        self._disk = disk
        self._threads = threads
        self._limits = limits
        self._evict = evict
        self._pins = Pins(layout, disk)
        self._uses: dict[Sha256, None] = {}
        self._wake = asyncio.Event()
        self._is_at_it = False
        self._lacking_bytes = 0  # of a disk that was full
        self._is_short = False

    def used(self, sha256: Sha256) -> None:
        """Noted in memory."""
        if len(self._uses) < MAX_USES:
            self._uses[sha256] = None

    def look(self) -> None:
        """Something was stored."""
        self._wake.set()

    def is_full(self, size: int) -> None:
        """The disk had no room for `size` bytes: a round begins, so that it has for the next."""
        self._lacking_bytes = max(self._lacking_bytes, size, FULL_BYTES)
        self._wake.set()

    async def make_room(self, size: int) -> None:
        """A file of `size` bytes may be stored when it returns. Raises StorageFull."""
        quota = self._limits.max_bytes
        if quota is not None and size > quota:
            raise StorageFull(f"a file of {size} bytes is larger than the whole store may be", hint="storage.max_bytes")
        for _ in range(int(TURN_SECONDS / _POLL_SECONDS)):
            if not self._limits.are_set or not (due := await self._excess(size)):
                return
            with self._my_turn() as is_mine:
                if is_mine:
                    left = await self._free(due, all_or_nothing=True)
                    self._wake.set()  # the rest of the round keeps nobody waiting
                    if not left:
                        return
                    break
            await asyncio.sleep(_POLL_SECONDS)  # who is at it makes room for us, too
        raise StorageFull("nothing can be evicted to make room", hint="storage.max_bytes, storage.min_free_bytes, pins")

    async def run(self) -> None:
        """Writes uses and keeps the limits, until cancelled."""
        loop = asyncio.get_running_loop()
        written = loop.time()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            try:
                if loop.time() - written >= LOOK_SECONDS:
                    await self.write_uses()
                    written = loop.time()
                await self.keep_limits()
            except StorageProblem as problem:
                log.warning("store cannot look after its limits", extra={"cause": problem.detail})
            await asyncio.sleep(PAUSE_SECONDS)

    async def write_uses(self) -> None:
        """In one transaction. Raises StorageBroken."""
        uses, self._uses = self._uses, {}
        if uses:
            await self._index.write(partial(rows.mark_used, sha256s=uses.keys()))

    async def keep_limits(self) -> None:
        """A round, if one is due. Raises StorageFull or StorageBroken."""
        if not self._limits.are_set or not (self._lacking_bytes or await self._excess()):
            self._is_short = False
            return
        with self._my_turn() as is_mine:
            if not is_mine:
                return
            lacking, self._lacking_bytes = self._lacking_bytes, 0
            due = await self._surplus() if await self._excess() else Excess()
            left = await self._free(Excess(max(due.bytes, lacking), due.files))
        if left and not self._is_short:
            log.warning(
                "store is at its limits, and nothing more can be evicted",
                extra={"bytes": left.bytes, "files": left.files},
            )
        self._is_short = bool(left)

    async def _excess(self, size: int = 0) -> Excess:
        return excess(self._limits, await self._held_bytes(), self._space(), size)

    async def _surplus(self) -> Excess:
        return surplus(self._limits, await self._held_bytes(), self._space())

    async def _held_bytes(self) -> int:
        return 0 if self._limits.max_bytes is None else (await self._index.read(rows.totals))[0]

    def _space(self) -> Space:
        return self._disk.space(self._layout.root)

    async def _free(self, due: Excess, *, all_or_nothing: bool = False) -> Excess:
        """Evicts what was used longest ago. What of `due` is left, by its own count: an open file frees its bytes when it is closed.

        With `all_or_nothing` nothing goes when all that may go would not be enough: a file that finds no room costs no other its place.
        """
        await self.write_uses()
        pinned = await in_thread(self._threads, self._pins.all)
        if all_or_nothing and (lacking := await self._lacking(due, pinned)):
            return lacking
        left, bytes_, files = due, 0, 0
        async with aclosing(self._evictable(pinned)) as evictable:
            async for sha256, size in evictable:
                if not left:
                    break
                if await self._evict(sha256):
                    left, bytes_, files = _less(left, size), bytes_ + size, files + 1
        if files:
            log.info("store made room", extra={"bytes": bytes_, "files": files})
        return left

    async def _lacking(self, due: Excess, pinned: Collection[Sha256]) -> Excess:
        """What of `due` would be left if everything went that may."""
        left = due
        async with aclosing(self._evictable(pinned)) as evictable:
            async for _, size in evictable:
                left = _less(left, size)
                if not left:
                    break
        return left

    async def _evictable(self, pinned: Collection[Sha256]) -> AsyncGenerator[tuple[Sha256, int], None]:
        """(sha256, size) of what was used longest ago first."""
        after = (-1, -1)
        while page := await self._index.read(partial(rows.least_used, after=after, limit=_PAGE)):
            for used, row, sha256, size in page:
                after = (used, row)
                if sha256 not in pinned:
                    yield sha256, size

    @contextmanager
    def _my_turn(self) -> Iterator[bool]:
        """Whether nobody evicts now, here or in another process, and so we may. Raises StorageBroken."""
        claim = None if self._is_at_it else try_claim(self._layout.turn("evict"))
        if claim is None:
            yield False
            return
        self._is_at_it = True
        try:
            yield True
        finally:
            self._is_at_it = False
            claim.release()


def _less(due: Excess, size: int) -> Excess:
    return Excess(max(0, due.bytes - size), max(0, due.files - 1))
