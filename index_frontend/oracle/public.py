"""The bot's public pages, from the listener that knows no token: none is ever sent there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp
from yarl import URL

from index_frontend.oracle.bot import ANSWER_SECONDS, CONNECT_SECONDS, MAX_ERROR_BYTES, read_body
from index_frontend.oracle.link import BotAway, BotBroken
from matrix_pypi_bot.wire.messages import decode_as
from matrix_pypi_bot.wire.problems import PROBLEM_TYPE, Problem, ProblemBody, ProblemCode, clean_line

MAX_PAGE_BYTES: Final = 8 << 20  # the bot ends an answer at half of it
MAX_CONNECTIONS: Final = 8
_REFUSALS: Final = {
    code.status: code for code in (ProblemCode.BAD_REQUEST, ProblemCode.NOT_FOUND, ProblemCode.TOO_MANY)
}
_PASSED_ON: Final = ("ETag", "Cache-Control", "Vary", "Content-Security-Policy", "Referrer-Policy")


@dataclass(frozen=True, slots=True)
class PublicPage:
    """A page, 304 without a body; `headers` are those that may be passed on."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class PublicPages:
    """Fetches public pages by paths that we spelled ourselves."""

    def __init__(self, base_url: str, *, socket_path: str | None = None) -> None:
        self._base = base_url
        connector = (
            aiohttp.UnixConnector(socket_path, limit=MAX_CONNECTIONS)
            if socket_path
            else aiohttp.TCPConnector(limit=MAX_CONNECTIONS)
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close all connections; idempotent."""
        await self._session.close()

    async def get(self, path: str, *, if_none_match: str | None, accept: str = "*/*") -> PublicPage:
        """The page at `path`, query included. Raises BotAway, and Problem for what the bot refuses."""
        headers = {"Accept": accept}
        if if_none_match is not None:
            headers["If-None-Match"] = if_none_match
        url = URL(self._base + path, encoded=True)
        try:
            async with self._session.get(url, headers=headers, allow_redirects=False) as answer:
                if answer.status not in (200, 304):
                    raise await _refusal(answer)
                passed_on = {name: answer.headers[name] for name in _PASSED_ON if name in answer.headers}
                return PublicPage(answer.status, passed_on, await read_body(answer, MAX_PAGE_BYTES))
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            cause = clean_line(str(error) or type(error).__name__, 200)
            raise BotAway(
                f"the bot's public pages cannot be reached: {cause}", hint="look at oracle.public_url"
            ) from error


async def _refusal(answer: aiohttp.ClientResponse) -> Problem:
    body = await read_body(answer, MAX_ERROR_BYTES)
    code = _REFUSALS.get(answer.status)
    if code is None or answer.content_type != PROBLEM_TYPE:
        return BotBroken("the bot's public pages failed", hint="look at oracle.public_url and at the bot's log")
    try:
        return Problem(f"matrix-pypi: {decode_as(ProblemBody, body).detail}", code=code)
    except ValueError as error:
        raise BotBroken("what the bot says of its public pages makes no sense") from error
