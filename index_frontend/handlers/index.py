"""`/simple/<project>/`: a project's page in the form that the client prefers, out of memory whenever possible."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import unquote

from aiohttp import HttpVersion11, web
from multidict import CIMultiDict, CIMultiDictProxy
from werkzeug.http import parse_etags

from index_frontend.handlers.connection import MAX_HEAD_LINE_BYTES
from index_frontend.handlers.middleware import SERVER
from index_frontend.handlers.ready import ReadyResponse, head_of
from index_frontend.oracle.held import Bounded
from index_frontend.pages.encode import etag
from index_frontend.pages.negotiate import choose_coding, negotiate
from index_frontend.ports import Oracle, Page
from index_frontend.shelf import Finished, Form, Shelf
from matrix_pypi_bot.wire.names import ProjectName

MAX_FRESH_SECONDS: Final = 600  # what PyPI itself says, and pip keeps pages as long as it is told
_MAX_REMEMBERED: Final = 4_000  # different requests
_MAX_REMEMBERED_CHARACTERS: Final = 1_000

_Key: TypeAlias = tuple[str | None, ...]  # raw path with query, Host, Accept, Accept-Encoding


class PageHandler:
    """Answers for project pages."""

    def __init__(self, oracle: Oracle, shelf: Shelf, clock: Callable[[], float] = time.monotonic) -> None:
        self._oracle = oracle
        self._shelf = shelf
        self._clock = clock
        self._asked: Bounded[_Key, _Asked] = Bounded(_MAX_REMEMBERED)

    def ready(self, request: web.BaseRequest) -> ReadyResponse | None:
        """The answer to a request that was answered before, while everything it takes is in memory; None sends it the long way.

        A request is known by all that its form depends on, so neither its path nor its host need be looked at again.
        """
        asked = self._asked.get(_key_of(request))
        if asked is None or request.method != "GET" or not request.keep_alive or request.version != HttpVersion11:
            return None
        headers = request.headers
        if _wants_refresh(headers) or len(headers.getall("Host")) != 1:
            return None
        page = self._oracle.glance(asked.project)
        if page is None:
            return None
        finished = self._shelf.ready(asked.project, page.document.view.revision, asked.form)
        if finished is None:
            return None
        if_none_match = headers.get("If-None-Match")
        if if_none_match is None:
            return asked.answer(200, page, finished, int(self._clock()))
        return asked.answer(304, page, finished, int(self._clock())) if if_none_match == finished.etag else None

    async def handle(self, request: web.BaseRequest, project: ProjectName, query: str) -> web.StreamResponse:
        """The page, or 304. Raises Problem: 406, and what the oracle raises."""
        headers = request.headers
        form = (
            negotiate(combined(headers, "Accept"), format_of(query)),
            choose_coding(combined(headers, "Accept-Encoding")),
        )
        page = await self._oracle.page(project, refresh=_wants_refresh(headers))
        finished = await self._shelf.finished(project, page, form)
        key = _key_of(request)
        if sum(len(part or "") for part in key) <= _MAX_REMEMBERED_CHARACTERS:
            self._asked.put(key, _Asked(project, form))
        return _answer(combined(headers, "If-None-Match"), page, finished, form)


@dataclass(slots=True)
class _Asked:
    """What a known request is answered with, and the head it was answered with last: good for one second."""

    project: ProjectName
    form: Form
    _head: bytes = b""
    _made_of: tuple[object, ...] = ()

    def answer(self, status: int, page: Page, finished: Finished, second: int) -> ReadyResponse:
        """The answer, with a head that is made anew when anything in it may have changed."""
        cache = "STALE" if page.stale else "HIT"
        made_of = (status, finished.etag, cache, second)
        if made_of != self._made_of:
            headers = _headers(page, finished)
            if status == 304:
                _strip(headers)
            self._head = head_of(status, headers, None if status == 304 else len(finished.body))
            self._made_of = made_of
        return ReadyResponse(status, self._head, b"" if status == 304 else finished.body, cache)


def format_of(query: str) -> str | None:
    """The `format` parameter of a raw query string. A `+` in it is a plus, whatever forms think."""
    for part in query.split("&", 32):
        name, _, value = part.partition("=")
        if name == "format":
            return unquote(value)
    return None


def combined(headers: CIMultiDictProxy[str], name: str) -> str | None:
    """The value of a header that may come in several lines (RFC 9110 §5.3); of very many, those that one line could have held.

    A hundred full lines would keep a parser, and with it everybody, busy for seconds.
    """
    values = headers.getall(name, None)
    if values is None:
        return None
    value = values[0]
    for more in values[1:]:
        if len(value) + len(more) > MAX_HEAD_LINE_BYTES:
            break
        value = f"{value}, {more}"
    return value


def matches(if_none_match: str | None, *tags: str) -> str | None:
    """The one of `tags` (quoted) that `If-None-Match` names, weakly compared as RFC 9110 §13.1.2 says; None when it names none."""
    if if_none_match is None:
        return None
    if if_none_match in tags:
        return if_none_match
    named = parse_etags(if_none_match)
    return next((tag for tag in tags if named.star_tag or named.contains_weak(tag.strip('"'))), None)


def _key_of(request: web.BaseRequest) -> _Key:
    headers = request.headers
    return request.raw_path, headers.get("Host"), combined(headers, "Accept"), combined(headers, "Accept-Encoding")


def _wants_refresh(headers: CIMultiDictProxy[str]) -> bool:
    """Whether the user wants upstream asked now. Not `max-age=0`: pip says that with every page, so it means nothing."""
    cache_control = combined(headers, "Cache-Control")
    return cache_control is not None and "no-cache" in cache_control.lower()


def _answer(if_none_match: str | None, page: Page, finished: Finished, form: Form) -> web.Response:
    headers = _headers(page, finished)
    # While a large page is still being compressed, a client may have its compressed form from before.
    tag = matches(if_none_match, finished.etag, etag(finished.fingerprint, *form))
    if tag is None:
        return web.Response(body=finished.body, headers=headers)
    headers["ETag"] = tag
    _strip(headers)
    return web.Response(status=304, headers=headers)


def _headers(page: Page, finished: Finished) -> CIMultiDict[str]:
    headers = finished.headers.copy()
    if page.stale:
        headers["X-Matrix-PyPI-Cache"] = "STALE"
        headers["Cache-Control"] = "public, max-age=0"
    else:
        headers["X-Matrix-PyPI-Cache"] = "HIT" if page.hit else "MISS"
        headers["Cache-Control"] = f"public, max-age={min(int(page.remaining_seconds), MAX_FRESH_SECONDS)}"
    headers["Server"] = SERVER
    return headers


def _strip(headers: CIMultiDict[str]) -> None:
    """Take off what describes a body that is not sent."""
    headers.popall("Content-Type", None)
    headers.popall("Content-Encoding", None)
