"""Another mirror's gateway as a storage backend: whatever it answers, it is told apart what that means, in bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from aiohttp import web

from index_frontend.storage.api import (
    BackendProblem,
    Capability,
    ContentId,
    NotFound,
    Stat,
    Unauthorised,
    Unavailable,
    WrongContent,
)
from index_frontend.storage.gateway import GatewayBackend
from index_frontend.storage.verified import Verified, opened
from matrix_pypi_bot.wire.cids import Block, Cid, CidBuilder, raw_cid
from matrix_pypi_bot.wire.digests import sha256_of
from tests.conformance.files.expected import SMALL, warm
from tests.support.dists import wheel
from tests.support.file_side import FileSide
from tests.support.peers import LIES, RAW, Peer
from tests.support.waiting import wait_until

BIG = wheel("mxk", payload_bytes=3 << 20).content


class Busy(Peer):
    """Has too much to do for the next `left` requests."""

    left = 3

    async def _429(self, request: web.BaseRequest, data: bytes) -> web.StreamResponse:
        if not self.left:
            return web.Response(body=data, content_type=RAW)
        self.left -= 1
        return web.Response(status=429, headers={"Retry-After": "999999999"})


class Hasty(Peer):
    """Announces a block, and hangs up before the first byte of it."""

    async def _cut(self, request: web.BaseRequest, data: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": RAW, "Content-Length": str(len(data))})
        await response.prepare(request)
        assert request.transport is not None
        request.transport.close()
        return response


class Chunked(Peer):
    """Sends what is right, without saying how long it is."""

    async def _cut(self, request: web.BaseRequest, data: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": RAW})
        await response.prepare(request)
        await response.write(data)
        return response


def leaves(data: bytes) -> list[Cid]:
    """The CIDs of its leaves, in order."""
    blocks: list[Block] = []
    builder = CidBuilder(on_block=blocks.append)
    builder.update(data)
    builder.finish()
    return [block.cid for block in blocks if block.data is None]


def content(data: bytes) -> ContentId:
    """What the bytes are called."""
    builder = CidBuilder()
    builder.update(data)
    return ContentId(sha256=sha256_of(data), size=len(data), cid=builder.finish())


ABSENT = content(b"nobody has this")


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer(BIG) as running:
        yield running


def gateway(url: str) -> Verified:
    """The backend, as it is always used."""
    return Verified(GatewayBackend("mirror", url, connect_timeout_seconds=1, read_timeout_seconds=1))


async def test_a_file_is_found_and_read_by_its_blocks(peer: Peer) -> None:
    big = content(BIG)
    async with opened(gateway(peer.url + "/")) as backend:
        assert backend.capabilities == {Capability.BLOCKS}
        assert await backend.stat(big) == Stat(content=big)
        async with backend.read(big) as chunks:
            assert b"".join([chunk async for chunk in chunks]) == BIG
        assert await backend.stat(ABSENT) is None
        with pytest.raises(NotFound):
            await backend.get_block(ABSENT.cid)


FAULTS = [
    *((lie, WrongContent) for lie in LIES if lie != "wrong now and then"),
    ("html", Unavailable),
    ("429", Unavailable),
    ("cut", Unavailable),
    ("silent", Unavailable),
    ("redirect", Unavailable),
    ("404", NotFound),
    ("403", Unauthorised),
]


@pytest.mark.parametrize(("fault", "problem"), FAULTS, ids=[fault for fault, _ in FAULTS])
async def test_every_bad_answer_has_its_own_meaning(peer: Peer, fault: str, problem: type[BackendProblem]) -> None:
    peer.answers(fault)
    async with opened(gateway(peer.url)) as backend:
        with pytest.raises(problem):
            await backend.get_block(content(BIG).cid)


async def test_who_hangs_up_after_announcing_a_block_is_away_at_once() -> None:
    with Hasty(BIG) as peer:
        peer.answers("cut")
        async with opened(gateway(peer.url)) as backend, asyncio.timeout(10):
            for cid in leaves(BIG):
                with pytest.raises(Unavailable):
                    await backend.get_block(cid)


async def test_a_block_comes_whole_whether_its_length_is_announced_or_not() -> None:
    with Peer(BIG) as peer, Chunked(BIG) as chunked:
        chunked.answers("cut")
        async with opened(gateway(peer.url)) as one, opened(gateway(chunked.url)) as other:
            for cid in (*leaves(BIG), content(BIG).cid):
                assert await one.get_block(cid) == await other.get_block(cid)


@pytest.mark.parametrize("fault", ["html", "429", "403", "redirect"])
async def test_who_cannot_say_whether_he_has_it_does_not_say_that_he_does_not(peer: Peer, fault: str) -> None:
    peer.answers(fault)
    async with opened(gateway(peer.url)) as backend:
        with pytest.raises(BackendProblem):
            await backend.stat(content(BIG))


async def test_nobody_there_is_away(peer: Peer) -> None:
    async with opened(gateway("http://127.0.0.1:1")) as backend:
        with pytest.raises(Unavailable):
            await backend.get_block(raw_cid(sha256_of(BIG)))
        assert (await backend.health()).state == "down"


async def test_a_gateway_is_well_when_it_answers_the_probe(side: FileSide, peer: Peer) -> None:
    async with opened(gateway(side.gateway)) as backend:
        assert (await backend.health()).state == "ok"
    async with opened(gateway(peer.url)) as backend:
        assert (await backend.health()).state == "degraded"


async def test_it_speaks_with_our_own_gateway(side: FileSide) -> None:
    warm(side, SMALL)
    small = content(SMALL.content)
    wait_until(lambda: side.run(side.blocks.askers_of(small.sha256)), "the bot was told")
    async with opened(gateway(side.gateway)) as backend:
        assert await backend.stat(small) == Stat(content=small)
        assert await backend.get_block(small.cid) == SMALL.content
        assert await backend.stat(ABSENT) is None


async def test_an_identity_cid_is_never_asked_for(peer: Peer) -> None:
    async with opened(gateway(peer.url)) as backend:
        with pytest.raises(ValueError, match="is not a CIDv1"):
            await backend.get_block(Cid("bafkqablumvzxi"))
    assert peer.asked == []


async def test_a_gateway_that_has_too_much_to_do_is_waited_for_a_little() -> None:
    with Busy(BIG) as peer:
        peer.answers("429")
        async with opened(gateway(peer.url)) as backend, asyncio.timeout(10):
            assert len(await backend.get_block(content(BIG).cid)) > 0
            peer.left = 1_000
            with pytest.raises(Unavailable, match="429"):
                await backend.get_block(content(BIG).cid)
            assert peer.left == 1_000 - 4
