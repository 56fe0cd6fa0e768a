"""An upstream that is away, says no, or sends us elsewhere."""

from __future__ import annotations

import pytest

from matrix_pypi_bot.wire.messages import Decision
from tests.conformance.files.expected import LARGE, SMALL
from tests.support.dists import wheel
from tests.support.file_side import FileSide, serve_decision
from tests.support.problems import problem
from tests.support.upstream import Upstream
from tests.support.upstream_faults import redirect


@pytest.mark.parametrize("fault", ["503", "500", "429", "reset", "hang"])
def test_an_upstream_that_is_away_is_504_and_the_next_try_is_right(
    upstream: Upstream, side: FileSide, fault: str
) -> None:
    upstream.break_files(fault, SMALL)
    reply = side.get(SMALL)
    assert (reply.status, reply.headers["cache-control"]) == (504, "no-store")
    assert problem(reply).startswith(f"matrix-pypi: {SMALL.filename} from {upstream.files_origin}: ")
    upstream.mend()
    assert side.get(SMALL).body == SMALL.content


def test_an_upstream_that_is_off_is_504(upstream: Upstream, side: FileSide) -> None:
    upstream.off()
    reply = side.get(SMALL)
    assert (reply.status, reply.headers["retry-after"]) == (504, "5")
    upstream.mend()
    assert side.get(SMALL).body == SMALL.content


@pytest.mark.parametrize("fault", ["401", "403", "416", "redirect loop"])
def test_an_upstream_that_answers_wrongly_is_502(upstream: Upstream, side: FileSide, fault: str) -> None:
    upstream.break_files(fault, SMALL)
    assert side.get(SMALL).status == 502


@pytest.mark.parametrize(
    "target",
    [
        "http://10.0.0.1/x",
        "http://127.0.0.1:9/x",
        "https://169.254.169.254/x",
        "file:///etc/passwd",
        "//[::1]/x",
        "gopher://x",
    ],
)
def test_a_redirect_to_where_nobody_may_be_sent_is_502(upstream: Upstream, side: FileSide, target: str) -> None:
    upstream.break_files(redirect(target), SMALL)
    assert side.get(SMALL).status == 502


def test_a_redirect_within_what_is_opened_is_followed(upstream: Upstream, side: FileSide) -> None:
    other = wheel("mxr")
    side.publish(other)
    upstream.break_files(redirect(upstream.path_of(SMALL)), other)
    side.oracle.say(serve_decision(upstream, other, sha256=SMALL.sha256, size=SMALL.size))
    assert side.get(other).body == SMALL.content


def test_the_second_address_is_asked_when_the_first_is_wrong(upstream: Upstream, side: FileSide) -> None:
    decision = serve_decision(upstream, SMALL)
    wrong = f"{upstream.files_origin}{upstream.path_of(LARGE)}"
    side.publish(SMALL, urls=(wrong, *decision.urls))
    assert side.get(SMALL).body == SMALL.content


def test_a_file_that_its_host_has_lost_is_504_after_another_look(upstream: Upstream, side: FileSide) -> None:
    upstream.break_files("404", SMALL)
    reply = side.get(SMALL)
    assert (reply.status, side.oracle.refreshed) == (504, ["mxa"])


def test_a_file_that_was_removed_is_refused_after_another_look(upstream: Upstream, side: FileSide) -> None:
    gone = Decision(
        action="refuse",
        http=404,
        rule="R10",
        reason="matrix-pypi: R10 removed upstream",
        project="mxa",
        file=SMALL.filename,
        path=upstream.path_of(SMALL),
    )
    side.oracle.on_refresh = {gone.path: gone}
    upstream.break_files("404", SMALL)
    reply = side.get(SMALL)
    assert (reply.status, problem(reply), reply.headers["x-matrix-pypi-rule"]) == (404, gone.reason, "R10")


def test_a_file_that_moved_is_found_after_another_look(upstream: Upstream, side: FileSide) -> None:
    decision = serve_decision(upstream, SMALL)
    side.oracle.on_refresh = {decision.path: decision}
    side.publish(SMALL, urls=(f"{upstream.files_origin}/lost",))
    assert side.get(SMALL).body == SMALL.content
