"""One piece of work for all who ask for the same thing at the same time, and for nobody who asks later."""

from __future__ import annotations

import asyncio

from matrix_pypi_bot.services.flights import Flights


async def test_who_asks_in_the_moment_in_which_the_work_ended_has_it_done_anew() -> None:
    flights: Flights[str] = Flights()
    ended = asyncio.Event()

    async def first() -> str:
        ended.set()  # who waits for this runs before anybody can note that the work is over
        return "first"

    async def second() -> str:
        return "second"

    async def ask_late() -> str:
        await ended.wait()
        return await flights.join("key", second)

    assert await asyncio.gather(flights.join("key", first), ask_late()) == ["first", "second"]


async def test_who_asks_while_the_work_is_done_shares_its_result() -> None:
    flights: Flights[str] = Flights()

    async def work() -> str:
        await asyncio.sleep(0)
        return "shared"

    async def other() -> str:
        raise AssertionError("nobody needs it")

    assert await asyncio.gather(flights.join("key", work), flights.join("key", other)) == ["shared", "shared"]
