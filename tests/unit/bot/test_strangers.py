"""What others say in rooms costs us as much as we allow, and what is beyond that is not lost."""

from __future__ import annotations

import logging

import pytest

from matrix_pypi_bot.services.intake import ledger_row
from matrix_pypi_bot.services.strangers import ALL_PER_MINUTE, PER_MINUTE, RoomBudgets, Strangers
from tests.support.bot_world import ManualClock, World
from tests.support.statements import Organisation

SAID = Organisation("peer").attest("mxa-1.0.tar.gz")
MINUTE_MS, DAY_SECONDS = 60_000, 86_400


def test_a_homeserver_has_so_many_accusations_a_minute_however_many_accounts_it_has() -> None:
    strangers = Strangers()
    looked = [strangers.may(f"@user{n}:evil.example", 0) for n in range(PER_MINUTE + 5)]
    assert looked == [True] * PER_MINUTE + [False] * 5
    assert strangers.may("@honest:other.example", 0)
    assert strangers.may("@user1:evil.example", MINUTE_MS)


def test_many_homeservers_together_have_a_bound_too() -> None:
    strangers = Strangers()
    looked = [strangers.may(f"@user:server{n}.example", 0) for n in range(ALL_PER_MINUTE + 5)]
    assert looked.count(True) == ALL_PER_MINUTE


async def test_an_organisation_that_says_too_much_in_rooms_is_put_off_until_the_next_day_and_told_of_once(
    world: World, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    budgets = RoomBudgets(clock, own="home", statements_per_day=2, bytes_per_day=1_000)

    async def over(size_bytes: int = 10) -> bool:
        async with world.store.transaction() as tables:
            return await budgets.is_over(tables, SAID, size_bytes)

    with caplog.at_level(logging.WARNING):
        assert [await over() for _ in range(4)] == [False, False, True, True]
    assert caplog.messages == ["budget of the day is spent alarm"]
    clock.pass_seconds(DAY_SECONDS)
    assert not await over()
    assert await over(2_000)


async def test_who_repeats_what_an_organisation_said_does_not_spend_its_budget(
    world: World, clock: ManualClock
) -> None:
    budgets = RoomBudgets(clock, own="home", statements_per_day=1, bytes_per_day=1_000)
    async with world.store.transaction() as tables:
        assert not await budgets.is_over(tables, SAID, 100)
        await tables.ledger.keep(ledger_row(SAID, via="room", at_ms=1), [])
        assert [await budgets.is_over(tables, SAID, 100) for _ in range(20)] == [False] * 20
        another = Organisation("peer").attest("mxa-1.1.tar.gz")
        assert await budgets.is_over(tables, another, 100), "two were said, one may be"


async def test_what_this_organisation_says_and_what_is_no_statement_is_not_counted(
    world: World, clock: ManualClock
) -> None:
    budgets = RoomBudgets(clock, own="peer", statements_per_day=1, bytes_per_day=1)
    async with world.store.transaction() as tables:
        assert not await budgets.is_over(tables, SAID, 100)
        assert not await budgets.is_over(tables, None, 100)
