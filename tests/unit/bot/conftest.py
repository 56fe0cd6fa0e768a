"""The bot's services over a database in a file, one life after another."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from matrix_pypi_bot.adapters.database.engine import open_store
from matrix_pypi_bot.core.instants import Instant
from tests.support.bot_world import ManualClock, ScriptedIndex, World, living
from tests.support.peer_logs import LogOrg, Node, ScriptedReader

Live = Callable[..., AbstractAsyncContextManager[World]]
NewNode = Callable[..., AbstractAsyncContextManager[Node]]
WHEEL = "mxa-1.0-py3-none-any.whl"


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


@pytest.fixture
def reader() -> ScriptedReader:
    """What peers serve."""
    return ScriptedReader()


@pytest.fixture
def orgb(clock: ManualClock) -> LogOrg:
    """An organisation that signed its manifest and one attestation."""
    org = LogOrg("orgb", 11)
    org.introduce(Instant.of_ms(clock.now_ms()))
    org.attest(WHEEL)
    return org


@pytest.fixture
def orgc(clock: ManualClock) -> LogOrg:
    """Another one."""
    org = LogOrg("orgc", 21)
    org.introduce(Instant.of_ms(clock.now_ms()))
    return org


@pytest.fixture
def node(live: Live, tmp_path: Path, clock: ManualClock, reader: ScriptedReader) -> NewNode:
    """`async with node(orgb) as bot` is one life of a bot that pinned these organisations."""

    @asynccontextmanager
    async def begin(*peers: LogOrg, **options: Any) -> AsyncIterator[Node]:
        async with open_store(f"sqlite:{tmp_path}/bot.db") as store:
            yield await Node(store, clock, options.pop("reader", reader), *peers, **options).start()

    return begin
