"""`/trust/…`: what the bot decided and why, passed through from it. Of a request only what is spelled here goes on."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, quote

from aiohttp import web

from index_frontend.handlers.passing import Passing
from index_frontend.handlers.redirect import redirect
from matrix_pypi_bot.wire.names import normalise_project, parse_escaped_file, parse_project
from matrix_pypi_bot.wire.problems import Problem, ProblemCode
from matrix_pypi_bot.wire.trust import HTML_TYPE, JSON_TYPE, TRUST, wants_json

_MAX_QUERY_CHARACTERS: Final = 300


class TrustHandler:
    """Answers for the trust pages."""

    def __init__(self, passing: Passing) -> None:
        self._passing = passing

    async def handle(self, request: web.BaseRequest, page: str, query: str) -> web.StreamResponse:
        """To `/trust/<page>?<query>`. Raises Problem."""
        if not page:
            return await self._passed_on(request, f"{TRUST}/{_after(query)}")
        spelled, slash, file = page.partition("/")
        project = normalise_project(spelled)
        if not slash:
            return redirect(f"{project}/", "")
        if project != spelled:
            return redirect(f"../{project}/{quote(parse_escaped_file(file)) if file else ''}", "")
        name = quote(parse_escaped_file(file), safe="+!") if file else ""
        return await self._passed_on(request, f"{TRUST}/{project}/{name}")

    async def _passed_on(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        json = wants_json(", ".join(request.headers.getall("Accept", [])))
        return await self._passing.answer(
            request,
            path,
            JSON_TYPE if json else f"{HTML_TYPE}; charset=utf-8",
            accept=JSON_TYPE if json else HTML_TYPE,
        )


def _after(query: str) -> str:
    """`?after=<project>` spelled anew; everything else in the query stays here."""
    told = [text for name, text in parse_qsl(query[:_MAX_QUERY_CHARACTERS], keep_blank_values=True) if name == "after"]
    if len(told) > 1:
        raise Problem("matrix-pypi: `after` is the name of a project, said once", code=ProblemCode.BAD_REQUEST)
    return f"?after={parse_project(told[0])}" if told else ""
