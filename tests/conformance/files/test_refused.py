"""What must not leave, leaves by no door."""

from __future__ import annotations

import http.client
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conformance.files.expected import LARGE, SMALL, warm
from tests.support.dists import Dist, wheel
from tests.support.file_side import FileSide
from tests.support.http_client import transfer
from tests.support.problems import problem
from tests.support.upstream import Upstream


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("held", [True, False], ids=["held", "not held"])
@pytest.mark.parametrize(
    "headers", [{}, {"Range": "bytes=0-1"}, {"If_None_Match": "*"}], ids=["plain", "range", "cached"]
)
def test_a_refused_file_leaves_by_no_door(
    upstream: Upstream, side: FileSide, method: str, held: bool, headers: dict[str, str]
) -> None:
    if held:
        warm(side, SMALL)
        side.get(SMALL, suffix=".metadata")
    before = len(upstream.seen())
    side.publish(SMALL, action="refuse", http=403, rule="R3", reason="matrix-pypi: R3 the digest changed upstream")
    for suffix in ("", ".metadata"):
        reply = side.get(SMALL, method, suffix=suffix, **headers)
        assert (reply.status, reply.reason) == (403, "matrix-pypi: R3 the digest changed upstream")
        assert (reply.headers["cache-control"], reply.headers["x-matrix-pypi-rule"]) == ("no-store", "R3")
        assert method == "HEAD" or problem(reply) == reply.reason
    assert len(upstream.seen()) == before


@pytest.mark.parametrize(
    ("action", "http", "status"),
    [("quarantine", 403, 403), ("unavailable", 503, 504), ("contested", 503, 504), ("refuse", 404, 404)],
)
def test_each_refusal_has_the_status_of_a_file(side: FileSide, action: str, http: int, status: int) -> None:
    side.publish(SMALL, action=action, http=http, rule="R9", reason="matrix-pypi: R9 why")
    reply = side.get(SMALL)
    assert (reply.status, problem(reply)) == (status, "matrix-pypi: R9 why")


def test_a_path_that_no_page_names_is_not_there(side: FileSide) -> None:
    other = wheel("mxz")
    assert side.get(other).status == 404


WITHDRAWN = {"action": "refuse", "http": 403, "rule": "R1", "reason": "matrix-pypi: R1 denied by policy"}
HUGE = wheel("mxh", payload_bytes=40 << 20)


@pytest.mark.parametrize(
    ("dist", "headers"),
    [(SMALL, {}), (SMALL, {"Range": "bytes=0-9"}), (LARGE, {"Range": "bytes=0-9"}), (LARGE, {"Range": "bytes=-9"})],
    ids=["short", "part of a short one", "part", "end"],
)
def test_who_still_waits_for_a_file_when_it_is_withdrawn_is_refused(
    upstream: Upstream, side: FileSide, dist: Dist, headers: dict[str, str]
) -> None:
    hold = upstream.hold(dist, after_bytes=100)
    with ThreadPoolExecutor(1) as client:
        waiting = client.submit(side.get, dist, **headers)
        hold.wait_until_reached()
        side.publish(dist, **WITHDRAWN)
        hold.release()
        reply = waiting.result()
    assert (reply.status, reply.reason) == (403, "matrix-pypi: R1 denied by policy")
    assert reply.headers["x-matrix-pypi-rule"] == "R1"


def test_a_file_that_is_withdrawn_while_it_comes_in_never_arrives_whole(upstream: Upstream, side: FileSide) -> None:
    hold = upstream.hold(LARGE, after_bytes=LARGE.size // 2)
    with transfer(side.url(LARGE)) as answer:
        assert answer.read(1000) == LARGE.content[:1000]
        side.publish(LARGE, **WITHDRAWN)
        hold.release()
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            answer.read()


def test_a_stored_file_that_is_withdrawn_while_a_client_reads_it_slowly_never_arrives_whole(side: FileSide) -> None:
    side.publish(HUGE)
    warm(side, HUGE)
    with transfer(side.url(HUGE)) as answer:
        assert answer.read(1000) == HUGE.content[:1000]
        side.publish(HUGE, **WITHDRAWN)
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            answer.read()


def test_what_is_only_unavailable_by_now_is_sent_to_its_end(upstream: Upstream, side: FileSide) -> None:
    hold = upstream.hold(LARGE, after_bytes=LARGE.size // 2)
    with transfer(side.url(LARGE)) as answer:
        assert answer.read(1000) == LARGE.content[:1000]
        side.publish(LARGE, action="unavailable", http=503, rule="R14", reason="matrix-pypi: R14 upstream is away")
        hold.release()
        assert answer.read() == LARGE.content[1000:]
