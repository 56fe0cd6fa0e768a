"""Files from the hosts that pages name. Whatever comes is nobody's word until it is hashed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from typing import Final

import aiohttp

from index_frontend.ports import SourceAway, SourceGone, SourceWrong, Wanted
from index_frontend.silent_hosts import FAILURES, PAUSE_SECONDS, SilentHosts
from matrix_pypi_bot.process.outbound import ForbiddenAddress, Origin, Outbound, Unreachable, origin_of
from matrix_pypi_bot.wire.problems import clean_line

PACE_SECONDS: Final = 60.0
PACE_BYTES: Final = 65_536
"""A transfer that brings fewer than `PACE_BYTES` in `PACE_SECONDS` is given up: it would keep everybody else from the object."""

_GONE: Final = frozenset({404, 410})
_AWAY: Final = frozenset({408, 425, 429})
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", re.ASCII)
_BROKEN_OFF: Final = (aiohttp.ClientError, TimeoutError, ConnectionError)


class UpstreamSource:
    """A `ports.Source` over the guarded client: public https, or what the decision says the operator opened."""

    name = "upstream"

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound
        self._silent = SilentHosts()

    def ways(self, wanted: Wanted) -> tuple[Wanted, ...]:
        """Each address alone."""
        return tuple(replace(wanted, urls=(url,)) for url in wanted.urls)

    @asynccontextmanager
    async def fetch(self, wanted: Wanted, start: int = 0) -> AsyncIterator[UpstreamBody]:
        """The body from `start` on, from the first address of `wanted`."""
        async with AsyncExitStack() as stack:
            body = UpstreamBody(self._outbound, self._silent, stack, wanted, start)
            await body.open()
            yield body


class UpstreamBody:
    """An open transfer. When it breaks off it is taken up again once, by a range request, before anybody is told."""

    sender = UpstreamSource.name

    def __init__(
        self, outbound: Outbound, silent: SilentHosts, stack: AsyncExitStack, wanted: Wanted, start: int
    ) -> None:
        self.size: int | None = None
        self._outbound = outbound
        self._silent = silent
        self._stack = stack
        self._wanted = wanted
        self._position = start
        self._skip = 0
        self._etag: str | None = None
        self._response: aiohttp.ClientResponse | None = None

    async def open(self) -> None:
        """Asks for the body from the current position on. Raises SourceGone, SourceAway or SourceWrong."""
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if self._position:
            headers["Range"] = f"bytes={self._position}-"
            if self._etag is not None:
                headers["If-Range"] = self._etag
        try:
            response = self._response = await self._ask(headers)
        except ForbiddenAddress as problem:
            raise self._wrong(problem.detail) from problem
        except Unreachable as problem:
            if isinstance(problem.__cause__, aiohttp.ClientResponseError):  # an answer, but not one in HTTP
                raise self._wrong(problem.detail) from problem
            raise self._away(problem.detail) from problem
        self._judge_status(response.status)
        self._take_length(response)

    async def _ask(self, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """The answer, unless its host is left alone now. Raises ForbiddenAddress, Unreachable or SourceAway."""
        url, clock = self._wanted.urls[0], asyncio.get_running_loop().time
        origin, began = origin_of(url), clock()
        if not self._silent.allows(origin, began):
            raise self._away(
                f"no connection to it could be made {FAILURES} times, it is tried again in {PAUSE_SECONDS:g} s"
            )
        opened = {Origin(origin) for origin in self._wanted.opened_origins}
        request = self._outbound.request("GET", url, headers=headers, opened=opened)
        try:
            response = await self._stack.enter_async_context(request)
        except Unreachable as problem:
            silent = _silent_host(problem.__cause__)
            if silent is not None:
                self._silent.failed(silent, began, clock())
            raise
        self._silent.answered(origin, clock())
        return response

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """What comes. Raises SourceAway when it breaks off for the second time, or is too slow."""
        retried = False
        while True:
            try:
                async with aclosing(self._received()) as received:
                    async for chunk in received:
                        yield chunk
            except _BROKEN_OFF as error:
                told = f"the transfer broke off: {clean_line(str(error) or type(error).__name__, 120)}"
            else:
                if self.size is None or self._position >= self.size:
                    return
                told = f"the transfer ended after {self._position} of {self.size} bytes"
            if retried:
                raise self._away(told)
            retried = True
            await self._stack.aclose()
            await self.open()

    async def _received(self) -> AsyncGenerator[bytes, None]:
        assert self._response is not None
        clock = asyncio.get_running_loop().time
        since, before = clock(), self._position
        async for data in self._response.content.iter_any():
            chunk = data[self._skip :]
            self._skip -= len(data) - len(chunk)
            self._position += len(chunk)
            if chunk:
                yield chunk
            if (now := clock()) - since > PACE_SECONDS:
                if self._position - before < PACE_BYTES:
                    raise self._away(f"fewer than {PACE_BYTES} bytes came in {PACE_SECONDS:g} s")
                since, before = now, self._position

    def _judge_status(self, status: int) -> None:
        if status in _GONE:
            raise SourceGone(self._line(f"it answers {status}"))
        if status in _AWAY or status >= 500:
            raise self._away(f"it answers {status}")
        if status != 200 and not (status == 206 and self._position):
            raise self._wrong(f"it answers {status}")

    def _take_length(self, response: aiohttp.ClientResponse) -> None:
        """The whole object's length, which must be the one known, and where the body begins."""
        if response.status == 206:
            match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if match is None or int(match[1]) != self._position:
                raise self._wrong("it answers another range than the one asked for")
            self._skip, size = 0, None if match[2] == "*" else int(match[2])
        else:
            self._skip, size = self._position, response.content_length  # it ignores ranges: the beginning comes again
            etag = response.headers.get("ETag", "")
            self._etag = etag if etag.startswith('"') else None
        known = self._wanted.size if self.size is None else self.size
        if size is not None and known is not None and size != known:
            raise self._wrong(f"it has {size} bytes, not {known}")
        if size is not None and size > self._wanted.max_bytes:
            raise self._wrong(f"it has {size} bytes, more than the {self._wanted.max_bytes} that are fetched")
        self.size = size if size is not None else self.size

    def _line(self, told: str) -> str:
        try:
            where = str(origin_of(self._wanted.urls[0]))
        except ForbiddenAddress:
            where = "its address"
        return f"matrix-pypi: {self._wanted.name} from {where}: {told.removeprefix(f'{where}: ')}"

    def _away(self, told: str) -> SourceAway:
        return SourceAway(self._line(told))

    def _wrong(self, told: str) -> SourceWrong:
        return SourceWrong(self._line(told))


def _silent_host(error: BaseException | None) -> Origin | None:
    """Where a connection was not made in time: the address asked for, or one that it redirects to. aiohttp tells that in words only."""
    if not isinstance(error, aiohttp.ConnectionTimeoutError):
        return None
    try:
        return origin_of(str(error).rpartition(" ")[2])
    except ForbiddenAddress:
        return None
