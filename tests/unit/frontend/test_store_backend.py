"""Our own stores as backends: the conformance suite over each, bare and as everybody uses them, and what it does not ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from index_frontend.storage.api import (
    Capability,
    ContentId,
    Misconfigured,
    NotFound,
    StorageBackend,
    StorageFull,
    Unavailable,
    Usage,
    WrongContent,
)
from index_frontend.storage.filestore.backend import files_backend
from index_frontend.storage.memory import MemoryStore
from index_frontend.storage.store_backend import StoreBackend
from index_frontend.storage.suite import check
from index_frontend.storage.verified import Verified
from tests.support.backends import content_of, vector

MIB = 1 << 20
Make = Callable[[], StorageBackend]


@pytest.fixture(params=["files", "memory"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    if request.param == "files":
        return lambda: files_backend("files", {"folder": str(tmp_path / "store")})
    store = MemoryStore()

    @asynccontextmanager
    async def opened() -> AsyncIterator[MemoryStore]:
        yield store

    return lambda: StoreBackend("memory", opened)


@pytest.fixture
async def backend(make: Make) -> AsyncIterator[StorageBackend]:
    made = make()
    await made.open()
    yield made
    await made.close()


async def pieces(data: bytes, size: int = 300_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def whole(backend: StorageBackend, content: ContentId) -> bytes:
    async with backend.read(content) as chunks:
        return b"".join([chunk async for chunk in chunks])


@pytest.mark.parametrize("bare", [True, False], ids=["bare", "verified"])
async def test_it_passes_the_conformance_suite(make: Make, bare: bool) -> None:
    found = {
        outcome.point: outcome.detail
        async for outcome in check(make if bare else lambda: Verified(make()))
        if outcome.result != "ok"
    }
    assert found == {}


async def test_it_can_do_everything(backend: StorageBackend) -> None:
    assert backend.capabilities == frozenset(Capability)


async def test_what_was_put_is_what_is_read(backend: StorageBackend) -> None:
    data = vector(3 * MIB + 5)
    await backend.put(content_of(data), pieces(data))
    assert await whole(backend, content_of(data)) == data
    assert await backend.usage() == Usage(bytes=len(data), files=1, pinned_files=0)


async def test_it_hashes_what_is_put_itself(backend: StorageBackend) -> None:
    content = content_of(vector(2 * MIB))
    with pytest.raises(WrongContent):
        await backend.put(content, pieces(bytes(2 * MIB)))
    wrong = ContentId(sha256=content.sha256, size=content.size, cid=content_of(bytes(2 * MIB)).cid)
    with pytest.raises(WrongContent):
        await backend.put(wrong, pieces(vector(2 * MIB)))
    assert [await backend.stat(one) for one in (content, wrong)] == [None, None]
    assert [stat async for stat in backend.list()] == []


async def test_a_source_s_own_storage_problem_stays_its_own(backend: StorageBackend) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"a"
        raise NotFound("gone", backend="source")

    with pytest.raises(NotFound, match="source"):
        await backend.put(content_of(b"ab"), broken())


async def test_two_who_put_the_same_wait_for_each_other(backend: StorageBackend) -> None:
    data = vector(2 * MIB)
    await asyncio.gather(*(backend.put(content_of(data), pieces(data)) for _ in range(5)))
    assert await backend.usage() == Usage(bytes=len(data), files=1, pinned_files=0)


async def test_a_closed_one_says_so(backend: StorageBackend) -> None:
    await backend.close()
    with pytest.raises(Unavailable):
        await backend.stat(content_of(b""))
    assert (await backend.health()).state == "down"


async def test_a_file_larger_than_the_quota_is_refused_before_it_is_read(tmp_path: Path) -> None:
    backend = files_backend("small", {"folder": str(tmp_path), "max_bytes": MIB})
    await backend.open()
    data = vector(MIB + 1)

    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("was read")
        yield b""

    with pytest.raises(StorageFull):
        await backend.put(content_of(data), never())
    assert await backend.usage() == Usage(bytes=0, files=0, limit_bytes=MIB, pinned_files=0)
    await backend.close()


@pytest.mark.parametrize("section", [{}, {"folder": 1}, {"folder": "a", "max_byte": 1}])
def test_a_section_that_makes_no_sense_is_refused(section: dict[str, object]) -> None:
    with pytest.raises(Misconfigured):
        files_backend("files", section)
