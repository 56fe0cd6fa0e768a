"""The private PostgreSQL of the tests: a fresh database each, on a server that goes away with them."""

from __future__ import annotations

import asyncpg


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
