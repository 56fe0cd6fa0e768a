"""The change stream over HTTP: NDJSON, for as long as somebody listens."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

from matrix_pypi_bot.api.services import Services
from matrix_pypi_bot.services.changes import follow
from matrix_pypi_bot.wire.messages import encode
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

MAX_STREAMS: Final = 200  # frontends' workers; more would be a mistake or an attack
_MAX_DIGITS: Final = 18


class ChangeStream:
    """The handler, and its open streams."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._open: set[asyncio.Task[None]] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """A stream that ends when the client leaves, the database goes away or the bot stops."""
        after = _after(request.query.get("after"))
        if len(self._open) >= MAX_STREAMS:
            raise Problem(f"{MAX_STREAMS} streams are open already", code=ProblemCode.BAD_REQUEST)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
        await response.prepare(request)
        task = asyncio.create_task(self._send(response, after))
        self._open.add(task)
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()
            self._open.discard(task)
        return response

    def stop(self) -> None:
        """All streams end now."""
        for task in self._open:
            task.cancel()

    async def _send(self, response: web.StreamResponse, after: int | None) -> None:
        try:
            async for change in follow(self._services.store, self._services.projects, after):
                await response.write(encode(change) + b"\n")
        except (ConnectionError, Problem):
            return  # the listener is gone, or must come again: he resumes where he was


def _after(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise Problem("after is a number of the change stream", code=ProblemCode.BAD_REQUEST)
    return int(text)
