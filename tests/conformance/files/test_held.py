"""A file that is here: served whole or in part, to anybody who may have it, without asking upstream."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conformance.files.expected import BOTH, KEPT, LARGE, SMALL, etag, files_in, warm
from tests.support.dists import Dist, sdist
from tests.support.file_side import FileSide
from tests.support.problems import problem
from tests.support.upstream import Upstream


@pytest.mark.parametrize("dist", [SMALL, LARGE, sdist("mxc")], ids=["small", "large", "sdist"])
def test_a_hit_has_the_headers_that_make_clients_fast(side: FileSide, dist: Dist) -> None:
    side.publish(dist)
    reply = side.get(warm(side, dist))
    del reply.headers["date"]
    assert (reply.status, reply.body, reply.headers) == (
        200,
        dist.content,
        {
            "content-type": "application/octet-stream",
            "content-length": str(dist.size),
            "etag": etag(dist),
            "accept-ranges": "bytes",
            "cache-control": KEPT,
            "x-content-type-options": "nosniff",
            "x-matrix-pypi-rule": "R8",
            "x-matrix-pypi-source": "cache",
            "server": "matrix-pypi",
        },
    )


def test_a_hit_asks_nobody_and_works_while_the_upstream_is_gone(upstream: Upstream, side: FileSide) -> None:
    warm(side, SMALL)
    warm(side, LARGE)
    upstream.off()
    assert [side.get(dist).body for dist in (SMALL, LARGE)] == [SMALL.content, LARGE.content]
    assert [upstream.hits("GET", dist) for dist in (SMALL, LARGE)] == [1, 1]


@BOTH
def test_head_of_a_hit_is_its_get_without_a_body(side: FileSide, dist: Dist) -> None:
    get, head = side.get(warm(side, dist)), side.get(dist, "HEAD")
    get.headers.pop("date")
    head.headers.pop("date")
    assert (head.status, head.headers, head.body) == (200, get.headers, b"")


@pytest.mark.parametrize("tag", ["{}", "W/{}", '"other", {}', "*"])
@BOTH
def test_who_has_the_file_already_is_told_so(side: FileSide, dist: Dist, tag: str) -> None:
    reply = side.get(warm(side, dist), If_None_Match=tag.format(etag(dist)))
    assert (reply.status, reply.body, reply.headers["etag"], reply.headers["cache-control"]) == (
        304,
        b"",
        etag(dist),
        KEPT,
    )


@BOTH
@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [("bytes=0-99", 0, 100), ("bytes=-50", -50, None), ("bytes=700-", 700, None), ("bytes=5-999999999999", 5, None)],
)
def test_a_part_of_a_hit_is_exactly_that_part(
    side: FileSide, dist: Dist, header: str, start: int, stop: int | None
) -> None:
    reply = side.get(warm(side, dist), Range=header)
    part = dist.content[start:stop]
    first = start % dist.size
    told = f"bytes {first}-{first + len(part) - 1}/{dist.size}"
    assert (reply.status, reply.body, reply.headers["content-range"]) == (206, part, told)


@BOTH
@pytest.mark.parametrize("header", ["bytes=99999999-", "bytes=-0"])
def test_a_part_that_is_not_there_is_refused_with_the_length(side: FileSide, dist: Dist, header: str) -> None:
    reply = side.get(warm(side, dist), Range=header)
    assert (reply.status, reply.headers["content-range"]) == (416, f"bytes */{dist.size}")
    assert problem(reply)


@BOTH
@pytest.mark.parametrize(
    "header", ["lines=1-2", "bytes=abc", "bytes=9-3", "bytes=0-1,5-6", "bytes=" + ",".join(["0-9"] * 800)]
)
def test_what_is_no_single_range_gets_the_whole(side: FileSide, dist: Dist, header: str) -> None:
    reply = side.get(warm(side, dist), Range=header)
    assert (reply.status, reply.body, "content-range" in reply.headers) == (200, dist.content, False)


@BOTH
@pytest.mark.parametrize(
    ("if_range", "status"),
    [("{}", 206), ('"sha256-other"', 200), ("W/{}", 200), ("Wed, 21 Oct 2026 07:28:00 GMT", 200)],
)
def test_a_resume_counts_only_for_the_same_file(side: FileSide, dist: Dist, if_range: str, status: int) -> None:
    reply = side.get(warm(side, dist), Range="bytes=500-", If_Range=if_range.format(etag(dist)))
    assert (reply.status, reply.body) == (status, dist.content[500:] if status == 206 else dist.content)


def test_a_file_damaged_on_the_disk_is_fetched_anew(upstream: Upstream, side: FileSide) -> None:
    warm(side, LARGE)
    for path in files_in(side.folder):
        path.chmod(0o644)
        path.write_bytes(b"damaged" * 1000)
    assert side.get(LARGE).body == LARGE.content
    assert upstream.hits("GET", LARGE) == 2


def test_a_folder_in_a_files_place_costs_the_client_nothing(upstream: Upstream, side: FileSide) -> None:
    warm(side, LARGE)
    for path in files_in(side.folder):
        path.unlink()
        path.mkdir()
    reply = side.get(LARGE)
    assert (reply.status, reply.body) == (200, LARGE.content)


def test_a_small_file_that_rotted_unseen_is_fetched_anew(upstream: Upstream, tmp_path: Path) -> None:
    with FileSide(upstream, tmp_path) as side:
        side.publish(SMALL)
        warm(side, SMALL)
    with FileSide(upstream, tmp_path) as side:
        side.publish(SMALL)
        (path,) = files_in(tmp_path)
        before = path.stat()
        path.chmod(0o644)
        path.write_bytes(b"!" + SMALL.content[1:])
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert side.get(SMALL).body == SMALL.content
