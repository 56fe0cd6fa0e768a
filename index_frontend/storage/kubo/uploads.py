"""A body that is sent while it is made: what its source raises comes out again, and a node that stops taking it is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

import aiohttp

from index_frontend.storage.kubo.wire import Wire

_FORM: Final = {
    "Content-Disposition": 'form-data; name="file"; filename="file"',
    "Content-Type": "application/octet-stream",
}


class Upload:
    """One body, sent once. Kubo takes files as forms."""

    def __init__(self, wire: Wire, chunks: AsyncIterator[bytes]) -> None:
        self._wire = wire
        self._chunks = chunks
        self._failure: Exception | None = None

    async def send(self, command: str, params: dict[str, str]) -> aiohttp.ClientResponse:
        """The answer to `command`, its body unread. Raises what `Wire.send` does, and whatever the source raised."""
        form = aiohttp.MultipartWriter("form-data")
        try:
            async with self._wire.deadline(self._wire.silence_seconds) as watch:
                form.append_payload(aiohttp.AsyncIterablePayload(self._watched(watch), headers=_FORM))
                return await self._wire.send(self._wire.url(command), params, form)
        except Exception:
            # What aiohttp made of it says only that a body could not be sent.
            if self._failure is not None:
                raise self._failure from None
            raise

    async def _watched(self, watch: asyncio.Timeout) -> AsyncGenerator[bytes, None]:
        """The chunks. While the source is asked the node may be silent."""
        loop = asyncio.get_running_loop()
        try:
            watch.reschedule(None)
            async for chunk in self._chunks:
                watch.reschedule(loop.time() + self._wire.silence_seconds)
                yield chunk
                watch.reschedule(None)
        except Exception as error:
            self._failure = error
            raise
        finally:
            if not watch.expired():
                watch.reschedule(loop.time() + self._wire.silence_seconds)
