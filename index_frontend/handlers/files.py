"""`/packages/…`: files and their metadata. Every answer asks first how the file stands; only then whether the bytes are here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import BinaryIO, Final, assert_never

from aiohttp import web

from index_frontend.blocks import Blocks
from index_frontend.fill import SMALL_BYTES, Asker, Fills, Transfer
from index_frontend.handlers.ask import Ask
from index_frontend.handlers.bodies import SmallBodies
from index_frontend.handlers.index import matches
from index_frontend.handlers.middleware import problem_response
from index_frontend.handlers.parts import Parts
from index_frontend.handlers.send import (
    FileHeaders,
    etag_of,
    refusal,
    send_file,
    send_pieces,
    span_of,
    unsatisfiable,
    with_first,
    with_span,
)
from index_frontend.handlers.words import Withdrawn, Words
from index_frontend.ports import ContentStore, Damaged, Held, Oracle, SourceGone, StorageBroken, StorageProblem
from index_frontend.ranges import answer_range, open_start
from index_frontend.serve_plan import Deny, Describe, Fetch, FromStore, Later, Wanted, plan
from matrix_pypi_bot.wire.digests import sha256_of
from matrix_pypi_bot.wire.names import FilePath
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

log = logging.getLogger(__name__)

MEMORY_BYTES: Final = 32 << 20
_PIECE_BYTES: Final = 256 << 10


class FileHandler:
    """Answers GET and HEAD for files. What it holds itself is a bounded memory of small bodies."""

    def __init__(
        self,
        oracle: Oracle,
        store: ContentStore,
        fills: Fills,
        *,
        max_file_bytes: int,
        memory_bytes: int = MEMORY_BYTES,
        shared_cache: bool = False,
        blocks: Blocks | None = None,
    ) -> None:
        self._oracle = oracle
        self._store = store
        self._fills = fills
        self._words = Words(oracle, max_file_bytes=max_file_bytes)
        self._headers = FileHeaders(shared_cache=shared_cache)
        self._bodies = SmallBodies(memory_bytes)
        self._blocks = blocks
        self._parts = None if blocks is None else Parts(blocks, self._words, self._headers)

    async def handle(self, request: web.BaseRequest, path: FilePath) -> web.StreamResponse:
        """The answer. Raises Problem: what the oracle raises, 502 and 504 when the file cannot be fetched."""
        word = await self._words.on(path)
        if isinstance(word, Deny | Later):
            return refusal(word)
        try:
            return await self._answer(request, path, word)
        except Withdrawn as withdrawn:
            if request.writer.output_size > 0:
                raise
            return refusal(withdrawn.word)
        except SourceGone:
            # Its page names the file, and its host does not have it: one of the two is out of date. Ask which, once.
            again = await self._asked_again(path, word)
            if again is None:
                raise
        return refusal(again) if isinstance(again, Deny | Later) else await self._answer(request, path, again)

    async def _asked_again(self, path: FilePath, before: Wanted) -> Wanted | Deny | Later | None:
        """What the bot says after a look at upstream; None when that is nothing new."""
        try:
            await self._oracle.page(before.project, refresh=True)
            word = await self._words.on(path)
        except Problem:
            return None
        return None if word == before else word

    async def _answer(self, request: web.BaseRequest, path: FilePath, wanted: Wanted) -> web.StreamResponse:
        etag = etag_of(wanted.sha256)
        if matches(request.headers.get("If-None-Match"), etag) is not None:
            return self._headers.unchanged(wanted)
        ask = Ask.of(request, path, etag)
        small = self._bodies.get(wanted.sha256)
        if small is not None:
            self._store.used(wanted.sha256)
            return self._small(ask, wanted, small)
        held = self._store.held(wanted.sha256) or await self._store.find(wanted.sha256)
        todo = plan(wanted, held=held is not None, head=ask.head, whole_first=ask.whole_first)
        match todo:
            case FromStore():
                assert held is not None
                return await self._stored(ask, wanted, held)
            case Describe(size=size):
                return self._described(wanted, size)
            case Deny():
                return refusal(todo)
            case Fetch():
                return await self._fetched(ask, wanted)
            case never:
                assert_never(never)

    # What is here ------------------------------------------------------------------------------------------------------

    async def _stored(self, ask: Ask, wanted: Wanted, held: Held) -> web.StreamResponse:
        """From the store; fetched anew when what lies there is not the file any more."""
        file = await self._opened(held)
        if file is None:
            return await self._fetched(ask, wanted)
        with file:
            if held.size > SMALL_BYTES:
                return await self._large(ask, wanted, held, file)
            data = await asyncio.to_thread(file.read)
        if sha256_of(data) != wanted.sha256:  # rotten, with the length and time of the day it was stored
            await self._store.recheck(wanted.sha256)
            return await self._fetched(ask, wanted)
        self._bodies.put(wanted.sha256, data)
        return self._small(ask, wanted, data)

    async def _opened(self, held: Held) -> BinaryIO | None:
        try:
            return self._store.open(held)
        except Damaged:
            pass
        try:
            again = await self._store.recheck(held.sha256)
            return None if again is None else self._store.open(again)
        except (
            StorageProblem
        ) as problem:  # what stands in its place is no file, or cannot be read: upstream still has it
            log.warning("stored file unusable", extra={"sha256": held.sha256, "cause": problem.detail})
            return None

    async def _large(self, ask: Ask, wanted: Wanted, held: Held, file: BinaryIO) -> web.StreamResponse:
        answer = answer_range(ask.range, held.size)
        if answer.status == 416:
            return unsatisfiable(wanted, held.size)
        headers = with_span(self._headers.of(wanted, "cache", verified=True), answer, held.size)
        if ask.head:
            return web.Response(headers=headers)
        self._fills.given(wanted, held)
        response = web.StreamResponse(status=answer.status, headers=headers)
        still = partial(self._words.still, ask.path, wanted)
        await send_file(ask.request, response, file, span_of(answer, held.size), still)
        return response

    def _small(self, ask: Ask, wanted: Wanted, data: bytes) -> web.Response:
        held = self._store.held(wanted.sha256)
        if held is not None and not ask.head:
            self._fills.given(wanted, held)
        return self._in_one_piece(ask, wanted, data, "cache")

    def _in_one_piece(self, ask: Ask, wanted: Wanted, data: bytes, source: str) -> web.Response:
        """A verified body, or a part of it."""
        answer, size = answer_range(ask.range, len(data)), len(data)
        if answer.status == 416:
            return unsatisfiable(wanted, size)
        headers = with_span(self._headers.of(wanted, source, verified=True), answer, size)
        if ask.head:
            return web.Response(headers=headers)
        start, stop = span_of(answer, size)
        return web.Response(status=answer.status, headers=headers, body=data[start:stop])

    def _described(self, wanted: Wanted, size: int) -> web.Response:
        headers = with_span(self._headers.of(wanted, "upstream", verified=False), answer_range(None, size), size)
        return web.Response(headers=headers)

    # What has to be fetched --------------------------------------------------------------------------------------------

    async def _fetched(self, ask: Ask, wanted: Wanted) -> web.StreamResponse:
        """From the one fetch of the object, as it comes; from the store if it is done meanwhile."""
        if open_start(ask.range) and await self._store.was_wrong(wanted.sha256):
            told = (
                f"matrix-pypi: {wanted.name}: the transfer before this one was wrong, it cannot be resumed; start again"
            )
            return problem_response(ProblemCode.DIGEST_MISMATCH, told)
        if self._blocks is not None and self._blocks.asks_for_whereabouts(wanted):
            wanted = await self._words.with_whereabouts(wanted)
        asker = None if ask.head or wanted.is_metadata else Asker(wanted.project, wanted.name)
        flight = self._fills.join(wanted, asker)
        here_already = flight.is_verified
        if self._parts is not None and ask.whole_first and not here_already:
            part = await self._parts.answer(ask, wanted)
            if part is not None:
                return part
        transfer: Transfer | None = None
        while True:
            async with AsyncExitStack() as stack:
                try:
                    got = await stack.enter_async_context(flight.reading(transfer))
                except StorageProblem:
                    return await self._past_the_store(ask, wanted)
                if isinstance(got, Held):
                    await self._words.still(ask.path, wanted)
                    return await self._stored(ask, wanted, got)
                transfer = got
                if await ask.is_ready(transfer):
                    await self._words.still(ask.path, wanted)  # it may have taken long
                    source = "cache" if here_already else transfer.source
                    return await self._transferred(ask, wanted, transfer, source)

    async def _transferred(self, ask: Ask, wanted: Wanted, transfer: Transfer, source: str) -> web.StreamResponse:
        size = transfer.total
        assert size is not None
        body = transfer.body
        if body is not None:
            if self._store.held(wanted.sha256) is not None:  # else the next client's request is to have it stored
                self._bodies.put(wanted.sha256, body)
            return self._in_one_piece(ask, wanted, body, source)
        answer = answer_range(ask.range, size)
        if answer.status == 416:
            return unsatisfiable(wanted, size)
        headers = self._headers.of(wanted, source, verified=transfer.verified)
        headers = with_span(headers, answer, size)
        if ask.head:
            return web.Response(headers=headers)
        response = web.StreamResponse(status=answer.status, headers=headers)
        pieces = self._pieces(wanted, transfer, *span_of(answer, size))
        await send_pieces(ask.request, response, self._words.while_allowed(ask.path, wanted, pieces))
        await response.write_eof()
        return response

    async def _pieces(self, wanted: Wanted, transfer: Transfer, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """What the transfer lets out, as it does. Goes on past the store when that fills up meanwhile."""
        while start < stop:
            try:
                await transfer.until(start)
            except StorageProblem:
                break
            piece = await transfer.read(start, min(_PIECE_BYTES, stop - start))
            if not piece:
                raise StorageBroken(f"{wanted.name}: a part is shorter than it was")
            start += len(piece)
            yield piece
        else:
            return
        async with self._fills.through(wanted, transfer) as past, aclosing(past.pieces(start)) as pieces:
            async for piece in pieces:
                yield piece

    async def _past_the_store(self, ask: Ask, wanted: Wanted) -> web.StreamResponse:
        """To this client alone. A closed range would have to wait for the whole with nowhere to put it: he gets the whole."""
        async with self._fills.through(wanted) as past:
            answer = answer_range(None if ask.whole_first else ask.range, past.total)
            if answer.status == 416:
                return unsatisfiable(wanted, past.total)
            headers = with_span(self._headers.of(wanted, past.source, verified=False), answer, past.total)
            if ask.head:
                return web.Response(headers=headers)
            bytes_past = past.pieces(span_of(answer, past.total)[0])
            async with aclosing(self._words.while_allowed(ask.path, wanted, bytes_past)) as pieces:
                first = await anext(pieces, b"")  # what goes wrong before it is a plain answer
                response = web.StreamResponse(status=answer.status, headers=headers)
                await send_pieces(ask.request, response, with_first(first, pieces))
            await response.write_eof()
            return response
