"""A body that is sent while it is made. Its source runs in the task that asked: what it raises goes through."""

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


async def upload(
    wire: Wire, command: str, params: dict[str, str], chunks: AsyncIterator[bytes]
) -> aiohttp.ClientResponse:
    """The answer to `command`, its body unread, when all of `chunks` was sent as a form, which is how Kubo takes files.

    Raises what `Wire.send` does, Unavailable when the node stops taking what is sent, and whatever `chunks` raises.
    """
    waiting: asyncio.Queue[bytes | None] = asyncio.Queue(1)
    form = aiohttp.MultipartWriter("form-data")
    form.append_payload(aiohttp.AsyncIterablePayload(_until_none(waiting), headers=_FORM))
    request = asyncio.create_task(wire.send(wire.url(command), params, form), name=f"kubo {command}")
    try:
        async for chunk in chunks:
            await _hand_over(wire, waiting, chunk, request)
            if request.done():  # a refusal needs no body to be told
                break
        else:
            await _hand_over(wire, waiting, None, request)
        async with wire.deadline(wire.silence_seconds):
            return await asyncio.shield(request)
    except BaseException:
        request.cancel()
        (ended,) = await asyncio.gather(request, return_exceptions=True)
        if isinstance(ended, aiohttp.ClientResponse):
            ended.close()
        raise


async def _hand_over(
    wire: Wire, waiting: asyncio.Queue[bytes | None], chunk: bytes | None, request: asyncio.Task[aiohttp.ClientResponse]
) -> None:
    """Returns when there is room for the chunk, or the request has ended."""
    handing = asyncio.create_task(waiting.put(chunk))
    try:
        await asyncio.wait({handing, request}, timeout=wire.silence_seconds, return_when=asyncio.FIRST_COMPLETED)
        if not handing.done() and not request.done():
            raise wire.away("takes nothing more of what is sent")
    finally:
        handing.cancel()


async def _until_none(waiting: asyncio.Queue[bytes | None]) -> AsyncGenerator[bytes, None]:
    while (chunk := await waiting.get()) is not None:
        yield chunk
