"""Two mirrors, one of which has what the other was told to serve: files come block by block, whoever lies is found out at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from index_frontend.fill import race
from matrix_pypi_bot.wire.cids import Block, CidBuilder
from matrix_pypi_bot.wire.digests import Sha256
from tests.conformance.files.expected import SMALL, warm, whole
from tests.support.dists import Dist, wheel
from tests.support.file_side import FileSide
from tests.support.http_client import at_once
from tests.support.peers import FAULTS, LIES, Peer
from tests.support.problems import problem
from tests.support.upstream import Upstream
from tests.support.waiting import wait_until

MIB = 1 << 20
BIG = wheel("mxp", payload_bytes=9 * MIB)
SOURCE = "x-matrix-pypi-source"


def blocks_of(dist: Dist) -> list[Block]:
    """All of them, the root last."""
    blocks: list[Block] = []
    builder = CidBuilder(on_block=blocks.append)
    builder.update(dist.content)
    builder.finish()
    return blocks


def cid_of(dist: Dist) -> str:
    """The file's CID."""
    return blocks_of(dist)[-1].cid


def leaves_of(dist: Dist) -> list[str]:
    """The CIDs of its leaves, in order."""
    return [block.cid for block in blocks_of(dist) if block.data is None]


@contextmanager
def mirror(upstream: Upstream, folder: Path, *dists: Dist, **peers: str) -> Iterator[FileSide]:
    """A mirror whose bot says that `dists` are to be served, and by which CID they are attested."""
    with FileSide(upstream, folder, peers=peers) as side:
        for dist in dists:
            side.publish(dist)
            side.oracle.attested[dist.filename] = (cid_of(dist),)
        yield side


@pytest.fixture
def full(upstream: Upstream, tmp_path: Path) -> Iterator[FileSide]:
    """A mirror that holds SMALL and BIG and attested them."""
    with mirror(upstream, tmp_path / "full", SMALL, BIG) as side:
        for dist in (SMALL, BIG):
            warm(side, dist)
            sha256 = Sha256(dist.sha256)
            wait_until(lambda: side.run(side.blocks.askers_of(sha256)), "the bot was told")  # noqa: B023 - called at once
        upstream.forget()
        yield side


@pytest.mark.parametrize("dist", [SMALL, BIG], ids=["small", "big"])
def test_what_another_mirror_has_is_had_while_upstream_is_away(
    upstream: Upstream, full: FileSide, tmp_path: Path, dist: Dist
) -> None:
    with mirror(upstream, tmp_path / "empty", dist, full=full.gateway) as side:
        upstream.off()
        first = side.get(dist)
        assert (first.status, first.body, first.headers[SOURCE]) == (200, dist.content, "peer")
        wait_until(lambda: side.store.held(Sha256(dist.sha256)), "it is stored")
        assert side.get(dist).headers[SOURCE] == "cache"
        wait_until(lambda: side.oracle.stored, "the bot was told")
        (told,) = side.oracle.stored
        assert (told.source, told.cid, told.size) == ("peer", cid_of(dist), dist.size)


def test_a_short_file_needs_no_attestation_of_its_cid(upstream: Upstream, full: FileSide, tmp_path: Path) -> None:
    with FileSide(upstream, tmp_path / "empty", peers={"full": full.gateway}) as side:
        side.publish(SMALL)
        upstream.off()
        assert side.get(SMALL).headers[SOURCE] == "peer"


def test_a_file_whose_size_nobody_told_comes_all_the_same(upstream: Upstream, full: FileSide, tmp_path: Path) -> None:
    with FileSide(upstream, tmp_path / "empty", peers={"full": full.gateway}) as side:
        side.publish(SMALL, size=None)
        side.publish(BIG, size=None)
        side.oracle.attested[BIG.filename] = (cid_of(BIG),)
        upstream.off()
        assert [side.get(dist).body for dist in (SMALL, BIG)] == [SMALL.content, BIG.content]


@pytest.mark.parametrize("dist", [SMALL, BIG], ids=["small", "big"])
def test_metadata_is_taken_out_of_the_wheel_that_another_mirror_has(
    upstream: Upstream, full: FileSide, tmp_path: Path, dist: Dist
) -> None:
    with mirror(upstream, tmp_path / "empty", dist, full=full.gateway) as side:
        upstream.off()
        reply = side.get(dist, suffix=".metadata")
        assert (reply.status, reply.body, reply.headers[SOURCE]) == (200, dist.metadata, "peer")
        assert side.store.held(Sha256(dist.sha256)) is None


def test_peers_are_asked_before_upstream(upstream: Upstream, full: FileSide, tmp_path: Path) -> None:
    with mirror(upstream, tmp_path / "empty", SMALL, BIG, full=full.gateway) as side:
        assert [side.get(dist).headers[SOURCE] for dist in (SMALL, BIG)] == ["peer", "peer"]
    assert [upstream.hits("GET", dist) for dist in (SMALL, BIG)] == [0, 0]


def test_what_no_peer_has_comes_from_upstream_once_for_everybody(upstream: Upstream, tmp_path: Path) -> None:
    with Peer() as empty, mirror(upstream, tmp_path / "empty", SMALL, BIG, empty=empty.url) as side:
        for dist in (SMALL, BIG):
            replies = at_once(50, lambda: side.get(dist))  # noqa: B023 - called at once
            assert {reply.body for reply in replies} == {dist.content}
            assert upstream.hits("GET", dist) == 1
        assert side.get(BIG).headers[SOURCE] == "cache"


@pytest.mark.parametrize("header", ["bytes=0-99", "bytes=-70000", f"bytes={3 * MIB - 5}-{5 * MIB}"])
def test_a_part_is_answered_before_the_whole_is_here(
    upstream: Upstream, full: FileSide, tmp_path: Path, header: str
) -> None:
    with mirror(upstream, tmp_path / "empty", BIG, full=full.gateway) as side:
        upstream.off()
        expected = full.get(BIG, Range=header)
        reply = side.get(BIG, Range=header)
        assert (reply.status, reply.body) == (206, expected.body)
        assert reply.headers["content-range"] == expected.headers["content-range"]
        assert reply.headers[SOURCE] in ("peer", "cache")


def test_a_part_does_not_wait_for_a_whole_that_does_not_come(upstream: Upstream, tmp_path: Path) -> None:
    leaves = leaves_of(BIG)
    with Peer(BIG.content) as peer, mirror(upstream, tmp_path / "empty", BIG, peer=peer.url) as side:
        upstream.off()
        peer.hold(*leaves[5:])
        reply = side.get(BIG, Range=f"bytes={3 * MIB}-{4 * MIB}")
        assert (reply.status, reply.body, reply.headers[SOURCE]) == (206, BIG.content[3 * MIB : 4 * MIB + 1], "peer")
        assert side.store.held(Sha256(BIG.sha256)) is None
        peer.release()
        assert side.get(BIG).body == BIG.content


@pytest.mark.parametrize("header", ["bytes=99999999-99999999", "bytes=-0"])
def test_a_part_that_is_not_there_is_refused(upstream: Upstream, full: FileSide, tmp_path: Path, header: str) -> None:
    with mirror(upstream, tmp_path / "empty", BIG, full=full.gateway) as side:
        reply = side.get(BIG, Range=header)
        assert (reply.status, reply.headers["content-range"]) == (416, f"bytes */{BIG.size}")


# Bad peers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True], ids=["from the root on", "after the root"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_peer_beside_a_good_one_costs_nothing_but_its_place(
    upstream: Upstream, full: FileSide, tmp_path: Path, fault: str, *, late: bool
) -> None:
    with Peer(SMALL.content, BIG.content) as evil:
        evil.answers(fault, spares_roots=late)
        with mirror(upstream, tmp_path / "empty", SMALL, BIG, evil=evil.url, full=full.gateway) as side:
            upstream.off()
            assert [side.get(dist).body for dist in (SMALL, BIG)] == [SMALL.content, BIG.content]
            assert evil.asked
            blamed = {one.source for one in side.oracle.observed}
            assert blamed == ({"peer evil"} if fault in LIES else set())


@pytest.mark.parametrize("fault", LIES)
def test_who_sent_a_wrong_block_is_not_asked_again_for_a_while(
    upstream: Upstream, full: FileSide, tmp_path: Path, fault: str
) -> None:
    with Peer(SMALL.content, BIG.content) as evil:
        evil.answers(fault)
        with mirror(upstream, tmp_path / "empty", SMALL, BIG, evil=evil.url, full=full.gateway) as side:
            upstream.off()
            assert side.get(BIG).body == BIG.content
            wait_until(lambda: side.oracle.observed, "it was told of")
            asked = len(evil.asked)
            assert side.get(SMALL).headers[SOURCE] == "peer"
            assert len(evil.asked) == asked


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "silent"])
@pytest.mark.parametrize("late", [False, True], ids=["from the root on", "after the root"])
def test_with_bad_peers_alone_upstream_has_the_file(
    upstream: Upstream, tmp_path: Path, fault: str, *, late: bool
) -> None:
    with Peer(BIG.content) as evil:
        evil.answers(fault, spares_roots=late)
        with mirror(upstream, tmp_path / "empty", BIG, evil=evil.url) as side:
            reply = side.get(BIG)
            assert (reply.status, reply.body) == (200, BIG.content)
            assert upstream.hits("GET", BIG) == 1


@pytest.mark.parametrize("fault", ["wrong", "html", "404", "cut"])
def test_with_bad_peers_alone_and_upstream_away_nothing_wrong_leaves(
    upstream: Upstream, tmp_path: Path, fault: str
) -> None:
    with Peer(BIG.content) as evil:
        evil.answers(fault)
        with mirror(upstream, tmp_path / "empty", BIG, evil=evil.url) as side:
            upstream.off()
            reply = side.get(BIG)
            assert reply.status == 504
            assert problem(reply)
            assert side.store.held(Sha256(BIG.sha256)) is None


def test_a_peer_that_gives_the_root_and_then_nothing_costs_seconds_and_no_file(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(race, "SILENT_SECONDS", 0.2)
    with Peer(BIG.content) as peer, mirror(upstream, tmp_path / "empty", BIG, peer=peer.url) as side:
        peer.answers("silent", spares_roots=True)
        replies = at_once(5, lambda: side.get(BIG))
        assert {reply.body for reply in replies} == {BIG.content}
        assert upstream.hits("GET", BIG) == 1


def test_a_size_that_only_others_attested_does_not_keep_upstream_from_having_the_file(
    upstream: Upstream, tmp_path: Path
) -> None:
    with Peer() as empty, mirror(upstream, tmp_path / "empty", peer=empty.url) as side:
        side.publish(BIG, size=None)
        side.oracle.attested[BIG.filename], side.oracle.attested_by = (cid_of(BIG),), ()
        side.oracle.attested_size = len(BIG.content) - 1
        reply = side.get(BIG)
        assert (reply.status, reply.body, side.oracle.observed) == (200, BIG.content, [])


def test_upstream_has_the_right_bytes_also_when_it_went_on_after_wrong_ones(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(race, "SILENT_SECONDS", 0.2)
    other = replace(BIG, content=BIG.content[::-1])
    with Peer(other.content) as peer, FileSide(upstream, tmp_path / "empty", peers={"peer": peer.url}) as side:
        side.publish(BIG)
        side.oracle.attested[BIG.filename], side.oracle.attested_by = (cid_of(other),), ()
        peer.hold(*leaves_of(other)[2:])
        assert whole(side, BIG) is None
        assert side.get(BIG).body == BIG.content
        assert {one.source for one in side.oracle.observed} == {"peer and upstream"}


def test_a_cid_of_other_bytes_is_found_out_at_the_end_and_upstream_has_the_right_ones(
    upstream: Upstream, tmp_path: Path
) -> None:
    other = replace(BIG, content=BIG.content[::-1])
    with Peer(other.content) as peer, FileSide(upstream, tmp_path / "empty", peers={"peer": peer.url}) as side:
        side.publish(BIG)
        side.oracle.attested[BIG.filename] = (cid_of(other),)
        assert whole(side, BIG) is None
        reply = side.get(BIG)
        assert (reply.body, upstream.hits("GET", BIG)) == (BIG.content, 1)
        assert {(one.source, one.expected_sha256) for one in side.oracle.observed} == {("peer", BIG.sha256)}


@pytest.mark.parametrize("header", [f"bytes=0-{len(BIG.content) - 1}", "bytes=-70000"])
def test_no_part_is_taken_from_blocks_by_a_cid_that_only_others_attested(
    upstream: Upstream, tmp_path: Path, header: str
) -> None:
    other = replace(BIG, content=BIG.content[::-1])
    with Peer(other.content) as peer, FileSide(upstream, tmp_path / "empty", peers={"peer": peer.url}) as side:
        side.publish(BIG)
        side.oracle.attested[BIG.filename] = (cid_of(other),)
        side.oracle.attested_by = ()
        reply = side.get(BIG, Range=header)
        right = BIG.content if header.endswith(str(len(BIG.content) - 1)) else BIG.content[-70_000:]
        assert (reply.status, reply.body) == (206, right)
