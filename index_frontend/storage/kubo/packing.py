"""A file on its way into a node: its blocks as a CAR."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator

from index_frontend.dag.blocks import LEAF_BYTES
from index_frontend.dag.car import car_header, car_section
from index_frontend.storage.api import ContentId, WrongContent
from matrix_pypi_bot.wire.cids import Block, Cid, CidBuilder


async def as_car(content: ContentId, chunks: AsyncIterator[bytes], *, backend: str) -> AsyncGenerator[bytes, None]:
    """A CAR of the file, each block as soon as it is complete: leaves before their node, the root last.

    Raises WrongContent at the end, before whoever reads it can take it for whole, when the bytes have another CID.
    """
    yield car_header(content.cid)
    blocks: list[Block] = []
    builder = CidBuilder(on_block=blocks.append)
    leaf = b""
    async for leaf in _leaves(chunks):
        builder.update(leaf)
        for section in _sections(blocks, leaf):
            yield section
    cid = builder.finish()
    if (cid, builder.size) != (content.cid, content.size):
        raise WrongContent(f"{builder.size} bytes with the CID {cid} were given for {content.cid}", backend=backend)
    for section in _sections(blocks, leaf):
        yield section


def _sections(blocks: list[Block], leaf: bytes) -> Iterator[bytes]:
    """The sections of `blocks`, of which at most one is a leaf, and empties the list."""
    for block in blocks:
        yield car_section(Cid(block.cid), leaf if block.data is None else block.data)
    blocks.clear()


async def _leaves(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The same bytes, cut where leaves are cut."""
    rest = bytearray()
    async for chunk in chunks:
        rest += chunk
        while len(rest) >= LEAF_BYTES:
            leaf = bytes(rest[:LEAF_BYTES])
            del rest[:LEAF_BYTES]
            yield leaf
    if rest:
        yield bytes(rest)
