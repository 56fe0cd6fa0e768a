"""Which blocks of a file a part of it needs: the trustless gateway's `entity-bytes`, and the way down a graph, depth first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from matrix_pypi_bot.wire.cids import Cid
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

_ENTITY_BYTES: Final = re.compile(r"(-?\d{1,18}):(-?\d{1,18}|\*)", re.ASCII)


class BadScope(Problem, ValueError):
    """A part of a file that is spelled wrongly, or that no file of its size has."""

    code = ProblemCode.BAD_REQUEST


@dataclass(frozen=True, slots=True)
class EntityBytes:
    """`from:to` as it was asked: both inclusive, negative from the end, `to` None for the end."""

    first: int
    last: int | None

    @classmethod
    def parse(cls, text: str) -> EntityBytes:
        """From `0:1023`, `-1024:*`, `499:-1000`. Raises BadScope."""
        match = _ENTITY_BYTES.fullmatch(text)
        if match is None:
            raise BadScope(f"entity-bytes is from:to, such as 0:1023 or -1024:*, not {text[:40]!a}")
        return cls(int(match[1]), None if match[2] == "*" else int(match[2]))

    def span(self, size: int) -> tuple[int, int]:
        """First byte and the one behind the last in a file of `size` bytes; equal when there is none. Raises BadScope.

        What reaches beyond the file is cut off; what lies wholly beyond it is an error, as the specification wants it.
        """
        start = self.first if self.first >= 0 else max(0, size + self.first)
        if start > 0 and start >= size:
            raise BadScope(f"the file has {size} bytes, none of them from {start} on")
        last = size - 1 if self.last is None else self.last if self.last >= 0 else size + self.last
        return start, max(start, min(last + 1, size))

    def __str__(self) -> str:
        return f"{self.first}:{'*' if self.last is None else self.last}"


def within(
    cids: Sequence[Cid], sizes: Sequence[int], offset: int, span: tuple[int, int]
) -> Iterator[tuple[Cid, int, int]]:
    """(CID, size, offset) of those children of a node at `offset` in which a byte of `span` lies."""
    start, stop = span
    for cid, size in zip(cids, sizes, strict=True):
        if max(offset, start) < min(offset + size, stop):
            yield cid, size, offset
        offset += size
