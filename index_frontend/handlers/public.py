"""`/log/v1/…`: this organisation's transparency log, its copies of others', and lists of files, passed through from the bot.

Of a request only what is spelled here goes on.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl

from aiohttp import web

from index_frontend.handlers.passing import Passing
from matrix_pypi_bot.wire.messages import LOG
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

_MAX_DIGITS: Final = 18
_MAX_QUERY_CHARACTERS: Final = 200
_COPY: Final = re.compile(r"copies/([a-z0-9][a-z0-9.-]{0,62})/(checkpoint|entries)", re.ASCII)
_LIST: Final = re.compile(r"lists/([0-9a-f]{64})", re.ASCII)
_RANGE: Final = ("from", "to")
_CONTENT_TYPES: Final = {"checkpoint": "text/plain; charset=utf-8", "entries": "application/x-ndjson"}


class PublicHandler:
    """Answers for the log's pages."""

    def __init__(self, passing: Passing) -> None:
        self._passing = passing

    async def handle(self, request: web.BaseRequest, page: str, query: str) -> web.StreamResponse:
        """To `/log/v1/<page>?<query>`. Raises Problem."""
        folder, name = "", page
        if (copy := _COPY.fullmatch(page)) is not None:
            folder, name = f"copies/{copy[1]}/", copy[2]
        if (listed := _LIST.fullmatch(page)) is not None:
            folder, name = "lists/", listed[1]
        content_type = _CONTENT_TYPES["entries"] if listed is not None else _CONTENT_TYPES.get(name)
        if content_type is None:
            raise Problem(
                "matrix-pypi: a log has the pages checkpoint and entries, and lists by their digest",
                code=ProblemCode.NOT_FOUND,
            )
        path = f"{LOG}/{folder}{name}{_range(query) if name == 'entries' else ''}"
        return await self._passing.answer(request, path, content_type)


def _range(query: str) -> str:
    """`?from=&to=` spelled anew from the numbers in `query`; everything else in it stays here."""
    numbers: dict[str, int] = {}
    for name, text in parse_qsl(query[:_MAX_QUERY_CHARACTERS], keep_blank_values=True):
        if name not in _RANGE:
            continue
        if name in numbers or not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
            raise Problem(f"matrix-pypi: `{name}` is the number of a leaf, said once", code=ProblemCode.BAD_REQUEST)
        numbers[name] = int(text)
    return "?" + "&".join(f"{name}={numbers[name]}" for name in _RANGE if name in numbers) if numbers else ""
