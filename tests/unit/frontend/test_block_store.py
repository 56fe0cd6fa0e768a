"""Files as blocks: every leaf and node of what is held is found and right, whatever was lost of what makes finding quick."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from index_frontend.ports import BlockPlace, Damaged, Held, StorageFull, Verified
from index_frontend.storage.filestore import FileStore, open_filestore
from index_frontend.storage.filestore.disk import Disk
from index_frontend.storage.memory import MemoryStore
from matrix_pypi_bot.wire.cids import Block, Cid, CidBuilder, raw_cid
from matrix_pypi_bot.wire.digests import Sha256, sha256_of
from matrix_pypi_bot.wire.messages import Stored

MIB = 1 << 20
SMALL = b"a wheel" * 1000
LARGE = bytes(range(256)) * 4096 * 2 + b"a" * MIB + b"the end"  # two equal leaves, another, a short one
OTHER = b"a" * MIB + b"another end"  # its first leaf is one of LARGE's
Store = FileStore | MemoryStore


@pytest.fixture(params=["filestore", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    async with open_filestore(tmp_path) as opened:
        yield opened


async def put(store: Store, body: bytes) -> Held:
    async with store.writer(sha256_of(body)) as writer:
        assert writer is not None
        if isinstance(writer, Held):
            return writer
        await writer.write(body)
        return await writer.commit(Verified(sha256_of(body), len(body)))


def blocks_of(body: bytes) -> dict[Cid, bytes]:
    """Every block of a file, by the profile's own builder."""
    blocks: list[Block] = []
    builder = CidBuilder(on_block=blocks.append)
    builder.update(body)
    builder.finish()
    return {b.cid: body[b.offset : b.offset + b.size] if b.data is None else b.data for b in blocks}


async def block(store: Store, cid: Cid) -> bytes:
    places = await store.places_of(cid)
    assert places
    assert len({await store.read_block(place) for place in places}) == 1
    return await store.read_block(places[0])


async def blocks(store: Store, body: bytes) -> dict[Cid, bytes]:
    return {cid: await block(store, cid) for cid in blocks_of(body)}


def node_of(folder: Path, body: bytes) -> Path:
    (node,) = [cid for cid in blocks_of(body) if cid.startswith("bafybei")]
    return folder / "nodes" / node


async def until_indexed(store: FileStore, *bodies: bytes) -> None:
    async with asyncio.timeout(10):
        while not all([await store.places_of(cid) for body in bodies for cid in blocks_of(body)]):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("body", [b"", SMALL, bytes(MIB), bytes(MIB + 1), LARGE], ids=len)
async def test_every_block_of_a_held_file_is_found_by_its_cid(store: Store, body: bytes) -> None:
    held = await put(store, body)
    assert held.cid in blocks_of(body)
    assert await blocks(store, body) == blocks_of(body)


async def test_what_is_not_held_has_no_place(store: Store) -> None:
    await put(store, SMALL)
    for cid in blocks_of(LARGE):
        assert await store.places_of(cid) == ()


async def test_a_file_of_many_blocks_is_no_block_itself(store: Store) -> None:
    await put(store, LARGE)
    assert await store.places_of(raw_cid(sha256_of(LARGE))) == ()


async def test_a_block_of_two_files_has_two_places(store: Store) -> None:
    await put(store, LARGE)
    await put(store, OTHER)
    places = await store.places_of(raw_cid(sha256_of(b"a" * MIB)))
    cid = raw_cid(sha256_of(b"a" * MIB))
    assert set(places) == {
        BlockPlace(cid=cid, sha256=sha256_of(LARGE), size=MIB, offset=2 * MIB),
        BlockPlace(cid=cid, sha256=sha256_of(OTHER), size=MIB, offset=0),
    }


async def test_a_block_that_was_asked_for_is_found_in_a_file_that_comes_after_that(store: Store) -> None:
    leaf = raw_cid(sha256_of(b"a" * MIB))
    stored = set()
    for end in (b"1", b"2"):
        stored.add((await put(store, b"a" * MIB + end)).sha256)
        assert {place.sha256 for place in await store.places_of(leaf)} == stored


async def test_of_a_block_of_many_files_some_places_are_enough(store: Store) -> None:
    bodies = [bytes(MIB) + b"%d" % number for number in range(20)]
    for body in bodies:
        await put(store, body)
    assert len(await store.places_of(raw_cid(sha256_of(bytes(MIB))))) == 16
    for body in bodies:
        assert await blocks(store, body) == blocks_of(body)


async def test_only_what_the_bot_was_told_of_has_askers(store: Store) -> None:
    def given(file: str, body: bytes) -> Stored:
        return Stored(
            project="a", file=file, sha256=sha256_of(body), size=1, cid=raw_cid(sha256_of(body)), source="cache"
        )

    told = [given("a-1.zip", SMALL), given("a-2.zip", SMALL)]
    for stored in (*told, given("a-3.zip", SMALL), given("a-4.zip", LARGE)):
        await store.note_asked(stored)
    assert await store.askers_of(sha256_of(SMALL)) == ()
    for stored in told:
        await store.reported(stored)
    assert await store.askers_of(sha256_of(SMALL)) == (("a", "a-1.zip"), ("a", "a-2.zip"))
    assert await store.askers_of(sha256_of(LARGE)) == ()


# What can be lost -----------------------------------------------------------------------------------------------------


async def test_small_files_keep_no_nodes_and_no_rows(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store:
        await put(store, bytes(MIB))
    with sqlite3.connect(tmp_path / "index.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM blocks").fetchone() == (0,)
    assert list((tmp_path / "nodes").iterdir()) == []


@pytest.mark.parametrize("damage", ["gone", "changed", "emptied"])
async def test_a_lost_node_is_made_anew(tmp_path: Path, damage: str) -> None:
    async with open_filestore(tmp_path) as store:
        await put(store, LARGE)
        node = node_of(tmp_path, LARGE)
        sound = node.read_bytes()
        node.unlink()
        if damage != "gone":
            node.write_bytes(b"" if damage == "emptied" else sound[:-1])
        assert await blocks(store, LARGE) == blocks_of(LARGE)
        assert node.read_bytes() == sound


class NoNodes(Disk):
    """Has no room for them any more."""

    is_full = False

    def publish(self, source: Path, target: Path) -> None:
        if self.is_full and target.parent.name == "nodes":
            raise StorageFull("no room")
        super().publish(source, target)


async def test_nobody_has_a_file_hashed_again_and_again_for_a_node_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, hashed = NoNodes(), []
    recheck = FileStore.recheck

    async def counted(store: FileStore, sha256: Sha256) -> Held | None:
        hashed.append(sha256)
        return await recheck(store, sha256)

    async with open_filestore(tmp_path, disk=disk) as store:
        held = await put(store, LARGE)
        node_of(tmp_path, LARGE).unlink()
        disk.is_full = True
        monkeypatch.setattr(FileStore, "recheck", counted)
        (place,) = await store.places_of(held.cid)
        for _ in range(3):
            with pytest.raises(Damaged):
                await store.read_block(place)
        assert hashed == [held.sha256]


async def test_a_lost_index_and_lost_nodes_are_found_again(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store:
        await put(store, LARGE)
        await put(store, SMALL)
    (tmp_path / "index.sqlite").unlink()
    node_of(tmp_path, LARGE).unlink()
    async with open_filestore(tmp_path) as store:
        await until_indexed(store, LARGE, SMALL)
        assert await blocks(store, LARGE) | await blocks(store, SMALL) == blocks_of(LARGE) | blocks_of(SMALL)


@asynccontextmanager
async def of_the_first_version(folder: Path) -> AsyncIterator[FileStore]:
    """A store that was filled and left by a version that knew no blocks, opened by this one."""
    async with open_filestore(folder) as store:
        await put(store, LARGE)
        await store.note_asked(REPORT)
    node_of(folder, LARGE).unlink()
    with sqlite3.connect(folder / "index.sqlite") as index:
        for change in (
            "DROP TABLE metadata",
            "DROP TABLE blocks",
            "DROP TABLE totals",
            "DROP TABLE copied_until",
            "DROP TABLE uncopied",
            "DROP INDEX reports_by_digest",
            "DROP TABLE files",
            "CREATE TABLE files (sha256 TEXT PRIMARY KEY, size INTEGER, cid TEXT, modified_ns INTEGER) WITHOUT ROWID",
            "PRAGMA user_version = 1",
        ):
            index.execute(change)
    index.close()
    async with open_filestore(folder) as store:
        yield store


REPORT = Stored(
    project="a", file="a.zip", sha256=sha256_of(LARGE), size=1, cid=raw_cid(Sha256("0" * 64)), source="cache"
)


async def test_an_earlier_versions_files_get_their_blocks_and_its_reports_stay(tmp_path: Path) -> None:
    async with of_the_first_version(tmp_path) as store:
        await until_indexed(store, LARGE)
        assert await blocks(store, LARGE) == blocks_of(LARGE)
        assert await store.unreported() == [REPORT]


async def test_what_the_version_before_knew_is_known_and_nothing_is_hashed_anew(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store:
        held = await put(store, LARGE)
        await store.note_asked(REPORT)
    with sqlite3.connect(tmp_path / "index.sqlite") as index:
        index.execute("DROP TABLE metadata")
        index.execute("PRAGMA user_version = 2")
    index.close()
    async with open_filestore(tmp_path) as store:
        assert (await store.find(held.sha256), await store.unreported()) == (held, [REPORT])
        await store.note_metadata(held.sha256, "a", "a.zip")
        assert await store.metadata_of(held.sha256) == ()
        await store.reported(REPORT)
        assert await store.metadata_of(held.sha256) == (("a", "a.zip"),)


async def test_where_a_block_lay_is_forgotten_with_its_file(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store:
        held = await put(store, LARGE)
        root, *leaves = reversed(blocks_of(LARGE))
        assert all([await store.places_of(cid) for cid in leaves])
        await store.delete(held.sha256)
        assert [await store.places_of(cid) for cid in (root, *leaves)] == [()] * (len(leaves) + 1)


async def test_a_leaf_is_opened_in_its_file_and_a_node_is_not(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store:
        await put(store, LARGE)
        for cid in blocks_of(LARGE):
            (place, *_) = await store.places_of(cid)
            file = await store.open_leaf(place)
            if place.offset is None:
                assert file is None
                continue
            assert file is not None
            with file:
                assert os.pread(file.fileno(), place.size, place.offset) == await store.read_block(place)


async def test_of_a_file_that_was_changed_no_block_is_read(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store:
        held = await put(store, LARGE)
        assert held.path is not None
        (place,) = await store.places_of(raw_cid(sha256_of(b"the end")))
        held.path.chmod(0o644)
        held.path.write_bytes(bytes(len(LARGE)))
        with pytest.raises(Damaged):
            await store.read_block(place)
        assert await store.recheck(held.sha256) is None
        assert [await store.places_of(cid) for cid in blocks_of(LARGE)] == [()] * len(blocks_of(LARGE))
        assert list((tmp_path / "nodes").iterdir()) == []
