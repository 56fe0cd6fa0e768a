"""A transfer as its readers see it."""

from __future__ import annotations

import asyncio

import pytest

from index_frontend.fill.transfer import Transfer
from index_frontend.ports import SourceAway
from index_frontend.storage.memory import MemoryPart

BODY = bytes(range(100))
AWAY = SourceAway("matrix-pypi: away")


class CountingPart(MemoryPart):
    def __init__(self) -> None:
        super().__init__()
        self.data += BODY
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


async def soon(waiting: asyncio.Task[None]) -> bool:
    """Whether the task has ended after everybody had his turn."""
    for _ in range(5):
        await asyncio.sleep(0)
    return waiting.done()


async def test_readers_wake_when_their_byte_is_released() -> None:
    transfer, part = Transfer("upstream"), CountingPart()
    waiting = asyncio.create_task(transfer.until(50))
    transfer.grow(part, 50)
    assert not await soon(waiting)
    transfer.grow(part, 51)
    assert await soon(waiting)
    assert await transfer.read(40, 100) == BODY[40:51]


async def test_readers_of_the_head_wake_when_the_length_is_known() -> None:
    transfer = Transfer("upstream")
    waiting = asyncio.create_task(transfer.head())
    assert not await soon(waiting)
    transfer.expect(100)
    assert await soon(waiting)


async def test_all_is_released_when_it_is_verified() -> None:
    transfer, part = Transfer("upstream"), CountingPart()
    waiting = [asyncio.create_task(work) for work in (transfer.until(99), transfer.whole(), transfer.head())]
    transfer.grow(part, 10)
    transfer.succeed(100)
    assert [await soon(one) for one in waiting] == [True, True, True]
    assert await transfer.read(0, 1000) == BODY


async def test_a_short_body_is_read_from_memory() -> None:
    transfer, memory = Transfer("upstream"), bytearray(BODY)
    transfer.grow(memory, 40)
    assert (await transfer.read(0, 100), transfer.body) == (BODY[:40], None)
    transfer.succeed(100)
    assert (await transfer.read(90, 100), transfer.body) == (BODY[90:], BODY)


async def test_a_failure_is_told_to_all_but_those_who_can_read_on() -> None:
    transfer, part = Transfer("upstream"), CountingPart()
    transfer.grow(part, 10)
    waiting = asyncio.gather(transfer.until(10), transfer.whole(), return_exceptions=True)
    await asyncio.sleep(0)
    transfer.fail(AWAY)
    assert list(await waiting) == [AWAY, AWAY]
    await transfer.until(9)
    with pytest.raises(SourceAway):
        await transfer.until(10)


async def test_what_is_verified_cannot_fail_any_more() -> None:
    transfer = Transfer("upstream")
    transfer.succeed(100)
    transfer.fail(AWAY)
    assert transfer.failure is None
    await transfer.whole()


async def test_the_part_is_closed_when_the_last_reader_has_left() -> None:
    transfer, part = Transfer("upstream"), CountingPart()
    with transfer.reading():
        with transfer.reading():
            transfer.grow(part, 10)
            transfer.end()
        assert part.closed == 0
    assert part.closed == 1


async def test_the_part_is_closed_at_the_end_when_nobody_reads() -> None:
    transfer, part = Transfer("upstream"), CountingPart()
    transfer.grow(part, 10)
    with transfer.reading():
        pass
    assert part.closed == 0
    transfer.end()
    assert part.closed == 1
