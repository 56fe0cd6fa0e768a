"""The bot's services over a database in a file, one life after another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

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


@pytest.fixture
def live(tmp_path: Path, index: ScriptedIndex, clock: ManualClock) -> Live:
    """`async with live() as world:` is one life of the bot over the test's database."""
    return lambda **options: living(f"sqlite:{tmp_path}/bot.db", index, clock, **options)


@pytest.fixture
async def world(live: Live) -> AsyncIterator[World]:
    """A bot that starts with an empty database."""
    async with live() as started:
        yield started
