"""A peer's log over real sockets: what it may answer, what is made of anything else, and two bots that read one another."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from matrix_pypi_bot.adapters import peers as module
from matrix_pypi_bot.adapters.database.engine import open_store
from matrix_pypi_bot.adapters.peers import PeerHttp
from matrix_pypi_bot.api import PublicApi, listen
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.notes import NoteKey, cosigned_at, parse_note
from matrix_pypi_bot.core.statements.keys import Manifest
from matrix_pypi_bot.ports import Absent, Away, Entries, Peer, Wrong
from matrix_pypi_bot.services.own_copies import put_back
from matrix_pypi_bot.services.shown_copies import ShownCopies
from tests.conformance.test_outbound import answering, client, saying
from tests.support.bot_world import ManualClock
from tests.support.peer_logs import LogOrg, Node

NDJSON = "application/x-ndjson"


@asynccontextmanager
async def reading(url: str, *, configured: bool = True) -> AsyncIterator[tuple[PeerHttp, Peer]]:
    async with client() as outbound:
        yield PeerHttp(outbound), Peer("orgb", f"{url}/log/v1", configured=configured)


def answer(body: bytes, content_type: str = NDJSON, status: int = 200, **headers: str) -> Any:
    async def handler(request: web.BaseRequest) -> web.Response:
        return web.Response(body=body, status=status, headers={"Content-Type": content_type, **headers})

    return handler


async def entries_of(handler: Any, start: int = 0, end: int = 3) -> Any:
    async with answering(handler) as url, reading(url) as (reader, peer):
        return await reader.entries(peer, None, start, end)


async def test_paths_are_those_of_the_log_and_of_its_copies() -> None:
    asked: list[tuple[str, str | None]] = []

    async def handler(request: web.BaseRequest) -> web.Response:
        asked.append((request.raw_path, request.headers.get("Accept-Encoding")))
        return web.Response(text="a note")

    async with answering(handler) as url, reading(url) as (reader, peer):
        assert await reader.note(peer, None) == "a note"
        assert await reader.note(peer, "orgc") == "a note"
        await reader.entries(peer, None, 5, 7)
        await reader.entries(peer, "orgc", 0, 1_000)
    assert asked == [
        ("/log/v1/checkpoint", "identity"),
        ("/log/v1/copies/orgc/checkpoint", "identity"),
        ("/log/v1/entries?from=5&to=7", "identity"),
        ("/log/v1/copies/orgc/entries?from=0&to=1000", "identity"),
    ]


async def test_a_page_has_one_line_a_leaf() -> None:
    assert await entries_of(answer(b"a\nb\n")) == Entries((b"a", b"b"), 4)
    assert isinstance(await entries_of(answer(b"")), Wrong)
    assert isinstance(await entries_of(answer(b"a\nb")), Wrong)
    assert isinstance(await entries_of(answer(b"a\nb\nc\nd\n")), Wrong)


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (answer(b"<html>", "text/html"), Wrong),
        (answer(b"a\n", "application/json"), Wrong),
        (answer(b"a\n", NDJSON, **{"Content-Encoding": "gzip"}), Wrong),
        (answer(b"", NDJSON, 404), Wrong),
        (answer(b"a\n", NDJSON, 500), Away),
        (answer(b"a\n", NDJSON, 429), Away),
        (answer(b"a\n", NDJSON, 206), Away),
        (answer(b"", NDJSON, 302, Location="http://127.0.0.1:1/"), Wrong),
        (answer(b"", NDJSON, 302, Location="file:///etc/passwd"), Wrong),
        (answer(b"", NDJSON, 302, Location="/log/v1/entries"), Wrong),
    ],
)
async def test_anything_else_is_no_page(handler: Any, kind: type) -> None:
    assert isinstance(await entries_of(handler), kind)


@pytest.mark.parametrize(("status", "kind"), [(404, Absent), (410, Absent), (503, Away), (403, Away)])
async def test_a_log_that_has_no_head_is_told_from_one_that_is_away(status: int, kind: type) -> None:
    async with answering(answer(b"", "text/plain", status)) as url, reading(url) as (reader, peer):
        assert isinstance(await reader.note(peer, None), kind)


async def test_a_note_that_is_not_text_is_none() -> None:
    async with answering(answer(b"\xff\xfe", "text/plain")) as url, reading(url) as (reader, peer):
        assert isinstance(await reader.note(peer, None), Wrong)


async def test_an_endless_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = 0

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"Content-Type": NDJSON})
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65_536)
                sent += 65_536
        except ConnectionError:
            return response

    found = await entries_of(endless)
    assert isinstance(found, Wrong)
    assert "more than" in found.reason
    assert sent < 4 * module.MAX_ENTRIES_BYTES


async def test_an_answer_that_drips_is_cut_off_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENTRIES_SECONDS", 0.3)

    async def dripping(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": NDJSON})
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x")
                await asyncio.sleep(0.02)
        except (ConnectionError, asyncio.CancelledError):
            return response

    assert isinstance(await entries_of(dripping), Away)


@pytest.mark.parametrize(
    "raw", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", b"nonsense\r\n\r\n", b"\x00" * 99]
)
async def test_what_is_not_http_is_an_outage(raw: bytes) -> None:
    async with saying(raw) as url, reading(url) as (reader, peer):
        assert isinstance(await reader.note(peer, None), Away | Wrong)


async def test_an_address_that_no_operator_wrote_is_https_and_public_or_not_asked() -> None:
    async with answering(answer(b"a note", "text/plain")) as url, reading(url, configured=False) as (reader, peer):
        assert isinstance(await reader.note(peer, None), Wrong)
        assert isinstance(await reader.note(Peer("orgb", "https://127.0.0.1:1/log/v1"), None), Wrong)
        assert isinstance(await reader.note(Peer("orgb", "nonsense"), None), Wrong)


class _Addressed:
    """`ports.LogReader` by real HTTP, each organisation's log at the address where a test has it listen."""

    def __init__(self, http: PeerHttp, ports: dict[str, int]) -> None:
        self._http = http
        self._ports = ports

    def _peer(self, peer: Peer) -> Peer:
        return Peer(peer.org, f"http://127.0.0.1:{self._ports[peer.org]}/log/v1", configured=True)

    async def note(self, peer: Peer, of: str | None) -> Any:
        return await self._http.note(self._peer(peer), of)

    async def entries(self, peer: Peer, of: str | None, start: int, end: int) -> Any:
        return await self._http.entries(self._peer(peer), of, start, end)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_two_bots_read_one_anothers_logs_and_cosign_them(tmp_path: Path) -> None:
    clock = ManualClock()
    start = Instant.of_ms(clock.now_ms())
    orgs = {name: LogOrg(name, seed) for name, seed in (("orga", 1), ("orgb", 11))}
    ports = {name: _free_port() for name in orgs}
    async with (
        client() as outbound,
        open_store(f"sqlite:{tmp_path}/a.db") as store_a,
        open_store(f"sqlite:{tmp_path}/b.db") as store_b,
    ):
        reader = _Addressed(PeerHttp(outbound), ports)
        nodes = {
            "orga": await Node(store_a, clock, reader, orgs["orgb"], own=orgs["orga"]).start(),
            "orgb": await Node(store_b, clock, reader, orgs["orga"], own=orgs["orgb"]).start(),
        }
        for name, node in nodes.items():
            orgs[name].introduce(start)
            orgs[name].attest(f"{name}-1.0-py3-none-any.whl")
            node.guard.peers_were_asked()
            async with node.store.transaction() as tables:
                for envelope in orgs[name].leaves:
                    checked = node.intake.check(envelope.to_json())
                    await put_back(tables, checked, org=name, now_ms=1)
                    if isinstance(checked.statement.predicate, Manifest):
                        node.members.learn_own(checked.statement.predicate)
            assert await node.keeper.sign_if_due()
        async with (
            listen(
                PublicApi(nodes["orga"].keeper, ShownCopies(store_a)),
                socket_path=None,
                host="127.0.0.1",
                port=ports["orga"],
            ),
            listen(
                PublicApi(nodes["orgb"].keeper, ShownCopies(store_b)),
                socket_path=None,
                host="127.0.0.1",
                port=ports["orgb"],
            ),
        ):
            for _ in range(2):
                await nodes["orga"].pull.pull("orgb")
                await nodes["orgb"].pull.pull("orga")
            await nodes["orga"].pull.pull("orgb")
        for name, other in (("orga", "orgb"), ("orgb", "orga")):
            assert await nodes[name].attested(other) == [f"{other}-1.0-py3-none-any.whl"]
            witness = NoteKey(f"{other}/witness", orgs[other].organisation.log.public)
            assert cosigned_at(parse_note(nodes[name].keeper.note or ""), witness) == start
