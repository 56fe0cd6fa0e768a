"""Connections as the open internet treats them: a time limit for request heads, one quiet line for nonsense instead of a traceback."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from aiohttp import web

from index_frontend.handlers.middleware import Handler, problem_response
from matrix_pypi_bot.wire.problems import ProblemCode, clean_line

log = logging.getLogger(__name__)

FIRST_HEAD_SECONDS: Final = 10.0  # a new connection must have sent a whole request head by then
IDLE_SECONDS: Final = 75.0  # between requests; also bounds how long a later head may dribble in
LINGERING_SECONDS: Final = 1.0  # for the body of a request that should not have one
MAX_HEAD_LINE_BYTES: Final = 8_190


class Connection(web.RequestHandler):
    """One client's connection."""

    __slots__ = ("_head_timer",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Starts the clock for the first request head."""
        super().connection_made(transport)
        self._head_timer = self._loop.call_later(FIRST_HEAD_SECONDS, self._head_is_due)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stops it."""
        self._head_timer.cancel()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no HTTP. Raises ConnectionError when part of another answer is out."""
        log.debug("not a request", extra={"status": status, "reason": clean_line(message or repr(exc))})
        if request.writer.output_size > 0:
            raise ConnectionError("the answer was cut")
        code = ProblemCode.BAD_REQUEST if status < 500 else ProblemCode.INTERNAL
        first_line = (message or "").strip().partition("\n")[0]
        answer = problem_response(code, f"matrix-pypi: {first_line or 'not an HTTP request'}", status=status)
        answer.force_close()
        return answer

    def _head_is_due(self) -> None:
        if self._request_count == 0:
            self.force_close()


class Server(web.Server):
    """Makes a Connection for each client."""

    def __init__(self, handler: Handler, **options: Any) -> None:
        super().__init__(
            handler,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=IDLE_SECONDS,
            lingering_time=LINGERING_SECONDS,
            max_line_size=MAX_HEAD_LINE_BYTES,
            max_field_size=MAX_HEAD_LINE_BYTES,
            **options,
        )

    def __call__(self) -> Connection:
        """A protocol for a new connection."""
        return Connection(self, loop=self._loop, **self._kwargs)
