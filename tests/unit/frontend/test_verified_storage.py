"""What surrounds every backend: nothing wrong is let out or in, and every failure has its name."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index_frontend.storage.api import (
    Capability,
    ContentId,
    Health,
    NotFound,
    Stat,
    StorageBackend,
    StorageFull,
    Unavailable,
    Unsupported,
    WrongContent,
)
from index_frontend.storage.verified import Verified, opened
from matrix_pypi_bot.wire.cids import Cid, InvalidCid, raw_cid
from matrix_pypi_bot.wire.digests import Sha256, sha256_of
from tests.support.backends import (
    MIB,
    DictBackend,
    ReadOnlyBackend,
    blocks_of,
    chunks_of,
    content_of,
    read_all,
    vector,
)

FILE = vector(3 * MIB + 77)
CONTENT = content_of(FILE)
BLOCKS = blocks_of(FILE)
Maker = Callable[[bytes], StorageBackend]


class Streams(ReadOnlyBackend):
    """Gives no blocks, and what it is told to stream."""

    def __init__(self, *chunks: Any) -> None:
        super().__init__()
        self._chunks = chunks

    @asynccontextmanager
    async def read(self, content: ContentId) -> AsyncIterator[AsyncIterator[bytes]]:
        yield self._stream()

    async def _stream(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk


class WithBlocks(Streams):
    """Its nodes are right, whatever it streams."""

    async def get_block(self, cid: Cid) -> bytes:
        return BLOCKS[cid]


async def released(backend: StorageBackend, content: ContentId = CONTENT) -> tuple[bytes, type[Exception] | None]:
    """What came out, and what ended it."""
    out = bytearray()
    async with opened(Verified(backend)) as verified:
        try:
            async with verified.read(content) as chunks:
                async for chunk in chunks:
                    assert 0 < len(chunk) <= MIB
                    out += chunk
        except Exception as error:
            return bytes(out), type(error)
    return bytes(out), None


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, MIB - 1, MIB, MIB + 1, 3 * MIB + 77])
@pytest.mark.parametrize("make", [DictBackend, ReadOnlyBackend])
async def test_a_file_comes_out_as_it_went_in(make: Callable[..., StorageBackend], size: int) -> None:
    data = vector(size)
    assert await released(make(files=[data]), content_of(data)) == (data, None)


async def test_a_wrong_block_is_found_before_a_byte_of_it_goes_out() -> None:
    backend = DictBackend(files=[FILE])
    backend.files[CONTENT] = FILE[: MIB + 5] + b"!" + FILE[MIB + 6 :]
    assert await released(backend) == (FILE[:MIB], WrongContent)


async def test_a_wrong_file_without_blocks_never_goes_out_whole() -> None:
    wrong = b"!" + FILE[1:]
    assert await released(Streams(*[wrong[i : i + MIB] for i in range(0, len(wrong), MIB)])) == (
        wrong[:-65_536],
        WrongContent,
    )


@pytest.mark.parametrize(
    ("chunks", "ends"),
    [
        ((FILE[:-1],), Unavailable),
        ((), Unavailable),
        ((FILE + b"!",), WrongContent),
        ((FILE[:MIB], ConnectionResetError("gone")), Unavailable),
        ((FILE[:MIB], StorageFull("no")), StorageFull),
        ((5,), Unavailable),
        (("text",), Unavailable),
    ],
)
async def test_a_stream_that_is_not_the_file_ends_in_its_problem(
    chunks: tuple[Any, ...], ends: type[Exception]
) -> None:
    out, problem = await released(Streams(*chunks))
    assert (len(out) < len(FILE), problem) == (True, ends)


async def test_chunks_of_any_length_are_cut() -> None:
    assert await released(Streams(b"", bytearray(FILE))) == (FILE, None)


async def test_a_backend_that_denies_its_nodes_is_read_with_the_tail_held_back() -> None:
    backend = DictBackend(files=[FILE])
    backend.blocks.clear()
    assert await released(backend) == (FILE, None)


async def test_a_node_that_is_another_one_is_refused() -> None:
    backend = DictBackend(files=[FILE])
    backend.blocks[CONTENT.cid] = next(iter(blocks_of(vector(5 * MIB)).values()))
    assert await released(backend) == (b"", WrongContent)


async def test_the_callers_own_exception_leaves_a_read_untouched() -> None:
    async with opened(Verified(DictBackend(files=[FILE]))) as verified:
        with pytest.raises(KeyError):
            async with verified.read(CONTENT) as chunks:
                async for _ in chunks:
                    raise KeyError


async def test_what_is_stored_passes_in_chunks_of_at_most_a_mebibyte() -> None:
    backend = DictBackend()
    async with opened(Verified(backend)) as verified:
        await verified.put(CONTENT, chunks_of(FILE, len(FILE)))
        assert await verified.stat(CONTENT) == Stat(content=CONTENT)
        assert await read_all(verified, CONTENT) == FILE


class Counting(DictBackend):
    """Remembers what it was given, and whether it saw an end."""

    seen = b""
    saw_end = False

    async def put(self, content: ContentId, chunks: AsyncIterator[bytes]) -> None:
        async for chunk in chunks:
            assert 0 < len(chunk) <= MIB
            self.seen += chunk
        self.saw_end = True


@pytest.mark.parametrize(
    ("content", "data"),
    [
        (ContentId(sha256=sha256_of(b"?"), size=CONTENT.size, cid=CONTENT.cid), FILE),
        (ContentId(sha256=CONTENT.sha256, size=CONTENT.size, cid=content_of(vector(4 * MIB)).cid), FILE),
        (ContentId(sha256=CONTENT.sha256, size=CONTENT.size, cid=raw_cid(CONTENT.sha256)), FILE),
        (ContentId(sha256=CONTENT.sha256, size=CONTENT.size + 1, cid=CONTENT.cid), FILE),
        (ContentId(sha256=CONTENT.sha256, size=CONTENT.size - 1, cid=CONTENT.cid), FILE),
        (ContentId(sha256=sha256_of(b"?"), size=0, cid=raw_cid(sha256_of(b"?"))), b""),
        (ContentId(sha256=sha256_of(b"?"), size=1, cid=raw_cid(sha256_of(b"!"))), b"?"),
        (CONTENT, FILE[:-1]),
        (CONTENT, FILE[:-1] + b"!"),
    ],
)
async def test_a_backend_never_sees_the_end_of_a_wrong_file(content: ContentId, data: bytes) -> None:
    backend = Counting()
    async with opened(Verified(backend)) as verified:
        with pytest.raises(WrongContent):
            await verified.put(content, chunks_of(data, 100_000))
    assert (backend.saw_end, len(backend.seen) < max(1, content.size)) == (False, True)


async def test_what_the_source_raises_comes_out_whatever_the_backend_makes_of_it() -> None:
    class Swallows(DictBackend):
        async def put(self, content: ContentId, chunks: AsyncIterator[bytes]) -> None:
            try:
                async for _ in chunks:
                    pass
            except ZeroDivisionError as error:
                raise RuntimeError from error

    async def source() -> AsyncIterator[bytes]:
        yield FILE[:MIB]
        raise ZeroDivisionError

    for backend in (Swallows(), DictBackend()):
        async with opened(Verified(backend)) as verified:
            with pytest.raises(ZeroDivisionError):
                await verified.put(CONTENT, source())
            assert await verified.stat(CONTENT) is None


async def test_a_backend_that_says_stored_and_read_nothing_is_not_believed() -> None:
    class Liar(DictBackend):
        async def put(self, content: ContentId, chunks: AsyncIterator[bytes]) -> None: ...

    async with opened(Verified(Liar())) as verified:
        with pytest.raises(Unavailable):
            await verified.put(CONTENT, chunks_of(FILE))
    async with opened(Verified(Liar(files=[FILE]))) as verified:
        await verified.put(CONTENT, chunks_of(FILE))  # it has it


async def test_a_block_is_hashed_and_bounded() -> None:
    backend = DictBackend(files=[FILE])
    leaf = raw_cid(sha256_of(FILE[:MIB]))
    backend.blocks[CONTENT.cid] = b"!" * (3 * MIB)
    async with opened(Verified(backend)) as verified:
        assert await verified.get_block(leaf) == FILE[:MIB]
        backend.blocks[leaf] = b"!"
        for cid in (leaf, CONTENT.cid):
            with pytest.raises(WrongContent):
                await verified.get_block(cid)
        with pytest.raises(NotFound):
            await verified.get_block(raw_cid(sha256_of(b"?")))
        with pytest.raises(InvalidCid):
            await verified.get_block(Cid("bafkqaaa"))


async def test_capabilities_are_those_of_the_backend() -> None:
    async with opened(Verified(DictBackend())) as full, opened(Verified(ReadOnlyBackend())) as bare:
        assert (full.capabilities, bare.capabilities) == (frozenset(Capability), frozenset())
        for call in (bare.put(CONTENT, chunks_of(FILE)), bare.usage(), bare.delete(CONTENT), bare.unpin(CONTENT)):
            with pytest.raises(Unsupported):
                await call
        with pytest.raises(Unsupported):
            bare.list()


async def test_another_file_under_the_same_sha256_is_not_the_one_asked_for() -> None:
    class Confused(DictBackend):
        async def stat(self, content: ContentId) -> Stat | None:
            return Stat(content=content_of(b"another"))

    async with opened(Verified(Confused())) as verified:
        assert await verified.stat(CONTENT) is None


async def test_failures_of_a_plugins_own_kind_are_named_and_cancellation_passes() -> None:
    class Breaks(DictBackend):
        error: BaseException = RuntimeError("bug")

        async def stat(self, content: ContentId) -> Stat | None:
            raise self.error

    backend = Breaks()
    async with opened(Verified(backend)) as verified:
        for error in (RuntimeError("bug"), OSError("disk"), TimeoutError()):
            backend.error = error
            with pytest.raises(Unavailable):
                await verified.stat(CONTENT)
        backend.error = asyncio.CancelledError()
        with pytest.raises(asyncio.CancelledError):
            await verified.stat(CONTENT)


async def test_a_list_that_goes_back_is_cut_off() -> None:
    class Circles(DictBackend):
        async def list(self, *, after: Sha256 | None = None) -> AsyncIterator[Stat]:
            while True:
                for content in self.files:
                    yield Stat(content=content)

    async with opened(Verified(Circles(files=[b"a", b"b"]))) as verified:
        with pytest.raises(Unavailable):
            _ = [stat async for stat in verified.list()]


async def test_what_is_no_answer_to_a_question_is_not_passed_on() -> None:
    class Odd(DictBackend):
        async def list(self, *, after: Sha256 | None = None) -> AsyncIterator[Any]:
            yield "a file"

        async def usage(self) -> Any:
            return {"bytes": 3}

    async with opened(Verified(Odd())) as verified:
        with pytest.raises(Unavailable, match="lists str for a file"):
            _ = [stat async for stat in verified.list()]
        with pytest.raises(Unavailable, match="tells dict for what it holds"):
            await verified.usage()


async def test_health_is_told_in_time_and_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index_frontend.storage.verified.HEALTH_SECONDS", 0.01)

    class Ill(DictBackend):
        how: Any = None

        async def health(self) -> Health:
            if isinstance(self.how, Exception):
                raise self.how
            if self.how == "hangs":
                await asyncio.Event().wait()
            return self.how  # type: ignore[no-any-return]

    backend = Ill()
    async with opened(Verified(backend)) as verified:
        odd: list[Any] = [Health(state="fine"), Health(state="ok", detail=3)]  # type: ignore[arg-type]
        for how in (RuntimeError("bug"), "hangs", None, "fine", *odd):
            backend.how = how
            assert (await verified.health()).state == "down"
        backend.how = Health(state="degraded", detail="line\nline")
        assert await verified.health() == Health(state="degraded", detail="line line")
    assert (await verified.health()).state == "down"


async def test_opening_and_closing_twice_is_once_and_nothing_works_outside() -> None:
    backend = DictBackend(files=[FILE])
    verified = Verified(backend)
    with pytest.raises(Unavailable):
        await verified.stat(CONTENT)
    await verified.open()
    await verified.open()
    await verified.close()
    await verified.close()
    assert backend.calls == ["open", "close"]
    with pytest.raises(Unavailable):
        verified.list()
    with pytest.raises(Unavailable):
        await read_all(verified, CONTENT)


async def test_a_call_that_hangs_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index_frontend.storage.verified.CALL_SECONDS", 0.01)

    class Hangs(DictBackend):
        async def stat(self, content: ContentId) -> Stat | None:
            await asyncio.Event().wait()

    async with opened(Verified(Hangs())) as verified:
        with pytest.raises(Unavailable):
            await verified.stat(CONTENT)


@settings(max_examples=60, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 2 * MIB), max_size=12),
    wrong=st.none() | st.integers(0, len(FILE) - 1),
    gives_blocks=st.booleans(),
)
async def test_however_a_stream_is_cut_and_wherever_it_is_wrong_nothing_wrong_is_complete(
    cuts: list[int], wrong: int | None, gives_blocks: bool
) -> None:
    data = FILE if wrong is None else FILE[:wrong] + bytes([FILE[wrong] ^ 1]) + FILE[wrong + 1 :]
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    chunks = [data[start:stop] for start, stop in itertools.pairwise(places)]
    backend = WithBlocks(*chunks) if gives_blocks else Streams(*chunks)
    out, problem = await released(backend)
    if wrong is None:
        assert (out, problem) == (FILE, None)
        return
    assert problem is WrongContent
    assert data.startswith(out)
    assert len(out) <= (wrong // MIB * MIB if gives_blocks else len(FILE) - 65_536)
