"""From one place to another: whole or not at all, not twice, and never under another CID."""

from __future__ import annotations

import errno
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from index_frontend.dag.car import CarReader, car_header, car_section
from index_frontend.storage.api import ContentId, Stat, StorageBackend, Unavailable
from index_frontend.storage.archive import car_of
from index_frontend.storage.moving import Moved, NotHeld, copy, export, find, import_car, scrub
from index_frontend.storage.verified import Verified
from matrix_pypi_bot.wire.cids import KUBO_V1_DEFAULT, Block, CidBuilder, raw_cid
from matrix_pypi_bot.wire.digests import sha256_of
from tests.support.backends import MIB, DictBackend, ReadOnlyBackend, blocks_of, content_of, vector

FILES = [b"", b"short", vector(MIB), vector(3 * MIB + 77), bytes(4 * MIB)]
BIG = FILES[3]


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Closes what was opened."""
    async with AsyncExitStack() as stack:
        yield stack


async def ready(stack: AsyncExitStack, backend: StorageBackend) -> Verified:
    """The backend, checked and open."""
    verified = Verified(backend)
    await verified.open()
    stack.push_async_callback(verified.close)
    return verified


def car(data: bytes) -> bytes:
    """The archive of a file, made in another way: all its blocks in a dictionary, the root first."""
    content, blocks = content_of(data), blocks_of(data)
    root = content.cid
    order = [root, *(cid for cid in blocks if cid != root)]  # one level of nodes: leaves in order
    return car_header(root) + b"".join(car_section(cid, blocks[cid]) for cid in order)


@pytest.mark.parametrize("data", FILES, ids=len)
@pytest.mark.parametrize("kind", [DictBackend, ReadOnlyBackend])
async def test_an_archive_is_root_and_leaves_in_order_none_twice(
    stack: AsyncExitStack, kind: type[DictBackend], data: bytes
) -> None:
    backend = await ready(stack, kind(files=[data]))
    assert b"".join([piece async for piece in car_of(backend, content_of(data))]) == car(data)


async def test_what_is_exported_is_imported_as_it_was_and_not_twice(stack: AsyncExitStack, tmp_path: Path) -> None:
    source, target = await ready(stack, DictBackend(files=FILES)), await ready(stack, DictBackend())
    stats = [stat async for stat in find(source, ())]
    for result in ("done", "was there"):
        for stat in stats:
            path = tmp_path / f"{stat.content.cid}.car"
            assert await export(source, stat, tmp_path) == Moved(stat.content.cid, stat.content.size, result, str(path))
            assert [moved async for moved in import_car(target, path)] == [
                Moved(stat.content.cid, stat.content.size, result)
            ]
    assert target.backend.files == source.backend.files  # type: ignore[attr-defined]
    assert len([*tmp_path.iterdir()]) == len(FILES)


async def test_blocks_may_come_in_any_order_and_files_share_an_archive(stack: AsyncExitStack, tmp_path: Path) -> None:
    blocks = [*(blocks_of(BIG) | blocks_of(b"short")).items()]
    random.Random(7).shuffle(blocks)
    roots = (content_of(BIG).cid, content_of(b"short").cid)
    path = tmp_path / "two.car"
    path.write_bytes(car_header(*roots) + b"".join(car_section(cid, data) for cid, data in blocks))
    target = await ready(stack, DictBackend())
    assert [moved async for moved in import_car(target, path)] == [
        Moved(roots[0], len(BIG), "done"),
        Moved(roots[1], 5, "done"),
    ]


def foreign(data: bytes) -> bytes:
    """A file as a node without a profile cuts it."""
    blocks: list[Block] = []
    builder = CidBuilder(KUBO_V1_DEFAULT, on_block=blocks.append)
    builder.update(data)
    root = builder.finish()
    sections = (car_section(b.cid, data[b.offset : b.offset + b.size] if b.data is None else b.data) for b in blocks)
    return car_header(root) + b"".join(sections)


@pytest.mark.parametrize(
    ("archive", "says"),
    [
        (b"", "cut off"),
        (b"no archive at all", "cut off"),
        (b"\x11no archive at all", "not the header"),
        (car(BIG)[:-1], "cut off"),
        (car(BIG)[: -(77 + 37)], "is missing"),
        (car(BIG)[:-1] + b"!", "another hash"),
        (foreign(BIG), "not a file in the profile"),
        (car_header(), "names no root"),
        (car_header(raw_cid(sha256_of(b"?"))) + car_section(raw_cid(sha256_of(b"!")), b"!"), "is missing"),
    ],
)
async def test_what_is_not_whole_is_not_stored(
    stack: AsyncExitStack, tmp_path: Path, archive: bytes, says: str
) -> None:
    path = tmp_path / "bad.car"
    path.write_bytes(archive)
    target = await ready(stack, DictBackend())
    (moved,) = [moved async for moved in import_car(target, path)]
    assert moved.result == "refused"
    assert says in moved.detail
    assert target.backend.files == {}  # type: ignore[attr-defined]


async def test_a_failed_export_leaves_no_file(stack: AsyncExitStack, tmp_path: Path) -> None:
    source = await ready(stack, DictBackend(files=[BIG]))
    source.backend.files[content_of(BIG)] = BIG[:-1] + b"!"  # type: ignore[attr-defined]
    moved = await export(source, Stat(content=content_of(BIG)), tmp_path)
    assert (moved.result, [*tmp_path.iterdir()]) == ("refused", [])


async def test_copying_again_copies_what_is_missing_and_pins_what_is_pinned(stack: AsyncExitStack) -> None:
    source, target = await ready(stack, DictBackend("a", FILES)), await ready(stack, DictBackend("b", FILES[:2]))
    await source.pin(content_of(BIG), "release")
    results = {stat.content.size: await copy(source, target, stat, pins=True) async for stat in find(source, ())}
    assert {size: moved.result for size, moved in results.items()} == {
        len(data): "was there" if data in FILES[:2] else "done" for data in FILES
    }
    assert [stat async for stat in find(target, ())] == [stat async for stat in find(source, ())]


async def test_files_are_found_by_sha256_and_by_cid(stack: AsyncExitStack) -> None:
    source = await ready(stack, DictBackend(files=FILES))
    one, other = content_of(BIG), content_of(b"short")
    found = [stat.content async for stat in find(source, [one.cid, other.sha256])]
    assert found == sorted([one, other], key=lambda content: content.sha256)
    for name in ("nonsense", "0" * 64):
        with pytest.raises(NotHeld):
            _ = [stat async for stat in find(source, [name])]


async def test_scrubbing_finds_what_has_rotted_and_repairs_it(stack: AsyncExitStack) -> None:
    backend, sound = await ready(stack, DictBackend("a", [BIG])), await ready(stack, DictBackend("b", [BIG]))
    content = content_of(BIG)
    await backend.pin(content, "release")
    (stat,) = [stat async for stat in find(backend, ())]
    assert (await scrub(backend, stat)).result == "was there"
    backend.backend.files[content] = BIG[:-1] + b"!"  # type: ignore[attr-defined]
    assert (await scrub(backend, stat)).result == "refused"
    assert (await scrub(backend, stat, repair=sound)).result == "done"
    assert (await scrub(backend, stat)).result == "was there"
    assert await backend.stat(content) == Stat(content=content, pin="release")


async def test_nothing_gives_way_to_what_is_wrong_as_well(stack: AsyncExitStack) -> None:
    backend, wrong = await ready(stack, DictBackend("a", [BIG])), await ready(stack, DictBackend("b", [BIG]))
    content = content_of(BIG)
    for one in (backend, wrong):
        one.backend.files[content] = BIG[:-1] + b"!"  # type: ignore[attr-defined]
    assert (await scrub(backend, Stat(content=content), repair=wrong)).result == "refused"
    assert await backend.stat(content) == Stat(content=content)


def test_the_reader_of_archives_reads_what_is_written_here() -> None:
    reader = CarReader(max_bytes=8 * MIB)
    assert dict(reader.feed(car(BIG))) == blocks_of(BIG)
    reader.finish()


class BadSector(DictBackend):
    """Cannot read one of its files."""

    unreadable = content_of(BIG)

    @asynccontextmanager
    async def read(self, content: ContentId) -> AsyncIterator[AsyncIterator[bytes]]:
        async with super().read(content) as chunks:
            if content == self.unreadable and self.files[content] is BIG:
                raise OSError(errno.EIO, "Input/output error")
            yield chunks


async def test_a_file_that_cannot_be_read_keeps_nobody_from_the_next(stack: AsyncExitStack, tmp_path: Path) -> None:
    backend, other = await ready(stack, BadSector("bad", files=FILES)), await ready(stack, DictBackend())
    expected = {content_of(data).cid: "refused" if data is BIG else "done" for data in FILES}
    stats = [stat async for stat in find(backend, ())]
    assert {(moved := await export(backend, stat, tmp_path)).name: moved.result for stat in stats} == expected
    assert {(moved := await copy(backend, other, stat)).name: moved.result for stat in stats} == expected
    assert {stat.content.cid: (await scrub(backend, stat)).result for stat in stats} == {
        cid: "was there" if result == "done" else result for cid, result in expected.items()
    }
    sound = await ready(stack, DictBackend(files=[bytes(bytearray(BIG))]))
    stat = Stat(content=BadSector.unreadable)
    assert (await scrub(backend, stat, repair=sound)).result == "done"
    assert (await scrub(backend, stat)).result == "was there"


async def test_a_target_that_is_away_ends_it(stack: AsyncExitStack) -> None:
    class Away(DictBackend):
        async def put(self, content: ContentId, chunks: AsyncIterator[bytes]) -> None:
            raise Unavailable("it is off", backend=self.name)

    source, target = await ready(stack, DictBackend("source", files=[BIG])), await ready(stack, Away("target"))
    with pytest.raises(Unavailable, match="it is off"):
        await copy(source, target, Stat(content=content_of(BIG)))
