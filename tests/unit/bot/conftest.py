"""The bot's services over a database in a file, one life after another."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from matrix_pypi_bot.adapters.database.engine import open_store
from tests.support.bot_world import ManualClock, ScriptedIndex, World, living

Live = Callable[..., AbstractAsyncContextManager[World]]


@pytest.fixture
def index() -> ScriptedIndex:
    """Upstream, empty."""
    return ScriptedIndex()


@pytest.fixture
def clock() -> ManualClock:
    """The time."""
    return ManualClock()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all tables and nothing in them; copying it is quicker than making one."""
    file = tmp_path_factory.mktemp("database") / "bot.db"

    async def make() -> None:
        async with open_store(f"sqlite:{file}"):
            pass

    asyncio.run(make())
    return file


@pytest.fixture
def live(tmp_path: Path, empty_database: Path, index: ScriptedIndex, clock: ManualClock) -> Live:
    """`async with live() as world:` is one life of the bot over the test's database."""
    shutil.copyfile(empty_database, tmp_path / "bot.db")
    return lambda **options: living(f"sqlite:{tmp_path}/bot.db", index, clock, **options)


@pytest.fixture
async def world(live: Live) -> AsyncIterator[World]:
    """A bot that starts with an empty database."""
    async with live() as started:
        yield started
