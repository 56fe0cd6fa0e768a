"""Pages and decisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from aiohttp import web

from matrix_pypi_bot.api.services import Services
from matrix_pypi_bot.wire.messages import Figures, PageState, encode
from matrix_pypi_bot.wire.names import FileName, ProjectName, parse_file_name, parse_file_path, parse_project

NAMES_AT_ONCE: Final = 1_000
_JSON: Final = "application/json"
_NDJSON: Final = "application/x-ndjson"


class PageHandlers:
    """What is asked with GET."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def page(self, request: web.Request) -> web.Response:
        """A finished page, or 304 for a revision that the frontend has; how it stands is in the headers of both."""
        refresh = request.query.get("refresh") == "1"
        answer = await self._services.answers.page(_project(request), refresh=refresh)
        headers = _standing(answer.state)
        if _has(request, answer.state.revision):
            return web.Response(status=304, headers=headers)
        return web.Response(body=answer.document(), content_type=_JSON, headers=headers)

    async def decide(self, request: web.Request) -> web.Response:
        """The decision on one file."""
        path = request.query.get("path")
        if path is not None:
            parse_file_path(path)
        decision = await self._services.answers.decision(_project(request), _file(request), path)
        return web.Response(body=encode(decision), content_type=_JSON)

    async def explain(self, request: web.Request) -> web.Response:
        """The decision and every piece of evidence."""
        file = _file(request) if "file" in request.match_info else None
        explanation = await self._services.explainer.explain(_project(request), file)
        return web.Response(body=encode(explanation), content_type=_JSON)

    async def keys(self, request: web.Request) -> web.Response:
        """The organisation's keys, for people."""
        return web.Response(body=encode(await self._services.keys.keys()), content_type=_JSON)

    async def figures(self, request: web.Request) -> web.Response:
        """How much there is, for people."""
        async with self._services.store.transaction() as tables:
            mail, rooms, leaves = await tables.mail.backlog(), await tables.mail.rooms(), await tables.log.size()
        figures = Figures(
            log_leaves=leaves,
            rooms=len(rooms),
            unread=mail.unread,
            unreadable=mail.unreadable,
            queued=mail.queued,
            aside=mail.aside,
            peers=self._services.peers.told(),
        )
        return web.Response(body=encode(figures), content_type=_JSON)

    async def names(self, request: web.Request) -> web.StreamResponse:
        """Every known project, one JSON string a line, in bounded memory."""
        revision = f"names-{self._services.projects.seq}"
        headers = {"ETag": f'"{revision}"', "Content-Type": _NDJSON}
        if _has(request, revision):
            return web.Response(status=304, headers={"ETag": headers["ETag"]})
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        after = ""
        while True:
            async with self._services.store.transaction() as tables:
                names = await tables.views.names(after, NAMES_AT_ONCE)
            if not names:
                break
            await response.write(b"".join(msgspec.json.encode(name) + b"\n" for name in names))
            after = names[-1]
        await response.write_eof()
        return response


def _project(request: web.Request) -> ProjectName:
    return parse_project(request.match_info["project"])


def _file(request: web.Request) -> FileName:
    return parse_file_name(request.match_info["file"])


def _has(request: web.Request, revision: str) -> bool:
    held = request.if_none_match
    return held is not None and any(tag.value in (revision, "*") for tag in held)


def _standing(state: PageState) -> Mapping[str, str]:
    return {
        "ETag": f'"{state.revision}"',
        "X-View-State": state.state,
        "X-View-Age-Seconds": f"{state.age_seconds:.3f}",
        "X-View-Fresh-Seconds": f"{state.fresh_seconds:.3f}",
        "X-Seq": str(state.seq),
        "X-Has-Peers": str(int(state.has_peers)),
    }
