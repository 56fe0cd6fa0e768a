"""The file store: what is true of it after a crash, on a full or damaged disk, and between processes that share it."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from index_frontend.ports import Damaged, Held, StorageBroken, StorageFull, Verified, Writer
from index_frontend.storage.filestore import FileStore, open_filestore
from index_frontend.storage.filestore.claims import Claim
from index_frontend.storage.filestore.disk import Disk, told
from index_frontend.storage.filestore.index import Index
from index_frontend.storage.filestore.notes import WRONG_SECONDS
from matrix_pypi_bot.wire.cids import raw_cid
from matrix_pypi_bot.wire.digests import Sha256, sha256_of
from matrix_pypi_bot.wire.messages import Stored
from tests.support.crashing_disk import CrashingDisk, PowerFailure

BODY = b"a wheel" * 30_000
DIGEST = sha256_of(BODY)
LARGE = bytes(3 << 20)


@asynccontextmanager
async def writing(store: FileStore, sha256: Sha256) -> AsyncIterator[Writer]:
    async with store.writer(sha256) as writer:
        assert writer is not None
        assert not isinstance(writer, Held)
        yield writer


async def put(store: FileStore, body: bytes = BODY) -> Held:
    async with writing(store, sha256_of(body)) as writer:
        await writer.write(body[:100_000])
        await writer.write(body[100_000:])
        return await writer.commit(Verified(sha256_of(body), len(body)))


def content(store: FileStore, held: Held) -> bytes:
    with store.open(held) as file:
        return file.read()


def path_of(folder: Path, sha256: Sha256) -> Path:
    return folder / "files" / sha256[:2] / sha256[2:4] / sha256


async def claimed(store: FileStore, sha256: Sha256) -> Held | None:
    """What a process that wants to fetch the object is given: the file, or None, and then it would write."""
    while True:
        async with store.writer(sha256) as got:
            if got is not None:  # else the search for what the index does not know is at it
                return got if isinstance(got, Held) else None
        await asyncio.sleep(0.001)


# Where it lies --------------------------------------------------------------------------------------------------------


async def test_files_lie_read_only_by_their_digest_and_nothing_else_stays(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store:
        await put(store)
    path = path_of(tmp_path, DIGEST)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (BODY, 0o444)
    assert list((tmp_path / "tmp").iterdir()) == []
    assert {entry.name for entry in tmp_path.iterdir()} == {
        "damaged",
        "files",
        "nodes",
        "pins",
        "tmp",
        "index.sqlite",
        "index.lock",
    }


async def test_files_and_reports_outlive_the_process(tmp_path: Path) -> None:
    report = Stored(project="a", file="a-1.zip", sha256=DIGEST, size=1, cid=raw_cid(DIGEST), source="upstream")
    async with open_filestore(tmp_path) as store:
        held = await put(store)
        await store.note_asked(report)
    async with open_filestore(tmp_path) as store:
        assert store.held(DIGEST) is None
        assert await store.find(DIGEST) == held
        assert await store.unreported() == [report]


# A crash at any step --------------------------------------------------------------------------------------------------


async def steps_of_a_put(tmp_path: Path) -> list[str]:
    disk = CrashingDisk()
    async with open_filestore(tmp_path / "rehearsal", disk=disk) as store:
        await put(store)
    return disk.steps


async def crash_at(folder: Path, step: int, *, tears: bool) -> None:
    disk = CrashingDisk(step, tears=tears)
    with pytest.raises(PowerFailure):
        async with open_filestore(folder, disk=disk) as store:
            await put(store)


@pytest.fixture
def dead_processes_leave_their_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel drops the lock of a dead process; nobody takes the file's name away."""
    monkeypatch.setattr(Claim, "release", lambda claim: os.close(claim.descriptor))


@pytest.mark.usefixtures("dead_processes_leave_their_locks")
@pytest.mark.parametrize("tears", [False, True], ids=["clean", "torn"])
async def test_after_a_crash_at_any_step_the_store_holds_the_whole_file_or_nothing(tmp_path: Path, tears: bool) -> None:
    steps = await steps_of_a_put(tmp_path)
    assert steps[-4:] == ["publish", "sync_folder", "sync_folder", "sync_folder"]
    for step in range(1, len(steps) + 1):
        folder = tmp_path / f"crash-{step}"
        await crash_at(folder, step, tears=tears)
        async with open_filestore(folder) as store:
            held = await claimed(store, DIGEST)
            assert (held is not None) == (steps[: step - 1].count("publish") == 1), steps[step - 1]
            if held is None:
                assert await store.find(DIGEST) is None
                held = await put(store)
            assert content(store, held) == BODY
            assert await store.find(DIGEST) == held


@pytest.mark.usefixtures("dead_processes_leave_their_locks")
async def test_a_crash_before_the_row_is_written_costs_one_hashing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise PowerFailure

    with monkeypatch.context() as patch, pytest.raises(PowerFailure):
        patch.setattr(Index, "write", fail)
        async with open_filestore(tmp_path) as store:
            await put(store, LARGE)
    async with open_filestore(tmp_path) as store:
        assert await store.find(sha256_of(LARGE)) is None
        held = await claimed(store, sha256_of(LARGE))
        assert held is not None
        assert held == await store.find(sha256_of(LARGE))
    async with open_filestore(tmp_path / "other") as other:
        assert held.cid == (await put(other, LARGE)).cid


async def test_what_a_crash_left_of_a_file_is_never_taken_for_it(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store:
        path = path_of(tmp_path, DIGEST)
        path.parent.mkdir(parents=True)
        path.write_bytes(BODY[:-1])
        assert await store.find(DIGEST) is None
        assert await claimed(store, DIGEST) is None
        assert not path.exists()


async def test_opening_removes_what_the_dead_left_and_leaves_the_living_alone(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as living:
        async with writing(living, DIGEST) as writer:
            await writer.write(BODY)
            (tmp_path / "tmp" / f"{'0' * 64}.part").write_bytes(b"of a dead process")
            (tmp_path / "tmp" / f"{'1' * 64}.lock").write_bytes(b"")
            (tmp_path / "tmp" / "notes.txt").write_bytes(b"of somebody else")
            async with open_filestore(tmp_path):
                names = {entry.name for entry in (tmp_path / "tmp").iterdir()}
                assert names == {f"{DIGEST}.part", f"{DIGEST}.lock", "notes.txt"}
            await writer.commit(Verified(DIGEST, len(BODY)))
        assert content(living, await _found(living)) == BODY


async def _found(store: FileStore, sha256: Sha256 = DIGEST) -> Held:
    held = await store.find(sha256)
    assert held is not None
    return held


# Several processes ----------------------------------------------------------------------------------------------------


async def test_what_one_process_stores_another_finds(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as one, open_filestore(tmp_path) as two:
        assert await two.find(DIGEST) is None
        held = await put(one)
        assert await two.find(DIGEST) == held
        assert two.held(DIGEST) == held
        assert content(two, held) == BODY


async def test_only_one_process_writes_an_object_and_the_other_can_follow(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as one, open_filestore(tmp_path) as two:
        async with writing(one, DIGEST) as writer:
            async with two.writer(DIGEST) as second:
                assert second is None
            await writer.write(BODY)
            await writer.expect(len(BODY))
            part = two.follow(DIGEST)
            assert part is not None
            assert (part.total, part.length(), await part.read(0, 10)) == (len(BODY), len(BODY), BODY[:10])
            held = await writer.commit(Verified(DIGEST, len(BODY)))
            assert part.became(held)
            part.close()
        assert await claimed(two, DIGEST) == held


async def test_a_follower_of_a_process_that_gave_up_sees_it(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as one, open_filestore(tmp_path) as two:
        async with writing(one, DIGEST) as writer:
            await writer.write(BODY)
            part = two.follow(DIGEST)
        assert part is not None
        assert part.is_gone()
        part.close()
        async with writing(two, DIGEST):
            pass


async def test_the_length_a_dead_process_told_is_not_believed_of_its_successor(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as one, open_filestore(tmp_path) as two:
        (tmp_path / "tmp" / f"{DIGEST}.lock").write_bytes(b"12345\n")
        async with writing(one, DIGEST) as writer:
            await writer.write(BODY)
            part = two.follow(DIGEST)
            assert part is not None
            assert part.total is None
            part.close()


async def test_the_length_told_of_a_part_is_not_believed_of_the_one_that_takes_its_place(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as one, open_filestore(tmp_path) as two, writing(one, DIGEST) as writer:
        await writer.expect(len(BODY) + 1_000_000)
        await writer.write(BODY)
        await writer.restart()
        await writer.write(BODY)
        part = two.follow(DIGEST)
        assert part is not None
        assert part.total is None
        await writer.expect(len(BODY))
        assert part.total == len(BODY)
        part.close()


class TornOnce(Disk):
    """Once, it has room for a half."""

    def __init__(self) -> None:
        self.is_full = True

    def append(self, descriptor: int, data: bytes | bytearray) -> None:
        if not self.is_full:
            return super().append(descriptor, data)
        self.is_full = False
        super().append(descriptor, data[: len(data) // 2])
        raise StorageFull("no room")


async def test_what_was_half_written_is_not_continued(tmp_path: Path) -> None:
    async with open_filestore(tmp_path, disk=TornOnce()) as store, writing(store, DIGEST) as writer:
        with pytest.raises(StorageFull):
            await writer.write(BODY)
        assert (writer.size, store.follow(DIGEST)) == (0, None)
        await writer.write(BODY)
        assert content(store, await writer.commit(Verified(DIGEST, len(BODY)))) == BODY


async def test_a_wrong_transfer_is_known_to_all_processes_for_a_minute(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as one, open_filestore(tmp_path) as two:
        now = 1000.0
        one._monotonic = two._monotonic = lambda: now
        await one.note_wrong(DIGEST)
        assert await two.was_wrong(DIGEST)
        now += WRONG_SECONDS + 1
        assert not await two.was_wrong(DIGEST)
        now = 5.0  # the machine was started anew
        assert not await two.was_wrong(DIGEST)
        now = 1000.0
        await put(two)
        assert not await one.was_wrong(DIGEST)


# A damaged disk -------------------------------------------------------------------------------------------------------


def overwrite(path: Path, data: bytes | bytearray) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damaged", [BODY[:-1], b"", BODY + b"!", b"!" + BODY[1:]], ids=["short", "empty", "long", "changed"]
)
async def test_a_damaged_file_is_not_opened_and_not_kept(tmp_path: Path, damaged: bytes) -> None:
    async with open_filestore(tmp_path) as store:
        held = await put(store)
        overwrite(path_of(tmp_path, DIGEST), damaged)
        with pytest.raises(Damaged):
            store.open(held)
        assert await store.recheck(DIGEST) is None
        assert (await store.find(DIGEST), path_of(tmp_path, DIGEST).exists()) == (None, False)
        assert content(store, await put(store)) == BODY


async def test_a_file_that_was_only_touched_is_hashed_and_kept(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store:
        held = await put(store)
        os.utime(held.path or "", ns=(1, 1))
        with pytest.raises(Damaged):
            store.open(held)
        again = await store.recheck(DIGEST)
        assert again is not None
        assert (again.modified_ns, content(store, again)) == (1, BODY)
    async with open_filestore(tmp_path) as store:
        assert await store.find(DIGEST) == again


async def test_a_file_that_another_process_removed_is_missed_here(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store:
        held = await put(store)
        path_of(tmp_path, DIGEST).unlink()
        with pytest.raises(Damaged):
            store.open(held)
        assert await store.recheck(DIGEST) is None
        assert await store.find(DIGEST) is None


async def test_whoever_wants_to_fetch_a_damaged_file_writes_it_anew(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store:
        await put(store)
        overwrite(path_of(tmp_path, DIGEST), b"damaged")
        assert content(store, await put(store)) == BODY


# A throw-away index ---------------------------------------------------------------------------------------------------


def spoil(folder: Path, how: str) -> None:
    index = folder / "index.sqlite"
    if how == "gone":
        index.unlink()
    elif how == "garbage":
        index.write_bytes(b"not a database" * 1000)
    elif how == "empty":
        index.write_bytes(b"")
    else:
        with sqlite3.connect(index) as connection:
            connection.execute("PRAGMA user_version = 999" if how == "version" else "DROP TABLE files")
        connection.close()


@pytest.mark.parametrize("how", ["gone", "garbage", "empty", "version", "table"])
async def test_an_index_that_cannot_be_used_is_made_anew_from_the_files(tmp_path: Path, how: str) -> None:
    async with open_filestore(tmp_path) as store:
        held = [await put(store), await put(store, LARGE)]
    spoil(tmp_path, how)
    async with open_filestore(tmp_path) as store:
        async with asyncio.timeout(10):
            while await store.find(sha256_of(LARGE)) is None or await store.find(DIGEST) is None:
                await asyncio.sleep(0.01)
        assert [await store.find(one.sha256) for one in held] == held
    async with open_filestore(tmp_path) as store:
        assert [await store.find(one.sha256) for one in held] == held


async def test_whoever_asks_before_the_index_is_made_anew_has_the_file_hashed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_filestore(tmp_path) as store:
        held = await put(store)
    spoil(tmp_path, "gone")
    monkeypatch.setattr("index_frontend.storage.filestore.layout.Layout.complete", lambda *_: iter(()))
    async with open_filestore(tmp_path) as store:
        assert await store.find(DIGEST) is None
        assert await claimed(store, DIGEST) == held


async def test_an_index_that_breaks_while_it_is_used_costs_no_file(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store:
        await put(store)
        index = tmp_path / "index.sqlite"
        for connection in (store._index._writer, store._index._reader):
            if connection is not None:
                connection.close()
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                index.with_name(index.name + suffix).unlink()
        index.write_bytes(b"not a database" * 1000)
        store._index._writer = sqlite3.connect(index, check_same_thread=False, isolation_level=None)
        store._index._inode = index.stat().st_ino
        store._index._reader = None
        large = await put(store, LARGE)
        store._known.clear()
        assert await store.find(sha256_of(LARGE)) == large
        assert content(store, await _claimed_again(store)) == BODY


async def _claimed_again(store: FileStore) -> Held:
    held = await claimed(store, DIGEST)
    assert held is not None
    return held


# A full disk ----------------------------------------------------------------------------------------------------------


class FullDisk(Disk):
    """Refuses one kind of step with one error."""

    def __init__(self, step: str, error: int) -> None:
        self._refused = {step: error}

    def create(self, path: Path) -> int:
        self._refuse("create")
        return super().create(path)

    def append(self, descriptor: int, data: bytes | bytearray) -> None:
        self._refuse("append")
        super().append(descriptor, data)

    def sync(self, descriptor: int) -> None:
        self._refuse("sync")
        super().sync(descriptor)

    def publish(self, source: Path, target: Path) -> None:
        self._refuse("publish")
        super().publish(source, target)

    def _refuse(self, step: str) -> None:
        with told(step, None):
            if step in self._refused:
                raise OSError(self._refused[step], os.strerror(self._refused[step]))


@pytest.mark.parametrize("step", ["create", "append", "sync", "publish"])
@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EIO, StorageBroken),
        (errno.EROFS, StorageBroken),
    ],
    ids=["full", "quota", "I/O", "read-only"],
)
async def test_a_disk_that_refuses_is_told_and_nothing_partial_stays(
    tmp_path: Path, step: str, error: int, problem: type[Exception]
) -> None:
    async with open_filestore(tmp_path, disk=FullDisk(step, error)) as store:
        with pytest.raises(problem):
            await put(store)
        assert await store.find(DIGEST) is None
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not path_of(tmp_path, DIGEST).exists()
    async with open_filestore(tmp_path) as store:
        assert content(store, await put(store)) == BODY


async def test_a_folder_that_cannot_be_made_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"a file is in the way")
    with pytest.raises(StorageBroken, match="cannot make"):
        async with open_filestore(tmp_path / "store"):
            pass


async def test_a_store_says_whether_it_can_store(tmp_path: Path) -> None:
    async with open_filestore(tmp_path) as store:
        await store.check()
    async with open_filestore(tmp_path, disk=FullDisk("append", errno.ENOSPC)) as full:
        with pytest.raises(StorageFull):
            await full.check()
    assert list((tmp_path / "tmp").iterdir()) == []


# Load -----------------------------------------------------------------------------------------------------------------


async def test_a_large_file_on_its_way_in_does_not_hold_up_the_event_loop(tmp_path: Path) -> None:
    chunk, lags, done = os.urandom(1 << 20), [], asyncio.Event()

    async def measure() -> None:
        loop = asyncio.get_running_loop()
        while not done.is_set():
            before = loop.time()
            await asyncio.sleep(0.001)
            lags.append(loop.time() - before)

    async with open_filestore(tmp_path) as store:
        measuring = asyncio.create_task(measure())
        async with writing(store, DIGEST) as writer:
            for _ in range(100):
                await writer.write(chunk)
        done.set()
        await measuring
    assert sorted(lags)[int(len(lags) * 0.98)] < 0.05
