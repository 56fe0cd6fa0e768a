"""What was said while another organisation's homeserver joined a room is followed by one event more, which brings it there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from matrix_pypi_bot.ports import StoreAway
from matrix_pypi_bot.services.latecomers import TIE, Latecomers
from tests.support.bot_world import ManualClock
from tests.support.mailbox import MemoryStore
from tests.support.virtual import virtual

FLASK, DJANGO = "project:flask", "project:django"
ATTESTATION = "io.matrix_pypi.attestation.v1"


class World:
    """Rooms, joins and words, by the second."""

    def __init__(self) -> None:
        self.store, self.pokes = MemoryStore(), 0
        self.late = Latecomers(store=self.store, clock=ManualClock(), poke=self._poke)

    def _poke(self) -> None:
        self.pokes += 1

    def tied(self) -> list[str]:
        """The rooms of what was queued."""
        rows = [letter.row for letter in self.store.mail.letters.values()]
        assert {(row.type, row.state_key, row.content) for row in rows} <= {(TIE, None, b"{}")}
        return [row.room for row in rows]


async def lived(story: Callable[[World], Awaitable[None]]) -> World:
    world = World()
    running = asyncio.create_task(world.late.run())
    await story(world)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return world


@pytest.mark.parametrize("joined_first", [True, False])
@virtual
async def test_a_word_and_a_join_of_the_same_moment_are_tied_soon_and_once_more_later(joined_first: bool) -> None:
    async def story(world: World) -> None:
        steps = [lambda: world.late.said(FLASK, ATTESTATION), lambda: world.late.joined(FLASK)]
        for step in reversed(steps) if joined_first else steps:
            step()
            await asyncio.sleep(1)
        await asyncio.sleep(3)
        assert world.tied() == []
        await asyncio.sleep(2)
        assert world.tied() == [FLASK]
        await asyncio.sleep(3_600)

    world = await lived(story)
    assert world.tied() == [FLASK, FLASK]
    assert world.pokes == 2


@virtual
async def test_where_nothing_was_said_and_nobody_joined_lately_nothing_more_is_said() -> None:
    async def story(world: World) -> None:
        world.late.said(FLASK, ATTESTATION)
        world.late.joined(DJANGO)
        await asyncio.sleep(61)
        world.late.joined(FLASK)
        world.late.said(DJANGO, ATTESTATION)
        await asyncio.sleep(3_600)

    assert (await lived(story)).tied() == []


@virtual
async def test_what_ties_is_no_word_that_would_have_to_be_tied() -> None:
    async def story(world: World) -> None:
        world.late.joined(FLASK)
        world.late.said(FLASK, TIE)
        await asyncio.sleep(3_600)

    assert (await lived(story)).tied() == []


@virtual
async def test_whoever_comes_and_goes_all_the_time_makes_us_say_no_more_than_two_words_a_minute() -> None:
    async def story(world: World) -> None:
        for _ in range(600):
            world.late.joined(FLASK)
            world.late.said(FLASK, ATTESTATION)
            await asyncio.sleep(1)

    assert 10 <= len((await lived(story)).tied()) <= 20


@pytest.mark.parametrize("seconds", [1, 4.9, 5.1, 20, 59.9, 70])
@virtual
async def test_who_joins_after_another_one_is_tied_no_sooner_than_it_takes_him_to_be_there(seconds: float) -> None:
    async def story(world: World) -> None:
        world.late.said(FLASK, ATTESTATION)
        world.late.joined(FLASK)
        await asyncio.sleep(seconds - 0.1)
        world.late.said(FLASK, ATTESTATION)
        world.late.joined(FLASK)
        await asyncio.sleep(5)
        before = len(world.tied())
        await asyncio.sleep(70)
        assert len(world.tied()) > before

    await lived(story)


@virtual
async def test_a_database_that_is_away_ends_nothing() -> None:
    async def story(world: World) -> None:
        def away() -> None:
            raise StoreAway("the disk is full")

        world.store.before_commit = away
        world.late.joined(FLASK)
        world.late.said(FLASK, ATTESTATION)
        await asyncio.sleep(6)
        assert (world.tied(), world.pokes) == ([], 0)
        world.store.before_commit = lambda: None
        await asyncio.sleep(60)

    assert (await lived(story)).tied() == [FLASK]
