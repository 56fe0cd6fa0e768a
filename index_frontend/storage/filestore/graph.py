"""The blocks of a file, as they come to light while it is hashed: only its nodes are kept, they name the leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

from index_frontend.dag.blocks import LEAF_BYTES, Link, children, is_leaf, read_node
from matrix_pypi_bot.wire.cids import Block, Cid, CidBuilder, raw_cid
from matrix_pypi_bot.wire.digests import Sha256

SMALL_BYTES: Final = LEAF_BYTES
"""A file up to here is one block, which its sha256 names: nothing need be kept of its graph."""


@dataclass(frozen=True, slots=True)
class Node:
    """An inner node, and where the part of the file below it begins."""

    cid: Cid
    data: bytes
    offset: int


@dataclass(frozen=True, slots=True)
class Graph:
    """A file's CID and its inner nodes, children first; none when it is one leaf. About 51 KB for a GiB of the file."""

    cid: Cid
    nodes: tuple[Node, ...] = ()

    def leaves(self) -> Iterator[tuple[Cid, int, int]]:
        """(CID, offset, size) of every leaf below a node, in order."""
        for node in self.nodes:
            offset = node.offset
            for cid, size in zip(*read_node(node.data), strict=True):
                if is_leaf(cid):
                    yield cid, offset, size
                offset += size


class GraphBuilder:
    """The graph of a file as it is written. The sha256 alone tells that of one leaf: nothing is hashed before there is a second."""

    def __init__(self) -> None:
        self.size = 0
        self._first_leaf: list[bytes | bytearray] = []
        self._builder: CidBuilder | None = None
        self._nodes: list[Node] = []

    def update(self, data: bytes | bytearray) -> None:
        """Takes the next part."""
        self.size += len(data)
        if self._builder is not None:
            self._builder.update(data)
            return
        self._first_leaf.append(data)
        if self.size > LEAF_BYTES:
            self._builder = CidBuilder(on_block=self._block)
            for piece in self._first_leaf:
                self._builder.update(piece)
            self._first_leaf.clear()

    def finish(self, sha256: Sha256) -> Graph:
        """The graph of all of it, whose sha256 this is; once."""
        cid = raw_cid(sha256) if self._builder is None else self._builder.finish()
        return Graph(cid, tuple(self._nodes))

    def _block(self, block: Block) -> None:
        if block.data is not None:
            self._nodes.append(Node(block.cid, block.data, block.offset))


async def leaves_below(link: Link, node: Callable[[Cid], Awaitable[bytes]]) -> AsyncIterator[Link]:
    """The leaves of a file in order, whose nodes `node` gives, checked. Raises BadBlock, and what `node` raises."""
    if link.level == 0:
        yield link
        return
    for child in children(link, await node(link.cid)):
        async for leaf in leaves_below(child, node):
            yield leaf
