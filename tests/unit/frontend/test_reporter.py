"""Reports: every file that clients got reaches the bot, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from index_frontend.digest_gate import Tally
from index_frontend.fill import reporter as module
from index_frontend.fill.reporter import Reporter
from index_frontend.ports import Held, StorageBroken
from index_frontend.storage.memory import MemoryStore
from matrix_pypi_bot.wire.cids import raw_cid
from matrix_pypi_bot.wire.digests import Sha256, sha256_of
from matrix_pypi_bot.wire.messages import Stored
from matrix_pypi_bot.wire.problems import Problem
from tests.support.file_side import ScriptedOracle


def held(letter: str) -> Held:
    sha256 = Sha256(letter * 64)
    return Held(sha256=sha256, size=5, cid=raw_cid(sha256))


def report(file: str, letter: str, source: str = "upstream") -> Stored:
    one = held(letter)
    return Stored(project="mxa", file=file, sha256=one.sha256, size=5, cid=one.cid, source=source)


ONE, TWO = report("mxa-1.zip", "1"), report("mxa-2.zip", "2")


@asynccontextmanager
async def running(store: MemoryStore, oracle: ScriptedOracle) -> AsyncIterator[Reporter]:
    reporter = Reporter(store, oracle)
    task = asyncio.create_task(reporter.run())
    yield reporter
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(module, "LONGEST_PAUSE_SECONDS", 0.002)


async def test_a_file_whose_process_died_right_after_its_answer_is_reported_by_the_next_one() -> None:
    store, oracle = MemoryStore(), ScriptedOracle()
    data = b"bytes that a client was given"
    sha256 = sha256_of(data)
    tally = Tally(sha256, size=len(data), max_bytes=100)
    await store.note_wanted("mxa", "mxa-1.zip", sha256)
    await store.note_wanted("mxa", "mxa-2.zip", Sha256("2" * 64))  # never came to be stored
    async with store.writer(sha256) as writer:
        assert not isinstance(writer, Held | None)
        await writer.write(data)
        tally.update(data)
        await writer.commit(tally.finish())
    async with running(store, oracle):
        await until(lambda: bool(oracle.stored))
    assert [(stored.file, stored.sha256) for stored in oracle.stored] == [("mxa-1.zip", sha256)]
    assert await store.wanted() == [("mxa", "mxa-2.zip", Sha256("2" * 64))]


async def test_a_file_is_reported_once_however_often_it_is_asked_for() -> None:
    store, oracle = MemoryStore(), ScriptedOracle()
    async with running(store, oracle) as reporter:
        for _ in range(3):
            reporter.asked("mxa", "mxa-1.zip", held("1"), "upstream")
            reporter.asked("mxa", "mxa-2.zip", held("2"), "upstream")
        await until(lambda: len(oracle.stored) == 2)
        await asyncio.sleep(0.01)
    assert oracle.stored == [ONE, TWO]
    assert await store.unreported() == []


async def test_what_another_process_noted_is_not_reported_by_this_one() -> None:
    store, oracle = MemoryStore(), ScriptedOracle()
    async with running(store, oracle) as reporter:
        await asyncio.sleep(0.01)
        await store.note_asked(ONE)
        reporter.asked("mxa", "mxa-1.zip", held("1"), "upstream")
        reporter.asked("mxa", "mxa-2.zip", held("2"), "upstream")
        await until(lambda: oracle.stored == [TWO])


async def test_of_metadata_it_is_noted_whose_it_is_and_the_bot_is_not_told() -> None:
    store, oracle = MemoryStore(), ScriptedOracle()
    async with running(store, oracle) as reporter:
        reporter.asked("mxa", "mxa-1.zip.metadata", held("2"), "upstream")
        reporter.asked("mxa", "mxa-1.zip", held("1"), "upstream")
        await until(lambda: oracle.stored)
        await asyncio.sleep(0.01)
        assert await store.metadata_of(held("2").sha256) == (("mxa", "mxa-1.zip"),)
    assert oracle.stored == [ONE]
    assert await store.unreported() == []


async def test_reports_wait_until_the_bot_is_back() -> None:
    store, oracle = MemoryStore(), ScriptedOracle(is_away=True)
    async with running(store, oracle) as reporter:
        reporter.asked("mxa", "mxa-1.zip", held("1"), "upstream")
        await asyncio.sleep(0.01)
        assert (oracle.stored, await store.unreported()) == ([], [ONE])
        oracle.is_away = False
        await until(lambda: oracle.stored == [ONE])


async def test_what_an_earlier_life_left_is_reported_at_the_start() -> None:
    store, oracle = MemoryStore(), ScriptedOracle()
    await store.note_asked(ONE)
    async with running(store, oracle):
        await until(lambda: oracle.stored == [ONE])
    assert await store.unreported() == []


async def test_what_a_dead_process_left_is_found_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    store, oracle = MemoryStore(), ScriptedOracle()
    async with running(store, oracle):
        await asyncio.sleep(0.005)
        await store.note_asked(ONE)
        await until(lambda: oracle.stored == [ONE])


async def test_a_report_that_the_bot_never_takes_does_not_hold_up_the_others() -> None:
    class Choosy(ScriptedOracle):
        async def report_stored(self, stored: Stored) -> bool:
            if stored == ONE:
                raise Problem("not this one")
            return await super().report_stored(stored)

    store, oracle = MemoryStore(), Choosy()
    async with running(store, oracle) as reporter:
        reporter.asked("mxa", "mxa-1.zip", held("1"), "upstream")
        reporter.asked("mxa", "mxa-2.zip", held("2"), "upstream")
        await until(lambda: oracle.stored == [TWO])
    assert await store.unreported() == [ONE]


async def test_a_store_that_cannot_note_does_not_keep_the_bot_from_knowing() -> None:
    class Broken(MemoryStore):
        async def note_asked(self, stored: Stored) -> bool:
            raise StorageBroken("no disk")

        async def note_metadata(self, sha256: Sha256, project: str, file: str) -> None:
            raise StorageBroken("no disk")

        async def unreported(self, limit: int = 500) -> list[Stored]:
            raise StorageBroken("no disk")

        async def reported(self, stored: Stored) -> None:
            raise StorageBroken("no disk")

    oracle = ScriptedOracle()
    async with running(Broken(), oracle) as reporter:
        reporter.asked("mxa", "mxa-1.zip.metadata", held("2"), "upstream")
        reporter.asked("mxa", "mxa-1.zip", held("1"), "upstream")
        await until(lambda: oracle.stored == [ONE])


async def test_memory_is_bounded_and_what_is_dropped_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_QUEUED", 1)
    store, oracle = MemoryStore(), ScriptedOracle()
    async with running(store, oracle) as reporter:
        reporter.asked("mxa", "mxa-1.zip", held("1"), "upstream")
        reporter.asked("mxa", "mxa-2.zip", held("2"), "upstream")
        await until(lambda: oracle.stored == [ONE])
        reporter.asked("mxa", "mxa-2.zip", held("2"), "cache")
        await until(lambda: oracle.stored == [ONE, report("mxa-2.zip", "2", "cache")])
