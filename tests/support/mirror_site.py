"""A mirror's face for clients that verify: its bot's own trust pages, its index pages, its files, and whatever it lies about."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from matrix_pypi_bot.api.errors import answering
from matrix_pypi_bot.web import TrustHandlers
from tests.support.dists import Dist
from tests.support.trust_world import TrustWorld


@dataclass(slots=True)
class MirrorSite:
    """`lies` are answers (status, body) instead of the true ones, by path."""

    address: str
    lies: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@asynccontextmanager
async def mirror_site(trusted: TrustWorld, *dists: Dist) -> AsyncIterator[MirrorSite]:
    """The site, with these files, while the block runs."""
    site = MirrorSite("")
    files = {dist.path: dist.content for dist in dists}

    @web.middleware
    async def lying(request: web.Request, handler: object) -> web.StreamResponse:
        site.asked.append(request.path)
        if request.path in site.lies:
            status, body = site.lies[request.path]
            return web.Response(status=status, body=body)
        return await handler(request)  # type: ignore[operator, no-any-return]

    async def simple(request: web.Request) -> web.Response:
        page = await trusted.world.page(request.match_info["project"])
        return web.Response(body=json.dumps(page).encode())

    async def file(request: web.Request) -> web.Response:
        return web.Response(body=files[request.path])

    app = web.Application(middlewares=[lying, answering])
    app.add_routes([*TrustHandlers(trusted.pages).routes, web.get("/simple/{project}/", simple)])
    app.add_routes([web.get("/packages/{rest:.*}", file)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        tcp = web.TCPSite(runner, "127.0.0.1", 0)
        await tcp.start()
        site.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield site
    finally:
        await runner.cleanup()
