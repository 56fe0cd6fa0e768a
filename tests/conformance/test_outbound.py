"""The guarded client over real sockets: where it may be sent, and what it makes of what comes back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from matrix_pypi_bot.process import outbound as module
from matrix_pypi_bot.process.outbound import ForbiddenAddress, Origin, Outbound, Unreachable, origin_of

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def answering(handler: Handler) -> AsyncIterator[str]:
    """The origin of a server that answers so."""
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def saying(raw: bytes, *, hang: bool = False) -> AsyncIterator[str]:
    """The origin of a server that sends `raw` whatever it is asked."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talking = asyncio.current_task()
        assert talking is not None
        conversations.append(talking)
        with suppress(OSError):
            await reader.readline()
            writer.write(raw)
            if hang:
                await reader.read()
            writer.close()
            await writer.wait_closed()

    conversations: list[asyncio.Task[None]] = []
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asyncio.gather(*conversations)


@asynccontextmanager
async def client(*opened: str, **options: Any) -> AsyncIterator[Outbound]:
    made = Outbound(
        user_agent="tests",
        opened=[origin_of(url) for url in opened],
        connect_timeout_seconds=1,
        read_timeout_seconds=0.3,
        **options,
    )
    try:
        yield made
    finally:
        await made.close()


async def get(outbound: Outbound, url: str, **options: Any) -> tuple[int, bytes]:
    async with outbound.request("GET", url, **options) as response:
        return response.status, await response.read()


async def ok(request: web.BaseRequest) -> web.Response:
    return web.Response(body=b"ok")


class Names(AbstractResolver):
    """Resolves every name to one address, and remembers which were asked."""

    def __init__(self, *answers: str) -> None:
        self.asked: list[str] = []
        self._answers = answers

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        address = self._answers[min(len(self.asked), len(self._answers)) - 1]
        return [
            ResolveResult(
                hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=socket.AI_NUMERICHOST
            )
        ]

    async def close(self) -> None:
        pass


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    resolver = Names("127.0.0.1")
    monkeypatch.setattr(module, "ThreadedResolver", lambda: resolver)
    return resolver


async def test_what_is_opened_is_asked_and_nothing_else_that_is_private() -> None:
    async with answering(ok) as here, answering(ok) as other, client(here) as outbound:
        assert await get(outbound, f"{here}/x") == (200, b"ok")
        with pytest.raises(ForbiddenAddress, match="not https"):
            await get(outbound, f"{other}/x")
        assert await get(outbound, f"{other}/x", opened=[origin_of(other)]) == (200, b"ok")
        with pytest.raises(ForbiddenAddress):
            await get(outbound, f"{other}/x")


async def test_what_is_opened_is_so_for_that_scheme_alone() -> None:
    async with answering(ok) as here, client(here) as outbound:
        with pytest.raises(ForbiddenAddress, match="not a public address"):
            await get(outbound, here.replace("http:", "https:"))


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://10.0.0.1/",
        "https://169.254.169.254/",
        "https://[::ffff:10.0.0.1]/",
    ],
)
async def test_a_private_address_is_not_asked(url: str) -> None:
    async with client() as outbound:
        with pytest.raises(ForbiddenAddress, match="not a public address"):
            await get(outbound, url)


@pytest.mark.parametrize("host", ["files.example", "127.1", "2130706433", "0x7f.1", "localhost."])
async def test_a_name_that_means_a_private_address_is_not_connected_to(names: Names, host: str) -> None:
    async with answering(ok) as here, client() as outbound:
        port = here.rpartition(":")[2]
        with pytest.raises(ForbiddenAddress, match=r"not a public address|not a URL"):
            await get(outbound, f"https://{host}:{port}/")


async def test_a_name_is_resolved_once_and_the_address_checked_is_the_one_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rebinding = Names("203.0.114.1", "127.0.0.1")
    monkeypatch.setattr(module, "ThreadedResolver", lambda: rebinding)
    async with answering(ok) as here, client() as outbound:
        with pytest.raises(Unreachable):
            await get(outbound, f"https://files.example:{here.rpartition(':')[2]}/", total_seconds=0.3)
    assert rebinding.asked == ["files.example"]


async def test_an_opened_name_may_mean_a_private_address(names: Names) -> None:
    async with answering(ok) as here:
        url = f"http://index.example:{here.rpartition(':')[2]}/"
        async with client(url) as outbound:
            assert await get(outbound, url) == (200, b"ok")


async def test_a_name_that_nobody_resolves_in_time_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Names):
        async def resolve(self, *_: Any, **__: Any) -> list[ResolveResult]:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr(module, "ThreadedResolver", Silent)
    monkeypatch.setattr(module, "RESOLVE_SECONDS", 0.05)
    async with client() as outbound:
        with pytest.raises(Unreachable):
            await get(outbound, "https://files.example/")


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_redirects_within_what_is_opened_are_followed(code: int) -> None:
    async def handler(request: web.BaseRequest) -> web.Response:
        if request.path == "/end":
            return web.Response(body=request.headers["Range"].encode())
        return web.Response(status=code, headers={"Location": "end"})

    async with answering(handler) as here, client(here) as outbound:
        assert await get(outbound, f"{here}/start", headers={"Range": "bytes=1-"}) == (200, b"bytes=1-")


@pytest.mark.parametrize(
    "target",
    ["http://127.0.0.1:9/", "https://10.0.0.1/", "//[::1]/x", "file:///etc/passwd", "https://user@public.example/"],
)
async def test_a_redirect_is_checked_like_the_first_address(target: str) -> None:
    asked: list[str] = []

    async def handler(request: web.BaseRequest) -> web.Response:
        asked.append(request.path)
        return web.Response(status=302, headers={"Location": target})

    async with answering(handler) as here, client(here) as outbound:
        with pytest.raises(ForbiddenAddress):
            await get(outbound, f"{here}/start")
    assert asked == ["/start"]


async def test_redirects_end_after_five() -> None:
    asked: list[str] = []

    async def handler(request: web.BaseRequest) -> web.Response:
        asked.append(request.path)
        return web.Response(status=302, headers={"Location": f"/{len(asked)}"})

    async with answering(handler) as here, client(here) as outbound:
        with pytest.raises(ForbiddenAddress, match="redirects more than 5 times"):
            await get(outbound, f"{here}/start")
    assert len(asked) == 6


async def test_a_body_is_never_decoded() -> None:
    async def handler(request: web.BaseRequest) -> web.Response:
        return web.Response(body=b"\x1f\x8bnot really", headers={"Content-Encoding": "gzip"})

    async with answering(handler) as here, client(here) as outbound:
        assert await get(outbound, here) == (200, b"\x1f\x8bnot really")


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with answering(ok) as here, client(here) as outbound:
        assert await get(outbound, here) == (200, b"ok")


async def test_a_configured_proxy_is_asked_even_when_it_is_private(names: Names) -> None:
    async def proxy(request: web.BaseRequest) -> web.Response:
        return web.Response(text=f"proxied {request.raw_path}")

    async with answering(proxy) as here:
        port = here.rpartition(":")[2]
        async with client("http://index.example", proxy=f"http://proxy.example:{port}") as outbound:
            assert await get(outbound, "http://index.example/x") == (200, b"proxied http://index.example/x")


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/0.9 hello\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(1000)) + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"",
    ],
    ids=["0.9", "nonsense", "negative", "two lengths", "long header", "many headers", "short", "bad chunk", "nothing"],
)
async def test_an_answer_that_is_not_http_is_an_error_at_once(raw: bytes) -> None:
    async with saying(raw) as here, client(here) as outbound, asyncio.timeout(5):
        with pytest.raises(Unreachable):
            await get(outbound, here)


async def test_silence_is_an_error_after_the_time_limit() -> None:
    async with saying(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", hang=True) as here, client(here) as outbound:
        with pytest.raises(Unreachable):
            await get(outbound, here)


async def test_a_whole_request_can_have_a_time_limit() -> None:
    async def drip(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        for _ in range(1000):
            if request.transport is None or request.transport.is_closing():
                break
            await response.write(b".")
            await asyncio.sleep(0.05)
        return response

    async with answering(drip) as here, client(here) as outbound:
        with pytest.raises(Unreachable):
            await get(outbound, here, total_seconds=0.2)


async def test_nobody_listening_is_unreachable_and_the_message_tells_no_path() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"http://127.0.0.1:{port}/path?token=secret"
    async with client(url) as outbound:
        with pytest.raises(Unreachable) as caught:
            await get(outbound, url)
    assert caught.value.detail.startswith(f"http://127.0.0.1:{port}: ")
    assert "secret" not in caught.value.detail


async def test_a_failure_of_the_caller_is_not_the_network_s() -> None:
    async with answering(ok) as here, client(here) as outbound:
        with pytest.raises(OSError, match="my disk"):
            async with outbound.request("GET", here):
                raise OSError("my disk")


async def test_a_client_that_was_closed_can_be_closed_again() -> None:
    outbound = Outbound(user_agent="tests", opened=[Origin("http://127.0.0.1:9")])
    await outbound.close()
    await outbound.close()


async def test_a_connection_that_idled_after_a_large_body_is_not_taken_for_silent() -> None:
    """aiohttp starts the clock of `sock_read` again when a body that ended while reading was paused has been read."""

    async def large(request: web.BaseRequest) -> web.Response:
        return web.Response(body=bytes(1_000_000))

    async with answering(large) as here, client(here) as outbound:
        for _ in range(4):
            async with outbound.request("GET", here) as response:
                async for _ in response.content.iter_any():
                    await asyncio.sleep(0.01)  # slower than loopback
            await asyncio.sleep(0.4)  # longer than the read timeout
