"""This organisation's transparency log, as services see it: leaves, the tree above them, and what was promised about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadRow:
    """The newest checkpoint: `size` leaves under `root` (32 bytes), and the signed note that says so.

    `promised_ms` is when the checkpoint was first signed, `signed_ms` when this note of it was.
    """

    size: int
    root: bytes
    note: str
    promised_ms: int
    signed_ms: int


class Log(Protocol):
    """Leaves and tree are insert-only, refused otherwise by the database itself; so are the promises."""

    async def append(self, statement_id: str, leaf_hash: bytes) -> int:
        """The index the statement got: 0, 1, 2, ... without gaps. The tree above it is complete when the transaction ends."""
        ...

    async def size(self) -> int:
        """How many leaves there are."""
        ...

    async def subtree(self, level: int, index: int) -> bytes:
        """The hash of a full subtree (`core.tlog.full_subtrees`). Raises LookupError for one that is not full yet."""
        ...

    async def leaves(self, start: int, end: int) -> list[str]:
        """Statement ids of the leaves from `start` (inclusive) to `end` (exclusive)."""
        ...

    async def entries(self, start: int, end: int) -> list[bytes]:
        """The envelopes (DSSE JSON, one line each) of these leaves, in order."""
        ...

    async def places(self, statement_ids: Sequence[str]) -> dict[str, int]:
        """The leaf index of each of these statements that is in the log."""
        ...

    async def promise(self, size: int, root: bytes, at_ms: int) -> bytes:
        """Notes that the tree of `size` leaves has this root; what was promised first for that size, be it another one."""
        ...

    async def head(self) -> HeadRow | None: ...

    async def put_head(self, size: int, note: str, at_ms: int) -> None:
        """Replaces the newest note by one over a size that was promised."""
        ...
