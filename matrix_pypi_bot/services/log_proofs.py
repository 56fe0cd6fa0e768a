"""Proofs that statements of ours are in our log, against its newest checkpoint."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Final

from matrix_pypi_bot.core.tlog import fold, full_subtrees, inclusion_ranges
from matrix_pypi_bot.ports import HeadRow, Transaction
from matrix_pypi_bot.wire.trust import Proof

MAX_PROOFS: Final = 16  # at once; each costs a look at as many rows as the tree is high


async def inclusion_proofs(tables: Transaction, head: HeadRow | None, statement_ids: Sequence[str]) -> dict[str, Proof]:
    """The inclusion proofs of those statements that the newest checkpoint covers."""
    if head is None:
        return {}
    places = await tables.log.places(statement_ids[-MAX_PROOFS:])
    return {
        statement_id: Proof(leaf=leaf, hashes=await _inclusion(tables, leaf, head.size))
        for statement_id, leaf in places.items()
        if leaf < head.size
    }


async def _inclusion(tables: Transaction, leaf: int, size: int) -> tuple[str, ...]:
    hashes = []
    for start, end in inclusion_ranges(leaf, size):
        parts = [await tables.log.subtree(level, index) for level, index in full_subtrees(start, end)]
        hashes.append(base64.b64encode(fold(parts)).decode())
    return tuple(hashes)
