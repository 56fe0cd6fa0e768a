"""Limits: what was used longest ago makes room, pins stay, nobody's answer breaks, and what is gone is gone for everybody."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index_frontend.ports import Damaged, Held, StorageFull, Verified
from index_frontend.storage.filestore import FileStore, Limits, open_filestore
from index_frontend.storage.filestore.disk import Disk, Space
from index_frontend.storage.filestore.files import Files
from index_frontend.storage.filestore.limits import excess, surplus
from matrix_pypi_bot.wire.cids import CidBuilder, raw_cid
from matrix_pypi_bot.wire.digests import Sha256, sha256_of
from matrix_pypi_bot.wire.messages import Stored

MIB = 1 << 20
GIB = 1 << 30
ROOMY = Space(free_bytes=GIB, total_bytes=100 * GIB, free_inodes=10**6, total_inodes=10**7)


def body(number: int, size: int = 1000) -> bytes:
    return b"%d" % number * size


async def put(store: FileStore, data: bytes) -> Held:
    async with store.writer(sha256_of(data)) as writer:
        assert writer is not None
        if isinstance(writer, Held):
            return writer
        await writer.write(data)
        return await writer.commit(Verified(sha256_of(data), len(data)))


def names(folder: Path, kind: str) -> set[str]:
    return {path.name for path in (folder / kind).rglob("*") if path.is_file()}


async def held(store: FileStore) -> set[Sha256]:
    return {one.sha256 async for one in store.all()}


class Shrinking(Disk):
    """A disk with so much free."""

    def __init__(self, free_bytes: int, free_inodes: int = 10**6) -> None:
        self.free_bytes, self.free_inodes = free_bytes, free_inodes

    def space(self, path: Path) -> Space:
        return Space(self.free_bytes, 100 * GIB, self.free_inodes, 10**7)

    def remove(self, path: Path) -> None:
        if path.exists():
            self.free_bytes += path.stat().st_size
            self.free_inodes += 1
        super().remove(path)


# How much -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "held_bytes", "space", "coming", "expected"),
    [
        (Limits(), GIB, Space(0, GIB, 0, 100), 5, (0, 0)),
        (Limits(max_bytes=100), 90, ROOMY, 10, (0, 0)),
        (Limits(max_bytes=100), 90, ROOMY, 11, (1, 0)),
        (Limits(min_free_bytes=GIB), 0, ROOMY, 0, (0, 0)),
        (Limits(min_free_bytes=GIB), 0, ROOMY, 7, (7, 0)),
        (Limits(min_free_bytes=GIB), 0, Space(GIB, 10 * GIB, 0, 0), GIB // 2, (0, 0)),
        (Limits(min_free_inodes=1000), 0, Space(1, 1, 900, 10**7), 0, (0, 100)),
        (Limits(min_free_inodes=1000), 0, Space(1, 1, 900, 1000), 0, (0, 0)),
        (Limits(min_free_inodes=1000), 0, Space(1, 1, 0, 0), 0, (0, 0)),
    ],
    ids=["none", "fits", "quota", "free", "floor", "small disk", "inodes", "few inodes", "no inodes"],
)
def test_what_has_to_go(limits: Limits, held_bytes: int, space: Space, coming: int, expected: tuple[int, int]) -> None:
    due = excess(limits, held_bytes, space, coming)
    assert (due.bytes, due.files) == expected


@given(
    maximum=st.none() | st.integers(0, GIB),
    floor=st.integers(0, GIB),
    held_bytes=st.integers(0, 2 * GIB),
    free=st.integers(0, 2 * GIB),
)
def test_a_round_takes_away_more_than_is_due_so_that_the_next_is_not_due_at_once(
    maximum: int | None, floor: int, held_bytes: int, free: int
) -> None:
    limits, space = Limits(max_bytes=maximum, min_free_bytes=floor), Space(free, 10 * GIB, 0, 0)
    due, taken = excess(limits, held_bytes, space), surplus(limits, held_bytes, space)
    assert taken.bytes >= due.bytes
    after = Space(free + taken.bytes, 10 * GIB, 0, 0)
    assert not excess(limits, max(0, held_bytes - taken.bytes), after)


# Who goes -------------------------------------------------------------------------------------------------------------


async def test_what_was_used_longest_ago_goes_and_use_is_remembered(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store:
        stored = [await put(store, body(number)) for number in range(1, 6)]
        store.open(stored[0]).close()
    async with open_filestore(tmp_path, limits=Limits(max_bytes=5000)) as store:
        await put(store, body(6))
        assert await held(store) == {sha256_of(body(number)) for number in (1, 3, 4, 5, 6)}


async def test_a_use_that_opens_no_file_counts_too(tmp_path: Path) -> None:
    async with open_filestore(tmp_path, limits=Limits(max_bytes=3000)) as store:
        for number in (1, 2, 3):
            await put(store, body(number))
        store.used(sha256_of(body(1)))
        await put(store, body(4))
        assert await held(store) == {sha256_of(body(number)) for number in (1, 3, 4)}


async def test_pins_stay_and_their_name_is_told(tmp_path: Path) -> None:
    async with open_filestore(tmp_path, limits=Limits(max_bytes=2500)) as store:
        first = await put(store, body(1))
        assert await store.pin(first.sha256, "release\n2026")
        await put(store, body(2))
        await put(store, body(3))
        assert await held(store) == {sha256_of(body(1)), sha256_of(body(3))}
        assert await store.pin_of(first.sha256) == "release 2026"
        assert await store.delete(first.sha256) is False
        await store.unpin(first.sha256)
        assert await store.pin_of(first.sha256) is None
        assert await store.delete(first.sha256) is True


async def test_pins_outlive_the_index(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store:
        await put(store, body(1))
        await store.pin(sha256_of(body(1)), "kept")
    (tmp_path / "index.sqlite").unlink()
    async with open_filestore(tmp_path, limits=Limits(max_bytes=1500)) as store:
        async with asyncio.timeout(10):
            while not await held(store):
                await asyncio.sleep(0.01)
        with pytest.raises(StorageFull):
            await put(store, body(2))
        assert (await held(store), await store.pin_of(sha256_of(body(1)))) == ({sha256_of(body(1))}, "kept")


async def test_what_is_not_here_cannot_be_pinned(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store:
        assert await store.pin(sha256_of(body(1)), "name") is False
        await store.unpin(sha256_of(body(1)))
        assert names(tmp_path, "pins") == set()


async def test_a_file_larger_than_the_quota_costs_no_other_its_place(tmp_path: Path) -> None:
    async with open_filestore(tmp_path, limits=Limits(max_bytes=2000)) as store:
        await put(store, body(1))
        with pytest.raises(StorageFull, match="larger than the whole store"):
            await put(store, body(2, 2001))
        assert await held(store) == {sha256_of(body(1))}
    assert names(tmp_path, "tmp") == set()


async def test_a_file_for_which_there_is_no_room_even_without_all_others_costs_none_its_place(tmp_path: Path) -> None:
    async with open_filestore(tmp_path, limits=Limits(min_free_bytes=GIB // 2), disk=Shrinking(GIB)) as store:
        stored = {(await put(store, body(number))).sha256 for number in (1, 2, 3)}
        with pytest.raises(StorageFull, match="nothing can be evicted"):
            await store.make_room(10 * GIB)
        assert await held(store) == stored


async def test_what_is_pinned_leaves_no_room_and_nothing_else_goes_in_vain(tmp_path: Path) -> None:
    async with open_filestore(tmp_path, limits=Limits(max_bytes=3000)) as store:
        stored = [await put(store, body(number)) for number in (1, 2)]
        await store.pin(stored[0].sha256, "kept")
        with pytest.raises(StorageFull, match="nothing can be evicted"):
            await store.make_room(2500)
        assert await held(store) == {one.sha256 for one in stored}
        await store.make_room(2000)
        assert await held(store) == {stored[0].sha256}


async def test_a_length_that_is_announced_makes_room_before_a_byte_comes(tmp_path: Path) -> None:
    async with open_filestore(tmp_path, limits=Limits(max_bytes=2000)) as store:
        await put(store, body(1))
        async with store.writer(sha256_of(body(2))) as writer:
            assert writer is not None
            assert not isinstance(writer, Held)
            await writer.expect(1500)
            assert await held(store) == set()


@pytest.mark.parametrize("disk", [Shrinking(GIB), Shrinking(10 * GIB, free_inodes=10_000)], ids=["bytes", "inodes"])
async def test_a_disk_that_others_fill_is_left_its_floor(tmp_path: Path, disk: Shrinking) -> None:
    limits = Limits(min_free_bytes=GIB // 2, min_free_inodes=1000)
    async with open_filestore(tmp_path, limits=limits, disk=disk) as store:
        for number in range(1, 5):
            await put(store, body(number))
        disk.free_bytes, disk.free_inodes = min(disk.free_bytes, GIB // 2 - 1500), min(disk.free_inodes, 998)
        await put(store, body(5))
        gone = {sha256_of(body(number)) for number in range(1, 5)} - await held(store)
        assert sha256_of(body(5)) in await held(store)
        assert gone >= {sha256_of(body(1)), sha256_of(body(2))}


async def test_a_disk_that_is_full_although_the_limits_hold_is_given_room_for_the_next(tmp_path: Path) -> None:
    async with open_filestore(tmp_path, limits=Limits(max_bytes=GIB)) as store:
        await put(store, body(1))
        store.is_full(2000)
        async with asyncio.timeout(10):
            while await held(store):
                await asyncio.sleep(0.01)


async def test_without_limits_nothing_ever_goes(tmp_path: Path) -> None:
    async with open_filestore(tmp_path, disk=Shrinking(0, 0)) as store:
        await put(store, body(1))
        store.is_full(10**9)
        await store._eviction.keep_limits()
        assert await held(store) == {sha256_of(body(1))}


async def test_a_file_waits_for_its_own_room_only_not_for_the_end_of_a_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evict, begun, first, more = Files.evict, asyncio.Event(), asyncio.Event(), asyncio.Event()
    oldest = sha256_of(body(1, 1100))

    async def slow(store: FileStore, sha256: Sha256) -> bool:
        begun.set()
        await (first if sha256 == oldest else more).wait()
        return await evict(store, sha256)

    async with open_filestore(tmp_path) as store:
        for number in range(1, 10):
            await put(store, body(number, 1100))
    monkeypatch.setattr(Files, "evict", slow)
    async with open_filestore(tmp_path, limits=Limits(max_bytes=9_000)) as busy:
        async with open_filestore(tmp_path, limits=Limits(max_bytes=10_000)) as other, asyncio.timeout(10):
            busy._eviction.look()  # a round that is to remove two files
            await begun.wait()
            putting = asyncio.create_task(put(other, body(10, 500)))
            first.set()
            await putting
            assert not more.is_set()
            more.set()


# What goes with it ----------------------------------------------------------------------------------------------------


def blocks_of(data: bytes) -> list[str]:
    found: list[str] = []
    builder = CidBuilder(on_block=lambda block: found.append(block.cid))
    builder.update(data)
    builder.finish()
    return found


async def test_rows_leaves_and_nodes_go_with_a_file_and_shared_ones_stay(tmp_path: Path) -> None:
    one, two = bytes(2 * MIB) + b"one", bytes(2 * MIB) + b"two"
    async with open_filestore(tmp_path) as store:
        await put(store, one)
        await put(store, two)
        assert await store.evict(sha256_of(one))
        assert names(tmp_path, "nodes") == {cid for cid in blocks_of(two) if cid.startswith("bafybei")}
        (place,) = await store.places_of(raw_cid(sha256_of(bytes(MIB))))
        assert place.sha256 == sha256_of(two)
        assert await store.read_block(place) == bytes(MIB)
        assert await store.evict(sha256_of(two))
        assert (names(tmp_path, "nodes"), names(tmp_path, "files")) == (set(), set())
    with sqlite3.connect(tmp_path / "index.sqlite") as index:
        rows = [index.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("files", "blocks")]
        totals = index.execute("SELECT bytes, files FROM totals").fetchone()
    index.close()
    assert (rows, totals) == ([0, 0], (0, 0))


async def test_a_node_of_two_files_stays_until_both_are_gone(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store:
        await put(store, bytes(2 * MIB))
        (node,) = names(tmp_path, "nodes")
        other = await put(store, b"as if this had the node")
        share = """INSERT INTO blocks SELECT cid, (SELECT id FROM files WHERE sha256 = ?), offset, size FROM blocks
            WHERE offset IS NULL"""
        await store._index.write(lambda rows: rows.execute(share, (other.sha256,)))
        assert await store.evict(sha256_of(bytes(2 * MIB)))
        assert names(tmp_path, "nodes") == {node}
        assert await store.evict(other.sha256)
        assert names(tmp_path, "nodes") == set()


async def test_who_reads_a_file_that_goes_reads_on(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store:
        with store.open(await put(store, body(1))) as file:
            assert await store.evict(sha256_of(body(1)))
            assert file.read() == body(1)


async def test_a_file_that_is_being_written_is_let_alone(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store, store.writer(sha256_of(body(1))) as writer:
        assert writer is not None
        assert not await store.evict(sha256_of(body(1)))


async def test_another_process_that_promised_it_misses_it_quietly_and_fetches_it_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_filestore(tmp_path) as one, open_filestore(tmp_path) as two:
        await put(one, body(1))
        promised = await two.find(sha256_of(body(1)))
        assert promised is not None
        assert await one.evict(promised.sha256)
        with pytest.raises(Damaged):
            two.open(promised)
        assert await two.recheck(promised.sha256) is None
        assert (two.held(promised.sha256), await two.find(promised.sha256)) == (None, None)
        assert await two.places_of(promised.cid) == ()
        assert await put(two, body(1)) != promised
    assert caplog.records == []


async def test_what_the_bot_was_told_of_is_not_told_again(tmp_path: Path) -> None:
    cid = raw_cid(sha256_of(body(1)))
    report = Stored(project="a", file="a.zip", sha256=sha256_of(body(1)), size=1, cid=cid, source="upstream")
    async with open_filestore(tmp_path) as store:
        await put(store, body(1))
        assert await store.note_asked(report)
        await store.reported(report)
        assert await store.evict(sha256_of(body(1)))
        await put(store, body(1))
        assert not await store.note_asked(report)
        assert await store.unreported() == []


async def test_one_process_evicts_at_a_time_and_none_more_than_is_due(tmp_path: Path) -> None:
    limits = Limits(max_bytes=10_000)
    async with open_filestore(tmp_path, limits=limits) as one, open_filestore(tmp_path, limits=limits) as two:
        for number in range(1, 10):
            await put(one, body(number))
        await asyncio.gather(put(one, body(10, 900)), put(two, body(20, 900)), put(one, body(30, 900)))
        async with asyncio.timeout(10):
            while (await one.totals())[0] > 10_000:
                await asyncio.sleep(0.01)
        assert (await one.totals())[0] >= 7_000


# What a crash or a person left ----------------------------------------------------------------------------------------


async def test_a_file_without_a_row_and_a_row_without_a_file_are_put_right(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store:
        lost, gone = await put(store, bytes(2 * MIB)), await put(store, body(1))
        await store._index.write(lambda rows: rows.execute("DELETE FROM files WHERE sha256 = ?", (lost.sha256,)))
        assert gone.path is not None
        gone.path.unlink()
    async with open_filestore(tmp_path) as store:
        async with asyncio.timeout(10):
            while await store.totals() != (2 * MIB, 1):
                await asyncio.sleep(0.01)
        assert await held(store) == {lost.sha256}


async def test_a_node_that_no_file_has_is_removed_and_what_is_not_ours_is_not(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store:
        await put(store, bytes(2 * MIB))
    (node,) = names(tmp_path, "nodes")
    (tmp_path / "nodes" / f"bafybei{'a' * 52}").write_bytes(b"of a file that never came")
    (tmp_path / "nodes" / "README").write_bytes(b"of somebody else")
    async with open_filestore(tmp_path):
        async with asyncio.timeout(10):
            while names(tmp_path, "nodes") != {node, "README"}:
                await asyncio.sleep(0.01)
