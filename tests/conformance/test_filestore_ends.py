"""The file store after a kill, and on a full disk, at every step of its work: whole or not there, and nothing left over for good."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from index_frontend.ports import StorageFull, Verified
from index_frontend.storage.filestore import FileStore, Limits, Scrub, open_filestore
from index_frontend.storage.filestore.part import FileWriter
from matrix_pypi_bot.wire.cids import Block, Cid, CidBuilder
from matrix_pypi_bot.wire.digests import sha256_of
from tests.support.crashing_disk import FullOnce
from tests.support.killed_store import BODIES, EVICTED, MIB, PINNED, put


def blocks_of(body: bytes) -> list[Block]:
    blocks: list[Block] = []
    builder = CidBuilder(on_block=blocks.append)
    builder.update(body)
    builder.finish()
    return blocks


def names(folder: Path, kind: str) -> set[str]:
    return {path.name for path in (folder / kind).rglob("*") if path.is_file()}


async def is_in_order(folder: Path, store: FileStore) -> bool:
    """Files have rows and rows have files, nodes belong to a file, and nothing is on its way."""
    held = {one.sha256 for one in [held async for held in store.all()]}
    bodies = [body for body in BODIES if sha256_of(body) in held]
    nodes: set[Cid] = {block.cid for body in bodies for block in blocks_of(body) if block.data is not None}
    return (
        names(folder, "files") == held
        and await store.totals() == (sum(map(len, bodies)), len(bodies))
        and names(folder, "nodes") == nodes
        and names(folder, "tmp") == names(folder, "damaged") == set()
    )


async def must_come_in_order(folder: Path, store: FileStore) -> None:
    async with asyncio.timeout(10):
        await Scrub(store, bytes_per_second=0).round()  # as it would within a day
        while not await is_in_order(folder, store):  # the look at the start was under way
            await store.tidy()
            await asyncio.sleep(0.001)


async def must_be_whole(store: FileStore, body: bytes) -> None:
    held = await store.find(sha256_of(body))
    assert held is not None
    with store.open(held) as file:
        assert hashlib.sha256(file.read()).hexdigest() == held.sha256
    for block in blocks_of(body):
        place = next(place for place in await store.places_of(block.cid) if place.sha256 == held.sha256)
        data = await store.read_block(place)
        assert data == (body[block.offset : block.offset + block.size] if block.data is None else block.data)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder of stores, one for each step at which a process was killed, and the steps."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-m", "tests.support.killed_store", str(folder)]
    subprocess.run(command, check=True, timeout=120, cwd=Path(__file__).parents[2])
    return folder, json.loads((folder / "steps.json").read_text())


async def test_after_a_kill_at_any_step_everything_is_whole_or_not_there_and_nothing_is_left_over(
    killed: tuple[Path, list[str]],
) -> None:
    folder, steps = killed
    assert {"create", "append", "seal", "sync", "publish", "sync_folder", "remove", "row"} <= set(steps)
    for number, step in enumerate(steps, 1):
        store_folder = folder / f"{number:03}"
        if not store_folder.exists():  # killed before it made one
            assert step == "make_folders"
            continue
        async with open_filestore(store_folder) as store:
            await must_come_in_order(store_folder, store)
            for body in BODIES:
                if sha256_of(body) in names(store_folder, "files"):
                    await must_be_whole(store, body)
            for body in BODIES:
                await put(store, body)
                await must_be_whole(store, body)
            assert names(store_folder, "pins") <= {sha256_of(PINNED)}


async def stored_and_evicted(store: FileStore) -> None:
    for body in (PINNED, EVICTED):
        await put(store, body)
    await store.pin(sha256_of(PINNED), "kept")
    await store.evict(sha256_of(EVICTED))


async def test_a_disk_that_is_full_at_any_step_costs_that_step_and_nothing_else(tmp_path: Path) -> None:
    rehearsal = FullOnce()
    async with open_filestore(tmp_path / "rehearsal", disk=rehearsal) as store:
        first = len(rehearsal.steps)
        await stored_and_evicted(store)
    for step in range(first + 1, len(rehearsal.steps) + 1):
        folder = tmp_path / f"{step:03}"
        disk = FullOnce(step)
        async with open_filestore(folder, disk=disk) as store:
            with suppress(StorageFull):
                await stored_and_evicted(store)
            disk.fails_at = (
                0  # the look at the start may have made some steps in the rehearsal that it does not make now
            )
            await must_come_in_order(folder, store)
            await stored_and_evicted(store)
            await must_come_in_order(folder, store)
            await must_be_whole(store, PINNED)
            assert names(folder, "files") == {sha256_of(PINNED)}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 8 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def body(number: int) -> bytes:
    return bytes([number]) * (2 * MIB)


async def test_a_real_disk_that_is_full_is_told_and_what_is_there_stays_right(small_disk: Path) -> None:
    async with open_filestore(small_disk) as store:
        stored = 0
        with pytest.raises(StorageFull):
            while stored < 10:
                await put(store, body(stored))
                stored += 1
        assert stored == 3
        assert (await store.totals(), names(small_disk, "tmp")) == ((6 * MIB, 3), set())
        for number in range(stored):
            held = await store.find(sha256_of(body(number)))
            assert held is not None
            with store.open(held) as file:
                assert file.read() == body(number)


async def test_a_real_disk_with_a_floor_never_gets_full(small_disk: Path) -> None:
    async with open_filestore(small_disk, limits=Limits(min_free_bytes=1)) as store:
        for number in range(10):
            async with store.writer(sha256_of(body(number))) as writer:
                assert isinstance(writer, FileWriter)
                await writer.expect(2 * MIB)
                await writer.write(body(number))
                await writer.commit(Verified(sha256_of(body(number)), 2 * MIB))
        assert 1 <= (await store.totals())[1] <= 3
        assert await store.find(sha256_of(body(9)))
