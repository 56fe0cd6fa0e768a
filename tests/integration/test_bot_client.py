"""The command line's HTTP client against a server that answers rightly, wrongly, or not at all."""

from __future__ import annotations

import http.server
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from matrix_pypi_bot.cli.bot_client import BotClient, NotKnown
from matrix_pypi_bot.process.command_line import NeededIsMissing
from matrix_pypi_bot.process.setting_types import ListenAddress
from matrix_pypi_bot.wire.problems import Problem, ProblemCode, problem_body

pytestmark = pytest.mark.integration


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers `/echo` with what it was sent, every other path with the status it names."""

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status = 200 if self.path == "/echo" else int(self.path[1:])
        told = f"{self.command} {self.headers['Authorization']} ".encode() + body
        data = (
            told
            if status == 200
            else problem_body(status, "Title", f"detail of {status}")
            if status != 500
            else b"<html>"
        )
        self.send_response(status, "Reason")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET  # noqa: N815  # the name that http.server looks for

    def address_string(self) -> str:
        return "client"

    def log_message(self, format: str, *args: object) -> None:
        pass


class UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


@pytest.fixture(params=["tcp", "unix"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ListenAddress]:
    """Where the server listens."""
    server: socketserver.BaseServer
    if request.param == "tcp":
        tcp = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server, where = tcp, ListenAddress(f"127.0.0.1:{tcp.server_port}")
    else:
        server, where = UnixServer(str(tmp_path / "s"), Handler), ListenAddress(f"unix:{tmp_path}/s")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield where
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_token_and_the_body_arrive(address: ListenAddress) -> None:
    client = BotClient(address, "secret")
    assert [client.ask("GET", "/echo"), client.ask("POST", "/echo", b"{}")] == [
        b"GET Bearer secret ",
        b"POST Bearer secret {}",
    ]


@pytest.mark.parametrize(
    ("status", "code", "detail"),
    [
        (400, ProblemCode.BAD_REQUEST, "detail of 400"),
        (401, ProblemCode.UNAUTHORISED, "detail of 401"),
        (403, ProblemCode.REFUSED, "detail of 403"),
        (404, ProblemCode.NOT_FOUND, "detail of 404"),
        (500, ProblemCode.INTERNAL, "the bot answered 500 Reason"),
        (503, ProblemCode.UPSTREAM_AWAY, "detail of 503"),
    ],
)
def test_a_refusal_says_what_the_bot_said(address: ListenAddress, status: int, code: ProblemCode, detail: str) -> None:
    with pytest.raises(Problem) as caught:
        BotClient(address, "x").ask("GET", f"/{status}")
    assert (caught.value.code, caught.value.detail, isinstance(caught.value, NotKnown)) == (code, detail, status == 404)


@pytest.mark.parametrize("where", ["127.0.0.1:1", "unix:/nowhere/bot.sock"])
def test_a_bot_that_does_not_run_is_said_not_to(where: str) -> None:
    with pytest.raises(NeededIsMissing, match="the bot does not answer at"):
        BotClient(ListenAddress(where), "x").ask("GET", "/echo")
