"""Provenance documents over HTTP: the addresses come from a page, so everything about the answer is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

import aiohttp

from matrix_pypi_bot.core.provenance import MAX_DOCUMENT_BYTES
from matrix_pypi_bot.ports import Absent, Away, Document, Wrong
from matrix_pypi_bot.process.outbound import ForbiddenAddress, Origin, Outbound, Unreachable
from matrix_pypi_bot.wire.messages import PROVENANCE_TYPE

MAX_AT_ONCE: Final = 16
_GONE: Final = frozenset({404, 410})
_BUSY: Final = frozenset({408, 425, 429})


class HttpDocuments:
    """`ports.Documents` over the guarded client."""

    def __init__(self, outbound: Outbound, *, timeout_seconds: float, max_bytes: int = MAX_DOCUMENT_BYTES) -> None:
        self._outbound = outbound
        self._timeout_seconds = timeout_seconds
        self._max_bytes = max_bytes
        self._turns = asyncio.Semaphore(MAX_AT_ONCE)

    async def fetch(self, url: str, *, opened: Collection[str]) -> Document | Absent | Away | Wrong:
        """See `ports.Documents.fetch`."""
        headers = {"Accept": f"{PROVENANCE_TYPE}, application/json;q=0.5", "Accept-Encoding": "identity"}
        try:
            async with (
                self._turns,
                self._outbound.request(
                    "GET",
                    url,
                    headers=headers,
                    opened=[Origin(origin) for origin in opened],
                    total_seconds=self._timeout_seconds,
                ) as response,
            ):
                if response.status != 200:
                    return _without_document(response.status)
                return await self._read(response)
        except Unreachable as error:
            return Away(error.detail)
        except ForbiddenAddress as error:
            return Wrong(error.detail)

    async def _read(self, response: aiohttp.ClientResponse) -> Document | Wrong:
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            return Wrong("the document is encoded although nobody asked for that")
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > self._max_bytes:
                return Wrong(f"the document is larger than {self._max_bytes} bytes")
        return Document(bytes(body))


def _without_document(status: int) -> Absent | Away | Wrong:
    if status in _GONE:
        return Absent()
    if status in _BUSY or status >= 500:
        return Away(f"answered with status {status}")
    return Wrong(f"answered with status {status}")
