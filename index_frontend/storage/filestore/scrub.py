"""The scrub: every byte of the store is hashed again, slowly, and what rotted is repaired block by block."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, Final

from index_frontend.dag.blocks import BadBlock, root_of
from index_frontend.ports import Damaged, Held, StorageProblem
from index_frontend.storage.filestore.graph import leaves_below
from index_frontend.storage.filestore.mending import Repair, mend, sound_leaf
from index_frontend.storage.filestore.store import FileStore
from index_frontend.storage.filestore.threads import in_thread
from matrix_pypi_bot.wire.cids import Cid
from matrix_pypi_bot.wire.digests import Sha256

log = logging.getLogger(__name__)

ROUND_SECONDS: Final = 86_400.0
"""No file is looked at more often, however small the store."""
TURN_SECONDS: Final = 60.0
"""How often a process whose turn it is not asks again, and what could not be mended is tried again."""
PATIENCE_SECONDS: Final = 3_600.0
"""How often blocks of what is pinned are asked for again when nobody gave them: who has them may be away."""
_NAP_SECONDS: Final = 0.05


async def nobody(cid: Cid) -> bytes | None:
    """No peers."""
    return None


class Scrub:
    """Goes round the store at `bytes_per_second`, 0 for never, in one process of all. What rotted is taken out of service at once."""

    def __init__(self, store: FileStore, *, bytes_per_second: int, repair: Repair = nobody) -> None:
        self._store = store
        self._bytes_per_second = bytes_per_second
        self._repair = repair
        self._debt_bytes = 0
        self._not_before: dict[Sha256, float] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                claim = self._store.turn("scrub")
                if claim is not None:
                    try:
                        await self._rounds()
                    finally:
                        claim.release()
            except StorageProblem as problem:
                log.warning("store cannot be scrubbed", extra={"cause": problem.detail})
            await asyncio.sleep(TURN_SECONDS)

    async def round(self) -> None:
        """Everything once, from anywhere on: a process that is started anew often does not look at the same files each time."""
        start = Sha256(secrets.token_hex(32))
        with ThreadPoolExecutor(1, "scrub") as thread:
            await self.mend_all(thread)
            async for held in self._store.all(start):
                await self._look_at(held, thread)
            async for held in self._store.all():
                if held.sha256 > start:
                    break
                await self._look_at(held, thread)
        await self._store.tidy()

    async def _rounds(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            if self._bytes_per_second and loop.time() >= due:
                due = loop.time() + ROUND_SECONDS
                await self.round()
            else:
                with ThreadPoolExecutor(1, "scrub") as thread:
                    await self.mend_all(thread)  # what could not be mended before, and what another process left
            await asyncio.sleep(TURN_SECONDS)

    # Looking ----------------------------------------------------------------------------------------------------------

    async def _look_at(self, held: Held, thread: ThreadPoolExecutor) -> None:
        """Leaf by leaf. A problem with one file is told, and the next is looked at."""
        try:
            try:
                file = self._store.look_into(held)
            except Damaged:  # gone, or touched
                await self._store.recheck(held.sha256)
                return
            with file:
                if not await self._is_sound(held, file, thread):
                    await self._set_aside(held, file, thread)
        except (Damaged, BadBlock):  # a node: hashing the whole file makes it anew
            log.warning("stored node is damaged, made anew", extra={"sha256": held.sha256})
            await self._recheck(held.sha256)
        except StorageProblem as problem:
            log.warning("stored file cannot be scrubbed", extra={"sha256": held.sha256, "cause": problem.detail})

    async def _is_sound(self, held: Held, file: BinaryIO, thread: ThreadPoolExecutor) -> bool:
        offset = 0
        async for leaf in leaves_below(root_of(held.cid, held.size), self._store.node):
            if await in_thread(thread, sound_leaf, file, offset, leaf) is None:
                return False
            offset += leaf.size
            await self._pause(leaf.size)
        return True

    async def _set_aside(self, held: Held, file: BinaryIO, thread: ThreadPoolExecutor) -> None:
        if await self._store.set_aside(held, os.fstat(file.fileno())):
            log.error("stored file rotted, taken out of service", extra={"sha256": held.sha256})
            await self.mend_all(thread)

    async def _recheck(self, sha256: Sha256) -> None:
        try:
            await self._store.recheck(sha256)
        except StorageProblem as problem:
            log.warning("stored file cannot be read", extra={"sha256": sha256, "cause": problem.detail})

    async def _pause(self, count: int) -> None:
        if not self._bytes_per_second:
            return
        self._debt_bytes += count
        seconds = self._debt_bytes / self._bytes_per_second
        if seconds >= _NAP_SECONDS:
            self._debt_bytes = 0
            await asyncio.sleep(seconds)

    async def mend_all(self, thread: ThreadPoolExecutor) -> None:
        """What was set aside is repaired, or given up: then it is fetched anew when somebody asks. Raises StorageBroken.

        What is pinned is not given up: the rest of it may be all that anybody has.
        """
        now = asyncio.get_running_loop().time()
        for held in await self._store.set_asides():
            assert held.path is not None
            if now < self._not_before.get(held.sha256, 0):
                continue
            self._not_before.pop(held.sha256, None)
            try:
                is_here = await mend(held, self._store, self._repair, thread)
                waits = not is_here and await self._store.pin_of(held.sha256) is not None
            except StorageProblem as problem:  # no room, or somebody else is writing it: another time
                log.warning(
                    "damaged file cannot be repaired now", extra={"sha256": held.sha256, "cause": problem.detail}
                )
                continue
            if waits:
                self._not_before[held.sha256] = now + PATIENCE_SECONDS
                log.error("pinned file is damaged, and nobody gives its blocks", extra={"sha256": held.sha256})
                continue
            if is_here:
                log.info("damaged file is here again, whole", extra={"sha256": held.sha256})
            else:
                log.warning("damaged file could not be repaired, removed", extra={"sha256": held.sha256})
            await self._store.give_up(held.path)
