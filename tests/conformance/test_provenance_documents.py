"""Documents over HTTP: fetched within bounds, and passed on by the bot's public listener and the frontend."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from index_frontend.handlers.passing import Passing
from index_frontend.handlers.provenance import ProvenanceHandler
from index_frontend.oracle import PublicPages
from matrix_pypi_bot.adapters.provenance.fetch import HttpDocuments
from matrix_pypi_bot.adapters.provenance.verify import SigstoreVerifier
from matrix_pypi_bot.api import PublicApi, listen
from matrix_pypi_bot.ports import Absent, Away, Document, Wrong
from matrix_pypi_bot.process.outbound import origin_of
from matrix_pypi_bot.services.shown_copies import ShownCopies
from matrix_pypi_bot.wire.messages import PROVENANCE_TYPE
from tests.conformance.test_outbound import answering, client, saying
from tests.support.bot_world import MXA, ONE, ManualClock, ScriptedDocuments, ScriptedIndex, Verification, World, living
from tests.support.dists import wheel
from tests.support.fake_sigstore import GITHUB, FakeSigstore
from tests.support.frontend import Frontend, running
from tests.support.http_client import Reply, ask
from tests.support.scripted_bot import ScriptedBot
from tests.unit.bot.test_log import keeper_of

SIGSTORE = FakeSigstore()
LOCAL = wheel("mxa", "1.0+local.1")


async def fetched(origin: str, **options: float) -> object:
    async with client() as outbound:
        documents = HttpDocuments(outbound, timeout_seconds=options.pop("timeout_seconds", 2), max_bytes=100)
        return await documents.fetch(f"{origin}/integrity", opened=[origin_of(origin)])


async def test_a_document_is_asked_for_by_its_type() -> None:
    asked: list[web.BaseRequest] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        asked.append(request)
        return web.Response(body=b"{}")

    async with answering(answer) as origin:
        assert await fetched(origin) == Document(b"{}")
    assert asked[0].headers["Accept"].startswith(PROVENANCE_TYPE)


@pytest.mark.parametrize(
    ("status", "kind"), [(404, Absent), (410, Absent), (429, Away), (503, Away), (403, Wrong), (204, Wrong)]
)
async def test_an_answer_without_a_document_is_told_apart(status: int, kind: type) -> None:
    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(status=status)

    async with answering(answer) as origin:
        assert isinstance(await fetched(origin), kind)


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 101, Wrong),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx", Wrong),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", Away),
        (b"nonsense", Away),
        (b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\nContent-Length: 0\r\n\r\n", Wrong),
    ],
)
async def test_what_is_too_much_or_makes_no_sense_is_no_document(raw: bytes, kind: type) -> None:
    async with saying(raw) as origin:
        assert isinstance(await fetched(origin), kind)


async def test_an_endless_answer_ends_in_time() -> None:
    async with saying(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", hang=True) as origin:
        assert isinstance(await fetched(origin, timeout_seconds=0.1), Away)


async def test_an_address_that_a_page_made_up_is_not_asked() -> None:
    async with client() as outbound:
        documents = HttpDocuments(outbound, timeout_seconds=1)
        for url in ("http://127.0.0.1:9/x", "https://127.0.0.1/x", "file:///etc/passwd"):
            assert isinstance(await documents.fetch(url, opened=()), Wrong)


class Served:
    """Provenance that a bot serves at `base`, and a frontend that passes it on."""

    def __init__(self, world: World, documents: ScriptedDocuments, base: str, frontend: Frontend) -> None:
        self.world, self.documents, self.base, self.frontend = world, documents, base, frontend

    async def both(self, path: str, /, **headers: str) -> Reply:
        """The answer, which is the same by both ways."""
        direct = await asyncio.to_thread(ask, self.base + path, "GET", **headers)
        through = await self.frontend.get(path, "GET", **headers)
        assert through.status == direct.status
        assert through.body == direct.body or through.status >= 400
        assert [through.headers.get(name) for name in ("etag", "content-type")] == [
            direct.headers.get(name) for name in ("etag", "content-type")
        ]
        return through


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """One file with provenance that was verified, and one that nobody asked for."""
    root = tmp_path / "root.json"
    root.write_bytes(SIGSTORE.trusted_root())
    documents, index = ScriptedDocuments(), ScriptedIndex()
    for dist in (ONE, LOCAL):
        url = f"https://index.example/{dist.filename}"
        documents.answers[url] = SIGSTORE.provenance(GITHUB, dist.filename, dist.sha256)
        index.publish(dist, provenance=url)
    verification = Verification(verifier=SigstoreVerifier(root), documents=documents)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    async with living(f"sqlite:{tmp_path}/bot.db", index, ManualClock(), verification=verification) as world:
        pages = PublicPages(f"http://127.0.0.1:{port}")
        api = PublicApi(keeper_of(world)[0], ShownCopies(world.store), world.provenance)
        async with (
            listen(api, socket_path=None, host="127.0.0.1", port=port),
            running(ScriptedBot(), provenance=ProvenanceHandler(Passing(pages))) as frontend,
        ):
            yield Served(world, documents, f"http://127.0.0.1:{port}", frontend)
        await pages.close()


async def test_a_verified_document_is_served_as_it_was_signed(served: Served) -> None:
    path = f"/provenance/mxa/{ONE.filename}"
    assert (await served.both(path)).status == 404
    await served.world.rule(ONE)
    reply = await served.both(path)
    assert (reply.status, reply.content_type) == (200, PROVENANCE_TYPE)
    assert reply.body == served.documents.answers[f"https://index.example/{ONE.filename}"]
    assert (await served.both(path, If_None_Match=reply.headers["etag"])).status == 304


async def test_the_page_s_own_address_finds_it_whatever_stands_in_the_name(served: Served) -> None:
    await served.world.rule(LOCAL)
    [listed] = [file for file in (await served.world.page(MXA))["files"] if file["filename"] == LOCAL.filename]
    path = listed["provenance"].removeprefix("../..")
    assert "%2B" in path
    assert (await served.both(path)).status == 200
    assert (await served.both(path.replace("%2B", "+"))).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/provenance/",
        "/provenance/mxa",
        "/provenance/mxa/",
        "/provenance/mxa/x.txt",
        "/provenance/MXA/mxa-1.0.tar.gz",
        "/provenance/mxa/..%2f..%2finternal.whl",
        "/provenance/mxa/%2e%2e/x.whl",
        "/provenance/mxa/mxa-9.0.tar.gz",
    ],
)
async def test_nothing_else_can_be_asked_for(served: Served, path: str) -> None:
    assert (await served.frontend.get(path)).status in (400, 404)


async def test_where_nobody_verifies_there_is_nothing_to_show(served: Served) -> None:
    api = PublicApi(keeper_of(served.world)[0], ShownCopies(served.world.store))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    async with listen(api, socket_path=None, host="127.0.0.1", port=port):
        reply = await asyncio.to_thread(ask, f"http://127.0.0.1:{port}/provenance/mxa/{ONE.filename}")
    assert reply.status == 404
