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
PROGRESS_SECONDS: Final = 60.0  # a client that takes nothing for so long of what waits for it is cut off
LINGERING_SECONDS: Final = 1.0  # for the body of a request that should not have one
MAX_HEAD_LINE_BYTES: Final = 8_190


class Connection(web.RequestHandler):
    """One client's connection."""

    __slots__ = ("_head_timer", "_progress_timer")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Starts the clock for the first request head."""
        super().connection_made(transport)
        self._head_timer = self._loop.call_later(FIRST_HEAD_SECONDS, self._head_is_due)
        self._progress_timer: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stops all clocks."""
        self._head_timer.cancel()
        self._stop_watching()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client is behind: from now on its progress is watched."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._stop_watching()
        super().resume_writing()

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

    def _watch(self) -> None:
        assert isinstance(self.transport, asyncio.WriteTransport)
        waiting = self.transport.get_write_buffer_size()
        self._progress_timer = self._loop.call_later(PROGRESS_SECONDS, self._progress_is_due, waiting)

    def _progress_is_due(self, waited_before: int) -> None:
        """Cut off, with all that waits for it, who took nothing; whoever took something has as long again."""
        transport = self.transport
        if not isinstance(transport, asyncio.WriteTransport):
            return
        if transport.get_write_buffer_size() >= waited_before:
            transport.abort()
        else:
            self._watch()

    def _stop_watching(self) -> None:
        if self._progress_timer is not None:
            self._progress_timer.cancel()
            self._progress_timer = None


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
