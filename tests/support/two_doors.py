"""Pages that a bot makes and a frontend passes on: asked for by both ways, which must agree."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tests.support.frontend import Frontend
from tests.support.http_client import Reply, ask

SAME_HEADERS = (
    "content-type",
    "etag",
    "cache-control",
    "content-length",
    "content-security-policy",
    "vary",
    "referrer-policy",
)


@dataclass(slots=True, kw_only=True)
class TwoDoors:
    """The bot's public listener at `base`, and the frontend."""

    base: str
    frontend: Frontend

    async def direct(self, path: str, method: str = "GET", /, **headers: str) -> Reply:
        """The bot's own answer."""
        return await asyncio.to_thread(ask, self.base + path, method, **headers)

    async def both(self, path: str, method: str = "GET", /, **headers: str) -> Reply:
        """The answer, which is the same by both ways."""
        direct = await self.direct(path, method, **headers)
        through = await self.frontend.get(path, method, **headers)
        assert (through.status, through.body, told(through)) == (direct.status, direct.body, told(direct))
        return through


def told(reply: Reply) -> dict[str, str | None]:
    """The headers that both ways must agree on."""
    return {name: reply.headers.get(name) for name in SAME_HEADERS}
