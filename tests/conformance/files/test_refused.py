"""What must not leave, leaves by no door."""

from __future__ import annotations

import pytest

from tests.conformance.files.expected import SMALL, warm
from tests.support.dists import wheel
from tests.support.file_side import FileSide
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
