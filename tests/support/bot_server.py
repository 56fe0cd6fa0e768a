"""The bot's internal API over a real socket, saying what a ScriptedBot says, for tests of the frontend's own HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web

from index_frontend.oracle import BotAway
from matrix_pypi_bot.wire.messages import API, Observed, Stored, decode_as, encode
from matrix_pypi_bot.wire.names import FileName, ProjectName
from matrix_pypi_bot.wire.problems import PROBLEM_TYPE, Problem, problem_body
from tests.support.scripted_bot import ScriptedBot

TOKEN = "internal-token"
NDJSON = "application/x-ndjson"


@asynccontextmanager
async def serving(bot: ScriptedBot, *, socket_path: str | None = None) -> AsyncIterator[str]:
    """The base URL under which `bot` answers."""
    server = _BotServer(bot)
    runner = web.AppRunner(server.app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.UnixSite(runner, socket_path) if socket_path else web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield "http://localhost" if isinstance(site, web.UnixSite) else f"http://127.0.0.1:{site.port}"
    finally:
        await runner.cleanup()


class _BotServer:
    def __init__(self, bot: ScriptedBot) -> None:
        self._bot = bot
        self.app = web.Application(middlewares=[_answering])
        self.app.add_routes(
            [
                web.get(f"{API}/projects", self._projects),
                web.get(f"{API}/projects/{{name}}", self._page),
                web.get(f"{API}/decide/{{project}}/{{file}}", self._decide),
                web.get(f"{API}/changes", self._changes),
                web.post(f"{API}/stored", self._stored),
                web.post(f"{API}/observed", self._observed),
            ]
        )

    async def _page(self, request: web.Request) -> web.Response:
        asked = request.headers.get("If-None-Match", "").strip('"') or None
        answer = await self._bot.page(
            ProjectName(request.match_info["name"]), revision=asked, refresh=request.query.get("refresh") == "1"
        )
        headers = {
            "ETag": f'"{answer.revision}"',
            "X-View-State": answer.state,
            "X-View-Age-Seconds": str(answer.age_seconds),
            "X-View-Fresh-Seconds": str(answer.fresh_seconds),
            "X-Seq": str(answer.seq),
            "X-Has-Peers": str(int(answer.has_peers)),
        }
        return web.Response(status=200 if answer.raw is not None else 304, body=answer.raw, headers=headers)

    async def _decide(self, request: web.Request) -> web.Response:
        project, file = ProjectName(request.match_info["project"]), FileName(request.match_info["file"])
        return web.Response(body=encode(await self._bot.decision(project, file, request.query["path"])))

    async def _projects(self, request: web.Request) -> web.StreamResponse:
        asked = request.headers.get("If-None-Match", "").strip('"') or None
        async with self._bot.projects(asked) as names:
            headers = {"ETag": f'"{names.revision}"', "Content-Type": NDJSON}
            if names.unchanged:
                return web.Response(status=304, headers=headers)
            lines = [msgspec.json.encode(name) + b"\n" async for batch in names.batches for name in batch]
            return web.Response(body=b"".join(lines), headers=headers)

    async def _changes(self, request: web.Request) -> web.StreamResponse:
        after = request.query.get("after")
        response = web.StreamResponse(headers={"Content-Type": NDJSON})
        await response.prepare(request)
        try:
            async for change in self._bot.changes(int(after) if after is not None else None):
                await response.write(encode(change) + b"\n")
        except Problem:
            pass  # the test breaks the stream
        return response

    async def _stored(self, request: web.Request) -> web.Response:
        await self._bot.stored(decode_as(Stored, await request.read()))
        return web.Response(status=202)

    async def _observed(self, request: web.Request) -> web.Response:
        await self._bot.observed(decode_as(Observed, await request.read()))
        return web.Response(status=202)


@web.middleware
async def _answering(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    if request.headers.get("Authorization") != f"Bearer {TOKEN}":
        return web.Response(status=401, body=problem_body(401, "Unauthorised", "token"), content_type=PROBLEM_TYPE)
    try:
        return await handler(request)
    except BotAway:
        assert request.transport is not None
        request.transport.abort()  # as near to not being there as somebody can be who was connected to
        raise
    except Problem as problem:
        body = problem_body(problem.code.status, problem.code.title, problem.detail)
        return web.Response(status=problem.code.status, body=body, content_type=PROBLEM_TYPE)
