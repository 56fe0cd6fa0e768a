"""Errors as answers: RFC 9457 documents, whatever went wrong; a traceback goes to the log and never on the wire."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from aiohttp import web

from matrix_pypi_bot.ports import StoreAway
from matrix_pypi_bot.wire.problems import PROBLEM_TYPE, Problem, ProblemCode, problem_body

log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS: Final = "5"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def answering(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What `handler` answers, with every failure made an answer."""
    try:
        return await handler(request)
    except StoreAway as problem:
        log.warning("request failed", extra={"path": request.path, "reason": problem.detail})
        return problem_response(problem.code, problem.detail)
    except Problem as problem:
        detail = f"{problem.detail}; {problem.hint}" if problem.hint else problem.detail
        return problem_response(problem.code, detail)
    except (msgspec.MsgspecError, RecursionError) as error:
        return problem_response(ProblemCode.BAD_REQUEST, f"the body is not what it should be: {error}")
    except web.HTTPException as error:
        return _of_the_framework(error)
    except ConnectionError:
        raise  # the client is gone: nobody to answer
    except Exception:
        log.exception("request failed", extra={"path": request.path})
        return problem_response(ProblemCode.INTERNAL, "internal error, see the bot's log")


def problem_response(code: ProblemCode, detail: str, *, status: int | None = None) -> web.Response:
    """An `application/problem+json` answer."""
    number = status or code.status
    headers = {"Content-Type": PROBLEM_TYPE, "Cache-Control": "no-store"}
    if number == ProblemCode.UPSTREAM_AWAY.status:
        headers["Retry-After"] = RETRY_AFTER_SECONDS
    if code is ProblemCode.UNAUTHORISED:
        headers["WWW-Authenticate"] = "Bearer"
    return web.Response(status=number, body=problem_body(number, code.title, detail), headers=headers)


def _of_the_framework(error: web.HTTPException) -> web.Response:
    """What aiohttp itself refuses: unknown routes, wrong methods, bodies that are too large."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        response = problem_response(ProblemCode.METHOD_NOT_ALLOWED, f"only {', '.join(sorted(error.allowed_methods))}")
        response.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
        return response
    if error.status == ProblemCode.NOT_FOUND.status:
        return problem_response(ProblemCode.NOT_FOUND, "there is nothing at this address")
    return problem_response(ProblemCode.BAD_REQUEST, error.reason, status=error.status)
