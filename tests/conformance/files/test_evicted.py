"""A file that another process evicted: clients get it all the same, and nothing is told or logged as if something were wrong."""

from __future__ import annotations

import asyncio

import pytest

from index_frontend.storage.filestore import open_filestore
from matrix_pypi_bot.wire.digests import Sha256
from tests.conformance.files.expected import LARGE, files_in, stored, warm
from tests.support.dists import Dist
from tests.support.file_side import FileSide
from tests.support.upstream import Upstream
from tests.support.waiting import wait_until


def evict(side: FileSide, dist: Dist) -> None:
    """Another process makes room."""

    async def work() -> None:
        async with open_filestore(side.folder) as store:
            assert await store.evict(Sha256(dist.sha256))

    asyncio.run(work())


def test_it_is_fetched_anew_and_reported_once(
    upstream: Upstream, side: FileSide, caplog: pytest.LogCaptureFixture
) -> None:
    evict(side, warm(side, LARGE))
    assert files_in(side.folder) == []
    reply = side.get(LARGE)
    assert (reply.status, reply.body) == (200, LARGE.content)
    assert upstream.hits("GET", LARGE) == 2
    warm(side, LARGE)
    wait_until(lambda: side.oracle.stored, "it is reported")
    assert side.oracle.stored == [stored(LARGE, "upstream")]
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


def test_a_part_of_it_and_its_head_are_answered_too(side: FileSide) -> None:
    evict(side, warm(side, LARGE))
    reply = side.get(LARGE, Range="bytes=10-19")
    assert (reply.status, reply.body) == (206, LARGE.content[10:20])
    evict(side, warm(side, LARGE))
    assert side.get(LARGE, "HEAD").status == 200


def test_while_upstream_is_away_it_is_missed_for_now_and_not_for_ever(upstream: Upstream, side: FileSide) -> None:
    evict(side, warm(side, LARGE))
    upstream.off()
    assert side.get(LARGE).status == 504
    upstream.on()
    wait_until(lambda: side.get(LARGE).status == 200, "it is here again")
