"""The pages for everybody: this organisation's transparency log, its copies of others', verified provenance, and the trust pages.

No token is known here, and no internal route leads here.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from aiohttp import web

from matrix_pypi_bot.api.errors import Handler, answering
from matrix_pypi_bot.services.log import MAX_ENTRIES, LogKeeper
from matrix_pypi_bot.services.provenance import Provenance
from matrix_pypi_bot.services.shown_copies import ShownCopies
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import LOG, PROVENANCE, PROVENANCE_TYPE
from matrix_pypi_bot.wire.names import parse_file_name, parse_project
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

MAX_READERS: Final = 2  # at once: the database has more to do than to answer strangers
MAX_WAITING: Final = 64
_CHECKPOINT: Final = f"{LOG}/checkpoint"
_MAX_DIGITS: Final = 18
_ORG: Final = "{org:[a-z0-9][a-z0-9.-]{0,62}}"
_SHA256: Final = "{sha256:[0-9a-f]{64}}"
_FOR_EVER: Final = "public, max-age=31536000, immutable"
_ASK_AGAIN: Final = "no-cache"


class PublicApi:
    """The application; `more` are the routes of other public pages. All but the checkpoint take turns at the database.

    `provenance` None: none is verified here, so there is none to show.
    """

    name = "listener of the public pages"
    setting = "public.listen"

    def __init__(
        self,
        log: LogKeeper,
        copies: ShownCopies,
        provenance: Provenance | None = None,
        more: Iterable[web.RouteDef] = (),
    ) -> None:
        self._log = log
        self._copies = copies
        self._provenance = provenance
        self._turns = asyncio.Semaphore(MAX_READERS)
        self._waiting = 0
        self.app = web.Application(middlewares=[answering, self._in_turn], client_max_size=0)
        self.app.add_routes(
            [
                web.get(_CHECKPOINT, self._checkpoint),
                web.get(f"{LOG}/entries", self._entries),
                web.get(f"{LOG}/copies/{_ORG}/checkpoint", self._copied_checkpoint),
                web.get(f"{LOG}/copies/{_ORG}/entries", self._copied_entries),
                web.get(f"{LOG}/lists/{_SHA256}", self._list),
                web.get(f"{PROVENANCE}/{{project}}/{{file}}", self._document),
                *more,
            ]
        )

    def stop(self) -> None:
        """Nothing here keeps anybody waiting."""

    async def _checkpoint(self, request: web.Request) -> web.Response:
        """The newest note, with the cosignatures of others. It is held in memory: asking for it costs nothing."""
        note = self._log.note
        if note is None:
            raise Problem("there is no checkpoint yet: this organisation has said nothing", code=ProblemCode.NOT_FOUND)
        return _answer(request, note.encode(), "text/plain", _ASK_AGAIN)

    async def _entries(self, request: web.Request) -> web.Response:
        """Envelopes, one a line, one a leaf: those of the range that the newest checkpoint covers, as many as fit an answer."""
        return await self._page(request, self._log.entries)

    async def _copied_checkpoint(self, request: web.Request) -> web.Response:
        """The newest head of another organisation that was verified here, with our cosignature."""
        org = request.match_info["org"]
        note = await self._copies.note(org)
        if note is None:
            raise Problem("there is no copy of such a log here", code=ProblemCode.NOT_FOUND)
        return _answer(request, note.encode(), "text/plain", _ASK_AGAIN)

    async def _copied_entries(self, request: web.Request) -> web.Response:
        """The same as entries, of the copy."""
        org = request.match_info["org"]
        return await self._page(request, lambda start, end: self._copies.entries(org, start, end), caching=_ASK_AGAIN)

    async def _page(
        self, request: web.Request, read: Callable[[int, int], Awaitable[list[bytes]]], *, caching: str = _FOR_EVER
    ) -> web.Response:
        start = _number(request, "from", 0)
        end = _number(request, "to", start + MAX_ENTRIES)
        if end < start:
            raise Problem(
                "the range ends before it begins: `from` is inclusive, `to` is not", code=ProblemCode.BAD_REQUEST
            )
        entries = await read(start, end)
        # What is complete can never be another: leaves stay what they are, and where they are.
        whole = start + len(entries) == min(end, start + MAX_ENTRIES)
        body = b"".join(entry + b"\n" for entry in entries)
        return _answer(request, body, "application/x-ndjson", caching if whole else _ASK_AGAIN)

    async def _list(self, request: web.Request) -> web.Response:
        """A list that an index statement stands for, of this organisation or another."""
        body = await self._copies.list(Sha256(request.match_info["sha256"]))
        if body is None:
            raise Problem("there is no such list here", code=ProblemCode.NOT_FOUND)
        return _answer(request, body, "application/x-ndjson", _FOR_EVER)

    async def _document(self, request: web.Request) -> web.Response:
        """Our copy of a file's provenance (PEP 740), as it was when it was verified."""
        project, file = parse_project(request.match_info["project"]), parse_file_name(request.match_info["file"])
        raw = None if self._provenance is None else await self._provenance.document(project, file)
        if raw is None:
            raise Problem(f"no provenance of {file} was verified here", code=ProblemCode.NOT_FOUND)
        return _answer(request, raw, PROVENANCE_TYPE, _ASK_AGAIN)

    @web.middleware
    async def _in_turn(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """What `handler` answers, when it is this request's turn."""
        if request.path == _CHECKPOINT:
            return await handler(request)
        if self._waiting >= MAX_WAITING:
            raise Problem("too many ask for these pages at once", code=ProblemCode.TOO_MANY)
        self._waiting += 1
        try:
            async with self._turns:
                return await handler(request)
        finally:
            self._waiting -= 1


def _answer(request: web.Request, body: bytes, content_type: str, caching: str) -> web.Response:
    tag = hashlib.sha256(body).hexdigest()
    headers = {"ETag": f'"{tag}"', "Cache-Control": caching, "X-Content-Type-Options": "nosniff"}
    held = request.if_none_match
    if held is not None and any(each.value in (tag, "*") for each in held):
        return web.Response(status=304, headers=headers)
    charset = "utf-8" if content_type.startswith("text/") else None
    return web.Response(body=body, content_type=content_type, charset=charset, headers=headers)


def _number(request: web.Request, name: str, default: int) -> int:
    told = request.query.getall(name, [])
    if not told:
        return default
    text = told[0]
    if len(told) > 1 or not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise Problem(f"`{name}` is the number of a leaf, said once", code=ProblemCode.BAD_REQUEST)
    return int(text)
