"""Answers whose head is bytes already: what is left to do for a page that thousands ask for is one dictionary and one write.

aiohttp makes, completes and serialises a dictionary of headers for each answer, which costs more than everything else about a page
that is in memory. Here it is done once a second for each form of a page.
"""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict

# Above this, a second system call is cheaper than copying the body behind the head.
_COPIED_BYTES = 64 << 10


class ReadyResponse(web.StreamResponse):
    """`head` (status line, headers, empty line) and `body`, sent as they are. Only for HTTP/1.1 connections that go on."""

    def __init__(self, status: int, head: bytes, body: bytes, cache: str) -> None:
        super().__init__(status=status)
        self.cache = cache
        self._head = head
        self._bytes = body
        self._keep_alive = True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Sends all of it; waits when the client does not keep up, so that pipelined requests cannot pile up answers."""
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        if len(self._bytes) <= _COPIED_BYTES:
            transport.write(self._head + self._bytes)
        else:
            transport.write(self._head)
            transport.write(self._bytes)
        if request.protocol.writing_paused:
            await request.writer.drain()
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """There is nothing left to write."""


def head_of(status: int, headers: CIMultiDict[str], length: int | None) -> bytes:
    """The bytes of a head: status line, `headers`, Content-Length unless `length` is None, Date."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    lines.append(f"Date: {formatdate(usegmt=True)}")
    return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n"
