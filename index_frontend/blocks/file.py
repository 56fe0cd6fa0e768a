"""A file, read by its blocks: from its root to any part of it, in order, some blocks ahead of who reads."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from index_frontend.blocks.getter import Getter
from index_frontend.dag.blocks import BadBlock, Link, children, is_leaf, read_node, root_of
from index_frontend.ports import SourceWrong
from matrix_pypi_bot.wire.cids import Cid
from matrix_pypi_bot.wire.problems import Problem

SHORT_NODE_BYTES: Final = 8 << 10
"""Takes 2 ms to read; a full one has 51 KiB and takes 15."""

AHEAD: Final = 8
"""Blocks of a file that are being got or wait to be read: 8 MiB at most."""

GetBlock = Callable[[Cid], Awaitable[bytes]]


class NotTheFile(SourceWrong):
    """Blocks that are right by their CIDs, and no file of that size: whoever named the CID is wrong. `size` is what the root tells."""

    def __init__(self, detail: str, *, size: int = 0) -> None:
        super().__init__(detail)
        self.size = size


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockFile:
    """An open file: its root is here. `sender` is who sent that, `peer` or `kubo`."""

    size: int
    sender: str
    _getter: Getter
    _root: Link
    _data: bytes
    _below: tuple[Link, ...]

    async def chunks(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        """The bytes from `start` to `stop`, each from a block that was checked. Raises SourceGone, SourceAway, SourceWrong."""
        stop = self.size if stop is None else min(stop, self.size)
        ahead: deque[tuple[asyncio.Task[bytes], int]] = deque()
        async with aclosing(self._leaves(self._root, 0, self._below, start, stop)) as leaves:
            try:
                more = True
                while more or ahead:
                    while more and len(ahead) < AHEAD:
                        found = await anext(leaves, None)
                        if found is None:
                            more = False
                        else:
                            ahead.append((asyncio.create_task(self._leaf(found[0])), found[1]))
                    if ahead:
                        task, offset = ahead[0]
                        data = await task
                        ahead.popleft()
                        if piece := data[max(0, start - offset) : stop - offset]:
                            yield piece
            finally:
                for task, _ in ahead:
                    task.cancel()
                await asyncio.gather(*(task for task, _ in ahead), return_exceptions=True)

    async def _leaves(
        self, link: Link, offset: int, below: tuple[Link, ...], start: int, stop: int
    ) -> AsyncGenerator[tuple[Link, int], None]:
        """The leaves in which a byte from `start` to `stop` lies, and where they begin. Nodes are got when they are come to."""
        if link.level == 0:
            yield link, offset
            return
        for child in below:
            if max(offset, start) < min(offset + child.size, stop):
                lower = await self._below_of(child) if child.level else ()
                async with aclosing(self._leaves(child, offset, lower, start, stop)) as leaves:
                    async for leaf in leaves:
                        yield leaf
            offset += child.size

    async def _leaf(self, link: Link) -> bytes:
        if link is self._root:
            return self._data
        data, _ = await self._getter.get(link.cid)
        with_links(link, data)
        return data

    async def _below_of(self, link: Link) -> tuple[Link, ...]:
        data, _ = await self._getter.get(link.cid)
        return await _links(link, data)


async def open_file(getter: Getter, cid: Cid, size: int | None, max_bytes: int) -> BlockFile:
    """The file of that CID; `size` is what it must have, None when nobody knows.

    Raises SourceGone, SourceAway, and SourceWrong when there is no file of that size with that CID, or it is longer than `max_bytes`.
    """
    if size is not None:
        _checked_root(cid, size)
    data, neighbour = await getter.get(cid, is_root=True)
    if size is None:
        size = len(data) if is_leaf(cid) else _told_size(data)
    if size > max_bytes:
        raise SourceWrong(f"matrix-pypi: {cid} has {size} bytes, more than the {max_bytes} that are fetched")
    root = _checked_root(cid, size)
    try:
        below = await _links(root, data)
    except NotTheFile as problem:
        raise NotTheFile(problem.detail, size=len(data) if is_leaf(cid) else _told_size(data)) from problem
    return BlockFile(size=size, sender=neighbour.kind, _getter=getter, _root=root, _data=data, _below=below)


def with_links(link: Link, data: bytes) -> tuple[Link, ...]:
    """The children of a checked block. Raises NotTheFile when no file has such a block there."""
    try:
        return children(link, data)
    except BadBlock as error:
        raise _nonsense(link.cid, error) from error


async def _links(link: Link, data: bytes) -> tuple[Link, ...]:
    """The same, beside the loop when it is a long node."""
    if link.level and len(data) > SHORT_NODE_BYTES:
        return await asyncio.to_thread(with_links, link, data)
    return with_links(link, data)


def _checked_root(cid: Cid, size: int) -> Link:
    try:
        return root_of(cid, size)
    except BadBlock as error:
        raise _nonsense(cid, error) from error


def _told_size(data: bytes) -> int:
    try:
        return sum(read_node(data)[1])
    except BadBlock as error:
        raise NotTheFile(f"matrix-pypi: a root is no file's: {error.detail}") from error


def _nonsense(cid: Cid, error: BadBlock) -> Problem:
    return NotTheFile(f"matrix-pypi: {cid} is not what was said of it: {error.detail}")
