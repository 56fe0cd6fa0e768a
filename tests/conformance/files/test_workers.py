"""Processes that share a store: one fetch for all of them, and no harm when one is killed in the middle of it."""

from __future__ import annotations

import dataclasses
import http.client
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from aiohttp import web

from matrix_pypi_bot.wire.messages import Decision
from tests.conformance.files.expected import LARGE, SMALL, etag, files_in
from tests.support.dists import wheel
from tests.support.file_side import Worker, serve_decision, worker
from tests.support.http_client import Reply, ask, transfer
from tests.support.upstream import Upstream
from tests.support.upstream_faults import Answer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

HUGE = wheel("mxh", payload_bytes=4 << 20)


@pytest.fixture
def decisions(upstream: Upstream) -> list[Decision]:
    upstream.publish(SMALL, LARGE, HUGE)
    return [serve_decision(upstream, dist) for dist in (SMALL, LARGE, HUGE)]


def get(at: Worker, path: str, **headers: str) -> Reply | None:
    """The answer; None when it was cut, or nobody answered."""
    try:
        return ask(at.url(path), **headers)
    except (OSError, http.client.HTTPException):
        return None


def test_many_clients_of_two_processes_cost_one_fetch(
    upstream: Upstream, tmp_path: Path, decisions: list[Decision]
) -> None:
    with worker(tmp_path, decisions) as one, worker(tmp_path, decisions) as two, ThreadPoolExecutor(50) as pool:
        for dist in (SMALL, LARGE, HUGE):
            hold = upstream.hold(dist, after_bytes=dist.size // 2)
            path = upstream.path_of(dist)
            asked = [pool.submit(get, at, path) for at in (one, two) for _ in range(25)]
            hold.wait_until_reached()
            hold.release()
            bodies = [answer.body for answer in (future.result() for future in asked) if answer is not None]
            assert (len(bodies), set(bodies)) == (50, {dist.content})
            assert upstream.hits("GET", dist) == 1
    assert len(files_in(tmp_path)) == 3
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_process_lets_out_what_the_other_receives_but_for_the_tail(
    upstream: Upstream, tmp_path: Path, decisions: list[Decision]
) -> None:
    hold = upstream.hold(HUGE, after_bytes=3 << 20)
    path = upstream.path_of(HUGE)
    with worker(tmp_path, decisions) as one, worker(tmp_path, decisions) as two:
        with transfer(one.url(path)) as first:
            assert first.read(1000) == HUGE.content[:1000]
            with transfer(two.url(path)) as second:
                assert second.read(3 << 20) == HUGE.content[: 3 << 20]
                hold.release()
                assert second.read() == HUGE.content[3 << 20 :]
            assert first.read() == HUGE.content[1000:]
    assert upstream.hits("GET", HUGE) == 1


def test_a_process_lets_out_a_short_file_too_while_the_other_waits_for_its_rest(
    upstream: Upstream, tmp_path: Path, decisions: list[Decision]
) -> None:
    hold = upstream.hold(LARGE, after_bytes=200_000)
    path = upstream.path_of(LARGE)
    with worker(tmp_path, decisions) as one, worker(tmp_path, decisions) as two:
        with transfer(one.url(path)) as first:
            assert first.read(1000) == LARGE.content[:1000]
        with transfer(two.url(path)) as second:
            assert second.read(200_000) == LARGE.content[:200_000]
            hold.release()
            assert second.read() == LARGE.content[200_000:]
    assert upstream.hits("GET", LARGE) == 1


def test_who_waits_takes_over_from_a_process_that_is_killed(
    upstream: Upstream, tmp_path: Path, decisions: list[Decision]
) -> None:
    path = upstream.path_of(HUGE)
    hold = upstream.hold(HUGE, after_bytes=0)
    with worker(tmp_path, decisions) as one, worker(tmp_path, decisions) as two, ThreadPoolExecutor(8) as pool:
        lost: Future[Reply | None] = pool.submit(get, one, path)
        hold.wait_until_reached()
        waiting = [pool.submit(get, two, path) for _ in range(4)]
        one.kill()
        hold.release()
        answers = [future.result() for future in waiting]
        assert lost.result() is None
        assert [answer.body == HUGE.content for answer in answers if answer is not None] == [True] * 4
    assert upstream.hits("GET", HUGE) == 2


def test_a_client_in_the_middle_of_what_a_killed_process_fetched_never_gets_a_mixture(
    upstream: Upstream, tmp_path: Path, decisions: list[Decision]
) -> None:
    """What the dead process received was corrupt; what its successor fetches is right."""
    path = upstream.path_of(HUGE)
    hold = upstream.hold(HUGE, after_bytes=2 << 20)

    async def corrupted(request: web.Request, answer: Answer) -> web.StreamResponse:
        return await hold(request, dataclasses.replace(answer, body=bytes(1000) + answer.body[1000:]))

    upstream.break_files(corrupted, HUGE)
    with worker(tmp_path, decisions) as one, worker(tmp_path, decisions) as two, ThreadPoolExecutor(2) as pool:
        pool.submit(get, one, path)
        hold.wait_until_reached()
        with transfer(two.url(path)) as begun:
            assert len(begun.read(1 << 20)) == 1 << 20
            one.kill()
            upstream.mend()
            with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
                begun.read()
        again = get(two, path)
        assert again is not None
        assert again.body == HUGE.content


def test_nothing_partial_is_served_after_a_kill_and_a_start(
    upstream: Upstream, tmp_path: Path, decisions: list[Decision]
) -> None:
    path = upstream.path_of(HUGE)
    for after_bytes in (1, 100_000, HUGE.size - 1):
        hold = upstream.hold(HUGE, after_bytes=after_bytes)
        with worker(tmp_path, decisions) as killed, ThreadPoolExecutor(1) as pool:
            cut = pool.submit(get, killed, path)
            hold.wait_until_reached()
            killed.kill()
            hold.release()
            assert cut.result() is None
        upstream.mend()
    with worker(tmp_path, decisions) as started:
        assert list((tmp_path / "tmp").glob("*.part")) == []
        # What the dead were asked for is claimed for a moment, to see whether it is here: that lock goes by itself.
        wait_until(lambda: not list((tmp_path / "tmp").iterdir()), "nothing is left in tmp")
        answer = get(started, path)
        assert answer is not None
        assert answer.body == HUGE.content


def test_what_was_wrong_at_one_process_cannot_be_resumed_at_another(
    upstream: Upstream, tmp_path: Path, decisions: list[Decision]
) -> None:
    path = upstream.path_of(HUGE)
    upstream.corrupt(HUGE)
    with worker(tmp_path, decisions) as one, worker(tmp_path, decisions) as two:
        with transfer(one.url(path)) as answer, pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            answer.read()
        resumed = get(two, path, Range="bytes=1000-", If_Range=etag(HUGE))
        assert resumed is not None
        assert (resumed.status, resumed.headers["cache-control"]) == (403, "no-store")


def test_a_corrupt_file_arrives_whole_at_no_process(
    upstream: Upstream, tmp_path: Path, decisions: list[Decision]
) -> None:
    path = upstream.path_of(HUGE)
    upstream.corrupt(HUGE)
    with worker(tmp_path, decisions) as one, worker(tmp_path, decisions) as two, ThreadPoolExecutor(10) as pool:
        answers = [future.result() for future in [pool.submit(get, at, path) for at in (one, two) for _ in range(5)]]
        assert [answer.status for answer in answers if answer is not None and answer.status != 502] == []
    assert files_in(tmp_path) == []
