"""HTTP for the trust pages: one handler = parse, ask the service, show."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec
from aiohttp import web

from matrix_pypi_bot.services.trust_pages import TrustPages
from matrix_pypi_bot.web.html import SECURITY_POLICY, show_file, show_home, show_project
from matrix_pypi_bot.wire.names import parse_file_name, parse_project
from matrix_pypi_bot.wire.problems import Problem, ProblemCode
from matrix_pypi_bot.wire.trust import HTML_TYPE, JSON_TYPE, TRUST, wants_json


class TrustHandlers:
    """Answers for `/trust/…`; `routes` are to be served by whoever listens."""

    def __init__(self, pages: TrustPages) -> None:
        self._pages = pages
        self.routes: Final = (
            web.get(f"{TRUST}/", self._home),
            web.get(f"{TRUST}/{{project}}/", self._project),
            web.get(f"{TRUST}/{{project}}/{{file}}", self._file),
        )

    async def _home(self, request: web.Request) -> web.Response:
        told = await self._pages.home(_after(request))
        return _answer(request, _json(told) if _is_json(request) else show_home(told))

    async def _project(self, request: web.Request) -> web.Response:
        told = await self._pages.project(parse_project(request.match_info["project"]))
        return _answer(request, _json(told) if _is_json(request) else show_project(told))

    async def _file(self, request: web.Request) -> web.Response:
        project, file = parse_project(request.match_info["project"]), parse_file_name(request.match_info["file"])
        page = await self._pages.file(project, file)
        told = page.document(self._pages.org)
        return _answer(request, _json(told) if _is_json(request) else show_file(page, self._pages.org))


def _answer(request: web.Request, body: bytes) -> web.Response:
    """Never kept without asking: what is refused a moment later must not be told as served."""
    json = _is_json(request)
    tag = hashlib.sha256(body).hexdigest()
    headers = {
        "ETag": f'"{tag}"',
        "Cache-Control": "no-cache",
        "Vary": "Accept",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": SECURITY_POLICY,
        "Referrer-Policy": "no-referrer",
    }
    held = request.if_none_match
    if held is not None and any(each.value in (tag, "*") for each in held):
        return web.Response(status=304, headers=headers)
    return web.Response(
        body=body,
        content_type=JSON_TYPE if json else HTML_TYPE,
        charset=None if json else "utf-8",
        headers=headers,
    )


def _is_json(request: web.Request) -> bool:
    return wants_json(", ".join(request.headers.getall("Accept", [])))


def _json(told: msgspec.Struct) -> bytes:
    return msgspec.json.encode(told)


def _after(request: web.Request) -> str:
    told = request.query.getall("after", [])
    if len(told) > 1:
        raise Problem("`after` is the name of a project, said once", code=ProblemCode.BAD_REQUEST)
    return parse_project(told[0]) if told else ""
