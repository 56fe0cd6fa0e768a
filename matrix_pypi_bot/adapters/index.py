"""The upstream index over HTTP: conditional, capped in time and in decoded bytes, JSON wanted and HTML understood."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import zlib
from collections.abc import AsyncIterator, Mapping
from email.message import Message
from typing import Final

import aiohttp

from matrix_pypi_bot.adapters.index_html import NotAPage, page_from_html
from matrix_pypi_bot.ports import Absent, Away, FetchedPage, NotModified, Wrong
from matrix_pypi_bot.process.outbound import ForbiddenAddress, Origin, Outbound, Unreachable, is_public, origin_of
from matrix_pypi_bot.wire.names import ProjectName
from matrix_pypi_bot.wire.problems import clean_line

log = logging.getLogger(__name__)

ACCEPT: Final = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
PRIVATE_FOR_SECONDS: Final = 60.0
MAX_ETAG_CHARACTERS: Final = 1_024
STEP_BYTES: Final = 1 << 20  # of decoding at once, 3 ms

_JSON_TYPES: Final = frozenset({"application/vnd.pypi.simple.v1+json", "application/json"})
_HTML_TYPES: Final = frozenset({"application/vnd.pypi.simple.v1+html", "text/html"})
_GONE: Final = frozenset({404, 410})
_REFUSING: Final = frozenset({401, 403, 407, 451})
_BUSY: Final = frozenset({408, 425, 429})
_MAX_SERIAL: Final = 2**53 - 1
_MAX_SERIAL_DIGITS: Final = 16

Answer = FetchedPage | NotModified | Absent | Away | Wrong


class _TooLarge(Exception):
    """More decoded bytes than allowed."""


class _BadEncoding(Exception):
    """A body that is not what its Content-Encoding says."""


class UpstreamIndex:
    """`ports.Index` over HTTP. `endpoint` ends in a slash; it is opened although http or private, because the operator wrote it."""

    def __init__(self, outbound: Outbound, *, endpoint: str, page_timeout_seconds: float, max_page_bytes: int) -> None:
        self._outbound = outbound
        self._endpoint = endpoint
        self._origin = origin_of(endpoint)
        self._timeout_seconds = page_timeout_seconds
        self._max_bytes = max_page_bytes
        self._parsing = asyncio.Semaphore(
            1
        )  # parsing HTML holds the interpreter: two at once would only starve the loop
        self._private: tuple[float, bool] | None = None

    async def fetch(self, project: ProjectName, *, etag: str | None, no_cache: bool) -> Answer:
        """See `ports.Index.fetch`."""
        url = f"{self._endpoint}{project}/"
        headers = {"Accept": ACCEPT, "Accept-Encoding": "gzip"}
        if etag is not None:
            headers["If-None-Match"] = etag
        if no_cache:
            headers["Cache-Control"] = "no-cache"
        try:
            async with self._outbound.request(
                "GET", url, headers=headers, opened=(self._origin,), total_seconds=self._timeout_seconds
            ) as response:
                if response.status != 200:
                    return _without_page(response.status, conditional=etag is not None)
                kind, charset = _content_type(response.headers.get("Content-Type", ""))
                if kind not in _JSON_TYPES | _HTML_TYPES:
                    return Wrong(
                        f"the page is neither PEP 691 JSON nor HTML but {clean_line(kind, 60) or 'of no type'}"
                    )
                body, head, here = await _read(response, self._max_bytes), response.headers, str(response.url)
            if kind in _HTML_TYPES:
                async with self._parsing:
                    body = await asyncio.to_thread(page_from_html, project, body, page_url=here, charset=charset)
            return await self._page(body, head)
        except Unreachable as error:
            return Away(error.detail)
        except ForbiddenAddress as error:
            return Wrong(error.detail)
        except NotAPage as error:
            return Wrong(str(error))
        except _TooLarge:
            return Wrong(f"the page is larger than {self._max_bytes} bytes")
        except _BadEncoding:
            return Wrong("the body is not what its Content-Encoding says")

    async def _page(self, raw: bytes, head: Mapping[str, str]) -> FetchedPage:
        etag = head.get("ETag")
        return FetchedPage(
            raw=raw,
            etag=etag if etag and len(etag) <= MAX_ETAG_CHARACTERS else None,
            serial=_serial(head.get("X-PyPI-Last-Serial", "")),
            opened_origins=(self._origin,),
            opens_files=await self._is_private(),
        )

    async def _is_private(self) -> bool:
        """Whether the operator's upstream is http or at an address that is not public; looked up anew every minute."""
        now = asyncio.get_running_loop().time()
        if self._private is None or now >= self._private[0]:
            self._private = (now + PRIVATE_FOR_SECONDS, await _private(self._origin))
        return self._private[1]


async def _private(origin: Origin) -> bool:
    scheme, _, rest = origin.partition("://")
    host, _, port = rest.rpartition(":")
    if scheme == "http":
        return True
    try:
        return not is_public(str(ipaddress.ip_address(host.strip("[]"))))
    except ValueError:
        pass
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except OSError:
        return False
    return not all(is_public(str(entry[4][0])) for entry in found)


def _without_page(status: int, *, conditional: bool) -> NotModified | Absent | Away | Wrong:
    if status == 304 and conditional:
        return NotModified()
    if status in _GONE:
        return Absent()
    if status in _REFUSING:
        return Wrong(f"upstream refused with status {status}")
    if status in _BUSY or status >= 500:
        return Away(f"upstream answered with status {status}")
    return Wrong(f"upstream answered with status {status}")


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """The decoded body. Raises _TooLarge as soon as it is longer than `max_bytes`, _BadEncoding."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    chunks: AsyncIterator[bytes] = response.content.iter_any()
    if encoding in ("gzip", "x-gzip"):
        chunks = _gunzipped(chunks)
    elif encoding not in ("", "identity"):
        raise _BadEncoding
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > max_bytes:
            raise _TooLarge
    return bytes(body)


async def _gunzipped(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The decoded chunks, in steps: whoever reads them can stop before a bomb has unfolded."""
    unzip = zlib.decompressobj(31)
    try:
        async for chunk in chunks:
            yield unzip.decompress(chunk, STEP_BYTES)
            while unzip.unconsumed_tail:
                await asyncio.sleep(0)
                yield unzip.decompress(unzip.unconsumed_tail, STEP_BYTES)
    except zlib.error as error:
        raise _BadEncoding from error
    if not unzip.eof or unzip.unused_data:
        raise _BadEncoding


def _content_type(header: str) -> tuple[str, str | None]:
    message = Message()
    message["Content-Type"] = clean_line(header, 200)
    charset = message.get_content_charset()
    return message.get_content_type() if header else "", charset


def _serial(text: str) -> int | None:
    serial = int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_SERIAL_DIGITS else None
    return serial if serial is not None and serial <= _MAX_SERIAL else None
