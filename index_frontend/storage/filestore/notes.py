"""What the store remembers of transfers and of what the bot was told: the part of `ports.ContentStore` that is no file."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from index_frontend.ports import StorageProblem
from index_frontend.storage.filestore import copy_rows, rows
from index_frontend.storage.filestore.index import Index
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import Stored

log = logging.getLogger(__name__)

WRONG_SECONDS: Final = 60.0
MAX_WHEELS: Final = 32  # with the same METADATA, of which one is looked for that may be served


class Notes:
    """Questions to the index, each a row or a few."""

    def __init__(self, index: Index, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._index = index
        self._monotonic = monotonic  # the same clock in all processes of a machine

    async def note_wrong(self, sha256: Sha256) -> None:
        """In the index, by a clock that all processes of this machine share."""
        now, keep = self._monotonic(), WRONG_SECONDS
        try:
            await self._index.write(partial(rows.note_wrong, sha256=sha256, now_seconds=now, keep_seconds=keep))
        except StorageProblem as problem:
            log.warning("store cannot note a wrong transfer", extra={"sha256": sha256, "cause": problem.detail})

    async def was_wrong(self, sha256: Sha256) -> bool:
        """False when the index cannot be asked."""
        now, keep = self._monotonic(), WRONG_SECONDS
        try:
            return await self._index.read(partial(rows.was_wrong, sha256=sha256, now_seconds=now, keep_seconds=keep))
        except StorageProblem:
            return False

    async def note_asked(self, stored: Stored) -> bool:
        """In the index. Raises StorageBroken."""
        return await self._index.write(partial(rows.note_asked, stored=stored), durable=True)

    async def note_wanted(self, project: str, file: str, sha256: Sha256) -> None:
        """In the index, safe from a kill but not from a power cut. Raises StorageBroken."""
        await self._index.write(partial(rows.note_wanted, project=project, file=file, sha256=sha256))

    async def forget_wanted(self, project: str, file: str, sha256: Sha256) -> None:
        """In the index. Raises StorageBroken."""
        await self._index.write(partial(rows.forget_wanted, project=project, file=file, sha256=sha256))

    async def wanted(self, limit: int = 500) -> list[tuple[str, str, Sha256]]:
        """From the index. Raises StorageBroken."""
        return await self._index.read(partial(rows.wanted, limit=limit))

    async def unreported(self, limit: int = 500) -> list[Stored]:
        """From the index. Raises StorageBroken."""
        return await self._index.read(partial(rows.unreported, limit=limit))

    async def reported(self, stored: Stored) -> None:
        """In the index. Raises StorageBroken."""
        await self._index.write(partial(rows.mark_reported, stored=stored))

    async def askers_of(self, sha256: Sha256) -> tuple[tuple[str, str], ...]:
        """From the index. Raises StorageBroken."""
        return await self._index.read(partial(rows.askers_of, sha256=sha256))

    async def note_metadata(self, sha256: Sha256, project: str, file: str) -> None:
        """In the index. Raises StorageBroken."""
        await self._index.write(partial(rows.note_metadata, sha256=sha256, project=project, file=file))

    async def metadata_of(self, sha256: Sha256) -> tuple[tuple[str, str], ...]:
        """From the index. Raises StorageBroken."""
        return await self._index.read(partial(rows.metadata_of, sha256=sha256, limit=MAX_WHEELS))

    async def reported_after(self, number: int, limit: int) -> list[tuple[int, Stored]]:
        """From the index. Raises StorageBroken."""
        return await self._index.read(partial(copy_rows.reported_after, number=number, limit=limit))

    async def reported_as(self, project: str, file: str) -> list[tuple[int, Stored]]:
        """From the index. Raises StorageBroken."""
        return await self._index.read(partial(copy_rows.reported_as, project=project, file=file))

    async def copied_until(self, backend: str) -> int:
        """From the index. Raises StorageBroken."""
        return await self._index.read(partial(copy_rows.copied_until, backend=backend))

    async def note_copied(self, backend: str, number: int) -> None:
        """In the index. Raises StorageBroken."""
        await self._index.write(partial(copy_rows.note_copied, backend=backend, number=number))

    async def put_off(self, backend: str, number: int) -> None:
        """In the index. Raises StorageBroken."""
        await self._index.write(partial(copy_rows.put_off, backend=backend, number=number))

    async def settle(self, backend: str, number: int) -> None:
        """In the index. Raises StorageBroken."""
        await self._index.write(partial(copy_rows.settle, backend=backend, number=number))

    async def waiting(self, backend: str, limit: int) -> list[tuple[int, Stored]]:
        """From the index. Raises StorageBroken."""
        return await self._index.read(partial(copy_rows.waiting, backend=backend, limit=limit))

    async def left_to_copy(self, backend: str) -> int:
        """From the index. Raises StorageBroken."""
        return await self._index.read(partial(copy_rows.left_to_copy, backend=backend))
