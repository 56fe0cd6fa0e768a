"""The log over HTTP, as the bot's public listener answers and as a frontend passes it on; hostile requests included."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from index_frontend.handlers import passing
from index_frontend.handlers.passing import Passing
from index_frontend.handlers.public import PublicHandler
from index_frontend.oracle import PublicPages
from index_frontend.oracle.public import PublicPage
from matrix_pypi_bot.adapters.database.engine import open_store
from matrix_pypi_bot.api import PublicApi, listen
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.tlog import leaf_hash
from matrix_pypi_bot.ports import Store, StoreAway
from matrix_pypi_bot.services.shown_copies import ShownCopies
from tests.support.bot_world import ManualClock, ScriptedIndex, World
from tests.support.frontend import running
from tests.support.http_client import ask
from tests.support.peer_logs import LogOrg, Node, ScriptedReader
from tests.support.scripted_bot import ScriptedBot
from tests.support.two_doors import TwoDoors, told
from tests.unit.bot.test_log import ORIGIN, keeper_of, payload, say

IMMUTABLE, ASK_AGAIN = "public, max-age=31536000, immutable", "no-cache"


@dataclass(slots=True, kw_only=True)
class Log(TwoDoors):
    """A log whose pages are served by a bot and passed on by a frontend."""

    world: World
    api: PublicApi


@pytest.fixture
async def served(tmp_path: Path, unused_tcp_port: int) -> AsyncIterator[Log]:
    """A log of three statements, two of them under its checkpoint."""
    async with open_store(f"sqlite:{tmp_path}/bot.db") as store:
        world = World(store, ScriptedIndex(), ManualClock())
        keeper, guard = keeper_of(world)
        await guard.compare([])
        await say(store, 1, 2)
        await keeper.sign_if_due()
        await say(store, 3)
        api = PublicApi(keeper, ShownCopies(store))
        await copied(store, world.clock)
        base = f"http://127.0.0.1:{unused_tcp_port}"
        pages = PublicPages(base)
        async with (
            listen(api, socket_path=None, host="127.0.0.1", port=unused_tcp_port),
            running(ScriptedBot(), public=PublicHandler(Passing(pages, max_large=2))) as frontend,
        ):
            yield Log(world=world, base=base, frontend=frontend, api=api)
        await pages.close()


async def copied(store: Store, clock: ManualClock) -> LogOrg:
    """The log of orgb, pulled."""
    orgb, reader, start = LogOrg("orgb", 11), ScriptedReader(), Instant.of_ms(clock.now_ms())
    orgb.introduce(start)
    orgb.attest("mxa-1.0-py3-none-any.whl")
    reader.serve("orgb", orgb, orgb.head(start))
    node = await Node(store, clock, reader, orgb).start()
    await node.pull.pull("orgb")
    return orgb


@pytest.fixture
def unused_tcp_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_the_checkpoint_is_the_newest_note(served: Log) -> None:
    reply = await served.both("/log/v1/checkpoint")
    assert (reply.status, reply.content_type, reply.headers["cache-control"]) == (
        200,
        "text/plain; charset=utf-8",
        ASK_AGAIN,
    )
    assert reply.body.decode().splitlines()[:2] == [ORIGIN, "2"]
    same = await served.both("/log/v1/checkpoint", If_None_Match=reply.headers["etag"])
    assert (same.status, same.body) == (304, b"")
    assert (await served.both("/log/v1/checkpoint", If_None_Match='"another"')).status == 200


async def test_entries_are_envelopes_whose_payloads_are_the_leaves(served: Log) -> None:
    reply = await served.both("/log/v1/entries?from=0&to=2")
    assert (reply.status, reply.content_type, reply.headers["cache-control"]) == (
        200,
        "application/x-ndjson",
        IMMUTABLE,
    )
    leaves = [base64.b64decode(json.loads(line)["payload"]) for line in reply.body.splitlines()]
    assert [leaf_hash(leaf) for leaf in leaves] == [leaf_hash(payload(1)), leaf_hash(payload(2))]
    assert (await served.both("/log/v1/entries?from=0&to=2", If_None_Match=reply.headers["etag"])).status == 304


async def test_who_takes_large_pages_slowly_holds_few_of_them_and_none_for_ever(
    served: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passing, "SEND_SECONDS", 0.5)
    large = b"x" * (8 << 20)

    async def get(self: PublicPages, path: str, **_: object) -> PublicPage:
        return PublicPage(200, {}, large)

    monkeypatch.setattr(PublicPages, "get", get)
    slow = []
    for _ in range(2):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.frontend.port, limit=1_000)
        writer.write(b"GET /log/v1/entries HTTP/1.1\r\nHost: x\r\n\r\n")
        slow.append((await reader.read(100), writer))
    refused = await served.frontend.get("/log/v1/entries")
    assert (refused.status, refused.headers["retry-after"]) == (429, "5")
    await asyncio.sleep(0.6)
    assert (await served.frontend.get("/log/v1/entries")).body == large
    for head, writer in slow:
        assert head.startswith(b"HTTP/1.1 200")
        writer.transport.abort()


async def test_a_copy_of_another_log_has_the_same_two_pages(served: Log) -> None:
    checkpoint = await served.both("/log/v1/copies/orgb/checkpoint")
    assert (checkpoint.status, checkpoint.content_type) == (200, "text/plain; charset=utf-8")
    assert checkpoint.body.decode().splitlines()[:2] == ["orgb/matrix-pypi", "2"]
    entries = await served.both("/log/v1/copies/orgb/entries?from=0&to=2")
    assert (entries.status, len(entries.body.splitlines())) == (200, 2)
    assert entries.headers["cache-control"] == ASK_AGAIN  # with another log key another copy begins
    assert len((await served.both("/log/v1/copies/orgb/entries?from=1&to=9")).body.splitlines()) == 1
    assert (await served.direct("/log/v1/copies/orgc/checkpoint")).status == 404
    assert (await served.frontend.get("/log/v1/copies/orgc/checkpoint")).status == 404
    assert (await served.both("/log/v1/copies/orgc/entries?from=0&to=9")).body == b""


@pytest.mark.parametrize(
    ("query", "lines", "caching"),
    [
        ("", 2, ASK_AGAIN),
        ("?from=1", 1, ASK_AGAIN),
        ("?to=1", 1, IMMUTABLE),
        ("?from=1&to=2", 1, IMMUTABLE),
        ("?from=2&to=2", 0, IMMUTABLE),
        ("?from=0&to=3", 2, ASK_AGAIN),
        ("?from=5&to=9", 0, ASK_AGAIN),
        ("?from=999999999999999999&to=999999999999999999", 0, IMMUTABLE),
        ("?to=000001&from=0&cache=buster", 1, IMMUTABLE),
    ],
)
async def test_a_range_is_cut_to_what_the_checkpoint_covers(served: Log, query: str, lines: int, caching: str) -> None:
    reply = await served.both(f"/log/v1/entries{query}")
    assert (reply.status, len(reply.body.splitlines()), reply.headers["cache-control"]) == (200, lines, caching)


@pytest.mark.parametrize(
    "query",
    [
        "?from=2&to=1", "?from=-1&to=2", "?from=a", "?from=", "?from=1&from=2", "?to=1e3", "?to=1.0", "?from=%D9%A1",
        "?from=1000000000000000000", "?to=+1", "?from=0x1",
    ],
)  # fmt: skip
async def test_a_range_that_is_none_is_refused(served: Log, query: str) -> None:
    for reply in (
        await served.direct(f"/log/v1/entries{query}"),
        await served.frontend.get(f"/log/v1/entries{query}"),
    ):
        assert (reply.status, reply.content_type, reply.json["status"]) == (400, "application/problem+json", 400)


async def test_head_has_the_headers_and_no_body(served: Log) -> None:
    for path in ("/log/v1/checkpoint", "/log/v1/entries?from=0&to=2"):
        whole, head = await served.both(path), await served.both(path, "HEAD")
        assert (head.status, head.body, told(head)) == (200, b"", told(whole))


@pytest.mark.parametrize(
    "path",
    [
        "/log/v1/", "/log/v1/checkpoint/", "/log/v1//checkpoint", "/log/v1/../internal/v1/projects", "/log/v1/%2e%2e/readyz",
        "/log/v1/copies/", "/log/v1/copies/orgb", "/log/v1/copies//checkpoint", "/log/v1/copies/../checkpoint",
        "/log/v1/copies/ORGB/checkpoint", "/log/v1/copies/orgb%2f/checkpoint", "/log/v1/copies/a/b/checkpoint",
        "/log/v1/copies/orgb/readyz", "/log/v1/entries/0", "/log/v1/checkpoint%00", "/log/v2/checkpoint", "/log", "/log/v1",
    ],
)  # fmt: skip
async def test_there_is_nothing_beside_the_two_pages(served: Log, path: str) -> None:
    assert (await served.frontend.get(path)).status == 404


@pytest.mark.parametrize("path", ["/", "/healthz", "/internal/v1/projects", "/internal/v1/changes", "/simple/"])
async def test_the_public_listener_knows_no_internal_route(served: Log, path: str) -> None:
    reply = await served.direct(path, Authorization="Bearer operator-token")
    assert (reply.status, reply.content_type) == (404, "application/problem+json")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_the_pages_can_only_be_read(served: Log, method: str) -> None:
    for reply in (
        await served.direct("/log/v1/checkpoint", method),
        await served.frontend.get("/log/v1/checkpoint", method),
    ):
        assert (reply.status, "GET" in reply.headers["allow"]) == (405, True)


async def test_a_log_that_has_said_nothing_has_no_checkpoint(tmp_path: Path, unused_tcp_port: int) -> None:
    async with open_store(f"sqlite:{tmp_path}/bot.db") as store:
        keeper, _ = keeper_of(World(store, ScriptedIndex(), ManualClock()))
        async with listen(
            PublicApi(keeper, ShownCopies(store)), socket_path=None, host="127.0.0.1", port=unused_tcp_port
        ):
            base = f"http://127.0.0.1:{unused_tcp_port}/log/v1"
            checkpoint = await asyncio.to_thread(ask, f"{base}/checkpoint")
            entries = await asyncio.to_thread(ask, f"{base}/entries?from=0&to=9")
    assert (checkpoint.status, checkpoint.content_type) == (404, "application/problem+json")
    assert (entries.status, entries.body) == (200, b"")


async def test_a_database_that_is_away_is_an_error_and_the_checkpoint_is_still_there(
    served: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(self: object) -> None:
        raise StoreAway("the database is away")

    monkeypatch.setattr(type(served.world.store), "transaction", away)
    assert (await served.direct("/log/v1/entries?from=0&to=2")).status == 500
    assert (await served.frontend.get("/log/v1/entries?from=0&to=2")).status == 503
    assert (await served.both("/log/v1/checkpoint")).status == 200


async def test_a_crowd_is_told_to_come_back_later(served: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served.api, "_waiting", 64)
    assert (await served.direct("/log/v1/entries")).status == 429
    assert (await served.frontend.get("/log/v1/entries")).status == 429


async def test_without_the_bot_the_frontend_says_so() -> None:
    pages = PublicPages("http://127.0.0.1:1")
    async with running(ScriptedBot(), public=PublicHandler(Passing(pages, max_large=2))) as frontend:
        reply = await frontend.get("/log/v1/checkpoint")
    await pages.close()
    assert (reply.status, reply.content_type) == (503, "application/problem+json")


async def test_the_frontend_never_sends_its_token_nor_what_the_client_sent() -> None:
    asked: list[bytes] = []

    async def listening(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: a=b\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(listening, "127.0.0.1", 0)
    pages = PublicPages(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with server, running(ScriptedBot(), public=PublicHandler(Passing(pages, max_large=2))) as frontend:
        reply = await frontend.get(
            "/log/v1/entries?to=07&x=%0d%0aEvil:1&from=3", Authorization="Bearer secret", Cookie="c=d", X_Evil="1"
        )
    await pages.close()
    line, _, rest = asked[0].decode().lower().partition("\r\n")
    assert line == "get /log/v1/entries?from=3&to=7 http/1.1"
    assert [word for word in ("authorization", "bearer", "cookie", "evil") if word in rest] == []
    assert (reply.status, "set-cookie" in reply.headers) == (200, False)
