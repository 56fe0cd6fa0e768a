"""Opening a store: its folder made and cleaned, its index sound, and what the index forgot found again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from index_frontend.ports import StorageProblem
from index_frontend.storage.filestore.claims import try_claim
from index_frontend.storage.filestore.disk import Disk
from index_frontend.storage.filestore.index import Index
from index_frontend.storage.filestore.layout import Layout
from index_frontend.storage.filestore.store import FileStore
from index_frontend.storage.filestore.threads import in_thread

log = logging.getLogger(__name__)

DISK_THREADS: Final = 8


@asynccontextmanager
async def open_filestore(folder: Path, *, disk: Disk | None = None) -> AsyncIterator[FileStore]:
    """The store in `folder`, which is made. Several processes may have it open. Raises StorageFull or StorageBroken."""
    layout, disk = Layout(folder.absolute()), disk or Disk()
    threads = ThreadPoolExecutor(DISK_THREADS, "filestore")
    try:
        index = await in_thread(threads, _prepare, layout, disk)
        store = FileStore(layout, index, disk, threads)
        finding = (
            asyncio.create_task(_find_again(store, layout, threads), name="filestore reindex") if index.is_new else None
        )
        try:
            yield store
        finally:
            if finding is not None:
                finding.cancel()
                with suppress(asyncio.CancelledError):
                    await finding
            await index.close()
    finally:
        threads.shutdown()


def _prepare(layout: Layout, disk: Disk) -> Index:
    for folder in (layout.files, layout.nodes, layout.tmp):
        for changed in disk.make_folders(folder):
            disk.sync_folder(changed)
    for sha256 in layout.unfinished():
        claim = try_claim(layout.lock(sha256))
        if claim is not None:  # else a living process is at work on it
            try:
                disk.remove(layout.part(sha256))
                disk.remove(layout.node_part(sha256))
            finally:
                claim.release()
    return Index(layout)


async def _find_again(store: FileStore, layout: Layout, threads: ThreadPoolExecutor) -> None:
    """Hashes every file that the new index does not know. Whoever asks for one meanwhile has it hashed first."""
    found = 0
    for sha256 in await in_thread(threads, lambda: list(layout.complete())):
        try:
            if await store.find(sha256) is None and await store.recheck(sha256) is not None:
                found += 1
        except StorageProblem:
            log.exception("stored file cannot be read", extra={"sha256": sha256})
    if found:
        log.info("index of the store made anew", extra={"files": found})
