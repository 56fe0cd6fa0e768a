"""Files over a real socket: headers, ranges, paths and METADATA (RFC 9110, PEP 658)."""

from __future__ import annotations

import pytest

from tests.support.dists import Dist, sdist, wheel
from tests.support.problems import problem
from tests.support.stack import Stack
from tests.support.upstream import Upstream

pytestmark = pytest.mark.integration


@pytest.fixture
def held(stack: Stack, upstream: Upstream, name: str) -> Dist:
    """A wheel of some 100 kB that was fetched before and is held here."""
    upstream.publish(dist := wheel(name, payload_bytes=100_000))
    assert stack.file(dist).body == dist.content
    return dist


def etag(dist: Dist) -> str:
    return f'"sha256-{dist.sha256}"'


def test_a_held_file_comes_whole_with_headers_that_let_clients_keep_it(stack: Stack, held: Dist) -> None:
    reply = stack.file(held)
    wanted = ("content-length", "etag", "accept-ranges", "content-type", "cache-control", "x-content-type-options")
    assert (reply.status, reply.body) == (200, held.content)
    assert {name: reply.headers.get(name) for name in wanted} == {
        "content-length": str(held.size),
        "etag": etag(held),
        "accept-ranges": "bytes",
        "content-type": "application/octet-stream",
        "cache-control": "private, max-age=31536000, immutable",
        "x-content-type-options": "nosniff",
    }
    assert (reply.headers["x-matrix-pypi-rule"], reply.headers["x-matrix-pypi-source"]) == ("R8", "cache")
    assert not {"content-encoding", "content-disposition"} & set(reply.headers)


def test_an_sdist_is_not_said_to_be_packed(stack: Stack, upstream: Upstream, name: str) -> None:
    upstream.publish(source := sdist(name))
    for reply in (stack.file(source), stack.file(source)):
        assert (reply.headers["content-type"], reply.headers.get("content-encoding")) == (
            "application/octet-stream",
            None,
        )
        assert reply.body == source.content


def test_a_file_that_the_client_has_is_a_304(stack: Stack, held: Dist) -> None:
    reply = stack.file(held, If_None_Match=etag(held))
    assert (reply.status, reply.body, reply.headers["etag"]) == (304, b"", etag(held))


@pytest.mark.parametrize(
    ("spelled", "start", "end"),
    [("0-99", 0, 100), ("-50", -50, None), ("700-", 700, None), ("0-999999999999", 0, None), ("0-0", 0, 1)],
)
def test_a_single_range_is_answered_with_that_slice(
    stack: Stack, held: Dist, spelled: str, start: int, end: int | None
) -> None:
    reply = stack.file(held, Range=f"bytes={spelled}")
    first, last, _ = slice(start, end).indices(held.size)
    assert (reply.status, reply.body) == (206, held.content[first:last])
    assert reply.headers["content-range"] == f"bytes {first}-{last - 1}/{held.size}"


@pytest.mark.parametrize("spelled", ["99999999-", "-0"])
def test_a_range_outside_the_file_is_a_416(stack: Stack, held: Dist, spelled: str) -> None:
    reply = stack.file(held, Range=f"bytes={spelled}")
    assert (reply.status, reply.headers["content-range"]) == (416, f"bytes */{held.size}")
    assert problem(reply)


@pytest.mark.parametrize(
    "spelled", ["lines=1-2", "bytes=abc", "bytes=9-3", "bytes=0-9, 20-29", f"bytes={', '.join(['0-9'] * 800)}"]
)
def test_a_range_that_is_none_or_several_gets_the_whole_file(stack: Stack, held: Dist, spelled: str) -> None:
    reply = stack.file(held, Range=spelled)
    assert (reply.status, reply.body) == (200, held.content)


@pytest.mark.parametrize(
    "condition", ['"sha256-other"', "Wed, 21 Oct 2015 07:28:00 GMT", 'W/"weak"', "not a validator"]
)
def test_a_range_of_another_file_gets_the_whole_of_this_one(stack: Stack, held: Dist, condition: str) -> None:
    assert stack.file(held, Range="bytes=10-", If_Range=etag(held)).body == held.content[10:]
    reply = stack.file(held, Range="bytes=10-", If_Range=condition)
    assert (reply.status, reply.body) == (200, held.content)


@pytest.mark.parametrize("listed_before", [True, False], ids=["after its page", "out of the blue"])
def test_a_head_request_for_a_file_not_held_costs_no_byte_of_it(
    stack: Stack, upstream: Upstream, name: str, listed_before: bool
) -> None:
    upstream.publish(dist := wheel(name))
    if listed_before:
        stack.page(name)
    reply = stack.file(dist, "HEAD")
    told = (reply.status, reply.headers["content-length"], reply.headers["etag"], reply.body)
    assert told == (200, str(dist.size), etag(dist), b"")
    assert (upstream.hits("GET", dist), upstream.hits("HEAD", dist)) == (0, 0)


def test_a_file_is_found_by_its_path_although_nobody_asked_for_its_page(
    stack: Stack, upstream: Upstream, name: str
) -> None:
    upstream.publish(dist := wheel(name))
    assert stack.file(dist).body == dist.content
    assert (upstream.hits("GET", name), upstream.hits("GET", dist)) == (1, 1)


def test_a_path_that_no_page_names_is_a_404(stack: Stack, upstream: Upstream, name: str) -> None:
    upstream.publish(dist := wheel(name), other := wheel(name, "2.0"))
    nowhere = f"/packages/00/11/{'22' * 30}/{dist.filename}"
    crossed = other.path.replace(other.filename, dist.filename)
    for path in (nowhere, crossed, f"{nowhere}.metadata"):
        reply = stack.get(path)
        assert reply.status == 404, path
        assert problem(reply)
    assert (upstream.hits("GET", dist), upstream.hits("GET", other)) == (0, 0)


def test_the_right_digest_under_another_name_is_a_404(stack: Stack, held: Dist, name: str) -> None:
    alias = held.path.replace(held.filename, f"{name}_evil-1.0-py3-none-any.whl")
    assert stack.get(alias).status == 404


@pytest.mark.parametrize(
    "path",
    [
        "/packages/aa/bb/short/mx-1.0-py3-none-any.whl",
        f"/packages/AA/BB/{'C' * 60}/mx-1.0-py3-none-any.whl",
        f"/packages/aa/bb/{'c' * 60}/..%2Fmx-1.0-py3-none-any.whl",
        f"/packages/aa/bb/{'c' * 60}/mx-1.0-py3-none-any.whl%00",
        f"/packages/aa/bb/{'c' * 60}/mx-1.0-py3-none-any.txt",
        f"/packages/aa/bb/{'c' * 60}/",
        "/packages/",
    ],
)
def test_a_path_of_another_shape_is_a_404_and_upstream_hears_nothing(
    stack: Stack, upstream: Upstream, path: str
) -> None:
    before = len(upstream.seen())
    reply = stack.get(path)
    assert reply.status in (400, 404)
    assert problem(reply)
    assert len(upstream.seen()) == before


@pytest.mark.parametrize("html_only", [False, True], ids=["json", "html"])
def test_metadata_is_what_was_advertised_and_comes_once(
    stack: Stack, upstream: Upstream, name: str, html_only: bool
) -> None:
    upstream.publish(dist := wheel(name))
    upstream.listing(name).html_only = html_only
    (entry,) = stack.page(name).json["files"]
    assert entry["core-metadata"] == {"sha256": dist.metadata_sha256}
    for _ in range(2):
        reply = stack.get(f"{dist.path}.metadata")
        assert (reply.status, reply.body) == (200, dist.metadata)
        assert reply.headers["etag"] == f'"sha256-{dist.metadata_sha256}"'
    assert upstream.hits("GET", f"{dist.path}.metadata") == 1


def test_metadata_with_wrong_bytes_is_never_served(stack: Stack, upstream: Upstream, name: str) -> None:
    upstream.publish(dist := wheel(name))
    upstream.break_metadata("corrupt", dist)
    wrong = stack.get(f"{dist.path}.metadata")
    assert (wrong.status, wrong.body != dist.metadata) == (502, True)
    upstream.mend()
    assert stack.get(f"{dist.path}.metadata").body == dist.metadata


def test_what_has_no_metadata_serves_none(stack: Stack, upstream: Upstream, name: str) -> None:
    upstream.publish(source := sdist(name))
    upstream.publish(bare := wheel(name, "2.0"), advertise_metadata=False)
    for dist in (source, bare):
        assert stack.get(f"{dist.path}.metadata").status == 404
