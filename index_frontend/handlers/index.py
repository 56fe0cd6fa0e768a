"""`/simple/<project>/`: a project's page in the form that the client prefers, out of memory whenever possible."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote

from aiohttp import web
from werkzeug.http import parse_etags

from index_frontend.handlers.middleware import SERVER
from index_frontend.oracle.held import Bounded
from index_frontend.pages.encode import etag
from index_frontend.pages.negotiate import choose_coding, negotiate
from index_frontend.ports import Oracle, Page
from index_frontend.shelf import Finished, Form, Shelf
from matrix_pypi_bot.wire.names import ProjectName

MAX_FRESH_SECONDS: Final = 600  # what PyPI itself says, and pip keeps pages as long as it is told
_MAX_REMEMBERED: Final = 2_000  # headers of clients
_MAX_REMEMBERED_CHARACTERS: Final = 1_000
_CACHE_CONTROL: Final = [f"public, max-age={seconds}" for seconds in range(MAX_FRESH_SECONDS + 1)]


class PageHandler:
    """Answers for project pages."""

    def __init__(self, oracle: Oracle, shelf: Shelf) -> None:
        self._oracle = oracle
        self._shelf = shelf
        self._forms: Bounded[tuple[str | None, str | None, str], Form] = Bounded(_MAX_REMEMBERED)

    async def handle(self, request: web.BaseRequest, project: ProjectName, query: str) -> web.StreamResponse:
        """The page, or 304. Raises Problem: 406, and what the oracle raises."""
        headers = request.headers
        form = self._form(headers.get("Accept"), headers.get("Accept-Encoding"), query)
        cache_control = headers.get("Cache-Control")
        # Not `max-age=0`: pip says that with every page, so it means nothing.
        refresh = cache_control is not None and "no-cache" in cache_control.lower()
        page = await self._oracle.page(project, refresh=refresh)
        finished = self._shelf.ready(project, page.document.view.revision, form)
        if finished is None:
            finished = await self._shelf.finished(project, page, form)
        return _answer(headers.get("If-None-Match"), page, finished, form)

    def _form(self, accept: str | None, accept_encoding: str | None, query: str) -> Form:
        """The form that was asked for; what the handful of real clients send is remembered."""
        key = (accept, accept_encoding, query)
        known = self._forms.get(key)
        if known is not None:
            return known
        form = (negotiate(accept, format_of(query)), choose_coding(accept_encoding))
        if len(accept or "") + len(accept_encoding or "") + len(query) <= _MAX_REMEMBERED_CHARACTERS:
            self._forms.put(key, form)
        return form


def format_of(query: str) -> str | None:
    """The `format` parameter of a raw query string. A `+` in it is a plus, whatever forms think."""
    for part in query.split("&", 32):
        name, _, value = part.partition("=")
        if name == "format":
            return unquote(value)
    return None


def matches(if_none_match: str | None, *tags: str) -> str | None:
    """The one of `tags` (quoted) that `If-None-Match` names, weakly compared as RFC 9110 §13.1.2 says; None when it names none."""
    if if_none_match is None:
        return None
    if if_none_match in tags:
        return if_none_match
    named = parse_etags(if_none_match)
    return next((tag for tag in tags if named.star_tag or named.contains_weak(tag.strip('"'))), None)


def _answer(if_none_match: str | None, page: Page, finished: Finished, form: Form) -> web.Response:
    headers = finished.headers.copy()
    if page.stale:
        headers["X-Matrix-PyPI-Cache"] = "STALE"
        headers["Cache-Control"] = _CACHE_CONTROL[0]
    else:
        headers["X-Matrix-PyPI-Cache"] = "HIT" if page.hit else "MISS"
        headers["Cache-Control"] = _CACHE_CONTROL[min(int(page.remaining_seconds), MAX_FRESH_SECONDS)]
    headers["Server"] = SERVER
    if if_none_match is not None:
        # While a large page is still being compressed, a client may have its compressed form from before.
        tag = matches(if_none_match, finished.etag, etag(finished.fingerprint, *form))
        if tag is not None:
            headers["ETag"] = tag
            headers.popall("Content-Type", None)
            headers.popall("Content-Encoding", None)
            return web.Response(status=304, headers=headers)
    return web.Response(body=finished.body, headers=headers)
