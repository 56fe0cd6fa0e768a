"""A file that has to be fetched: once, whoever asks, and let out as far as it may be while it comes in."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from matrix_pypi_bot.wire.digests import Sha256, sha256_of
from tests.conformance.files.expected import BOTH, KEPT, LARGE, SIZE_KNOWN_OR_NOT, SMALL, TAIL_BYTES, etag, warm
from tests.support.dists import Dist, wheel
from tests.support.file_side import FileSide
from tests.support.http_client import ask, at_once, transfer
from tests.support.upstream import Upstream
from tests.support.waiting import wait_until


@SIZE_KNOWN_OR_NOT
@BOTH
def test_a_miss_asks_upstream_once_and_has_a_length(
    upstream: Upstream, side: FileSide, dist: Dist, known: bool
) -> None:
    side.publish(dist, size=dist.size if known else None)
    reply = side.get(dist)
    assert (reply.status, reply.body, reply.headers["content-length"]) == (200, dist.content, str(dist.size))
    assert reply.headers["x-matrix-pypi-source"] == "upstream"
    assert reply.headers["cache-control"] == (KEPT if dist is SMALL else "no-store")
    assert side.get(warm(side, dist)).body == dist.content
    assert upstream.hits("GET", dist) == 1
    assert upstream.seen(dist)[0].headers["accept-encoding"] == "identity"


def test_a_miss_is_let_out_while_it_comes_in_but_for_its_tail(upstream: Upstream, side: FileSide) -> None:
    hold = upstream.hold(LARGE, after_bytes=900_000)
    with transfer(side.url(LARGE)) as answer:
        assert answer.read(900_000) == LARGE.content[:900_000]
        hold.release()
        assert answer.read() == LARGE.content[900_000:]


def test_the_tail_waits_for_the_verdict(upstream: Upstream, side: FileSide) -> None:
    hold = upstream.hold(LARGE, after_bytes=LARGE.size - 1)
    with transfer(side.url(LARGE), "GET", 0.5) as answer:
        released = LARGE.size - TAIL_BYTES
        assert answer.read(released) == LARGE.content[:released]
        with pytest.raises(TimeoutError):
            answer.read(1)
    hold.release()
    assert side.get(LARGE).body == LARGE.content


@SIZE_KNOWN_OR_NOT
def test_head_of_a_miss_tells_the_length(upstream: Upstream, side: FileSide, known: bool) -> None:
    side.publish(LARGE, size=LARGE.size if known else None)
    reply = side.get(LARGE, "HEAD")
    assert (reply.status, reply.body) == (200, b"")
    assert (reply.headers["content-length"], reply.headers["etag"]) == (str(LARGE.size), etag(LARGE))
    assert reply.headers["accept-ranges"] == "bytes"
    assert upstream.hits("GET", LARGE) == (0 if known else 1)


def test_who_has_the_file_already_costs_no_fetch(upstream: Upstream, side: FileSide) -> None:
    assert side.get(LARGE, If_None_Match=etag(LARGE)).status == 304
    assert upstream.seen(LARGE) == []


@pytest.mark.parametrize("header", ["bytes=0-99", "bytes=-100"])
def test_a_closed_range_of_a_miss_waits_until_the_whole_is_verified(
    upstream: Upstream, side: FileSide, header: str
) -> None:
    hold = upstream.hold(LARGE, after_bytes=LARGE.size - 1)
    with pytest.raises(TimeoutError):
        ask(side.url(LARGE), "GET", 0.5, Range=header)
    hold.release()
    reply = side.get(LARGE, Range=header)
    assert (reply.status, reply.body) == (206, LARGE.content[:100] if header == "bytes=0-99" else LARGE.content[-100:])
    assert upstream.hits("GET", LARGE) == 1


def test_an_open_range_of_a_miss_streams_with_the_tail_held_back(upstream: Upstream, side: FileSide) -> None:
    hold = upstream.hold(LARGE, after_bytes=600_000)
    with transfer(side.url(LARGE), Range="bytes=500000-") as answer:
        assert (answer.status, answer.read(100_000)) == (206, LARGE.content[500_000:600_000])
        hold.release()
        assert answer.read() == LARGE.content[600_000:]


def test_a_miss_without_any_length_is_spooled_first(upstream: Upstream, side: FileSide) -> None:
    side.publish(LARGE, size=None)
    upstream.break_files("no length", LARGE)
    reply = side.get(LARGE)
    assert (reply.status, reply.body, reply.headers["content-length"]) == (200, LARGE.content, str(LARGE.size))


def test_fifty_clients_of_one_cold_file_cost_one_fetch(upstream: Upstream, side: FileSide) -> None:
    hold = upstream.hold(LARGE, after_bytes=300_000)

    def release_soon() -> None:
        hold.wait_until_reached()
        hold.release()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(release_soon)
        bodies = at_once(50, lambda: side.get(LARGE).body)
    assert [sha256_of(body) for body in bodies] == [LARGE.sha256] * 50
    assert upstream.hits("GET", LARGE) == 1


def test_fifty_ranges_of_one_cold_file_cost_one_fetch(upstream: Upstream, side: FileSide) -> None:
    bodies = at_once(50, lambda: side.get(LARGE, Range="bytes=0-0").body)
    assert (bodies, upstream.hits("GET", LARGE)) == ([LARGE.content[:1]] * 50, 1)


def test_a_fetch_goes_on_when_its_client_hangs_up(upstream: Upstream, side: FileSide) -> None:
    hold = upstream.hold(LARGE, after_bytes=200_000)
    with transfer(side.url(LARGE)) as answer:
        assert answer.read(100_000) == LARGE.content[:100_000]
    hold.release()
    wait_until(lambda: side.store.held(Sha256(LARGE.sha256)), "the file is stored")
    assert (side.get(LARGE).body, upstream.hits("GET", LARGE)) == (LARGE.content, 1)


def test_who_hangs_up_does_not_hurt_who_waits(upstream: Upstream, side: FileSide) -> None:
    hold = upstream.hold(LARGE, after_bytes=200_000)
    with transfer(side.url(LARGE)) as first, transfer(side.url(LARGE)) as second:
        assert first.read(1000) == second.read(1000) == LARGE.content[:1000]
        first.close()
        hold.release()
        assert second.read() == LARGE.content[1000:]


def test_a_slow_reader_does_not_hold_up_the_others(upstream: Upstream, tmp_path: Path) -> None:
    huge = wheel("mxh", payload_bytes=20 << 20)
    with FileSide(upstream, tmp_path) as side:
        side.publish(huge)
        with transfer(side.url(huge)) as slow:
            assert slow.read(1) == huge.content[:1]
            assert side.get(huge).body == huge.content
            assert slow.read() == huge.content[1:]
    assert upstream.hits("GET", huge) == 1
