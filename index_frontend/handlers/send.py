"""Bytes onto the wire: small bodies in one piece, files by sendfile, transfers as they come. And the headers that go with them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import BinaryIO, Final

from aiohttp import web

from index_frontend.handlers.middleware import SERVER, problem_response
from index_frontend.ranges import RangeAnswer
from index_frontend.serve_plan import Deny, Later, Wanted
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.problems import ProblemCode

YEAR_SECONDS: Final = 31_536_000
PROGRESS_SECONDS: Final = 60.0
"""How long a client may take nothing of a piece before the connection is closed."""

SENDFILE_BYTES: Final = 4 << 20
SENDFILE_SECONDS: Final = 240.0  # for each of those pieces: 17 kB/s
_COPY_BYTES: Final = 256 << 10


class FileHeaders:
    """The headers of file answers. `shared_cache` lets caches between us and the client keep files, which outlive a revocation."""

    def __init__(self, *, shared_cache: bool) -> None:
        scope = "public" if shared_cache else "private"
        self._kept = f"{scope}, max-age={YEAR_SECONDS}, immutable"

    def of(self, wanted: Wanted, source: str, *, verified: bool) -> dict[str, str]:
        """For an answer of 200 or 206. What is not verified yet must not be kept by anybody."""
        headers = {
            "Content-Type": "application/octet-stream",
            "ETag": etag_of(wanted.sha256),
            "Accept-Ranges": "bytes",
            "Cache-Control": self._kept if verified else "no-store",
            "X-Content-Type-Options": "nosniff",
            "X-Matrix-PyPI-Rule": wanted.rule,
            "X-Matrix-PyPI-Source": source,
            "Server": SERVER,
        }
        if wanted.status:
            headers["X-Matrix-PyPI-Status"] = wanted.status
        return headers

    def unchanged(self, wanted: Wanted) -> web.Response:
        """304."""
        headers = self.of(wanted, "cache", verified=True)
        del headers["Content-Type"]
        return web.Response(status=304, headers=headers)


def etag_of(sha256: Sha256) -> str:
    """The strong ETag of a file, quotes included."""
    return f'"sha256-{sha256}"'


def refusal(word: Deny | Later) -> web.Response:
    """A decision not to serve, with its rule and its sentence."""
    rule = {"X-Matrix-PyPI-Rule": word.rule}
    if isinstance(word, Later):
        return problem_response(ProblemCode.FILE_UNAVAILABLE, word.reason, headers=rule)
    code = ProblemCode.NOT_FOUND if word.status == 404 else ProblemCode.REFUSED
    return problem_response(code, word.reason, status=word.status, headers=rule)


def unsatisfiable(wanted: Wanted, size: int) -> web.Response:
    """416, with the length that ranges must keep to."""
    told = f"matrix-pypi: {wanted.name} has {size} bytes"
    return problem_response(ProblemCode.RANGE_NOT_SATISFIABLE, told, headers={"Content-Range": f"bytes */{size}"})


def span_of(answer: RangeAnswer, size: int) -> tuple[int, int]:
    """First byte and the one behind the last of a satisfiable answer."""
    if answer.start is None or answer.end is None:
        return 0, size
    return answer.start, answer.end + 1


def with_span(headers: dict[str, str], answer: RangeAnswer, size: int) -> dict[str, str]:
    """`headers` with the length of the part, and where it lies."""
    start, stop = span_of(answer, size)
    if answer.status == 206:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    headers["Content-Length"] = str(stop - start)
    return headers


async def send_file(
    request: web.BaseRequest,
    response: web.StreamResponse,
    file: BinaryIO,
    span: tuple[int, int],
    still: Callable[[], Awaitable[None]],
) -> None:
    """The part of `file` from the kernel's cache to the socket, without a copy through this process where the loop can do that.

    `still` is asked between pieces: what it raises leaves the answer short of its Content-Length.
    """
    await response.prepare(request)
    await send_span(request, response, file, span, still)
    await response.write_eof()


async def send_span(
    request: web.BaseRequest,
    response: web.StreamResponse,
    file: BinaryIO,
    span: tuple[int, int],
    still: Callable[[], Awaitable[None]],
) -> None:
    """The same into an answer that is under way, which may go on after it."""
    start, stop = span
    if isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):
        await _by_sendfile(request, file, start, stop, still)
    else:  # uvloop has no sendfile
        await send_pieces(request, response, _copied(file, start, stop, still))


async def send_pieces(
    request: web.BaseRequest, response: web.StreamResponse, pieces: AsyncGenerator[bytes, None]
) -> None:
    """Piece by piece, at the client's pace. Whatever `pieces` raises leaves the answer short of its Content-Length."""
    if not response.prepared:
        await response.prepare(request)
    async with aclosing(pieces):
        async for piece in pieces:
            async with asyncio.timeout(PROGRESS_SECONDS):
                await response.write(piece)


async def with_first(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """`first`, which was taken out of it already, and then `rest`."""
    yield first
    async for piece in rest:
        yield piece


async def _by_sendfile(
    request: web.BaseRequest, file: BinaryIO, start: int, stop: int, still: Callable[[], Awaitable[None]]
) -> None:
    loop = asyncio.get_running_loop()
    for offset in range(start, stop, SENDFILE_BYTES):
        if request.transport is None or request.transport.is_closing():
            raise ConnectionResetError("the client is gone")
        if offset > start:
            await still()
        count = min(SENDFILE_BYTES, stop - offset)
        async with asyncio.timeout(SENDFILE_SECONDS):
            sent = await loop.sendfile(request.transport, file, offset, count)
        if sent < count:
            raise ConnectionAbortedError("the file is shorter than it was")


async def _copied(
    file: BinaryIO, start: int, stop: int, still: Callable[[], Awaitable[None]]
) -> AsyncGenerator[bytes, None]:
    for offset in range(start, stop, _COPY_BYTES):
        piece = await asyncio.to_thread(os.pread, file.fileno(), min(_COPY_BYTES, stop - offset), offset)
        if not piece:
            raise ConnectionAbortedError("the file is shorter than it was")
        if offset > start:
            await still()
        yield piece
