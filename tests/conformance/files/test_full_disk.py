"""A store that can take nothing: clients get their files all the same, behind the same gate, and nothing partial stays."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from index_frontend.storage.filestore.disk import Disk, told
from tests.conformance.files.expected import BOTH, LARGE, SMALL, TAIL_BYTES, cut_off, files_in
from tests.support.dists import Dist, wheel
from tests.support.file_side import FileSide
from tests.support.http_client import at_once, transfer
from tests.support.problems import problem
from tests.support.upstream import Upstream
from tests.support.upstream_faults import Answer, well
from tests.support.waiting import wait_until

HUGE = wheel("mxh", payload_bytes=8 << 20)


class SmallDisk(Disk):
    """Has room for so many bytes."""

    def __init__(self, room_bytes: int) -> None:
        self.room_bytes = room_bytes

    def append(self, descriptor: int, data: bytes | bytearray) -> None:
        with told("write", None):
            self.room_bytes -= len(data)
            if self.room_bytes < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().append(descriptor, data)


@pytest.fixture
def full(upstream: Upstream, tmp_path: Path) -> Iterator[FileSide]:
    """A file side with room for nothing."""
    with FileSide(upstream, tmp_path / "store", disk=SmallDisk(0)) as running:
        for dist in (SMALL, LARGE):
            running.publish(dist)
        yield running


def nothing_is_kept(side: FileSide) -> None:
    wait_until(lambda: not list((side.folder / "tmp").iterdir()), "the parts are gone")
    assert files_in(side.folder) == []


@BOTH
def test_a_client_gets_his_file_from_a_full_store(full: FileSide, dist: Dist) -> None:
    reply = full.get(dist)
    assert (reply.status, reply.body, reply.headers["content-length"]) == (200, dist.content, str(dist.size))
    nothing_is_kept(full)


def test_a_store_that_fills_up_in_the_middle_costs_its_client_nothing(upstream: Upstream, tmp_path: Path) -> None:
    with FileSide(upstream, tmp_path, disk=SmallDisk(3 << 20)) as side:
        side.publish(HUGE)
        with transfer(side.url(HUGE)) as answer:
            assert answer.read() == HUGE.content
        nothing_is_kept(side)
        assert side.oracle.stored == []
    assert upstream.seen(HUGE)[-1].headers["range"].startswith("bytes=")


def test_many_clients_get_their_file_from_a_store_that_fills_up(upstream: Upstream, tmp_path: Path) -> None:
    with FileSide(upstream, tmp_path, disk=SmallDisk(2 << 20)) as side:
        side.publish(HUGE)
        assert set(at_once(8, lambda: side.get(HUGE).body)) == {HUGE.content}
        nothing_is_kept(side)


def test_a_corrupt_file_does_not_arrive_whole_past_a_full_store(upstream: Upstream, full: FileSide) -> None:
    upstream.corrupt(LARGE)
    assert len(cut_off(full, LARGE)) <= LARGE.size - TAIL_BYTES
    upstream.corrupt(SMALL)
    reply = full.get(SMALL)
    assert (reply.status, "other bytes than the index names" in problem(reply)) == (502, True)


def test_a_corrupt_file_does_not_arrive_whole_when_the_store_fills_up_in_the_middle(
    upstream: Upstream, tmp_path: Path
) -> None:
    upstream.publish(HUGE)
    upstream.corrupt(HUGE)
    with FileSide(upstream, tmp_path, disk=SmallDisk(3 << 20)) as side:
        side.publish(HUGE)
        assert len(cut_off(side, HUGE)) <= HUGE.size - TAIL_BYTES


async def corrupt_and_longer_when_resumed(request: web.Request, answer: Answer) -> web.StreamResponse:
    """Wrong bytes of the right length; who comes back for the rest is told of another mebibyte."""
    body = bytes([answer.body[0] ^ 0xFF]) + HUGE.content[1:]
    start = request.http_range.start
    if start is None:
        return await well(request, Answer(200, {}, body))
    body += bytes(1 << 20)
    return await well(
        request, Answer(206, {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}, body[start:])
    )


def test_a_corrupt_file_that_grows_when_the_store_fills_up_does_not_arrive_whole(
    upstream: Upstream, tmp_path: Path
) -> None:
    upstream.publish(HUGE)
    upstream.break_files(corrupt_and_longer_when_resumed, HUGE)
    with FileSide(upstream, tmp_path, disk=SmallDisk(3 << 20)) as side:
        side.publish(HUGE, size=None)
        assert len(cut_off(side, HUGE)) <= HUGE.size - TAIL_BYTES


def test_ranges_past_a_full_store(full: FileSide) -> None:
    full.publish(HUGE)
    opened, closed = full.get(HUGE, Range="bytes=500000-"), full.get(HUGE, Range="bytes=0-99")
    assert (opened.status, opened.body) == (206, HUGE.content[500_000:])
    assert (closed.status, closed.body) == (200, HUGE.content)  # it would have to wait, with nowhere to put what comes
    assert full.get(HUGE, Range="bytes=99999999-").status == 416
    head = full.get(HUGE, "HEAD")
    assert (head.status, head.headers["content-length"]) == (200, str(HUGE.size))


def test_a_short_file_is_served_in_part_although_it_cannot_be_stored(full: FileSide) -> None:
    reply = full.get(LARGE, Range="bytes=0-99")
    assert (reply.status, reply.body) == (206, LARGE.content[:100])


@pytest.mark.parametrize("payload_bytes", [1_000, 200_000, 2_000_000])
def test_a_full_store_stores_again_when_there_is_room(upstream: Upstream, tmp_path: Path, payload_bytes: int) -> None:
    disk, dist = SmallDisk(0), wheel("mxroom", payload_bytes=payload_bytes)
    with FileSide(upstream, tmp_path, disk=disk) as side:
        side.publish(dist)
        side.get(dist)
        disk.room_bytes = 1 << 30
        assert side.get(dist).body == dist.content
        wait_until(lambda: files_in(tmp_path), "the file is stored")


def test_without_any_length_there_is_nothing_to_send_past_a_full_store(upstream: Upstream, full: FileSide) -> None:
    full.publish(LARGE, size=None)
    upstream.break_files("no length", LARGE)
    reply = full.get(LARGE)
    assert (reply.status, "nobody says how long it is" in problem(reply)) == (504, True)
