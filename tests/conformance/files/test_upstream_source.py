"""What the source of upstream files makes of answers, good and bad, without anything behind it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import replace

import pytest
from aiohttp import web

from index_frontend import upstream as module
from index_frontend.ports import SourceAway, SourceGone, SourceWrong, Wanted
from index_frontend.silent_hosts import FAILURES
from index_frontend.upstream import UpstreamSource
from matrix_pypi_bot.process.outbound import Outbound, origin_of
from matrix_pypi_bot.wire.digests import sha256_of
from matrix_pypi_bot.wire.names import ProjectName
from matrix_pypi_bot.wire.problems import Problem

BODY = bytes(range(256)) * 100
Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def source_of(
    answer: Answer, *, size: int | None = len(BODY), connect_timeout_seconds: float = 3
) -> AsyncIterator[tuple[UpstreamSource, Wanted]]:
    """A source, and the file to ask it for, of a server that answers so."""
    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/mxa-1.0.zip"
    wanted = Wanted(
        sha256=sha256_of(BODY),
        size=size,
        urls=(url,),
        opened_origins=frozenset({origin_of(url)}),
        project=ProjectName("mxa"),
        name="mxa-1.0.zip",
        max_bytes=1 << 20,
    )
    outbound = Outbound(user_agent="tests", connect_timeout_seconds=connect_timeout_seconds, read_timeout_seconds=1)
    yield UpstreamSource(outbound), wanted
    await outbound.close()
    await runner.cleanup()


async def read(source: UpstreamSource, wanted: Wanted, start: int = 0) -> bytes:
    async with source.fetch(wanted, start) as body:
        return b"".join([chunk async for chunk in body.chunks()])


async def cut(request: web.BaseRequest, status: int, data: bytes, headers: dict[str, str]) -> web.StreamResponse:
    """Sends `data` under `headers` and hangs up."""
    response = web.StreamResponse(status=status, headers=headers)
    await response.prepare(request)
    await response.write(data)
    assert request.transport is not None
    request.transport.close()
    return response


async def test_each_address_is_a_way_of_its_own() -> None:
    wanted = Wanted(
        sha256=sha256_of(b""),
        size=None,
        urls=("https://a.example/x", "https://b.example/x"),
        opened_origins=frozenset(),
        project=ProjectName("mxa"),
        name="x",
        max_bytes=1,
    )
    ways = UpstreamSource(Outbound(user_agent="tests")).ways(wanted)
    assert [way.urls for way in ways] == [("https://a.example/x",), ("https://b.example/x",)]


async def test_a_later_start_is_a_range_request() -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        assert request.headers["Range"] == "bytes=1000-"
        headers = {"Content-Range": f"bytes 1000-{len(BODY) - 1}/{len(BODY)}"}
        return web.Response(status=206, body=BODY[1000:], headers=headers)

    async with source_of(answer) as (source, wanted):
        assert await read(source, wanted, 1000) == BODY[1000:]


async def test_of_a_server_that_ignores_ranges_the_beginning_is_skipped() -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=BODY)

    async with source_of(answer) as (source, wanted):
        assert await read(source, wanted, 1000) == BODY[1000:]


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
@pytest.mark.parametrize("size", [len(BODY), None], ids=["size known", "size unknown"])
async def test_a_transfer_that_breaks_off_goes_on_where_it_stopped(ranges: bool, size: int | None) -> None:
    asked: list[tuple[str | None, str | None]] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        asked.append((request.headers.get("Range"), request.headers.get("If-Range")))
        if len(asked) == 1:
            return await cut(request, 200, BODY[:5000], {"Content-Length": str(len(BODY)), "ETag": '"one"'})
        if ranges:
            headers = {"Content-Range": f"bytes 5000-{len(BODY) - 1}/{len(BODY)}"}
            return web.Response(status=206, body=BODY[5000:], headers=headers)
        return web.Response(body=BODY)

    async with source_of(answer, size=size) as (source, wanted):
        assert await read(source, wanted) == BODY
    assert asked == [(None, None), ("bytes=5000-", '"one"')]


async def test_a_weak_tag_is_no_condition_for_a_resume() -> None:
    asked: list[str | None] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.headers.get("If-Range"))
        return await cut(request, 200, BODY[:5000], {"Content-Length": str(len(BODY)), "ETag": 'W/"one"'})

    async with source_of(answer) as (source, wanted):
        with pytest.raises(SourceAway):
            await read(source, wanted)
    assert asked == [None, None]


@pytest.mark.parametrize(
    "content_range", ["bytes 4999-25599/25600", "bytes 5000-25599/99", "bytes */25600", "items 5000-25599/25600", ""]
)
async def test_a_resume_that_is_answered_with_another_part_is_wrong(content_range: str) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if "Range" not in request.headers:
            return await cut(request, 200, BODY[:5000], {"Content-Length": str(len(BODY))})
        return web.Response(status=206, body=BODY[5000:], headers={"Content-Range": content_range})

    async with source_of(answer) as (source, wanted):
        with pytest.raises(SourceWrong):
            await read(source, wanted)


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (404, SourceGone),
        (410, SourceGone),
        (408, SourceAway),
        (429, SourceAway),
        (500, SourceAway),
        (503, SourceAway),
        (599, SourceAway),
        (204, SourceWrong),
        (206, SourceWrong),
        (304, SourceWrong),
        (401, SourceWrong),
        (403, SourceWrong),
        (451, SourceWrong),
    ],
)
async def test_what_a_status_means(status: int, problem: type[Problem]) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status)

    async with source_of(answer) as (source, wanted):
        with pytest.raises(problem, match=r"matrix-pypi: mxa-1.0.zip from http://127.0.0.1:\d+: it answers"):
            await read(source, wanted)


async def test_another_length_than_the_one_known_is_wrong_before_a_byte_is_read() -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=BODY + b"!")

    async with source_of(answer) as (source, wanted):
        with pytest.raises(SourceWrong, match="it has 25601 bytes, not 25600"):
            await read(source, wanted)


async def test_a_length_above_the_bound_is_wrong_before_a_byte_is_read() -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return await cut(request, 200, b"", {"Content-Length": str(1 << 40)})

    async with source_of(answer, size=None) as (source, wanted):
        with pytest.raises(SourceWrong, match="more than the 1048576"):
            await read(source, wanted)


async def test_a_content_encoding_is_not_undone() -> None:
    """Some file hosts call a `.tar.gz` gzip-encoded; the digest is that of the bytes as they come."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=BODY, headers={"Content-Encoding": "gzip"})

    async with source_of(answer) as (source, wanted):
        assert await read(source, wanted) == BODY


async def test_a_transfer_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACE_SECONDS", 0.0)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(BODY))})
        await response.prepare(request)
        for start in range(0, len(BODY), 100):
            await response.write(BODY[start : start + 100])
        return response

    async with source_of(answer) as (source, wanted):
        with pytest.raises(SourceAway, match="fewer than 65536 bytes came"):
            await read(source, wanted)


@pytest.mark.parametrize("raw", [b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", b"nonsense\r\n\r\n"])
async def test_what_is_not_http_is_a_wrong_answer_not_an_absent_one(raw: bytes) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(raw)
        request.transport.close()
        return web.Response()

    async with source_of(answer) as (source, wanted):
        with pytest.raises(SourceWrong):
            await read(source, wanted)


# Hosts where nobody is ------------------------------------------------------------------------------------------------


@contextmanager
def deaf() -> Iterator[str]:
    """An address where no connection is ever made: the queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/mxa-1.0.zip"


async def told(source: UpstreamSource, wanted: Wanted, name: str) -> str:
    """Why a file of that name cannot be had, without what is the same each time."""
    with pytest.raises(SourceAway) as caught:
        await read(source, replace(wanted, name=name))
    return caught.value.detail.removeprefix(f"matrix-pypi: {name} from {origin_of(wanted.urls[0])}: ")


async def test_a_host_where_no_connection_is_made_is_left_alone_for_a_while_and_no_other_host_is() -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=BODY)

    async with source_of(answer, connect_timeout_seconds=0.2) as (source, well):
        with deaf() as url:
            lost = replace(well, urls=(url,), opened_origins=frozenset({origin_of(url)}))
            reasons = [await told(source, lost, f"mx{number}.zip") for number in range(FAILURES + 2)]
            assert [reason.startswith("Connection timeout") for reason in reasons] == [True] * FAILURES + [False] * 2
            assert reasons[-1] == "no connection to it could be made 3 times, it is tried again in 5 s"
            assert await read(source, well) == BODY


async def test_a_redirect_to_where_nobody_is_closes_no_way_to_the_host_that_redirects() -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.rel_url.path == "/lost":
            return web.Response(status=302, headers={"Location": url})
        return web.Response(body=BODY)

    with deaf() as url:
        async with source_of(answer, connect_timeout_seconds=0.2) as (source, well):
            elsewhere = frozenset({*well.opened_origins, origin_of(url)})
            lost = replace(well, urls=(f"{origin_of(well.urls[0])}/lost",), opened_origins=elsewhere)
            reasons = [await told(source, lost, "mxl.zip") for _ in range(FAILURES + 1)]
            assert [reason.startswith("Connection timeout") for reason in reasons] == [True] * (FAILURES + 1)
            assert await read(source, well) == BODY


async def test_a_host_that_refuses_connections_is_asked_each_time() -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=BODY)

    async with source_of(answer) as (source, well):
        with socket.create_server(("127.0.0.1", 0)) as free:
            url = f"http://127.0.0.1:{free.getsockname()[1]}/mxa-1.0.zip"
        lost = replace(well, urls=(url,), opened_origins=frozenset({origin_of(url)}))
        reasons = {await told(source, lost, "mxa.zip") for _ in range(FAILURES + 2)}
    assert not any("tried again" in reason for reason in reasons)
