"""Closed ranges of a file that is not here yet, from blocks that are right by themselves: nobody waits for the whole."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Final

from aiohttp import web

from index_frontend.blocks import BlockFile, Blocks, is_right_by_block
from index_frontend.handlers.ask import Ask
from index_frontend.handlers.send import FileHeaders, send_pieces, span_of, unsatisfiable, with_first, with_span
from index_frontend.handlers.words import Words
from index_frontend.ports import SourceAway, SourceGone, SourceWrong
from index_frontend.ranges import answer_range
from index_frontend.serve_plan import Wanted

ROOT_SECONDS: Final = 1.0
"""So long a neighbour may take for the first block; the fetch of the whole runs beside it, and is waited for then."""


MAX_AT_ONCE: Final = 16
"""Parts under way in this process, each with up to 8 MiB that its client did not take yet; who comes beyond waits for the whole."""


class Parts:
    """Answers that a file's blocks can give before the file."""

    def __init__(self, blocks: Blocks, words: Words, headers: FileHeaders, *, max_at_once: int = MAX_AT_ONCE) -> None:
        self._free = max_at_once
        self._blocks = blocks
        self._words = words
        self._headers = headers

    async def answer(self, ask: Ask, wanted: Wanted) -> web.StreamResponse | None:
        """The part asked for; None when its blocks cannot be had now, or may be another file's. Raises Withdrawn."""
        if self._free <= 0 or not is_right_by_block(wanted):
            return None
        self._free -= 1
        try:
            return await self._answer(ask, wanted)
        finally:
            self._free += 1

    async def _answer(self, ask: Ask, wanted: Wanted) -> web.StreamResponse | None:
        file = await self._opened(wanted)
        if file is None:
            return None
        answer = answer_range(ask.range, file.size)
        if answer.status == 416:
            return unsatisfiable(wanted, file.size)
        start, stop = span_of(answer, file.size)
        async with aclosing(self._words.while_allowed(ask.path, wanted, file.chunks(start, stop))) as pieces:
            try:
                first = await anext(pieces, b"")
            except (SourceGone, SourceAway, SourceWrong):
                return None
            headers = with_span(self._headers.of(wanted, file.sender, verified=False), answer, file.size)
            response = web.StreamResponse(status=answer.status, headers=headers)
            await send_pieces(ask.request, response, with_first(first, pieces))
        await response.write_eof()
        return response

    async def _opened(self, wanted: Wanted) -> BlockFile | None:
        try:
            async with asyncio.timeout(ROOT_SECONDS):
                return await self._blocks.open_any(wanted)
        except TimeoutError:
            return None
