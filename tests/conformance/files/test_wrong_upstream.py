"""An upstream that sends something else: no client ever gets a complete wrong file, and the next try is right."""

from __future__ import annotations

import pytest

from matrix_pypi_bot.wire.digests import sha256_of
from matrix_pypi_bot.wire.messages import Observed
from tests.conformance.files.expected import (
    BOTH,
    LARGE,
    SIZE_KNOWN_OR_NOT,
    SMALL,
    TAIL_BYTES,
    cut_off,
    etag,
    files_in,
    whole,
)
from tests.support.dists import Dist
from tests.support.file_side import FileSide
from tests.support.http_client import at_once
from tests.support.problems import problem
from tests.support.upstream import Upstream
from tests.support.waiting import wait_until


@SIZE_KNOWN_OR_NOT
def test_a_corrupt_large_file_never_arrives_whole_and_the_next_try_is_right(
    upstream: Upstream, side: FileSide, known: bool
) -> None:
    side.publish(LARGE, size=LARGE.size if known else None)
    upstream.corrupt(LARGE, times=1)
    assert len(cut_off(side, LARGE)) <= LARGE.size - TAIL_BYTES
    assert files_in(side.folder) == []
    assert side.get(LARGE).body == LARGE.content
    assert upstream.hits("GET", LARGE) == 2


def test_a_corrupt_small_file_is_a_plain_error(upstream: Upstream, side: FileSide) -> None:
    upstream.corrupt(SMALL, times=1)
    reply = side.get(SMALL)
    assert reply.status == 502
    assert problem(reply) == f"matrix-pypi: {SMALL.filename}: upstream sent other bytes than the index names"
    assert reply.headers["cache-control"] == "no-store"
    assert side.get(SMALL).body == SMALL.content


def test_wrong_bytes_are_told_to_the_bot(upstream: Upstream, side: FileSide) -> None:
    upstream.corrupt(SMALL, times=1)
    side.get(SMALL)
    wrong = bytes([SMALL.content[0] ^ 0xFF]) + SMALL.content[1:]
    wait_until(lambda: side.oracle.observed, "the bot is told")
    assert side.oracle.observed == [
        Observed(
            project="mxa",
            file=SMALL.filename,
            expected_sha256=SMALL.sha256,
            sha256=sha256_of(wrong),
            size=SMALL.size,
            source="upstream",
            reason=f"expected sha256 {SMALL.sha256}, got {sha256_of(wrong)}",
        )
    ]


def test_what_was_wrong_cannot_be_resumed_but_asked_for_again(upstream: Upstream, side: FileSide) -> None:
    upstream.corrupt(LARGE, times=1)
    begun = len(cut_off(side, LARGE))
    resumed = side.get(LARGE, Range=f"bytes={max(1, begun)}-", If_Range=etag(LARGE))
    assert (resumed.status, resumed.headers["cache-control"]) == (403, "no-store")
    assert "start again" in problem(resumed)
    assert side.get(LARGE).body == LARGE.content


def test_nobody_who_waits_gets_a_corrupt_file_whole(upstream: Upstream, side: FileSide) -> None:
    upstream.corrupt(LARGE)
    answers = at_once(10, lambda: whole(side, LARGE))
    assert [answer for answer in answers if answer is not None and answer.status != 502] == []


@pytest.mark.parametrize("fault", ["too long", "endless"])
@BOTH
def test_a_body_that_does_not_end_where_it_must_is_cut(
    upstream: Upstream, side: FileSide, dist: Dist, fault: str
) -> None:
    upstream.break_files(fault, dist, times=1)
    reply = whole(side, dist)
    assert reply is None or reply.status == 502
    upstream.mend()
    assert side.get(dist).body == dist.content


def test_an_endless_body_of_unknown_length_is_cut_at_the_bound(upstream: Upstream, side: FileSide) -> None:
    side.publish(SMALL, size=None)
    upstream.break_files("endless", SMALL, times=1)
    assert side.get(SMALL).status == 502
    assert upstream.hits("GET", SMALL) == 1


@BOTH
def test_a_truncated_transfer_is_taken_up_again_and_the_client_notices_nothing(
    upstream: Upstream, side: FileSide, dist: Dist
) -> None:
    upstream.break_files("truncated", dist, times=1)
    assert side.get(dist).body == dist.content
    first, second = upstream.seen(dist)
    assert "range" not in first.headers
    assert (second.status, second.headers["range"]) == (206, f"bytes={dist.size // 2}-")
    assert second.headers["if-range"].startswith('"')


def test_a_transfer_that_stays_truncated_is_cut_and_nothing_is_kept(upstream: Upstream, side: FileSide) -> None:
    upstream.break_files("truncated", LARGE)
    assert LARGE.content.startswith(cut_off(side, LARGE))
    assert upstream.hits("GET", LARGE) == 2
    assert files_in(side.folder) == []
    upstream.mend()
    assert side.get(LARGE).body == LARGE.content
