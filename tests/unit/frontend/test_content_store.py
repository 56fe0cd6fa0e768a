"""What every content store must do, for each of ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index_frontend.ports import ContentStore, DigestMismatch, Held, Verified, Writer
from index_frontend.storage.filestore import open_filestore
from index_frontend.storage.memory import MemoryStore
from matrix_pypi_bot.wire.cids import CidBuilder, raw_cid
from matrix_pypi_bot.wire.digests import Sha256, sha256_of
from matrix_pypi_bot.wire.messages import Stored

BODY = b"a wheel" * 1000
DIGEST = sha256_of(BODY)
MIB = 1 << 20
Opened = Callable[[], AbstractAsyncContextManager[ContentStore]]


@asynccontextmanager
async def memory() -> AsyncIterator[ContentStore]:
    yield MemoryStore()


@pytest.fixture(params=["filestore", "memory"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    return memory if request.param == "memory" else lambda: open_filestore(tmp_path / "store")


@pytest.fixture
async def store(opened: Opened) -> AsyncIterator[ContentStore]:
    async with opened() as made:
        yield made


def verified(body: bytes) -> Verified:
    return Verified(sha256_of(body), len(body))


@asynccontextmanager
async def writing(store: ContentStore, sha256: Sha256) -> AsyncIterator[Writer]:
    async with store.writer(sha256) as writer:
        assert writer is not None
        assert not isinstance(writer, Held)
        yield writer


async def put(store: ContentStore, body: bytes, pieces: int = 3) -> Held:
    async with writing(store, sha256_of(body)) as writer:
        step = max(1, len(body) // pieces)
        for start in range(0, len(body), step):
            await writer.write(body[start : start + step])
        return await writer.commit(verified(body))


def content(store: ContentStore, held: Held) -> bytes:
    with store.open(held) as file:
        return file.read()


@pytest.mark.parametrize("size", [0, 1, 65_536, MIB - 1, MIB, MIB + 1, 3 * MIB])
async def test_what_was_stored_is_found_whole_with_its_cid(store: ContentStore, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    held = await put(store, body)
    builder = CidBuilder()
    builder.update(body)
    assert (held.sha256, held.size, held.cid) == (sha256_of(body), size, builder.finish())
    assert store.held(held.sha256) == held
    assert await store.find(held.sha256) == held
    assert content(store, held) == body


@pytest.mark.parametrize("size", [1000, 2 * MIB])
async def test_a_length_told_beforehand_changes_nothing(store: ContentStore, size: int) -> None:
    body = b"y" * size
    async with writing(store, sha256_of(body)) as writer:
        await writer.expect(size)
        await writer.write(body)
        held = await writer.commit(verified(body))
    builder = CidBuilder()
    builder.update(body)
    assert held.cid == builder.finish()


async def test_what_nobody_stored_is_not_found(store: ContentStore) -> None:
    await put(store, BODY)
    other = Sha256(DIGEST[:-1] + ("0" if DIGEST[-1] != "0" else "1"))
    assert (store.held(other), await store.find(other), store.follow(other)) == (None, None, None)
    assert await store.recheck(other) is None


async def test_a_file_is_found_only_once_it_is_committed(store: ContentStore) -> None:
    async with writing(store, DIGEST) as writer:
        await writer.write(BODY)
        assert (store.held(DIGEST), await store.find(DIGEST)) == (None, None)
        held = await writer.commit(verified(BODY))
    assert await store.find(DIGEST) == held


async def test_what_is_not_committed_leaves_nothing(store: ContentStore) -> None:
    async with writing(store, DIGEST) as writer:
        await writer.write(BODY)
        part = writer.part()
    assert part.is_gone()
    part.close()
    assert (store.held(DIGEST), await store.find(DIGEST), store.follow(DIGEST)) == (None, None, None)
    assert content(store, await put(store, BODY)) == BODY


@pytest.mark.parametrize(
    "proof", [Verified(DIGEST, 1), Verified(sha256_of(b"other"), len(BODY))], ids=["size", "digest"]
)
async def test_a_proof_about_other_bytes_is_refused_and_nothing_is_kept(store: ContentStore, proof: Verified) -> None:
    async with writing(store, DIGEST) as writer:
        await writer.write(BODY)
        with pytest.raises(DigestMismatch):
            await writer.commit(proof)
    assert await store.find(DIGEST) is None


async def test_an_object_has_one_writer_at_a_time(store: ContentStore) -> None:
    async with writing(store, DIGEST):
        async with store.writer(DIGEST) as second:
            assert second is None
    async with writing(store, DIGEST):
        pass


async def test_a_writer_of_what_is_here_already_gets_the_file(store: ContentStore) -> None:
    held = await put(store, BODY)
    async with store.writer(DIGEST) as writer:
        assert writer == held
    assert content(store, held) == BODY


async def test_two_who_store_the_same_leave_one_object(store: ContentStore) -> None:
    bodies = [b"%d" % number * 100 for number in range(10)]

    async def store_or_wait(body: bytes) -> Held:
        while True:
            async with store.writer(sha256_of(body)) as writer:
                if isinstance(writer, Held):
                    return writer
                if writer is not None:
                    await writer.write(body)
                    return await writer.commit(verified(body))
            await asyncio.sleep(0)

    stored = await asyncio.gather(*(store_or_wait(body) for body in bodies * 5))
    assert len(set(stored)) == len(bodies)
    assert {content(store, held) for held in stored} == set(bodies)


async def test_a_part_is_readable_while_it_grows_and_after_it_was_committed(store: ContentStore) -> None:
    async with writing(store, DIGEST) as writer:
        await writer.write(BODY[:10])
        part = writer.part()
        assert (part.length(), await part.read(4, 100)) == (10, BODY[4:10])
        await writer.write(BODY[10:])
        assert (part.length(), await part.read(0, len(BODY) + 5)) == (len(BODY), BODY)
        held = await writer.commit(verified(BODY))
        assert (part.is_gone(), part.became(held)) == (False, True)
        assert await part.read(len(BODY) - 3, 10) == BODY[-3:]
        part.close()


async def test_others_can_follow_a_part_and_learn_its_length(store: ContentStore) -> None:
    async with writing(store, DIGEST) as writer:
        assert store.follow(DIGEST) is None
        await writer.write(BODY[:10])
        part = store.follow(DIGEST)
        assert part is not None
        assert (part.total, part.length()) == (None, 10)
        await writer.expect(len(BODY))
        assert part.total == len(BODY)
        await writer.write(BODY[10:])
        assert await part.read(0, len(BODY)) == BODY
        assert part.became(await writer.commit(verified(BODY)))
        part.close()


async def test_a_writer_that_starts_again_makes_another_part(store: ContentStore) -> None:
    async with writing(store, DIGEST) as writer:
        await writer.write(b"wrong")
        first = writer.part()
        await writer.restart()
        assert (first.is_gone(), writer.size) == (True, 0)
        assert await first.read(0, 10) == b"wrong"
        await writer.write(BODY)
        held = await writer.commit(verified(BODY))
        assert (first.became(held), content(store, held)) == (False, BODY)
        first.close()


@pytest.mark.parametrize("written", [0, 10, len(BODY)])
async def test_a_cancelled_writer_leaves_nothing_and_no_claim(store: ContentStore, written: int) -> None:
    reached = asyncio.Event()

    async def write() -> None:
        async with writing(store, DIGEST) as writer:
            await writer.write(BODY[:written])
            reached.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await store.find(DIGEST), store.follow(DIGEST)) == (None, None)
    assert content(store, await put(store, BODY)) == BODY


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    body=st.binary(max_size=3000), places=st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 3000)), max_size=10)
)
async def test_any_part_of_any_body_is_read_as_it_was_written(
    store: ContentStore, body: bytes, places: list[tuple[int, int]]
) -> None:
    async with store.writer(sha256_of(body)) as writer:
        if isinstance(writer, Held):  # the same example again
            return
        assert writer is not None
        await writer.write(body)
        part = writer.part()
        for start, count in places:
            assert await part.read(start, count) == body[start : start + count]
        part.close()
        held = await writer.commit(verified(body))
    assert content(store, held) == body


def report(file: str, *, project: str = "mxa", source: str = "upstream") -> Stored:
    return Stored(project=project, file=file, sha256=DIGEST, size=len(BODY), cid=raw_cid(DIGEST), source=source)


async def test_what_clients_were_given_is_remembered_until_the_bot_knows(store: ContentStore) -> None:
    one, two = report("mxa-1.0.tar.gz"), report("mxa-2.0.tar.gz")
    assert [await store.note_asked(stored) for stored in (one, two, one)] == [True, True, False]
    assert await store.unreported() == [one, two]
    assert await store.unreported(limit=1) == [one]
    await store.reported(one)
    assert await store.unreported() == [two]
    assert await store.note_asked(report("mxa-1.0.tar.gz", source="cache")) is False
    assert await store.unreported() == [two]


async def test_the_same_bytes_under_two_names_are_two_reports(store: ContentStore) -> None:
    one, two = report("mxa-1.0.tar.gz"), report("mxb-1.0.tar.gz", project="mxb")
    assert [await store.note_asked(stored) for stored in (one, two)] == [True, True]
    assert await store.unreported() == [one, two]


async def test_a_transfer_that_was_wrong_is_remembered(store: ContentStore) -> None:
    assert await store.was_wrong(DIGEST) is False
    await store.note_wrong(DIGEST)
    assert (await store.was_wrong(DIGEST), await store.was_wrong(sha256_of(b""))) == (True, False)
