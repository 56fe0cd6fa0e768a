"""Another mirror, or any trustless gateway, as a backend: single blocks over HTTP, asked for by CID. Nothing is written to it.

What it sends is nobody's word: `storage.verified` hashes every block before anybody gets a byte of it. Here it is bounded, in length
before it is read and in time, and its answers are told apart: it does not have it, it cannot be asked, it sends something else.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Final

import aiohttp

from index_frontend.dag.blocks import LEAF_BYTES, MAX_BLOCK_BYTES, PROBE_CID, BadBlock, Link, children, is_leaf, root_of
from index_frontend.storage.api import (
    ContentId,
    Health,
    NotFound,
    Stat,
    StorageBackend,
    Unauthorised,
    Unavailable,
    WrongContent,
)
from index_frontend.storage.registry import read_section
from matrix_pypi_bot.process.outbound import ForbiddenAddress, Origin, Outbound, Unreachable, origin_of
from matrix_pypi_bot.process.setting_types import HttpUrl
from matrix_pypi_bot.process.settings import Section
from matrix_pypi_bot.wire.cids import Cid
from matrix_pypi_bot.wire.problems import clean_line

BLOCK_SECONDS: Final = 30.0
"""A block takes no longer than this, or is not had from here: 70 kB/s."""

PROBE_SECONDS: Final = 1.5
MAX_REDIRECTS: Final = 2
_RAW: Final = "application/vnd.ipld.raw"
_ABSENT: Final = frozenset({404, 410, 412, 451})
_LOCKED: Final = frozenset({401, 403})
_BUSY: Final = 429
_SECONDS: Final = re.compile(r"[0-9]{1,9}")
_BUSY_SECONDS: Final = (0.2, 0.4, 0.8)  # before it is asked again; longer when it says so, but no longer than the next
_LONGEST_BUSY_SECONDS: Final = 1.0
_TOLD_BYTES: Final = 8_192  # of an error's body are read, so that the connection can be used again


class _BusyError(Unavailable):
    """It has too much to do; `seconds` is when it says it will have less."""

    def __init__(self, seconds: float, *, backend: str) -> None:
        super().__init__(f"answers {_BUSY}", backend=backend)
        self.seconds = seconds


class GatewayBackend(StorageBackend):
    """The gateway at `url`, e.g. `https://mirror.example`; its `/ipfs/<cid>` is what is asked.

    Exactly what is `opened` may be http or private; None: the operator named it, so its own scheme, host and port. Where it redirects
    to may not.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        opened: Collection[Origin] | None = None,
        user_agent: str = "matrix-pypi",
        connect_timeout_seconds: float = 3.0,
        read_timeout_seconds: float = 10.0,
        proxy: str | None = None,
    ) -> None:
        super().__init__(name)
        self._url = url.rstrip("/")
        self._outbound = Outbound(
            user_agent=user_agent,
            opened=(origin_of(url),) if opened is None else opened,
            connect_timeout_seconds=connect_timeout_seconds,
            read_timeout_seconds=read_timeout_seconds,
            proxy=proxy,
        )
        self._is_closed = False

    async def open(self) -> None:
        """Connections are made when they are needed."""
        self._is_closed = False

    async def close(self) -> None:
        """Closes all connections."""
        self._is_closed = True
        await self._outbound.close()

    async def stat(self, content: ContentId) -> Stat | None:
        """Asks for its root with `only-if-cached`, so that it fetches nothing."""
        headers = {"Cache-Control": "only-if-cached"}
        try:
            async with self._asked("HEAD", content.cid, headers):
                return Stat(content=content)
        except NotFound:
            return None

    def read(self, content: ContentId) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Leaf by leaf."""
        return self._reading(content)

    async def get_block(self, cid: Cid) -> bytes:
        """The block. Raises WrongContent when it is longer than such a block can be.

        A gateway that has too much to do is no broken one: it is waited for a little, and gets no more requests meanwhile.
        """
        for seconds in _BUSY_SECONDS:
            try:
                return await self._block(cid)
            except _BusyError as busy:
                await asyncio.sleep(min(_LONGEST_BUSY_SECONDS, max(seconds, busy.seconds)))
        return await self._block(cid)

    async def _block(self, cid: Cid) -> bytes:
        most = LEAF_BYTES if is_leaf(cid) else MAX_BLOCK_BYTES
        async with self._asked("GET", cid) as response:
            return await self._body(response, cid, most)

    async def health(self) -> Health:
        """By the probe that every trustless gateway answers."""
        try:
            async with self._asked("GET", PROBE_CID, total_seconds=PROBE_SECONDS) as response:
                await self._body(response, PROBE_CID, 0)
        except (NotFound, Unauthorised, WrongContent) as problem:
            return Health(
                state="degraded", detail=f"does not answer the probe as a trustless gateway: {problem.detail}"
            )
        except Unavailable as problem:
            return Health(state="down", detail=problem.detail)
        return Health(state="ok")

    @asynccontextmanager
    async def _reading(self, content: ContentId) -> AsyncIterator[AsyncIterator[bytes]]:
        try:
            root = root_of(content.cid, content.size)
        except BadBlock as error:
            raise WrongContent(error.detail, backend=self.name) from error
        yield self._leaves(root, await self.get_block(root.cid))

    async def _leaves(self, link: Link, data: bytes) -> AsyncIterator[bytes]:
        try:
            below = children(link, data)
        except BadBlock as error:
            raise WrongContent(error.detail, backend=self.name) from error
        if link.level == 0 and data:
            yield data
        for child in below:
            async for leaf in self._leaves(child, await self.get_block(child.cid)):
                yield leaf

    @asynccontextmanager
    async def _asked(
        self,
        method: str,
        cid: Cid,
        headers: Mapping[str, str] | None = None,
        total_seconds: float = BLOCK_SECONDS,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, which is 200 and a raw block by its own word. Raises the problem that another answer means."""
        if self._is_closed:
            raise Unavailable("is closed", backend=self.name)
        sent = {"Accept": _RAW, "Accept-Encoding": "identity", **(headers or {})}
        try:
            async with self._outbound.request(
                method,
                f"{self._url}/ipfs/{cid}?format=raw",
                headers=sent,
                total_seconds=total_seconds,
                max_redirects=MAX_REDIRECTS,
                ahead_bytes=MAX_BLOCK_BYTES,
            ) as response:
                if response.status != 200:
                    with suppress(aiohttp.ClientError):
                        await response.content.read(_TOLD_BYTES)
                    raise self._problem(response, cid)
                is_untold = method == "HEAD" and "Content-Type" not in response.headers  # Kubo's answers to HEAD
                if (response.content_type != _RAW and not is_untold) or response.headers.get(
                    "Content-Encoding", "identity"
                ) != "identity":
                    told = clean_line(response.headers.get("Content-Type", "nothing"), 60)
                    raise Unavailable(f"answers {told} for a block", backend=self.name)
                yield response
        except (Unreachable, ForbiddenAddress) as problem:
            raise Unavailable(problem.detail, backend=self.name) from problem

    def _problem(self, response: aiohttp.ClientResponse, cid: Cid) -> Exception:
        if response.status in _ABSENT:
            return NotFound(f"does not have {cid}", backend=self.name)
        if response.status in _LOCKED:
            return Unauthorised(f"answers {response.status}", backend=self.name)
        if response.status == _BUSY:
            told = response.headers.get("Retry-After", "")
            return _BusyError(float(told) if _SECONDS.fullmatch(told) else 0.0, backend=self.name)
        return Unavailable(f"answers {response.status}", backend=self.name)

    async def _body(self, response: aiohttp.ClientResponse, cid: Cid, most: int) -> bytes:
        """The whole body. Raises WrongContent as soon as it is longer than `most`."""
        told = response.content_length
        if told is not None and told > most:
            raise WrongContent(f"announces {told} bytes for the block {cid}", backend=self.name)
        content = response.content
        if told is not None:  # there is room for all of it: taken in one turn of the loop, copied once
            if content.exception() is None:  # it would wait for an end that has come already
                await content.wait_eof()
            return content.read_nowait()
        parts: list[bytes] = []
        count = 0
        async for chunk in content.iter_any():
            parts.append(chunk)
            count += len(chunk)
            if count > most:
                raise WrongContent(f"sends more than {most} bytes for the block {cid}", backend=self.name)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class GatewaySettings(Section, frozen=True, kw_only=True):
    """`url` is the gateway's, without `/ipfs/`."""

    url: HttpUrl


def backend(name: str, section: Mapping[str, Any]) -> GatewayBackend:
    """The backend for a section `{url: https://…}` of the configuration. Raises Misconfigured, which names the key."""
    return GatewayBackend(name, read_section(GatewaySettings, section, backend=name).url)
