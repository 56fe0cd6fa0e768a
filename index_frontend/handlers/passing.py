"""Pages of the bot on their way to whoever asks. Each is a body of its own until its reader has it: so there are few large ones."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

from index_frontend.handlers.middleware import SERVER, problem_response
from index_frontend.oracle import PublicPages
from matrix_pypi_bot.wire.problems import ProblemCode

MAX_LARGE: Final = 16
"""Large answers under way in this process, 8 MiB at most each; who comes beyond is told to come back."""

LARGE_BYTES: Final = 65_536
SEND_SECONDS: Final = 60.0  # for a whole answer: another mirror waits half as long for one
RETRY_AFTER_SECONDS: Final = 5
_MAX_TAG_CHARACTERS: Final = 200


class Passing:
    """Passes pages on. One for all handlers of a process."""

    def __init__(self, pages: PublicPages, *, max_large: int = MAX_LARGE) -> None:
        self._pages = pages
        self._free = max_large

    async def answer(
        self, request: web.BaseRequest, path: str, content_type: str, *, accept: str = "*/*"
    ) -> web.StreamResponse:
        """The page at `path`, which is spelled by us. Raises Problem."""
        told = await self._pages.get(path, if_none_match=_tag_of(request.headers.get("If-None-Match")), accept=accept)
        headers = {"X-Content-Type-Options": "nosniff", "Server": SERVER, **told.headers}
        if told.status == 200:
            headers["Content-Type"] = content_type
        response = web.Response(status=told.status, body=told.body, headers=headers)
        if len(told.body) <= LARGE_BYTES:
            return response
        if self._free <= 0:
            return problem_response(
                ProblemCode.TOO_MANY,
                "matrix-pypi: too many large pages are being sent, try again",
                headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
            )
        self._free -= 1
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await response.prepare(request)
                await response.write_eof()
        finally:
            self._free += 1
        return response


def _tag_of(told: str | None) -> str | None:
    """An `If-None-Match` that may be passed on."""
    fits = told is not None and told.isascii() and told.isprintable() and len(told) <= _MAX_TAG_CHARACTERS
    return told if fits else None
