"""Redirects to the one spelling of an address."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from index_frontend.handlers.middleware import SERVER

_REDIRECT_SECONDS: Final = 600  # pip keeps a permanent redirect for as long as it is told


def redirect(target: str, query: str) -> web.Response:
    """To a relative address, so that it holds behind any prefix; 308, because the spelling will not change."""
    headers = {
        "Location": f"{target}?{query}" if query else target,
        "Cache-Control": f"public, max-age={_REDIRECT_SECONDS}",
        "Content-Length": "0",
        "Server": SERVER,
    }
    return web.Response(status=308, headers=headers)
