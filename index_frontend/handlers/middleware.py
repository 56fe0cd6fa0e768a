"""Errors as answers: one line that pip shows as the reason phrase and uv as the detail, never a traceback on the wire."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

from aiohttp import web

from matrix_pypi_bot.wire.problems import PROBLEM_TYPE, Problem, ProblemCode, clean_line, problem_body

log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS: Final = 5  # pip obeys up to six hours of it
SERVER: Final = "matrix-pypi"
INTERNAL_DETAIL: Final = "matrix-pypi: internal error, see the frontend's log"

Handler: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def problem_response(
    code: ProblemCode, detail: str, *, status: int | None = None, headers: Mapping[str, str] | None = None
) -> web.Response:
    """An `application/problem+json` answer whose reason phrase is its detail. Never to be kept by anybody."""
    line, number = clean_line(detail) or code.title, status or code.status
    sent = {
        "Content-Type": PROBLEM_TYPE,
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Server": SERVER,
    }
    if number in (ProblemCode.ORACLE_AWAY.status, ProblemCode.FILE_UNAVAILABLE.status):
        sent["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if headers:
        sent.update(headers)
    return web.Response(status=number, reason=line, body=problem_body(number, code.title, line), headers=sent)


async def answering(handler: Handler, request: web.BaseRequest) -> web.StreamResponse:
    """What `handler` answers, with every failure made an answer."""
    try:
        return await handler(request)
    except Problem as problem:
        _cut_if_begun(request, problem)
        if problem.code.status == ProblemCode.INTERNAL.status:
            log.exception("request failed", extra={"path": request.raw_path, "code": problem.code.label})
            return problem_response(problem.code, INTERNAL_DETAIL)  # its own detail may name paths of this machine
        return problem_response(problem.code, problem.detail)
    except (ConnectionError, TimeoutError) as error:
        _cut_if_begun(request, error)
        raise ConnectionResetError("the client is gone") from error
    except Exception as error:
        log.exception("request failed", extra={"path": request.raw_path})
        _cut_if_begun(request, error)
        return problem_response(ProblemCode.INTERNAL, INTERNAL_DETAIL)


def _cut_if_begun(request: web.BaseRequest, error: Exception) -> None:
    """When part of an answer is out already, nothing may follow that could pass for its end."""
    if request.writer.output_size == 0:
        return
    if request.transport is not None and not request.transport.is_closing():
        log.warning("answer cut", extra={"path": request.raw_path, "reason": repr(error)})
        request.transport.abort()
    raise ConnectionResetError("the answer was cut") from error
