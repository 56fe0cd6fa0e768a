"""The private PostgreSQL of the tests: a fresh database each, on a server that goes away with them."""

from __future__ import annotations

import asyncpg
import pytest

from matrix_pypi_bot.adapters.database.engine import open_store
from matrix_pypi_bot.ports import StoreAway


async def _tables(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("CREATE TABLE mine (id BIGINT PRIMARY KEY)")
        rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    finally:
        await connection.close()
    return [row["tablename"] for row in rows]


async def test_a_database_is_empty_when_a_test_gets_it(postgres_url: str) -> None:
    assert await _tables(postgres_url) == ["mine"]


async def test_and_the_next_test_gets_another(postgres_url: str) -> None:
    assert await _tables(postgres_url) == ["mine"]


@pytest.mark.parametrize("moment", ["execute", "reset"], ids=["used", "given back"])
async def test_a_connection_cut_off_in_the_middle_of_a_statement_means_that_the_database_is_away(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    async def cut_off(*_: object, **__: object) -> None:
        raise asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress")

    async with open_store(postgres_url) as store:
        with monkeypatch.context() as patch:
            patch.setattr(asyncpg.Connection, moment, cut_off)
            with pytest.raises(StoreAway, match="the database failed"):
                async with store.transaction():
                    pass
        async with store.transaction():
            pass
