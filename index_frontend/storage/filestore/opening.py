"""Opening a store: its folder made and cleaned, its index sound, and what looks after it at work."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from index_frontend.storage.filestore.claims import try_claim
from index_frontend.storage.filestore.disk import Disk
from index_frontend.storage.filestore.index import Index
from index_frontend.storage.filestore.layout import Layout
from index_frontend.storage.filestore.limits import Limits
from index_frontend.storage.filestore.store import FileStore
from index_frontend.storage.filestore.threads import in_thread

log = logging.getLogger(__name__)

DISK_THREADS: Final = 8
NO_LIMITS: Final = Limits()


@asynccontextmanager
async def open_filestore(
    folder: Path, *, limits: Limits = NO_LIMITS, disk: Disk | None = None
) -> AsyncIterator[FileStore]:
    """The store in `folder`, which is made. Several processes may have it open. Raises StorageFull or StorageBroken."""
    layout, disk = Layout(folder.absolute()), disk or Disk()
    threads = ThreadPoolExecutor(DISK_THREADS, "filestore")
    try:
        index = await in_thread(threads, _prepare, layout, disk)
        store = FileStore(layout, index, disk, threads, limits)
        tasks = [
            asyncio.create_task(store.tidy(), name="filestore tidying"),
            asyncio.create_task(store.tend(), name="filestore limits"),
        ]
        try:
            yield store
        finally:
            for task in tasks:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, Exception):
                    log.error("a task of the store failed", exc_info=outcome)
            await index.close()
    finally:
        threads.shutdown()


def _prepare(layout: Layout, disk: Disk) -> Index:
    for folder in (layout.files, layout.nodes, layout.pins, layout.damaged, layout.tmp):
        for changed in disk.make_folders(folder):
            disk.sync_folder(changed)
    for sha256 in layout.unfinished():
        claim = try_claim(layout.lock(sha256))
        if claim is not None:  # else a living process is at work on it
            try:
                for leftover in layout.leftovers(sha256):
                    disk.remove(leftover)
            finally:
                claim.release()
    return Index(layout)
