"""Fetches without any network: sources that a test scripts, and another process played by the test itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import ClassVar

import pytest

from index_frontend.fill import Asker, Fills, Flight, Reporter, Transfer
from index_frontend.ports import (
    Held,
    Source,
    SourceAway,
    SourceGone,
    SourceWrong,
    StorageBroken,
    StorageFull,
    Verified,
    Wanted,
    Writer,
)
from index_frontend.storage.memory import MemoryPart, MemoryStore, MemoryWriter
from matrix_pypi_bot.wire.digests import Sha256, sha256_of
from matrix_pypi_bot.wire.messages import Observed, Stored
from matrix_pypi_bot.wire.names import ProjectName
from matrix_pypi_bot.wire.problems import Problem
from tests.support.file_side import ScriptedOracle

BODY = bytes(range(256)) * 1000
DIGEST = sha256_of(BODY)
TAIL_BYTES = 65_536
WRONG = b"!" + BODY[1:]
FILE = "mxa-1.0-py3-none-any.whl"
OTHER_BYTES = f"matrix-pypi: {FILE}: upstream sent other bytes than the index names"


def wanted(body: bytes = BODY, *, size: int | None = len(BODY)) -> Wanted:
    return Wanted(
        sha256=sha256_of(body),
        size=size,
        urls=(f"https://files.example/{FILE}",),
        opened_origins=frozenset(),
        project=ProjectName("mxa"),
        name=FILE,
        max_bytes=1 << 20,
        rule="R8",
    )


@dataclass
class Scripted:
    """A source that sends `body` in pieces; `ends` after so many bytes with `problem`, and waits at `holds` for `go`."""

    body: bytes = BODY
    name: str = "upstream"
    ends: int | None = None
    problem: Problem | None = None
    refusal: Problem | None = None
    holds: int | None = None
    go: asyncio.Event = field(default_factory=asyncio.Event)
    tells_size: bool = True
    starts: list[int] = field(default_factory=list)

    def ways(self, wanted: Wanted) -> tuple[Wanted, ...]:
        return (wanted,)

    @asynccontextmanager
    async def fetch(self, wanted: Wanted, start: int = 0) -> AsyncIterator[_Body]:
        self.starts.append(start)
        if self.refusal is not None:
            raise self.refusal
        yield _Body(self, start)


@dataclass
class _Body:
    source: Scripted
    start: int

    @property
    def sender(self) -> str:
        return self.source.name

    @property
    def size(self) -> int | None:
        return len(self.source.body) if self.source.tells_size else None

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        stop = len(self.source.body) if self.source.ends is None else self.source.ends
        position = self.start
        while position < stop:
            if self.source.holds is not None and position >= self.source.holds:
                await self.source.go.wait()
            piece = self.source.body[position : min(position + 10_000, stop)]
            position += len(piece)
            yield piece
        if self.source.problem is not None:
            raise self.source.problem


@dataclass
class World:
    store: MemoryStore
    oracle: ScriptedOracle
    fills: Fills


@asynccontextmanager
async def world(*sources: Source, store: MemoryStore | None = None) -> AsyncIterator[World]:
    store, oracle = store or MemoryStore(), ScriptedOracle()
    reporter = Reporter(store, oracle)
    reports = asyncio.create_task(reporter.run())
    fills = Fills(store, sources, oracle, reporter)
    yield World(store, oracle, fills)
    await fills.close()
    reports.cancel()
    await asyncio.gather(reports, return_exceptions=True)


@asynccontextmanager
async def reading(flight: Flight, before: Transfer | None = None) -> AsyncIterator[Transfer]:
    async with flight.reading(before) as got:
        assert isinstance(got, Transfer)
        yield got


async def read(flight: Flight) -> bytes:
    """The whole body, as a client who has got nothing yet."""
    before: Transfer | None = None
    while True:
        async with reading(flight, before) as transfer:
            before = transfer
            with suppress(Problem):
                await transfer.whole()
                out = b""
                while len(out) < transfer.released:
                    out += await transfer.read(len(out), 1 << 20)
                return out


async def stored(store: MemoryStore, sha256: Sha256 = DIGEST) -> Held:
    async with asyncio.timeout(5):
        while (held := store.held(sha256)) is None:
            await asyncio.sleep(0.001)
    return held


@pytest.mark.parametrize("tells_size", [True, False])
@pytest.mark.parametrize("size", [len(BODY), None])
@pytest.mark.parametrize("body", [BODY, BODY[:1000], b""], ids=["large", "small", "empty"])
async def test_what_a_source_sends_is_let_out_and_stored(body: bytes, size: int | None, tells_size: bool) -> None:
    async with world(Scripted(body, tells_size=tells_size)) as here:
        flight = here.fills.join(wanted(body, size=None if size is None else len(body)), None)
        assert await read(flight) == body
        held = await stored(here.store, sha256_of(body))
        assert here.store.open(held).read() == body


async def test_a_source_that_breaks_off_is_continued_by_the_next_one() -> None:
    first = Scripted(ends=100_000, problem=SourceAway("matrix-pypi: broke off"))
    second = Scripted()
    async with world(first, second) as here:
        assert await read(here.fills.join(wanted(), None)) == BODY
    assert (first.starts, second.starts) == ([0], [100_000])


async def test_after_wrong_bytes_another_source_is_asked_from_the_start() -> None:
    wrong, right = Scripted(WRONG), Scripted()
    async with world(wrong, right) as here:
        assert await read(here.fills.join(wanted(), None)) == BODY
        async with asyncio.timeout(5):
            while not here.oracle.observed:
                await asyncio.sleep(0.001)
        assert here.oracle.observed == [
            Observed(
                project="mxa",
                file=FILE,
                expected_sha256=DIGEST,
                sha256=sha256_of(WRONG),
                size=len(WRONG),
                source="upstream",
                reason=f"expected sha256 {DIGEST}, got {sha256_of(WRONG)}",
            )
        ]
        assert await here.store.was_wrong(DIGEST)
    assert (wrong.starts, right.starts) == ([0], [0])


async def test_who_has_bytes_of_a_wrong_transfer_is_told_and_others_go_on() -> None:
    wrong, right = Scripted(WRONG, holds=200_000), Scripted()
    async with world(wrong, right) as here:
        flight = here.fills.join(wanted(), None)
        async with reading(flight) as transfer:
            await transfer.until(100_000)
            assert (await transfer.read(0, 10)) == WRONG[:10]
            assert transfer.released <= len(BODY) - TAIL_BYTES
            wrong.go.set()
            with pytest.raises(SourceWrong):
                await transfer.whole()
        assert await read(flight) == BODY


@pytest.mark.parametrize(
    ("sources", "told"),
    [
        ([Scripted(refusal=SourceGone("gone"))], "gone"),
        ([Scripted(refusal=SourceGone("gone")), Scripted(refusal=SourceAway("away"))], "away"),
        ([Scripted(refusal=SourceAway("away")), Scripted(refusal=SourceGone("gone"))], "away"),
        ([Scripted(refusal=SourceAway("away")), Scripted(refusal=SourceWrong("wrong"))], "wrong"),
        ([Scripted(WRONG), Scripted(refusal=SourceGone("gone"))], OTHER_BYTES),
        ([], f"matrix-pypi: nobody told where {FILE} is"),
    ],
)  # fmt: skip
async def test_when_no_source_has_it_the_worst_is_told(sources: Sequence[Source], told: str) -> None:
    async with world(*sources) as here:
        with pytest.raises(Problem) as caught:
            await read(here.fills.join(wanted(), None))
        assert caught.value.detail == told
        assert here.store.held(DIGEST) is None
        assert here.store.follow(DIGEST) is None


async def test_who_asks_after_a_failure_starts_a_new_fetch() -> None:
    source = Scripted(WRONG)
    async with world(source) as here:
        first = here.fills.join(wanted(), None)
        with pytest.raises(SourceWrong):
            await read(first)
        source.body = BODY
        second = here.fills.join(wanted(), None)
        assert second is not first
        assert await read(second) == BODY


async def test_all_who_want_an_object_join_one_fetch_and_are_reported_by_name() -> None:
    source = Scripted(holds=0)
    async with world(source) as here:
        flights = {here.fills.join(wanted(), Asker("mxa", name)) for name in ("a.whl", "b.whl", "a.whl")}
        flights.add(here.fills.join(wanted(), None))
        assert len(flights) == 1
        source.go.set()
        held = await stored(here.store)
        async with asyncio.timeout(5):
            while len(here.oracle.stored) < 2:
                await asyncio.sleep(0.001)

    def report(file: str) -> Stored:
        return Stored(project="mxa", file=file, sha256=DIGEST, size=len(BODY), cid=held.cid, source="upstream")

    assert sorted(here.oracle.stored, key=lambda one: one.file) == [report("a.whl"), report("b.whl")]
    assert source.starts == [0]


class Lingering(MemoryStore):
    """Others see what was stored before its writer has left."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    @asynccontextmanager
    async def writer(self, sha256: Sha256) -> AsyncIterator[MemoryWriter | Held | None]:
        async with super().writer(sha256) as writer:
            yield writer
            await self.go.wait()


async def test_who_is_given_a_file_in_the_moment_in_which_it_is_stored_changes_nothing_about_whence_it_came() -> None:
    store = Lingering()
    async with world(Scripted(), store=store) as here:
        here.fills.join(wanted(), Asker("mxa", "a.whl"))
        held = await stored(store)
        for name in ("a.whl", "b.whl"):
            here.fills.given(replace(wanted(), name=name), held)
        store.go.set()
        async with asyncio.timeout(5):
            while len(here.oracle.stored) < 2:
                await asyncio.sleep(0.001)
        here.fills.given(replace(wanted(), name="c.whl"), held)
        async with asyncio.timeout(5):
            while len(here.oracle.stored) < 3:
                await asyncio.sleep(0.001)
    told = {report.file: report.source for report in here.oracle.stored}
    assert told == {"a.whl": "upstream", "b.whl": "upstream", "c.whl": "cache"}


async def test_closing_stops_fetches_and_tells_their_readers() -> None:
    source = Scripted(holds=100_000)
    async with world(source) as here:
        flight = here.fills.join(wanted(), None)
        async with reading(flight) as transfer:
            await transfer.until(50_000)
        await here.fills.close()
        with pytest.raises(SourceAway, match="stopped"):
            await read(flight)
        assert here.store.follow(DIGEST) is None


class WrittenBy(MemoryStore):
    """A store with a writer that a test makes."""

    def __init__(self, kind: type[MemoryWriter]) -> None:
        super().__init__()
        self._kind = kind

    @asynccontextmanager
    async def writer(self, sha256: Sha256) -> AsyncIterator[MemoryWriter | Held | None]:
        async with super().writer(sha256) as writer:
            if isinstance(writer, MemoryWriter):
                writer.__class__ = self._kind
            yield writer


class Failing(MemoryStore):
    """Takes everything but the last step."""

    @asynccontextmanager
    async def writer(self, sha256: Sha256) -> AsyncIterator[MemoryWriter | Held | None]:
        async with super().writer(sha256) as writer:
            assert isinstance(writer, MemoryWriter)

            async def commit(verified: Verified, whole: bytes | bytearray | None = None) -> Held:
                raise StorageBroken("no fsync")

            writer.commit = commit  # type: ignore[method-assign]
            try:
                yield writer
            finally:
                await asyncio.sleep(0.01)  # throwing it away takes a while


async def test_bytes_are_out_although_the_store_fails_at_the_last_step() -> None:
    async with world(Scripted(), store=Failing()) as here:
        assert await read(here.fills.join(wanted(), Asker("mxa", FILE))) == BODY
    assert here.oracle.stored == []


async def test_who_asks_again_for_what_could_not_be_stored_starts_a_new_fetch() -> None:
    async with world(Scripted(), store=Failing()) as here:
        first = here.fills.join(wanted(), None)
        assert await read(first) == BODY
        assert here.fills.join(wanted(), None) is not first


async def followed(store: MemoryStore, count: int) -> MemoryPart:
    """What other processes see of the object, when so much of it is there."""
    async with asyncio.timeout(5):
        while (part := store.follow(DIGEST)) is None or part.length() < count:
            await asyncio.sleep(0.001)
    return part


async def test_a_short_file_that_is_long_on_its_way_is_where_other_processes_can_follow_it() -> None:
    source = Scripted(holds=100_000)
    async with world(source) as here:
        flight = here.fills.join(wanted(), None)
        part = await followed(here.store, 100_000)
        assert (part.total, await part.read(0, 1 << 20)) == (len(BODY), BODY[:100_000])
        source.go.set()
        assert await read(flight) == BODY
        held = await stored(here.store)
        assert part.became(held)
        assert here.store.open(held).read() == BODY


async def test_a_short_file_that_comes_at_once_is_written_in_one_piece() -> None:
    class Counting(MemoryWriter):
        pieces = 0

        async def write(self, data: bytes) -> None:
            Counting.pieces += 1
            await super().write(data)

    async with world(Scripted(), store=WrittenBy(Counting)) as here:
        assert await read(here.fills.join(wanted(), None)) == BODY
    assert Counting.pieces == 1


async def test_a_fetch_that_is_stopped_throws_nothing_away_that_is_still_being_written() -> None:
    class Slow(MemoryWriter):
        is_writing = asyncio.Event()
        ended: ClassVar[list[str]] = []

        async def write(self, data: bytes) -> None:
            Slow.is_writing.set()
            try:
                await asyncio.Event().wait()
            finally:
                for _ in range(5):  # as a thread that cannot be stopped
                    with suppress(asyncio.CancelledError):
                        await asyncio.sleep(0.01)
                Slow.ended.append("written")

    class Noting(WrittenBy):
        @asynccontextmanager
        async def writer(self, sha256: Sha256) -> AsyncIterator[MemoryWriter | Held | None]:
            async with super().writer(sha256) as writer:
                try:
                    yield writer
                finally:
                    Slow.ended.append("thrown away")

    source = Scripted(holds=100_000)
    async with world(source, store=Noting(Slow)) as here:
        async with reading(here.fills.join(wanted(), None)) as transfer:
            await Slow.is_writing.wait()
            source.go.set()
            await transfer.until(len(BODY) - TAIL_BYTES - 1)  # all of it is there, and the fetch waits for the write
        await here.fills.close()
    assert Slow.ended == ["written", "thrown away"]


async def test_a_short_file_that_could_not_be_shared_on_its_way_is_stored_when_it_is_whole() -> None:
    class FullOnce(MemoryWriter):
        tries = 0

        async def write(self, data: bytes) -> None:
            FullOnce.tries += 1
            if FullOnce.tries == 1:
                source.go.set()
                raise StorageFull("no room")
            await super().write(data)

    source = Scripted(holds=100_000)
    async with world(source, store=WrittenBy(FullOnce)) as here:
        assert await read(here.fills.join(wanted(), None)) == BODY
        assert here.store.open(await stored(here.store)).read() == BODY
    assert (FullOnce.tries, source.starts) == (2, [0])


# Another process ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def another_process(store: MemoryStore) -> AsyncIterator[Writer]:
    async with store.writer(DIGEST) as writer:
        assert writer is not None
        assert not isinstance(writer, Held)
        yield writer


async def test_what_another_process_receives_is_let_out_but_for_its_tail() -> None:
    source = Scripted()
    async with world(source) as here:
        async with another_process(here.store) as writer:
            flight = here.fills.join(wanted(), None)
            await writer.write(BODY[:150_000])
            await writer.expect(len(BODY))
            async with reading(flight) as transfer:
                await transfer.until(149_999)
                assert (transfer.total, transfer.released) == (len(BODY), 150_000)
                await writer.write(BODY[150_000:])
                await transfer.until(len(BODY) - TAIL_BYTES - 1)
                await asyncio.sleep(0.1)
                assert transfer.released == len(BODY) - TAIL_BYTES
                await writer.commit(Verified(DIGEST, len(BODY)))
        assert await read(flight) == BODY
    assert source.starts == []


async def test_without_a_length_the_tail_of_what_came_so_far_is_held_back() -> None:
    async with world(Scripted()) as here, another_process(here.store) as writer:
        flight = here.fills.join(wanted(), None)
        await writer.write(BODY[:100_000])
        async with asyncio.timeout(5):
            while flight._transfer is None or not flight._transfer.released:
                await asyncio.sleep(0.001)
        assert flight._transfer.released == 100_000 - TAIL_BYTES


async def test_when_the_other_process_gives_up_its_readers_are_told_and_the_rest_is_our_turn() -> None:
    source = Scripted()
    async with world(source) as here:
        async with another_process(here.store) as writer:
            flight = here.fills.join(wanted(), None)
            await writer.write(WRONG[:150_000])
            await writer.expect(len(BODY))
            async with reading(flight) as begun:
                await begun.until(100_000)
        with pytest.raises(SourceAway, match="stopped"):
            await begun.whole()
        assert await read(flight) == BODY
    assert source.starts == [0]


async def test_a_part_that_the_other_process_began_anew_is_not_mixed_with_the_old_one() -> None:
    async with world(Scripted(refusal=SourceAway("never asked"))) as here:
        async with another_process(here.store) as writer:
            flight = here.fills.join(wanted(), None)
            await writer.write(WRONG)
            await writer.expect(len(BODY))
            async with reading(flight) as begun:
                await begun.until(100_000)
                await writer.restart()
                await writer.write(BODY)
                with pytest.raises(SourceAway):
                    await begun.whole()
            await writer.commit(Verified(DIGEST, len(BODY)))
        async with flight.reading(begun) as got:
            assert isinstance(got, Held) or await got.read(0, 10) == BODY[:10]


async def test_what_another_process_has_stored_meanwhile_is_not_fetched() -> None:
    source = Scripted()
    async with world(source) as here:
        async with another_process(here.store) as writer:
            await writer.write(BODY)
            held = await writer.commit(Verified(DIGEST, len(BODY)))
        flight = here.fills.join(wanted(), None)
        async with flight.reading() as got:
            assert got == held
    assert source.starts == []


async def test_who_waits_for_a_length_that_only_the_end_tells_can_read_what_was_followed() -> None:
    async with world(Scripted()) as here:
        async with another_process(here.store) as writer:
            flight = here.fills.join(wanted(), None)
            await writer.write(BODY)
            clients = [asyncio.create_task(read(flight)) for _ in range(5)]
            await asyncio.sleep(0.05)
            await writer.commit(Verified(DIGEST, len(BODY)))
        assert await asyncio.gather(*clients) == [BODY] * 5
