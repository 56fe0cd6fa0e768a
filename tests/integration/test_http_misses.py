"""A file that is not held yet: many clients, clients that leave, and upstreams that cut, corrupt and never end."""

from __future__ import annotations

from http.client import HTTPException, IncompleteRead

import pytest

from tests.support.dists import Dist, wheel
from tests.support.http_client import at_once, transfer
from tests.support.problems import problem
from tests.support.stack import Stack
from tests.support.upstream import Upstream
from tests.support.upstream_faults import redirect
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration
TAIL_BYTES = 65_536  # what is held back until the whole is verified


@pytest.fixture
def big(upstream: Upstream, name: str) -> Dist:
    """A wheel of some 600 kB that upstream lists: much larger than the tail that is held back."""
    upstream.publish(dist := wheel(name, payload_bytes=600_000))
    return dist


@pytest.fixture
def small(upstream: Upstream, name: str) -> Dist:
    """A wheel that is smaller than the tail that is held back."""
    upstream.publish(dist := wheel(name, payload_bytes=10_000))
    return dist


def fetched(stack: Stack, dist: Dist) -> bytes | None:
    """The file, None when it was refused; a cut transfer raises."""
    reply = stack.file(dist)
    return reply.body if reply.status == 200 else None


def cut_body(stack: Stack, dist: Dist) -> bytes:
    """What came of a transfer that was cut."""
    with transfer(stack.org.frontend + dist.path) as answer:
        with pytest.raises((IncompleteRead, HTTPException, ConnectionError)) as cut:
            answer.read()
        assert answer.status == 200
    return cut.value.partial if isinstance(cut.value, IncompleteRead) else b""


# Many clients, and clients that leave --------------------------------------------------------------------------------


def test_bytes_reach_the_client_while_upstream_still_sends(stack: Stack, upstream: Upstream, big: Dist) -> None:
    hold = upstream.hold(big, after_bytes=400_000)
    with transfer(stack.org.frontend + big.path) as answer:
        hold.wait_until_reached()
        early = answer.read(100_000)
        told = (answer.status, answer.headers["Content-Length"], answer.headers["Cache-Control"])
        assert told == (200, str(big.size), "no-store")
        hold.release()
        assert early + answer.read() == big.content
    wait_until(lambda: stack.file(big).headers["x-matrix-pypi-source"] == "cache", "the file is in the store")
    assert upstream.hits("GET", big) == 1


def test_fifty_clients_of_a_file_not_held_cost_one_fetch(stack: Stack, upstream: Upstream, big: Dist) -> None:
    hold = upstream.hold(big, after_bytes=1000)
    hold.release()
    bodies = at_once(50, lambda: fetched(stack, big))
    assert all(body == big.content for body in bodies)
    assert upstream.hits("GET", big) == 1


def test_fifty_clients_that_wait_for_a_slow_upstream_all_get_the_file(
    stack: Stack, upstream: Upstream, big: Dist
) -> None:
    hold = upstream.hold(big, after_bytes=200_000)
    with transfer(stack.org.frontend + big.path) as first:
        hold.wait_until_reached()

        def join() -> bytes:
            with transfer(stack.org.frontend + big.path) as later:
                start = later.read(1)
                hold.release()
                return start + later.read()

        assert all(body == big.content for body in at_once(49, join))
        assert first.read() == big.content
    assert upstream.hits("GET", big) == 1


def test_a_download_goes_on_when_its_only_client_leaves(stack: Stack, upstream: Upstream, big: Dist) -> None:
    hold = upstream.hold(big, after_bytes=200_000)
    with transfer(stack.org.frontend + big.path) as answer:
        assert answer.read(10_000) == big.content[:10_000]
    hold.release()
    assert wait_until(lambda: fetched(stack, big), "the file is held") == big.content
    assert upstream.hits("GET", big) == 1


def test_when_the_first_client_leaves_the_others_get_the_file(stack: Stack, upstream: Upstream, big: Dist) -> None:
    hold = upstream.hold(big, after_bytes=200_000)
    with transfer(stack.org.frontend + big.path) as first:
        assert first.read(10_000) == big.content[:10_000]

    def stay() -> bytes:
        with transfer(stack.org.frontend + big.path) as answer:
            start = answer.read(1)
            hold.release()
            return start + answer.read()

    assert at_once(5, stay) == [big.content] * 5
    assert upstream.hits("GET", big) == 1


def test_an_open_range_of_a_file_not_verified_yet_streams_and_a_closed_one_waits(
    stack: Stack, upstream: Upstream, big: Dist
) -> None:
    hold = upstream.hold(big, after_bytes=400_000)
    url = stack.org.frontend + big.path
    with transfer(url, Range="bytes=1000-") as streaming:
        assert streaming.read(1000) == big.content[1000:2000]
        with pytest.raises(TimeoutError), transfer(url, "GET", 1, Range="bytes=0-99"):
            pass
        hold.release()
        assert streaming.read() == big.content[2000:]
    assert stack.file(big, Range="bytes=0-99").body == big.content[:100]
    assert upstream.hits("GET", big) == 1


def test_a_project_that_does_not_exist_is_asked_for_once(stack: Stack, upstream: Upstream, name: str) -> None:
    refusals = at_once(8, lambda: stack.page(name))
    assert {reply.status for reply in refusals} == {404}
    assert {bool(problem(reply)) for reply in refusals} == {True}
    assert stack.page(name).status == 404
    assert upstream.hits("GET", name) == 1
    stack.page_once(name, lambda page: upstream.hits("GET", name) == 2, "was looked for again")
    assert stack.page(name).status == 404


# Hostile upstreams ---------------------------------------------------------------------------------------------------


def test_a_body_cut_once_is_resumed_and_the_client_notices_nothing(stack: Stack, upstream: Upstream, big: Dist) -> None:
    upstream.break_files("truncated", big, times=1)
    assert fetched(stack, big) == big.content
    first, second = upstream.seen(big)
    assert ("range" in first.headers, second.headers["range"]) == (False, f"bytes={big.size // 2}-")
    assert "if-range" in second.headers


def test_a_body_that_is_always_cut_never_ends_cleanly_and_is_not_kept(
    stack: Stack, upstream: Upstream, big: Dist
) -> None:
    upstream.break_files("truncated", big)
    assert len(cut_body(stack, big)) < big.size
    upstream.mend()
    assert fetched(stack, big) == big.content


def test_wrong_bytes_never_leave_whole_and_a_resume_of_them_is_refused(
    stack: Stack, upstream: Upstream, big: Dist
) -> None:
    upstream.corrupt(big)
    got = cut_body(stack, big)
    assert len(got) <= big.size - TAIL_BYTES
    resumed = stack.file(big, Range=f"bytes={len(got)}-", If_Range=f'"sha256-{big.sha256}"')
    assert (resumed.status, resumed.headers["cache-control"]) == (403, "no-store")
    assert problem(resumed)
    upstream.mend()
    assert fetched(stack, big) == big.content


def test_wrong_bytes_of_which_nothing_was_sent_yet_are_a_502(stack: Stack, upstream: Upstream, small: Dist) -> None:
    upstream.corrupt(small)
    reply = stack.file(small)
    assert (reply.status, reply.headers["cache-control"]) == (502, "no-store")
    assert problem(reply)
    upstream.mend()
    assert fetched(stack, small) == small.content


@pytest.mark.parametrize("how", ["too long", "endless"])
def test_a_body_longer_than_its_size_is_stopped(stack: Stack, upstream: Upstream, big: Dist, how: str) -> None:
    upstream.break_files(how, big)
    try:
        reply = stack.file(big)
    except (HTTPException, ConnectionError):
        pass
    else:
        assert reply.status == 502
    upstream.mend()
    assert fetched(stack, big) == big.content


@pytest.mark.parametrize("how", ["503", "500", "429", "reset"])
def test_an_upstream_in_trouble_makes_a_file_unavailable_and_pip_need_not_retry(
    stack: Stack, upstream: Upstream, small: Dist, how: str
) -> None:
    upstream.break_files(how, small)
    reply = stack.file(small)
    assert (reply.status, reply.headers["cache-control"]) == (504, "no-store")
    assert problem(reply)
    upstream.mend()
    assert fetched(stack, small) == small.content


def test_a_redirect_to_where_nothing_may_be_fetched_is_not_followed(
    stack: Stack, upstream: Upstream, small: Dist
) -> None:
    with Upstream() as elsewhere:
        elsewhere.publish(small)
        upstream.break_files(redirect(elsewhere.files_origin + small.path), small)
        reply = stack.file(small)
        assert reply.status in (502, 504)
        assert problem(reply)
        assert elsewhere.seen() == []
    upstream.break_files("redirect loop", small)
    assert stack.file(small).status == 502
