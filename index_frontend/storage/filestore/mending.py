"""A file that rotted, and the blocks that others give of it, make a whole one again, which is written beside it and checked."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextlib import suppress
from typing import BinaryIO, Final

from index_frontend.dag.blocks import BadBlock, Link, check_block, root_of
from index_frontend.digest_gate import DigestMismatch, Tally
from index_frontend.ports import Damaged, Held, StorageBroken, Writer
from index_frontend.storage.filestore.disk import told
from index_frontend.storage.filestore.graph import leaves_below
from index_frontend.storage.filestore.store import FileStore
from index_frontend.storage.filestore.threads import in_thread
from matrix_pypi_bot.wire.cids import Cid, split_cid
from matrix_pypi_bot.wire.problems import Problem

log = logging.getLogger(__name__)

Repair = Callable[[Cid], Awaitable[bytes | None]]
"""A block from somewhere else, None when nobody gives it. In bounded time; what it gives is checked."""

PATCH_BLOCKS: Final = 32
"""So many blocks are fetched before the file is claimed: while it is, who asks for the file waits for us."""

OTHERS_SECONDS: Final = 10.0
"""How long somebody else who writes the file, or looks at it, is waited for."""
_POLL_SECONDS: Final = 0.05


class _Lacking(Exception):
    """A block that nobody gives."""


def sound_leaf(file: BinaryIO, offset: int, leaf: Link) -> bytes | None:
    """The leaf's bytes; None when they are wrong or cannot be read."""
    with suppress(OSError):
        data = os.pread(file.fileno(), leaf.size, offset)
        if len(data) == leaf.size and hashlib.sha256(data).hexdigest() == split_cid(leaf.cid).sha256:
            return data
    return None


async def mend(aside: Held, store: FileStore, repair: Repair, thread: Executor) -> bool:
    """Whether the file that lies at `aside.path` is whole in the store now; no: a block cannot be had. Raises StorageProblem."""
    assert aside.path is not None
    with told("read", aside.path):
        file = aside.path.open("rb", buffering=0)
    with file:
        mending = _Mending(aside, file, store, repair, thread)
        try:
            async with store.writer(aside.sha256) as got:
                if isinstance(got, Held):  # fetched anew meanwhile
                    return True
            await mending.fetch()
            for _ in range(int(OTHERS_SECONDS / _POLL_SECONDS)):
                async with store.writer(aside.sha256) as got:
                    if got is not None:
                        if not isinstance(got, Held):
                            await mending.write(got)
                        return True
                await asyncio.sleep(_POLL_SECONDS)
        except (_Lacking, BadBlock, DigestMismatch):
            return False
    raise StorageBroken(f"somebody else is writing {aside.sha256}")


class _Mending:
    """One file. Its sound leaves are read from where it lies, the others are asked for."""

    def __init__(self, aside: Held, file: BinaryIO, store: FileStore, repair: Repair, thread: Executor) -> None:
        self._aside = aside
        self._file = file
        self._store = store
        self._repair = repair
        self._thread = thread
        self._patch: dict[Cid, bytes] = {}

    async def fetch(self) -> None:
        """The first blocks that are wrong, so that a file of which one cannot be had is given up early. Raises _Lacking, BadBlock."""
        offset = 0
        async for leaf in leaves_below(root_of(self._aside.cid, self._aside.size), self._node):
            if await in_thread(self._thread, sound_leaf, self._file, offset, leaf) is None:
                self._patch[leaf.cid] = await self._block(leaf.cid)
                if len(self._patch) == PATCH_BLOCKS:
                    return
            offset += leaf.size

    async def write(self, writer: Writer) -> None:
        """All of it. Raises _Lacking, BadBlock, DigestMismatch, StorageFull or StorageBroken; then nothing is kept."""
        tally = Tally(self._aside.sha256, size=self._aside.size, max_bytes=self._aside.size)
        await writer.expect(self._aside.size)
        offset = 0
        async for leaf in leaves_below(root_of(self._aside.cid, self._aside.size), self._node):
            data = self._patch.get(leaf.cid)
            if data is None:
                data = await in_thread(self._thread, sound_leaf, self._file, offset, leaf)
            if data is None:
                data = await self._block(leaf.cid)
            await in_thread(self._thread, tally.update, data)
            await writer.write(data)
            offset += leaf.size
        await writer.commit(tally.finish())

    async def _node(self, cid: Cid) -> bytes:
        try:
            return await self._store.node(cid)
        except Damaged:
            return await self._block(cid)

    async def _block(self, cid: Cid) -> bytes:
        try:
            data = await self._repair(cid)
        except Problem as problem:
            log.warning("block cannot be had from elsewhere", extra={"cid": cid, "cause": problem.detail})
            data = None
        if data is None:
            raise _Lacking
        check_block(cid, data)
        return data
