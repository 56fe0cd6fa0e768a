"""The store itself: files, their blocks by CID, and their pins."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from cachetools import TTLCache

from index_frontend.ports import BlockPlace, Damaged, Held, StorageBroken, StorageProblem
from index_frontend.storage.filestore import block_rows, rows
from index_frontend.storage.filestore.claims import Claim, try_claim
from index_frontend.storage.filestore.disk import Disk, told
from index_frontend.storage.filestore.files import Files
from index_frontend.storage.filestore.graph import SMALL_BYTES, Graph
from index_frontend.storage.filestore.index import Index
from index_frontend.storage.filestore.layout import Layout
from index_frontend.storage.filestore.limits import Limits
from index_frontend.storage.filestore.threads import in_thread
from index_frontend.storage.filestore.tidying import tidy
from matrix_pypi_bot.wire.cids import RAW, Cid, split_cid
from matrix_pypi_bot.wire.digests import Sha256

MAX_PLACES: Final = 16
MAX_UNMADE: Final = 1000
UNMADE_SECONDS: Final = 60.0
PLACES_SECONDS: Final = 10.0
MAX_KNOWN_PLACES: Final = 4096
PLACES_AHEAD_BYTES: Final = 64 << 20
"""Who asks for a leaf asks for those that follow: they are looked up at once, and known for as long as he may take for them."""

CLAIM_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.02
_PAGE: Final = 500


class FileStore(Files):
    """Files by sha256, and their blocks by CID. Open it with `open_filestore`."""

    def __init__(self, layout: Layout, index: Index, disk: Disk, threads: Executor, limits: Limits) -> None:
        super().__init__(layout, index, disk, threads, limits)
        self._places: TTLCache[Cid, tuple[BlockPlace, ...]] = TTLCache(MAX_KNOWN_PLACES, PLACES_SECONDS)
        self._unmade: TTLCache[Cid, None] = TTLCache(MAX_UNMADE, UNMADE_SECONDS)  # nodes that were to be made anew

    async def places_of(self, cid: Cid) -> tuple[BlockPlace, ...]:
        """From memory; else from the index; of a file of one leaf, from its sha256. Raises StorageBroken."""
        known = self._places.get(cid)
        if known is not None and all(self.held(place.sha256) is not None for place in known):
            return known
        found = await self._index.read(
            partial(block_rows.places_from, cid=cid, limit=MAX_PLACES, ahead_bytes=PLACES_AHEAD_BYTES)
        )
        places = list(found[cid])
        self._places.update((block, where) for block, where in found.items() if where)
        parts = split_cid(cid)
        if parts.codec == RAW and (held := await self.find(parts.sha256)) is not None and held.size <= SMALL_BYTES:
            places.insert(0, BlockPlace(cid=cid, sha256=held.sha256, size=held.size, offset=0))
        return tuple(places[:MAX_PLACES])

    async def keep(self, held: Held, graph: Graph) -> None:
        """As `Files.keep`; the blocks have one place more from now on."""
        await super().keep(held, graph)
        # Beside the loop: the CIDs of a GiB's leaves take 14 ms to spell.
        leaves = await in_thread(self._threads, lambda: [cid for cid, _, _ in graph.leaves()])
        for cid in (*(node.cid for node in graph.nodes), *leaves):
            self._places.pop(cid, None)

    async def read_block(self, place: BlockPlace) -> bytes:
        """Raises Damaged. A node that is lost is made anew; a leaf is as right as its file was when it was looked at last."""
        held = await self.find(place.sha256)
        if held is None:
            raise Damaged(f"the stored file {place.sha256} is gone")
        if place.offset is not None:
            return await in_thread(self._threads, self._read_leaf, held, place.offset, place.size)
        try:
            return await in_thread(self._threads, self._nodes.read, place.cid)
        except Damaged:
            if place.cid in self._unmade:  # nobody has us hash a large file again and again
                raise
            self._unmade[place.cid] = None
            await self.recheck(place.sha256)
            return await in_thread(self._threads, self._nodes.read, place.cid)

    async def open_leaf(self, place: BlockPlace) -> BinaryIO | None:
        """Raises Damaged."""
        if place.offset is None:
            return None
        held = await self.find(place.sha256)
        if held is None:
            raise Damaged(f"the stored file {place.sha256} is gone")
        return self.look_into(held)

    def _read_leaf(self, held: Held, offset: int, size: int) -> bytes:
        with self.open(held) as file, told("read", held.path):
            data = os.pread(file.fileno(), size, offset)
        if len(data) != size:
            raise Damaged(f"the stored file {held.sha256} is shorter than its block at {offset}")
        return data

    async def delete(self, sha256: Sha256) -> bool:
        """Whether it was here, and is not any more; a pinned file stays. Raises StorageBroken."""
        async with self._mine(sha256):
            return await self._take_away(sha256)

    async def pin(self, sha256: Sha256, name: str) -> bool:
        """Never evicted or deleted from now on, also when the index is lost; False when it is not here. Raises StorageBroken."""
        async with self._mine(sha256):
            if await self.find(sha256) is None or not self._layout.file(sha256).exists():
                return False
            await in_thread(self._threads, self._pins.put, sha256, name)
            return True

    async def unpin(self, sha256: Sha256) -> None:
        """No error when it was not pinned. Raises StorageBroken."""
        await in_thread(self._threads, self._pins.remove, sha256)

    async def pin_of(self, sha256: Sha256) -> str | None:
        """The name that it is pinned under. Raises StorageBroken."""
        return await in_thread(self._threads, self._pins.name_of, sha256)

    async def pinned(self) -> int:
        """How many are. Raises StorageBroken."""
        return len(await in_thread(self._threads, self._pins.all))

    async def all(self, after: Sha256 | None = None) -> AsyncIterator[Held]:
        """Every file by ascending sha256, from the one behind `after` on. Raises StorageBroken."""
        last = after or Sha256("")
        while page := await self._index.read(partial(rows.files_after, after=last, limit=_PAGE)):
            for last, row in page:
                if self._layout.file(last).exists():
                    yield self._of_row(last, row)

    async def totals(self) -> tuple[int, int]:
        """(bytes, number) of all files. Raises StorageBroken."""
        return await self._index.read(rows.totals)

    # For the scrub ----------------------------------------------------------------------------------------------------

    async def node(self, cid: Cid) -> bytes:
        """An inner node, checked. Raises Damaged."""
        return await in_thread(self._threads, self._nodes.read, cid)

    async def set_aside(self, held: Held, seen: os.stat_result) -> bool:
        """Takes the file that was `seen` out of service at once, for all processes; its nodes stay for now. Raises StorageBroken.

        False when another one has taken its place.
        """
        path = self._layout.file(held.sha256)
        async with self._mine(held.sha256):
            if not path.exists() or not os.path.samestat(path.stat(), seen):
                return False
            self._known.pop(held.sha256, None)
            await in_thread(self._threads, self._disk.publish, path, self._layout.aside(held))
            await self._index.write(partial(rows.drop_file, sha256=held.sha256, forget=lambda _: None))
            return True

    async def set_asides(self) -> list[Held]:
        """What waits to be repaired, also what a process that died left; `path` is where it lies."""
        return await in_thread(self._threads, lambda: list(self._layout.all_aside()))

    async def give_up(self, aside: Path) -> None:
        """A damaged file is not needed any more. Raises StorageBroken."""
        await in_thread(self._threads, self._disk.remove, aside)

    async def tidy(self) -> None:
        """Puts right what a crash left. Never raises."""
        await tidy(self, self._layout, self._index, self._threads)

    def turn(self, work: str) -> Claim | None:
        """The right to do some work that one process does at a time; None while another one has it. Raises StorageBroken."""
        return try_claim(self._layout.turn(work))

    # Looking after itself ---------------------------------------------------------------------------------------------

    async def tend(self) -> None:
        """Writes down what was used, and keeps the limits, until cancelled."""
        try:
            await self._eviction.run()
        finally:
            with suppress(StorageProblem):
                await self._eviction.write_uses()

    async def check(self) -> None:
        """Raises StorageFull or StorageBroken when nothing can be stored now."""
        probe = self._layout.tmp / f"probe-{os.getpid()}"
        await in_thread(self._threads, self._probe, probe)

    def _probe(self, path: Path) -> None:
        self._disk.remove(path)
        descriptor = self._disk.create(path)
        try:
            self._disk.append(descriptor, b"?")
        finally:
            os.close(descriptor)
            self._disk.remove(path)

    @asynccontextmanager
    async def _mine(self, sha256: Sha256) -> AsyncIterator[None]:
        """Under the file's claim, when its holder has let it go. Raises StorageBroken when he does not."""
        patience = int(CLAIM_SECONDS / _POLL_SECONDS)
        for _ in range(patience):
            async with self._claimed(sha256) as claim:
                if claim is not None:
                    yield
                    return
            await asyncio.sleep(_POLL_SECONDS)
        raise StorageBroken(f"the stored file {sha256} is being written or looked at", hint="try again later")
