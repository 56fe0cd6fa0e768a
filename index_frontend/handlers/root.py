"""`/simple/`: the projects that are known here. Written once a revision, into a file when it is long, so that memory stays bounded."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import weakref
from collections.abc import AsyncIterator
from typing import IO, Final

from aiohttp import web

from index_frontend.handlers.index import combined, format_of, matches
from index_frontend.handlers.middleware import SERVER
from index_frontend.oracle.flights import Flights
from index_frontend.pages.encode import etag
from index_frontend.pages.negotiate import IDENTITY, MediaType, negotiate
from index_frontend.pages.render import root_end, root_names, root_start
from index_frontend.ports import Oracle

FRESH_SECONDS: Final = 60
_PIECE_BYTES: Final = 256 << 10


class RootHandler:
    """Answers for the root index."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self._written: dict[MediaType, _Written] = {}
        self._flights = Flights()

    async def close(self) -> None:
        """End what is under way."""
        await self._flights.close()

    async def handle(self, request: web.BaseRequest, query: str) -> web.StreamResponse:
        """The list, or 304. Raises Problem: 406, and what the oracle raises."""
        media = negotiate(combined(request.headers, "Accept"), format_of(query))
        written = await asyncio.shield(self._flights.join(media, lambda: self._newest(media)))
        headers = {
            "ETag": written.etag,
            "Vary": "Accept",
            "Cache-Control": f"public, max-age={FRESH_SECONDS}",
            "X-Content-Type-Options": "nosniff",
            "Server": SERVER,
        }
        if matches(request.headers.get("If-None-Match"), written.etag) is not None:
            return web.Response(status=304, headers=headers)
        headers |= {"Content-Type": str(media), "Content-Length": str(written.size)}
        if request.method == "HEAD":
            return web.Response(headers=headers)
        answer = web.StreamResponse(headers=headers)
        await answer.prepare(request)
        async for piece in written.pieces():
            await answer.write(piece)
        await answer.write_eof()
        return answer

    async def _newest(self, media: MediaType) -> _Written:
        """What is written already when the bot says that the list is still that one, else written anew."""
        before = self._written.get(media)
        async with self._oracle.projects(before.revision if before else None) as names:
            if names.unchanged and before is not None:
                return before
            written = self._written[media] = await _write(media, names.revision, names.batches)
            return written


class _Written:
    """The list in one representation."""

    def __init__(self, file: IO[bytes], *, size: int, etag: str, revision: str | None) -> None:
        self.size = size
        self.etag = etag
        self.revision = revision
        self._file = file
        weakref.finalize(self, file.close)  # clients may still read it when a newer one has taken its place

    async def pieces(self) -> AsyncIterator[bytes]:
        """The bytes from the start; several readers do not disturb each other."""
        for offset in range(0, self.size, _PIECE_BYTES):
            yield await asyncio.to_thread(os.pread, self._file.fileno(), _PIECE_BYTES, offset)


async def _write(media: MediaType, revision: str | None, batches: AsyncIterator[list[str]]) -> _Written:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed when nobody reads it any more
    digest, size = hashlib.blake2b(digest_size=16), 0
    try:
        async for piece in _pieces(media, batches):
            digest.update(piece)
            size += file.write(piece)
        file.flush()
    except BaseException:
        file.close()
        raise
    return _Written(file, size=size, etag=etag(digest.hexdigest(), media, IDENTITY), revision=revision)


async def _pieces(media: MediaType, batches: AsyncIterator[list[str]]) -> AsyncIterator[bytes]:
    yield root_start(media)
    first = True
    async for batch in batches:
        yield root_names(batch, media, first=first)
        first = first and not batch
    yield root_end(media)
