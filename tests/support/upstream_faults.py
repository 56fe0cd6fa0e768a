"""The ways in which an upstream misbehaves. A fault takes the answer that would have been right and sends something else."""

from __future__ import annotations

import asyncio
import threading
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import cache

from aiohttp import web

CHUNK_BYTES = 64 << 10
DRIP_BYTES_PER_S = 2
BOMB_BYTES = 200 << 20
TOO_LONG_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer, before it is sent."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


Fault = Callable[[web.Request, Answer], Awaitable[web.StreamResponse]]


async def well(request: web.Request, answer: Answer) -> web.StreamResponse:
    """No fault: the right answer, whole."""
    headers = answer.headers | {"Content-Length": str(len(answer.body))}
    if answer.status == 304 or request.method == "HEAD":
        return web.Response(status=answer.status, headers=headers if answer.status != 304 else answer.headers)
    return web.Response(status=answer.status, headers=headers, body=answer.body)


def _instead(other: Answer) -> Fault:
    async def send(request: web.Request, _answer: Answer) -> web.StreamResponse:
        return await well(request, other)

    return send


def status(code: int, **headers: str) -> Fault:
    """Nothing but `code`, e.g. `status(429, Retry_After="3600")`."""
    spelled = {name.replace("_", "-"): value for name, value in headers.items()}
    return _instead(Answer(code, {"Content-Type": "text/plain", **spelled}, b"the upstream says no\n"))


def body(data: bytes, content_type: str, **headers: str) -> Fault:
    """200 with `data` instead of the right body."""
    spelled = {name.replace("_", "-"): value for name, value in headers.items()}
    return _instead(Answer(200, {"Content-Type": content_type, **spelled}, data))


def redirect(to: str, code: int = 302) -> Fault:
    """A redirect to `to`, which may name any scheme and host."""
    return _instead(Answer(code, {"Location": to}))


def retyped(content_type: str) -> Fault:
    """The right body under another content type."""

    async def send(request: web.Request, answer: Answer) -> web.StreamResponse:
        return await well(request, replace(answer, headers=answer.headers | {"Content-Type": content_type}))

    return send


def slow(*, latency_ms: int = 0, bytes_per_s: int = 0) -> Fault:
    """The right answer after `latency_ms`, at no more than `bytes_per_s` (0: unlimited)."""

    async def send(request: web.Request, answer: Answer) -> web.StreamResponse:
        await asyncio.sleep(latency_ms / 1000)
        if request.method == "HEAD" or not bytes_per_s:
            return await well(request, answer)
        step = max(1, bytes_per_s // 20)
        return await _stream(request, answer, _paced(answer.body, step, step / bytes_per_s))

    return send


async def hang(request: web.Request, answer: Answer) -> web.StreamResponse:
    """Accepts the request and says nothing until the client gives up."""
    while request.transport is not None and not request.transport.is_closing():
        await asyncio.sleep(0.05)
    return await well(request, answer)


async def reset(request: web.Request, answer: Answer) -> web.StreamResponse:
    """Hangs up without a word."""
    _abort(request)
    return await well(request, answer)


async def truncated(request: web.Request, answer: Answer) -> web.StreamResponse:
    """Promises the whole length, sends half and hangs up."""
    response = await _start(request, answer, len(answer.body))
    await response.write(answer.body[: len(answer.body) // 2])
    _hang_up(request)
    return response


async def corrupt(request: web.Request, answer: Answer) -> web.StreamResponse:
    """The right length, the first byte wrong."""
    first = bytes([answer.body[0] ^ 0xFF]) if answer.body else b""
    return await well(request, replace(answer, body=first + answer.body[1:]))


async def too_long(request: web.Request, answer: Answer) -> web.StreamResponse:
    """The right body and then some more, with a length that fits what is sent."""
    return await well(request, replace(answer, body=answer.body + bytes(TOO_LONG_BYTES)))


async def endless(request: web.Request, answer: Answer) -> web.StreamResponse:
    """The right body, then zeros for ever, with no length told."""
    return await _stream(request, answer, _endless(answer.body), length=None)


async def no_length(request: web.Request, answer: Answer) -> web.StreamResponse:
    """The right body, with no length told."""
    return await _stream(request, answer, _once(answer.body), length=None)


async def redirect_loop(request: web.Request, answer: Answer) -> web.StreamResponse:
    """A redirect to itself."""
    return await redirect(request.path)(request, answer)


async def gzip_bomb(request: web.Request, answer: Answer) -> web.StreamResponse:
    """A small gzip body that inflates to 200 MiB of zeros."""
    return await well(request, replace(answer, headers=answer.headers | {"Content-Encoding": "gzip"}, body=_bomb()))


class Hold:
    """A fault that the test steers: the transfer stops after `after_bytes` until `release()`.

    `wait_until_reached()` returns when so much has been sent. Call both from the test's thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, after_bytes: int) -> None:
        self._loop = loop
        self._after_bytes = after_bytes
        self._reached = threading.Event()
        self._released = asyncio.Event()

    def wait_until_reached(self, timeout_seconds: float = 20) -> None:
        """Returns once a transfer stands at the hold."""
        assert self._reached.wait(timeout_seconds), "nobody fetched the file that is held"

    def release(self) -> None:
        """Lets every transfer, held or to come, run to its end."""
        self._loop.call_soon_threadsafe(self._released.set)

    async def __call__(self, request: web.Request, answer: Answer) -> web.StreamResponse:
        if request.method == "HEAD":
            return await well(request, answer)
        response = await _start(request, answer, len(answer.body))
        await response.write(answer.body[: self._after_bytes])
        self._reached.set()
        await self._released.wait()
        await response.write(answer.body[self._after_bytes :])
        return response


NAMED: dict[str, Fault] = {
    "hang": hang,
    "reset": reset,
    "truncated": truncated,
    "corrupt": corrupt,
    "too long": too_long,
    "endless": endless,
    "no length": no_length,
    "redirect loop": redirect_loop,
    "gzip bomb": gzip_bomb,
    "drip": slow(bytes_per_s=DRIP_BYTES_PER_S),
    "wrong type": retyped("text/plain"),
    "login page": body(b"<!DOCTYPE html><title>Sign in</title><form></form>", "text/html"),
    "not json": body(b'{"meta": {"api-version": "1.4"', "application/vnd.pypi.simple.v1+json"),
    "empty": body(b"", "application/vnd.pypi.simple.v1+json"),
}


def fault(named: str | Fault) -> Fault:
    """The fault of that name; `"503"` and any other number is that status."""
    if callable(named):
        return named
    return status(int(named)) if named.isdecimal() else NAMED[named]


@cache
def _bomb() -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(BOMB_BYTES >> 20)) + packer.flush()


async def _start(request: web.Request, answer: Answer, length: int | None) -> web.StreamResponse:
    headers = answer.headers | ({} if length is None else {"Content-Length": str(length)})
    response = web.StreamResponse(status=answer.status, headers=headers)
    await response.prepare(request)
    return response


async def _stream(
    request: web.Request, answer: Answer, chunks: AsyncIterator[bytes], *, length: int | None = -1
) -> web.StreamResponse:
    response = await _start(request, answer, len(answer.body) if length == -1 else length)
    async for chunk in chunks:
        await response.write(chunk)
    return response


async def _paced(data: bytes, step: int, pause_seconds: float) -> AsyncIterator[bytes]:
    for offset in range(0, len(data), step):
        yield data[offset : offset + step]
        await asyncio.sleep(pause_seconds)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _endless(data: bytes) -> AsyncIterator[bytes]:
    yield data
    while True:
        yield bytes(CHUNK_BYTES)


def _hang_up(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.close()


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
