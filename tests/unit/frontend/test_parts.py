"""Parts from blocks: each takes memory for what its client does not take, so there are only so many at once."""

from __future__ import annotations

import asyncio
from typing import cast

from index_frontend.blocks import BlockFile, Blocks
from index_frontend.handlers.ask import Ask
from index_frontend.handlers.parts import Parts
from index_frontend.handlers.send import FileHeaders
from index_frontend.handlers.words import Words
from index_frontend.ports import Wanted
from matrix_pypi_bot.wire.digests import sha256_of
from matrix_pypi_bot.wire.names import ProjectName

WANTED = Wanted(
    sha256=sha256_of(b"the file"),
    size=8,
    urls=(),
    opened_origins=frozenset(),
    project=ProjectName("mxa"),
    name="mxa-1.0.tar.gz",
    max_bytes=1 << 20,
)


class Slow:
    """Blocks of which nobody knows yet whether they can be had."""

    def __init__(self) -> None:
        self.asked = 0
        self.gate = asyncio.Event()

    async def open_any(self, wanted: Wanted) -> BlockFile | None:
        self.asked += 1
        await self.gate.wait()
        return None


async def test_beyond_a_number_of_parts_at_once_clients_wait_for_the_whole() -> None:
    slow = Slow()
    parts = Parts(cast(Blocks, slow), cast(Words, None), FileHeaders(shared_cache=False), max_at_once=2)
    ask = cast(Ask, None)
    first = [asyncio.create_task(parts.answer(ask, WANTED)) for _ in range(2)]
    while slow.asked < 2:
        await asyncio.sleep(0)
    assert (await parts.answer(ask, WANTED), slow.asked) == (None, 2)
    first[0].cancel()
    slow.gate.set()
    await asyncio.gather(*first, return_exceptions=True)
    await parts.answer(ask, WANTED)
    assert slow.asked == 3
