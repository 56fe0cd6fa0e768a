"""`<file>.metadata`: out of the wheel where that is here, else from upstream, and only with the digest advertised."""

from __future__ import annotations

from matrix_pypi_bot.wire.digests import sha256_of
from tests.conformance.files.expected import SMALL, warm
from tests.support.dists import sdist
from tests.support.file_side import FileSide
from tests.support.upstream import Upstream
from tests.support.upstream_faults import body


def test_metadata_comes_from_upstream_when_the_wheel_is_not_here(upstream: Upstream, side: FileSide) -> None:
    reply = side.get(SMALL, suffix=".metadata")
    assert (reply.status, reply.body) == (200, SMALL.metadata)
    assert reply.headers["etag"] == f'"sha256-{SMALL.metadata_sha256}"'
    assert (upstream.hits("GET", SMALL), upstream.hits("GET", f"{SMALL.path}.metadata")) == (0, 1)


def test_metadata_comes_out_of_the_wheel_when_that_is_here(upstream: Upstream, side: FileSide) -> None:
    warm(side, SMALL)
    assert side.get(SMALL, suffix=".metadata").body == SMALL.metadata
    assert upstream.seen(f"{SMALL.path}.metadata") == []


def test_metadata_that_is_advertised_otherwise_than_the_wheel_has_it_comes_from_upstream(
    upstream: Upstream, side: FileSide
) -> None:
    other = b"Metadata-Version: 2.1\nName: mxa\nVersion: 1.0\nSummary: other\n"
    side.publish(SMALL, core_metadata_sha256=sha256_of(other))
    upstream.break_metadata(body(other, "text/plain"), SMALL)
    warm(side, SMALL)
    assert side.get(SMALL, suffix=".metadata").body == other


def test_wrong_metadata_is_never_served(upstream: Upstream, side: FileSide) -> None:
    upstream.break_metadata("corrupt", SMALL)
    assert side.get(SMALL, suffix=".metadata").status == 502


def test_an_sdist_has_no_metadata_of_its_own(side: FileSide) -> None:
    source = sdist("mxc")
    side.publish(source)
    assert side.get(source, suffix=".metadata").status == 404
