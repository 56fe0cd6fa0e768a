"""The store's index under running processes: lost, damaged or replaced, and nowhere to make another one."""

from __future__ import annotations

import asyncio
import errno
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from index_frontend.ports import StorageBroken
from index_frontend.storage.filestore import index as index_module
from index_frontend.storage.filestore import rows
from index_frontend.storage.filestore.index import Index
from index_frontend.storage.filestore.layout import Layout
from matrix_pypi_bot.wire.cids import raw_cid
from matrix_pypi_bot.wire.digests import sha256_of
from matrix_pypi_bot.wire.messages import Stored


def report(number: int) -> Stored:
    sha256 = sha256_of(str(number).encode())
    return Stored(
        project="a", file=f"a-{number}.whl", sha256=sha256, size=1, cid=raw_cid(sha256), source="upstream" * 20
    )


async def note(index: Index, number: int) -> None:
    await index.write(partial(rows.note_asked, stored=report(number)), durable=True)


async def noted(index: Index) -> list[Stored]:
    return await index.read(partial(rows.unreported, limit=5000))


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Index]:
    index = Index(Layout(folder))
    try:
        yield index
    finally:
        await index.close()


def lose(folder: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        (folder / f"index.sqlite{suffix}").unlink(missing_ok=True)


async def test_no_room_for_a_new_index_fails_what_is_asked_and_not_what_is_asked_when_there_is_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> sqlite3.Connection:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with opened(tmp_path) as index, asyncio.timeout(10):
        lose(tmp_path)
        with monkeypatch.context() as patched:
            patched.setattr(index_module, "_create", full)
            for _ in range(2):
                with pytest.raises(StorageBroken, match="No space left"):
                    await note(index, 1)
            with pytest.raises(StorageBroken, match="No space left"):
                await noted(index)
        await note(index, 2)
        assert await noted(index) == [report(2)]


async def test_damage_that_only_a_question_meets_does_not_leave_it_unanswered_for_ever(tmp_path: Path) -> None:
    async with opened(tmp_path) as index:
        for number in range(300):
            await note(index, number)
    path = tmp_path / "index.sqlite"
    with sqlite3.connect(path) as connection:
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    data = path.read_bytes()
    damaged = data.find(report(150).cid.encode()) // page_bytes * page_bytes
    path.write_bytes(data[:damaged] + b"\xff" * page_bytes + data[damaged + page_bytes :])
    async with opened(tmp_path) as index:
        assert await noted(index) == []
        await note(index, 1)
        assert await noted(index) == [report(1)]


@pytest.mark.parametrize("how", ["another process makes it anew", "a person deletes it"])
async def test_what_is_noted_after_the_index_was_replaced_is_in_the_one_that_is_there(tmp_path: Path, how: str) -> None:
    async with opened(tmp_path) as one, opened(tmp_path) as other:
        await note(one, 1)
        assert await noted(other) == [report(1)]
        lose(tmp_path)
        if how == "another process makes it anew":
            await note(other, 2)
            assert await noted(one) == [report(2)]
        await note(one, 3)
        await note(other, 4)
        expected = [report(number) for number in ((2, 3, 4) if how == "another process makes it anew" else (3, 4))]
        assert await noted(one) == await noted(other) == expected
    async with opened(tmp_path) as index:
        assert await noted(index) == expected


async def test_who_only_looks_makes_no_empty_index_where_there_was_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as index:
        await note(index, 1)
        lose(tmp_path)
        assert await noted(index) == []
        assert await index.read(rows.totals) == (0, 0)
