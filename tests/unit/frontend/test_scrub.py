"""The scrub: what rotted without a trace is found, never served, and mended block by block, or given up."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from index_frontend.ports import Damaged, Held, StorageFull, Verified
from index_frontend.storage.filestore import FileStore, Scrub, open_filestore
from index_frontend.storage.filestore.claims import Claim
from index_frontend.storage.filestore.disk import Disk
from index_frontend.storage.filestore.mending import PATCH_BLOCKS
from matrix_pypi_bot.wire.cids import Block, Cid, CidBuilder, raw_cid
from matrix_pypi_bot.wire.digests import Sha256, sha256_of

MIB = 1 << 20
SMALL = b"a wheel" * 1000
LARGE = b"".join(bytes([number]) * MIB for number in range(1, 5)) + b"the end"


async def put(store: FileStore, data: bytes) -> Held:
    async with store.writer(sha256_of(data)) as writer:
        assert writer is not None
        assert not isinstance(writer, Held)
        await writer.write(data)
        return await writer.commit(Verified(sha256_of(data), len(data)))


async def rot(store: FileStore, held: Held, *offsets: int, size: int | None = None) -> None:
    """The disk's bits change, and nothing else does."""
    assert held.path is not None
    held.path.chmod(0o644)
    with held.path.open("r+b") as file:
        for offset in offsets:
            os.pwrite(file.fileno(), b"!", offset)
        if size is not None:
            file.truncate(size)
    held.path.chmod(0o444)
    os.utime(held.path, ns=(held.modified_ns, held.modified_ns))
    changed = (held.path.stat().st_ctime_ns, held.sha256)
    await store._index.write(lambda rows: rows.execute("UPDATE files SET changed_ns = ? WHERE sha256 = ?", changed))
    store._known.clear()


class Peer:
    """Has every block of some files."""

    def __init__(self, *bodies: bytes) -> None:
        self.asked: list[Cid] = []
        self.blocks: dict[Cid, bytes] = {}
        for body in bodies:
            blocks: list[Block] = []
            builder = CidBuilder(on_block=blocks.append)
            builder.update(body)
            builder.finish()
            for block in blocks:
                part = body[block.offset : block.offset + block.size]
                self.blocks[block.cid] = part if block.data is None else block.data

    async def repair(self, cid: Cid) -> bytes | None:
        self.asked.append(cid)
        return self.blocks.get(cid)


async def scrub(store: FileStore, peer: Peer | None = None) -> None:
    await Scrub(store, bytes_per_second=1 << 40, repair=(peer or Peer()).repair).round()


def leaf(number: int) -> Cid:
    return raw_cid(sha256_of(LARGE[number * MIB : (number + 1) * MIB]))


async def content(store: FileStore, data: bytes) -> bytes:
    held = await store.find(sha256_of(data))
    assert held is not None
    with store.open(held) as file:
        return file.read()


def left(folder: Path) -> list[str]:
    return [path.name for kind in ("damaged", "tmp") for path in (folder / kind).iterdir()]


async def test_what_is_sound_is_left_as_it_is_and_nobody_is_asked(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store:
        held = [await put(store, LARGE), await put(store, SMALL), await put(store, b"")]
        peer = Peer(LARGE)
        await scrub(store, peer)
        assert peer.asked == []
        assert [await store.find(one.sha256) for one in held] == held


async def test_a_large_file_that_rotted_without_a_trace_is_mended_by_the_blocks_that_are_wrong(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store:
        await rot(store, await put(store, LARGE), MIB, 3 * MIB + 5)
        assert await content(store, LARGE) != LARGE
        peer = Peer(LARGE)
        await scrub(store, peer)
        assert peer.asked == [leaf(1), leaf(3)]
        assert await content(store, LARGE) == LARGE
        assert left(tmp_path) == []
        places = [place for cid in peer.blocks for place in await store.places_of(cid)]
        assert [await store.read_block(place) for place in places] == list(peer.blocks.values())


async def test_a_small_file_is_mended_by_its_one_block(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store:
        held = await put(store, SMALL)
        await rot(store, held, 10)
        peer = Peer(SMALL)
        await scrub(store, peer)
        assert peer.asked == [held.cid]
        assert await content(store, SMALL) == SMALL


async def test_more_wrong_blocks_than_are_fetched_beforehand_are_mended_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert PATCH_BLOCKS > 1
    monkeypatch.setattr("index_frontend.storage.filestore.mending.PATCH_BLOCKS", 1)
    async with open_filestore(tmp_path) as store:
        await rot(store, await put(store, LARGE), 0, MIB, 2 * MIB)
        peer = Peer(LARGE)
        await scrub(store, peer)
        assert peer.asked == [leaf(0), leaf(1), leaf(2)]
        assert await content(store, LARGE) == LARGE


@pytest.mark.parametrize("lies", [False, True], ids=["nobody has it", "it is wrong"])
async def test_what_nobody_can_mend_is_removed_and_can_be_fetched_anew(tmp_path: Path, lies: bool) -> None:
    async with open_filestore(tmp_path) as store:
        await rot(store, await put(store, LARGE), 2 * MIB)
        peer = Peer()
        if lies:
            peer.blocks[leaf(2)] = bytes(MIB)
        await scrub(store, peer)
        assert (await store.find(sha256_of(LARGE)), left(tmp_path)) == (None, [])
        assert [await store.places_of(cid) for cid in Peer(LARGE).blocks] == [()] * len(Peer(LARGE).blocks)
        assert list((tmp_path / "nodes").iterdir()) == []
        await put(store, LARGE)
        assert await content(store, LARGE) == LARGE


async def test_what_is_pinned_waits_for_who_can_mend_it(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store:
        held = await put(store, LARGE)
        assert await store.pin(held.sha256, "the only copy")
        await rot(store, held, 2 * MIB)
        peer = Peer()
        patient = Scrub(store, bytes_per_second=1 << 40, repair=peer.repair)
        for _ in range(3):
            await patient.round()
        assert (await store.find(held.sha256), peer.asked) == (None, [leaf(2)])
        assert left(tmp_path) == [f"{held.sha256}.{held.size}.{held.cid}"]
        await scrub(store, Peer(LARGE))
        assert (await content(store, LARGE), left(tmp_path)) == (LARGE, [])
        assert await store.pin_of(held.sha256) == "the only copy"


async def test_what_is_pinned_and_lost_its_end_is_mended_too(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store:
        held = await put(store, LARGE)
        assert held.path is not None
        assert await store.pin(held.sha256, "the only copy")
        held.path.chmod(0o644)
        os.truncate(held.path, len(LARGE) - 1)
        assert await store.recheck(held.sha256) is None
        assert left(tmp_path) == [f"{held.sha256}.{held.size}.{held.cid}"]
        peer = Peer(LARGE)
        await scrub(store, peer)
        assert peer.asked == [raw_cid(sha256_of(b"the end"))]
        assert (await content(store, LARGE), left(tmp_path)) == (LARGE, [])


@pytest.mark.parametrize("how", ["fetched anew", "unpinned"])
async def test_what_waited_to_be_mended_goes_when_nobody_needs_it(tmp_path: Path, how: str) -> None:
    async with open_filestore(tmp_path) as store:
        held = await put(store, LARGE)
        assert await store.pin(held.sha256, "kept")
        await rot(store, held, 0)
        await scrub(store)
        assert left(tmp_path) == [f"{held.sha256}.{held.size}.{held.cid}"]
        if how == "unpinned":
            await store.unpin(held.sha256)
        else:
            await put(store, LARGE)
        await scrub(store)
        assert left(tmp_path) == []
        assert (await store.find(held.sha256) is not None) == (how == "fetched anew")


async def test_it_is_out_of_service_before_anybody_is_asked_to_mend_it(tmp_path: Path) -> None:
    peer, found = Peer(LARGE), []
    async with open_filestore(tmp_path) as store, open_filestore(tmp_path) as other:
        held = await put(store, LARGE)
        await rot(store, held, 0)
        promised = await other.find(held.sha256)
        assert promised is not None

        async def repair(cid: Cid) -> bytes | None:
            found.append((await store.find(held.sha256), await other.recheck(held.sha256)))
            with pytest.raises(Damaged):
                other.open(promised)
            return await peer.repair(cid)

        await Scrub(store, bytes_per_second=1 << 40, repair=repair).round()
        assert set(found) == {(None, None)}
        assert await content(other, LARGE) == LARGE


async def test_who_fetches_it_meanwhile_is_not_in_the_way(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store:
        await rot(store, await put(store, LARGE), 0)

        async def repair(cid: Cid) -> bytes | None:
            await put(store, LARGE)
            return None if cid != leaf(0) else LARGE[:MIB]

        await Scrub(store, bytes_per_second=1 << 40, repair=repair).round()
        assert (await content(store, LARGE), left(tmp_path)) == (LARGE, [])


async def test_a_file_that_lost_its_end_is_not_opened_and_fetched_anew(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store:
        held = await put(store, LARGE)
        await rot(store, held, size=4 * MIB)
        with pytest.raises(Damaged):
            store.open(held)
        await scrub(store, Peer(LARGE))
        assert await store.find(held.sha256) is None


async def test_a_node_that_rotted_is_made_anew_from_the_file(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store:
        await put(store, LARGE)
        (node,) = (tmp_path / "nodes").iterdir()
        sound = node.read_bytes()
        node.chmod(0o644)
        node.write_bytes(sound[:-1] + b"!")
        peer = Peer()
        await scrub(store, peer)
        assert (node.read_bytes(), peer.asked) == (sound, [])
        assert await content(store, LARGE) == LARGE


async def test_what_a_process_that_died_set_aside_is_mended_by_the_next(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store:
        held = await put(store, LARGE)
        await rot(store, held, MIB)
        with store.look_into(await _found(store, held.sha256)) as file:
            assert await store.set_aside(held, os.fstat(file.fileno()))
        (tmp_path / "damaged" / "notes.txt").write_bytes(b"of somebody else")
    for node in (tmp_path / "nodes").iterdir():
        node.unlink()
    async with open_filestore(tmp_path) as store:
        peer = Peer(LARGE)
        await scrub(store, peer)
        assert set(peer.asked) == {held.cid, leaf(1)}
        assert (await content(store, LARGE), left(tmp_path)) == (LARGE, ["notes.txt"])


async def _found(store: FileStore, sha256: Sha256) -> Held:
    held = await store.find(sha256)
    assert held is not None
    return held


class FullDisk(Disk):
    """Has no room, sometimes."""

    is_full = False

    def create(self, path: Path) -> int:
        if self.is_full:
            raise StorageFull("no room")
        return super().create(path)


async def test_without_room_to_mend_it_waits(tmp_path: Path) -> None:
    disk = FullDisk()
    async with open_filestore(tmp_path, disk=disk) as store:
        await rot(store, await put(store, LARGE), 0)
        disk.is_full = True
        await scrub(store, Peer(LARGE))
        assert (await store.find(sha256_of(LARGE)), len(left(tmp_path))) == (None, 1)
        disk.is_full = False
        await scrub(store, Peer(LARGE))
        assert (await content(store, LARGE), left(tmp_path)) == (LARGE, [])


async def test_it_goes_no_faster_than_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async with open_filestore(tmp_path) as store:
        await put(store, LARGE)
        for number in range(10):
            await put(store, b"%d" % number * 1000)
        monkeypatch.setattr("index_frontend.storage.filestore.scrub.asyncio.sleep", sleep)
        await Scrub(store, bytes_per_second=MIB).round()
        assert 4.0 <= sum(slept) <= 4.02


async def test_one_process_of_several_scrubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[bool] = []
    taken = FileStore.turn

    def turn(store: FileStore, work: str) -> Claim | None:
        claim = taken(store, work)
        if work == "scrub":
            turns.append(claim is not None)
        return claim

    monkeypatch.setattr(FileStore, "turn", turn)
    async with open_filestore(tmp_path) as one, open_filestore(tmp_path) as two:
        tasks = [asyncio.create_task(Scrub(store, bytes_per_second=MIB).run()) for store in (one, two)]
        async with asyncio.timeout(5):
            while len(turns) < 2:
                await asyncio.sleep(0.001)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert sorted(turns) == [False, True]
        claim = one.turn("scrub")
        assert claim is not None  # the next may
        claim.release()
