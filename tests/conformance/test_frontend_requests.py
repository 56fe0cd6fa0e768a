"""What clients may send: methods, hosts, request targets, nonsense; and what operators ask."""

from __future__ import annotations

import asyncio
import logging

import pytest
from aiohttp import web

from index_frontend.handlers import FileAnswers, connection
from matrix_pypi_bot.wire.names import FilePath
from tests.support.bot_pages import file_entry
from tests.support.frontend import running
from tests.support.problems import problem
from tests.support.scripted_bot import ScriptedBot

ENTRY = file_entry("mxa-1.0+local.1-py3-none-any.whl")


def bot() -> ScriptedBot:
    made = ScriptedBot()
    made.publish("mxa", [ENTRY], revision="r1")
    return made


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
@pytest.mark.parametrize("path", ["/simple/mxa/", "/legacy/", "/simple/", "/healthz"])
async def test_the_index_is_read_only(method: str, path: str) -> None:
    async with running(bot()) as frontend:
        reply = await frontend.get(path, method, Content_Length="0")
        assert (reply.status, reply.headers["allow"], "read-only" in problem(reply)) == (405, "GET, HEAD", True)


@pytest.mark.parametrize("spelled", ["+", "%2B", "%2b"])
@pytest.mark.parametrize("suffix", ["", ".metadata"])
async def test_a_file_s_path_is_taken_apart(spelled: str, suffix: str) -> None:
    async with running(bot()) as frontend:
        reply = await frontend.get(ENTRY["_path"].replace("+", spelled) + suffix)
        address = "".join(ENTRY["_path"].split("/")[2:5])
        assert reply.body.decode() == f"{address} {ENTRY['filename']} {suffix != ''}"


async def test_an_absolute_target_is_its_path_and_its_host_means_nothing() -> None:
    async with running(bot()) as frontend:
        sent = b"GET http://evil.example/simple/mxa HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
        answer = await frontend.raw(sent)
        assert answer.startswith(b"HTTP/1.1 308 ")
        assert b"\r\nLocation: mxa/\r\n" in answer


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("pypi.example", 200),
        ("PyPI.Example:8080", 200),
        ("[::1]:8080", 200),
        ("evil.example", 421),
        ("pypi.example.evil", 421),
        ("", 421),
    ],
)
async def test_only_the_hosts_that_were_configured_are_served(host: str, status: int) -> None:
    async with running(bot(), allowed_hosts=("pypi.example", "[::1]")) as frontend:
        sent = f"GET /simple/mxa/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        assert (await frontend.raw(sent)).startswith(f"HTTP/1.1 {status} ".encode())


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /simple/mxa/ HTTP/1.1\r\n\r\n",
        b"GET /simple/mxa/ HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET simple HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET ftp://x/simple/mxa/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /simple/mxa/\r\n\r\n",
        b"GET /simple/mxa/ HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET /simple/mxa/ HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET /simple/mxa/ HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
        b"GET /simple/mxa/ HTTP/1.1\r\nHost: a\r\n folded: x\r\n\r\n",
        b"GET /simple/mxa/ HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 1000 + b"\r\n",
    ],
)
async def test_nonsense_gets_a_short_answer_and_no_traceback(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with running(bot()) as frontend:
        answer = await frontend.raw(sent)
        assert answer.split(b" ")[1] in (b"400", b"404", b"405"), answer
        assert b"application/problem+json" in answer
        assert b"Traceback" not in answer
        assert frontend.bot.asked == []
        assert (await frontend.get("/healthz")).status == 200
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_connection_that_does_not_finish_its_first_head_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_HEAD_SECONDS", 0.05)
    async with running(bot()) as frontend:
        assert await frontend.raw(b"GET /simple/mxa/ HTTP/1.1\r\nHost: a\r\nX: ") == b""


class Long(FileAnswers):
    """Answers with more than any kernel keeps for a client; `ended` says that it is over."""

    BODY = bytes(64 << 20)

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def handle(self, request: web.BaseRequest, path: FilePath) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": str(len(self.BODY))})
        await answer.prepare(request)
        try:
            await answer.write(self.BODY)
        finally:
            self.ended.set()
        return answer


async def test_who_takes_nothing_of_his_answer_is_cut_off_and_who_takes_it_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "PROGRESS_SECONDS", 0.1)
    files = Long()
    async with running(bot(), files=files) as frontend:
        asked = f"GET {ENTRY['_path']} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", frontend.port)
        writer.write(asked)
        async with asyncio.timeout(5):
            await files.ended.wait()
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(len(Long.BODY))
        writer.close()
        assert (await frontend.raw(asked)).endswith(Long.BODY)


async def test_idle_connections_keep_nobody_out() -> None:
    async with running(bot()) as frontend:
        idle = [await asyncio.open_connection("127.0.0.1", frontend.port) for _ in range(200)]
        assert (await frontend.get("/simple/mxa/")).status == 200
        for _, writer in idle:
            writer.close()


async def test_many_requests_in_one_packet_are_answered_in_order() -> None:
    async with running(bot()) as frontend:
        one = b"GET /simple/%s HTTP/1.1\r\nHost: a\r\n%s\r\n"
        names = [b"n%d" % number for number in range(50)]
        sent = b"".join(one % (name, b"") for name in names) + one % (b"last", b"Connection: close\r\n")
        answer = await frontend.raw(sent)
        locations = [line for line in answer.split(b"\r\n") if line.startswith(b"Location: ")]
        assert locations == [b"Location: %s/" % name for name in (*names, b"last")]


class Breaking(FileAnswers):
    """Fails before, or after part of an answer is out."""

    def __init__(self, begin: bool) -> None:
        self._begin = begin

    async def handle(self, request: web.BaseRequest, path: FilePath) -> web.StreamResponse:
        """See FileAnswers."""
        if self._begin:
            answer = web.StreamResponse(headers={"Content-Length": "100"})
            await answer.prepare(request)
            await answer.write(b"part")
        raise RuntimeError("secret of the inside")


async def test_a_defect_of_ours_tells_clients_nothing_and_operators_everything(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(bot(), files=Breaking(begin=False)) as frontend:
        reply = await frontend.get(ENTRY["_path"])
        assert (reply.status, "secret" in problem(reply)) == (500, False)
    assert "secret of the inside" in caplog.text


async def test_an_answer_that_fails_half_way_is_cut_and_not_ended() -> None:
    async with running(bot(), files=Breaking(begin=True)) as frontend:
        try:
            answer = await frontend.raw(f"GET {ENTRY['_path']} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        except ConnectionResetError:
            return
        assert answer.endswith((b"part", b"\r\n\r\n"))


# Operations ----------------------------------------------------------------------------------------------------------


async def test_the_frontend_is_alive_and_ready() -> None:
    async with running(bot()) as frontend:
        assert [(await frontend.get(path)).status for path in ("/healthz", "/readyz")] == [200, 200]


async def test_it_is_not_ready_while_something_is_missing_and_says_what() -> None:
    async with running(bot(), missing="the store cannot be written") as frontend:
        reply = await frontend.get("/readyz")
        assert (reply.status, problem(reply)) == (503, "matrix-pypi: not ready: the store cannot be written")
        assert (await frontend.get("/healthz")).status == 200


async def test_metrics_count_answers_under_few_labels() -> None:
    async with running(bot()) as frontend:
        for path in ("/simple/mxa/", "/simple/mxa/", "/simple/nope/", "/elsewhere/with/many/names", ENTRY["_path"]):
            await frontend.get(path)
        metrics = (await frontend.get("/metrics")).body.decode()
    told = [line for line in metrics.splitlines() if line.startswith("matrix_pypi_frontend_requests_total")]
    assert sorted(told) == [
        'matrix_pypi_frontend_requests_total{cache="",route="other",status="404"} 1.0',
        'matrix_pypi_frontend_requests_total{cache="",route="packages",status="200"} 1.0',
        'matrix_pypi_frontend_requests_total{cache="",route="simple",status="404"} 1.0',
        'matrix_pypi_frontend_requests_total{cache="HIT",route="simple",status="200"} 1.0',
        'matrix_pypi_frontend_requests_total{cache="MISS",route="simple",status="200"} 1.0',
    ]
    assert "matrix_pypi_frontend_change_stream_live 1.0" in metrics
    assert "mxa" not in metrics
