"""Files that only other organisations have: found by the gateways that the bot names with them, verified, from nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from matrix_pypi_bot.process.outbound import origin_of
from matrix_pypi_bot.wire.cids import raw_cid
from matrix_pypi_bot.wire.digests import Sha256
from tests.conformance.files.expected import SMALL, stored, warm, whole
from tests.conformance.files.test_peers import BIG, SOURCE, cid_of
from tests.support.dists import Dist, wheel
from tests.support.file_side import MAX_GATEWAYS, FileSide, serve_decision
from tests.support.peers import FAULTS, LIES, Peer
from tests.support.problems import problem
from tests.support.upstream import Upstream
from tests.support.waiting import wait_until

BOTH = pytest.mark.parametrize("dist", [SMALL, BIG], ids=["small", "big"])


@contextmanager
def newcomer(upstream: Upstream, folder: Path, *urls: str, opened: bool = True, **told: Any) -> Iterator[FileSide]:
    """A mirror that knows SMALL and BIG from others only, whose gateways are at `urls`; upstream is away and has neither."""
    told = {"action": "serve", "rule": "R19", "urls": (), "opened_origins": (), "has_peers": True, **told}
    with FileSide(upstream, folder) as side:
        side.oracle.attested_by = ()
        side.oracle.peers = urls
        side.oracle.peer_origins = tuple(origin_of(url) for url in urls) if opened else ()
        for dist in (SMALL, BIG):
            side.oracle.say(serve_decision(upstream, dist, **told))
            side.oracle.attested[dist.filename] = (cid_of(dist),)
        upstream.off()
        yield side


@pytest.fixture
def good() -> Iterator[Peer]:
    with Peer(SMALL.content, BIG.content) as peer:
        yield peer


@BOTH
@pytest.mark.parametrize("size", ["told", "untold"])
def test_a_file_that_only_others_know_comes_from_their_gateways(
    upstream: Upstream, tmp_path: Path, good: Peer, dist: Dist, size: str
) -> None:
    sizes = {} if size == "told" else {"size": None}
    with Peer(SMALL.content, BIG.content) as other:
        with newcomer(upstream, tmp_path, good.url, other.url, **sizes) as side:
            reply = side.get(dist)
            assert (reply.status, reply.body, reply.headers[SOURCE]) == (200, dist.content, "peer")
            assert reply.headers["x-matrix-pypi-rule"] == "R19"
            wait_until(lambda: side.oracle.stored, "the bot was told")
            assert side.get(dist).headers[SOURCE] == "cache"
        assert good.asked
        assert other.asked or dist is SMALL
    assert upstream.seen() == []


@BOTH
@pytest.mark.parametrize("fault", FAULTS)
def test_one_of_two_that_lies_or_lags_costs_nothing_but_its_place(
    upstream: Upstream, tmp_path: Path, good: Peer, dist: Dist, fault: str
) -> None:
    with Peer(SMALL.content, BIG.content) as evil:
        evil.answers(fault)
        with newcomer(upstream, tmp_path, evil.url, good.url) as side:
            assert side.get(dist).body == dist.content
            assert evil.asked
            blamed = {one.source for one in side.oracle.observed}
            assert blamed <= ({f"peer {origin_of(evil.url)}"} if fault in LIES else set())
            assert blamed or fault not in LIES or dist is SMALL  # who lies now and then may have been right once


@pytest.mark.parametrize("fault", ["wrong", "html", "404", "cut"])
def test_when_none_of_them_gives_it_the_reason_says_that_nobody_else_has_it(
    upstream: Upstream, tmp_path: Path, fault: str
) -> None:
    with Peer(BIG.content) as evil:
        evil.answers(fault)
        with newcomer(upstream, tmp_path, evil.url) as side:
            reply = side.get(BIG)
            assert reply.status == 504
            assert "is known from other organisations only" in problem(reply)
            assert side.store.held(Sha256(BIG.sha256)) is None


def test_without_any_gateway_the_reason_says_so(upstream: Upstream, tmp_path: Path) -> None:
    with newcomer(upstream, tmp_path) as side:
        reply = side.get(SMALL)
        assert reply.status == 504
        assert problem(reply).endswith("known from other organisations only, and none of them can be asked for it now")


@BOTH
def test_a_private_address_that_was_only_announced_is_not_asked(
    upstream: Upstream, tmp_path: Path, good: Peer, dist: Dist
) -> None:
    with newcomer(upstream, tmp_path, good.url, opened=False) as side:
        assert side.get(dist).status == 504
        assert side.get(dist, suffix=".metadata").status == 504
    assert good.asked == []


def test_an_announced_https_address_that_leads_to_this_machine_is_not_asked(
    upstream: Upstream, tmp_path: Path, good: Peer
) -> None:
    port = good.url.rpartition(":")[2]
    urls = (f"https://localhost:{port}", f"https://127.0.0.1:{port}", f"https://[::1]:{port}")
    with newcomer(upstream, tmp_path, *urls, opened=False) as side:
        reply = side.get(SMALL)
        assert (reply.status, "is not a public address" in problem(reply)) == (504, True)
    assert good.asked == []


def test_what_one_gateway_redirects_to_is_not_opened_with_it(upstream: Upstream, tmp_path: Path, good: Peer) -> None:
    with Peer(SMALL.content) as evil:
        evil.answers("redirect")
        with newcomer(upstream, tmp_path, evil.url) as side:
            assert side.get(SMALL).status == 504


def test_as_many_gateways_as_there_are_serve_and_a_few_are_kept(upstream: Upstream, tmp_path: Path) -> None:
    dists = [wheel(f"mxn{number}", payload_bytes=1_000) for number in range(3 * MAX_GATEWAYS)]
    with ExitStack() as stack, newcomer(upstream, tmp_path) as side:
        for dist in dists:
            peer = stack.enter_context(Peer(dist.content))
            told = {"action": "serve", "rule": "R19", "urls": (), "has_peers": True}
            side.oracle.say(serve_decision(upstream, dist, **told))
            side.oracle.peers, side.oracle.peer_origins = (peer.url,), (peer.url,)
            assert side.get(dist).body == dist.content


def test_of_a_file_that_upstream_has_the_gateways_are_asked_too(upstream: Upstream, tmp_path: Path, good: Peer) -> None:
    with FileSide(upstream, tmp_path) as side:
        for dist in (SMALL, BIG):
            side.publish(dist, has_peers=True)
            side.oracle.attested[dist.filename] = (cid_of(dist),)
        side.oracle.peers, side.oracle.peer_origins = (good.url,), (good.url,)
        assert [side.get(dist).headers[SOURCE] for dist in (SMALL, BIG)] == ["peer", "peer"]
        assert side.oracle.asked_whereabouts == [SMALL.filename, BIG.filename]


def test_where_nobody_is_pinned_the_bot_is_not_asked_who_has_a_file(upstream: Upstream, side: FileSide) -> None:
    for dist in (SMALL, BIG):
        side.publish(dist)
        warm(side, dist)
        assert side.get(dist, suffix=".metadata").body == dist.metadata
    assert side.oracle.asked_whereabouts == []


def test_a_part_of_a_short_file_needs_no_upstream(upstream: Upstream, tmp_path: Path, good: Peer) -> None:
    with newcomer(upstream, tmp_path, good.url) as side:
        reply = side.get(SMALL, Range="bytes=-100")
        assert (reply.status, reply.body, reply.headers[SOURCE]) == (206, SMALL.content[-100:], "peer")


def test_a_cid_that_was_attested_of_other_bytes_is_told_of_as_that(upstream: Upstream, tmp_path: Path) -> None:
    other = replace(BIG, content=BIG.content[::-1])
    short = replace(BIG, content=BIG.content[: 2 << 20])
    with Peer(other.content, short.content) as peer:
        with newcomer(upstream, tmp_path / "one", peer.url) as side:
            side.oracle.attested[BIG.filename] = (cid_of(other),)
            assert whole(side, BIG) is None
            told = {(one.kind, one.cid, one.sha256, one.size) for one in side.oracle.observed}
            assert told == {("cid-content", cid_of(other), other.sha256, BIG.size)}
        with newcomer(upstream, tmp_path / "two", peer.url) as side:
            side.oracle.attested[BIG.filename] = (cid_of(short),)
            assert side.get(BIG).status == 502
            told = {(one.kind, one.cid, one.sha256, one.size) for one in side.oracle.observed}
            assert told == {("cid-content", cid_of(short), None, 2 << 20)}


# METADATA as a block --------------------------------------------------------------------------------------------------


@pytest.fixture
def full(upstream: Upstream, tmp_path: Path) -> Iterator[FileSide]:
    """A mirror whose clients were given SMALL, BIG and their METADATA."""
    with FileSide(upstream, tmp_path / "full") as side:
        for dist in (SMALL, BIG):
            side.publish(dist)
            assert side.get(dist, suffix=".metadata").body == dist.metadata
            warm(side, dist)
            wait_until(lambda d=dist: side.run(side.blocks.metadata_of(Sha256(d.metadata_sha256))), "that is noted")
        yield side


def metadata_cid(dist: Dist) -> str:
    return raw_cid(Sha256(dist.metadata_sha256 or ""))


@BOTH
def test_metadata_that_a_mirror_served_is_a_block_of_its_own_there(
    upstream: Upstream, tmp_path: Path, full: FileSide, dist: Dist
) -> None:
    reply = full.ipfs(f"{metadata_cid(dist)}?format=raw")
    assert (reply.status, reply.body) == (200, dist.metadata)
    with newcomer(upstream, tmp_path / "empty", full.gateway) as side:
        side.oracle.attested = {}
        reply = side.get(dist, suffix=".metadata")
        assert (reply.status, reply.body, reply.headers[SOURCE]) == (200, dist.metadata, "peer")
        assert reply.headers["etag"] == f'"sha256-{dist.metadata_sha256}"'


def test_who_does_not_have_it_as_a_block_has_it_in_the_wheel(upstream: Upstream, tmp_path: Path, good: Peer) -> None:
    with newcomer(upstream, tmp_path, good.url) as side:
        for dist in (SMALL, BIG):
            assert side.get(dist, suffix=".metadata").body == dist.metadata
            assert metadata_cid(dist) in good.asked


def test_metadata_of_a_file_that_is_refused_is_no_block(upstream: Upstream, full: FileSide) -> None:
    full.oracle.say(serve_decision(upstream, SMALL, action="refuse", http=403, rule="R3", reason="matrix-pypi: R3 no"))
    reply = full.ipfs(f"{metadata_cid(SMALL)}?format=raw")
    assert (reply.status, problem(reply)) == (410, "matrix-pypi: R3 no")
    assert full.ipfs(f"{metadata_cid(BIG)}?format=raw").status == 200


def test_metadata_of_which_another_digest_is_told_now_is_no_block(upstream: Upstream, full: FileSide) -> None:
    full.oracle.say(serve_decision(upstream, SMALL, core_metadata_sha256="ab" * 32))
    assert full.ipfs(f"{metadata_cid(SMALL)}?format=raw").status == 410


def test_metadata_of_a_wheel_that_no_client_was_given_is_no_block(upstream: Upstream, side: FileSide) -> None:
    assert side.get(SMALL, suffix=".metadata").status == 200
    assert side.get(SMALL, suffix=".metadata").status == 200
    assert side.ipfs(f"{metadata_cid(SMALL)}?format=raw").status == 404
    assert side.oracle.stored == []
    warm(side, SMALL)
    wait_until(lambda: side.ipfs(f"{metadata_cid(SMALL)}?format=raw").status == 200, "the bot was told of the wheel")
    assert side.oracle.stored == [stored(SMALL, "upstream")]


def test_lying_metadata_is_never_served(upstream: Upstream, tmp_path: Path) -> None:
    with Peer(SMALL.metadata or b"") as evil:
        evil.answers("wrong")
        with newcomer(upstream, tmp_path, evil.url) as side:
            side.oracle.attested = {}
            assert side.get(SMALL, suffix=".metadata").status == 504
            assert {one.kind for one in side.oracle.observed} == {"bytes"}
