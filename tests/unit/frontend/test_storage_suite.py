"""The conformance suite itself: it passes what is right, and names what each kind of defect is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest

from index_frontend.storage.api import Capability, ContentId, Health, NotFound, Stat, StorageBackend, Unavailable
from index_frontend.storage.suite import Outcome, check, points
from matrix_pypi_bot.wire.cids import Cid
from matrix_pypi_bot.wire.digests import Sha256
from tests.support.backends import DictBackend, ReadOnlyBackend, vector

MIB = 1 << 20


async def outcomes(make: Callable[[], StorageBackend], **options: Any) -> dict[str, Outcome]:
    """By point."""
    return {outcome.point: outcome async for outcome in check(make, **options)}


async def failed(make: Callable[[], StorageBackend], point: str) -> bool:
    """Whether it failed at that point."""
    return (await outcomes(make, only=[point]))[point].result == "failed"


async def test_a_right_backend_passes_every_point_and_keeps_only_what_it_had() -> None:
    backend = DictBackend(files=[b"mine", b""])
    found = await outcomes(lambda: backend)
    assert found == {point: Outcome(point=point, result="ok") for point in points()}
    assert sorted(backend.files.values()) == [b"", b"mine"]


async def test_a_backend_that_only_reads_is_asked_what_it_can_be_asked() -> None:
    found = await outcomes(lambda: ReadOnlyBackend(files=[vector(MIB + 1)]), known=[vector(MIB + 1)])
    assert {outcome.result for outcome in found.values()} == {"ok", "not applicable"}
    assert {point for point, outcome in found.items() if outcome.result == "ok"} >= {
        "what is held reads the same for many at once",
        "what is not held is not there, rather than away",
        "it leaves no task and no open file behind",
    }


async def test_leaving_early_removes_what_was_stored() -> None:
    backend = DictBackend()
    running = check(lambda: backend)
    async for outcome in running:
        if outcome.point.startswith("storing twice"):
            break
    assert backend.files
    await running.aclose()
    assert not backend.files


async def test_a_backend_that_does_not_open_is_told_in_one_line() -> None:
    class Away(DictBackend):
        async def open(self) -> None:
            raise Unavailable("nobody there", backend=self.name)

    assert await outcomes(Away) == {"it opens": Outcome(point="it opens", result="failed", detail="dict: nobody there")}


class KeepsParts(DictBackend):
    """Keeps what came before a source broke."""

    async def put(self, content: ContentId, chunks: AsyncIterator[bytes]) -> None:
        self.files[content] = b""
        async for chunk in chunks:
            self.files[content] += chunk
        self._keep(content, self.files[content])


class Forgets(DictBackend):
    """Says stored and keeps nothing."""

    async def put(self, content: ContentId, chunks: AsyncIterator[bytes]) -> None:
        async for _ in chunks:
            pass


class SaysAway(DictBackend):
    """Takes absence for a failure."""

    async def stat(self, content: ContentId) -> Stat | None:
        if content not in self.files:
            raise Unavailable("no answer", backend=self.name)
        return await super().stat(content)


class LosesSharedBlocks(DictBackend):
    """Removes all blocks of a file that goes."""

    async def delete(self, content: ContentId) -> bool:
        kept = dict(self.blocks)
        gone = await super().delete(content)
        if gone:
            self.blocks = {cid: data for cid, data in kept.items() if cid in self.blocks and len(data) < MIB}
        return gone


class DeletesPinned(DictBackend):
    """Heeds no pin."""

    async def delete(self, content: ContentId) -> bool:
        self.pins.pop(content, None)
        return await super().delete(content)


class ListsBackwards(DictBackend):
    """In the wrong order."""

    async def list(self, *, after: Sha256 | None = None) -> AsyncIterator[Stat]:
        for content in sorted(self.files, key=lambda one: one.sha256, reverse=True):
            yield Stat(content=content)


class Ill(DictBackend):
    """Down."""

    async def health(self) -> Health:
        return Health(state="down", detail="the disk is gone")


class LeavesTasks(DictBackend):
    """Starts something at each read and never ends it."""

    tasks: ClassVar[set[asyncio.Task[bool]]] = set()

    @asynccontextmanager
    async def read(self, content: ContentId) -> AsyncIterator[AsyncIterator[bytes]]:
        self.tasks.add(asyncio.create_task(asyncio.Event().wait()))
        async with super().read(content) as chunks:
            yield chunks


class NoLeaves(DictBackend):
    """Has nodes only."""

    async def get_block(self, cid: Cid) -> bytes:
        if cid.startswith("bafkrei"):
            raise NotFound("no leaves here", backend=self.name)
        return await super().get_block(cid)


@pytest.mark.parametrize(
    ("kind", "point"),
    [
        (KeepsParts, "a source that ends or breaks: nothing is kept"),
        (KeepsParts, "cancelled at any byte: nothing is kept"),
        (KeepsParts, "a wrong sha256, size or CID: nothing is kept"),
        (Forgets, "files of 0 bytes to 10 MiB come out as they went in"),
        (SaysAway, "what is not held is not there, rather than away"),
        (LosesSharedBlocks, "files that share blocks do not share their end"),
        (DeletesPinned, "what is pinned stays, under its name"),
        (ListsBackwards, "a list is whole whatever is stored meanwhile"),
        (Ill, "it is well, and says so within two seconds"),
        (NoLeaves, "every leaf and node by its CID"),
    ],
)
async def test_a_defect_is_found_at_its_point(kind: type[DictBackend], point: str) -> None:
    backend = kind()
    assert await failed(lambda: backend, point)


async def test_tasks_left_behind_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index_frontend.storage.suite.asking._SETTLE_SECONDS", 0.01)
    backend = LeavesTasks()
    try:
        assert await failed(lambda: backend, "it leaves no task and no open file behind")
    finally:
        for task in backend.tasks:
            task.cancel()
        await asyncio.gather(*backend.tasks, return_exceptions=True)


async def test_a_backend_is_asked_only_for_what_it_can() -> None:
    class Bare(ReadOnlyBackend):
        pass

    found = await outcomes(Bare)
    assert found["every leaf and node by its CID"].detail == f"it has no {Capability.BLOCKS.value}"
