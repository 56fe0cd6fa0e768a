"""HTTP to a Kubo node: every request carries the token, every failure becomes one of the storage interface's, every answer is bounded.

Kubo answers an error as status 500 with `{"Message", "Code", "Type": "error"}`, or as such a line after a status 200. An error
after the first byte of a body comes in a trailer, which aiohttp does not show: a body that ends is whole only when counted.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

import aiohttp
import msgspec
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from index_frontend.storage.api import NotFound, StorageFull, Unauthorised, Unavailable, Unsupported
from index_frontend.storage.kubo.answers import Failure
from index_frontend.storage.kubo.settings import KuboSettings
from matrix_pypi_bot.wire.problems import Problem, clean_line

T = TypeVar("T")
MAX_ANSWER_BYTES: Final = 1 << 20
MAX_CONNECTIONS: Final = 32
_READ_BUFFER_BYTES: Final = 1 << 19
_MAX_LINE_BYTES: Final = 64 << 10
_MAX_REFUSAL_BYTES: Final = 16 << 10
_ABSENT: Final = re.compile(r"not pinned|could not find|not found locally|no such object")
_FULL: Final = re.compile(r"no space left|disk quota exceeded")


class Wire:
    """A session with one node. Made in the loop that uses it."""

    def __init__(self, backend: str, settings: KuboSettings) -> None:
        self.backend = backend
        self.silence_seconds = settings.silence_timeout_seconds
        token, socket_path = settings.token(backend), settings.url.socket_path
        self._base = f"{settings.url.base_url}/api/v0/"
        self.session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(socket_path, limit=MAX_CONNECTIONS)
            if socket_path
            else aiohttp.TCPConnector(limit=MAX_CONNECTIONS),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=settings.connect_timeout_seconds, sock_read=self.silence_seconds
            ),
            headers={"Accept-Encoding": "identity", **({"Authorization": f"Bearer {token}"} if token else {})},
            auto_decompress=False,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=_READ_BUFFER_BYTES,
        )

    async def close(self) -> None:
        """Idempotent."""
        await self.session.close()

    def url(self, command: str) -> URL:
        """The address of a command, e.g. `dag/import`."""
        return URL(self._base + command)

    # One request -------------------------------------------------------------------------------------------------------

    async def send(self, url: URL, params: Mapping[str, str], data: Any = None) -> aiohttp.ClientResponse:
        """The answer, its status 200 and its body unread; the caller closes it.

        Raises NotFound, Unauthorised, Unsupported (no such command there), StorageFull or Unavailable.
        """
        if self.session.closed:
            raise Unavailable("it was closed", backend=self.backend)
        response = await self.guarded(self.session.post(url, params=params, data=data, allow_redirects=False))
        if response.status != 200:
            try:
                body = await self.guarded(self._at_most(response, _MAX_REFUSAL_BYTES))
                raise self._refusal(response.status, body)
            finally:
                response.close()
        return response

    async def answer(self, url: URL, params: Mapping[str, str], *, limit_bytes: int = MAX_ANSWER_BYTES) -> bytes:
        """The whole body of a command that answers soon. Raises what `send` does, and Unavailable for a longer one."""
        async with self.deadline(self.silence_seconds):
            response = await self.send(url, params)
            try:
                body = await self.guarded(self._at_most(response, limit_bytes + 1))
            finally:
                response.close()
        if len(body) > limit_bytes:
            raise Unavailable(f"{url.path} answered more than {limit_bytes} bytes", backend=self.backend)
        return body

    async def lines(self, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        """The JSON lines of a body, without blank ones. A line that is an error is raised as one."""
        while line := await self.guarded(response.content.readline(max_line_length=_MAX_LINE_BYTES)):
            if not line.strip():
                continue
            if failure := self._failure_in(line):
                raise failure
            yield line

    async def chunks(self, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        """The body as it comes. That it ends does not say that it is whole."""
        while chunk := await self.guarded(response.content.readany()):
            yield chunk

    def decode(self, data: bytes, kind: type[T]) -> T:
        """An answer. Raises Unavailable when it is none of that kind."""
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unavailable(f"answered nonsense: {clean_line(str(error), 120)}", backend=self.backend) from error

    # Failures ----------------------------------------------------------------------------------------------------------

    async def guarded(self, work: Awaitable[T]) -> T:
        """What `work` returns; what the network does to it becomes Unavailable."""
        try:
            return await work
        except Problem:
            raise
        except TimeoutError as error:
            raise self.away(f"was silent for too long ({type(error).__name__})") from error
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError, RuntimeError) as error:
            raise self.away(clean_line(str(error) or type(error).__name__, 160)) from error

    @asynccontextmanager
    async def deadline(
        self, seconds: float | None, what: str = "was silent for too long"
    ) -> AsyncIterator[asyncio.Timeout]:
        """Its end is Unavailable, which says `what`. The timeout may be moved."""
        watch = asyncio.timeout(seconds)
        try:
            async with watch:
                yield watch
        except TimeoutError as error:
            if watch.expired():
                raise self.away(what) from error
            raise

    def away(self, what: str) -> Unavailable:
        """It could not be asked, or broke off."""
        return Unavailable(what, backend=self.backend, hint="is the Kubo node running, and is its url right?")

    def _refusal(self, status: int, body: bytes) -> Problem:
        if status in (401, 403):
            return Unauthorised(
                f"the node does not accept our token for this (status {status})",
                backend=self.backend,
                hint="compare token_file with API.Authorizations in the node's configuration, and its AllowedPaths",
            )
        if status in (404, 405):
            return Unsupported("the node has no such command", backend=self.backend)
        if status in (400, 500) and (failure := self._failure_in(body)):
            return failure
        return Unavailable(f"the node answered {status}: {_shown(body)}", backend=self.backend)

    def _failure_in(self, line: bytes) -> Problem | None:
        """The problem that a line of Kubo's tells, None when it is another line."""
        if b'"Message"' not in line:
            return None
        failure: Failure | None = None
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            failure = msgspec.json.decode(line, type=Failure)
        if failure is None:
            return None
        told = clean_line(failure.message, 200)
        if _FULL.search(failure.message):
            return StorageFull(f"{self.backend}: {told}")
        if _ABSENT.search(failure.message):
            return NotFound(told, backend=self.backend)
        return Unavailable(f"the node says: {told}", backend=self.backend)

    async def _at_most(self, response: aiohttp.ClientResponse, count: int) -> bytes:
        """The first `count` bytes of a body."""
        body = bytearray()
        while len(body) < count and (chunk := await response.content.read(count - len(body))):
            body += chunk
        return bytes(body)


def _shown(body: bytes) -> str:
    return clean_line(body[:400].decode(errors="replace"), 120) or "nothing"
