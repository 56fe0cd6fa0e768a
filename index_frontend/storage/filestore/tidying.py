"""Files and rows, nodes and rows: where a crash, a lost index or a person left one without the other, it is put right."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from concurrent.futures import Executor
from functools import partial
from typing import Final

from index_frontend.ports import StorageProblem
from index_frontend.storage.filestore import block_rows, rows
from index_frontend.storage.filestore.claims import try_claim
from index_frontend.storage.filestore.files import Files
from index_frontend.storage.filestore.index import Index
from index_frontend.storage.filestore.layout import Layout
from index_frontend.storage.filestore.threads import in_thread
from matrix_pypi_bot.wire.cids import Cid

log = logging.getLogger(__name__)

_NODES_AT_ONCE: Final = 200


async def tidy(store: Files, layout: Layout, index: Index, threads: Executor) -> None:
    """Once through the store, unless another process is at it. Files that have no row are hashed; who asks for one need not wait.

    Never raises for what the disk does: what cannot be looked at now is looked at the next time.
    """
    try:
        claim = try_claim(layout.turn("tidy"))
        if claim is None:
            return
        try:
            found = sum([await _files(store, layout, index, threads, digit) for digit in "0123456789abcdef"])
            await _nodes(store, layout, index, threads)
        finally:
            claim.release()
    except (StorageProblem, OSError) as problem:
        log.warning("store cannot be tidied", extra={"cause": str(problem)})
        return
    if found:
        log.info("store found files again that its index did not know", extra={"files": found})


async def _files(store: Files, layout: Layout, index: Index, threads: Executor, digit: str) -> int:
    """How many files without a row were taken in; rows without a file are dropped."""
    lying = await in_thread(threads, lambda: set(layout.complete(digit)))
    known = await index.read(partial(rows.digests_with, prefix=digit))
    found = 0
    for sha256 in lying ^ known:
        try:
            found += await store.recheck(sha256) is not None
        except StorageProblem as problem:
            log.warning("stored file cannot be read", extra={"sha256": sha256, "cause": problem.detail})
    return found


async def _nodes(store: Files, layout: Layout, index: Index, threads: Executor) -> None:
    """Nodes that no file has are removed. A writer whose node goes before his row is there writes it again."""

    def forget(connection: sqlite3.Connection, nodes: list[Cid]) -> None:
        if not any(layout.all_aside()):  # else they may be what a damaged file is mended by: another time
            block_rows.forget_strays(connection, nodes, store.forget_node)

    for nodes in _batches(await in_thread(threads, lambda: list(layout.all_nodes()))):
        await index.write(partial(forget, nodes=nodes))


def _batches(nodes: list[Cid]) -> Iterator[list[Cid]]:
    for start in range(0, len(nodes), _NODES_AT_ONCE):
        yield nodes[start : start + _NODES_AT_ONCE]
