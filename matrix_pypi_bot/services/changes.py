"""The change stream: every new revision of a page from a number on, without a gap, and a sign of life in between."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from matrix_pypi_bot.ports import Store
from matrix_pypi_bot.services.projects import Projects
from matrix_pypi_bot.wire.messages import HEARTBEAT_SECONDS, Change

BATCH: Final = 500


async def follow(
    store: Store, projects: Projects, after: int | None, *, heartbeat_seconds: float = HEARTBEAT_SECONDS
) -> AsyncIterator[Change]:
    """The changes behind `after` (None: from now on), for ever. Raises StoreAway.

    It begins with a heartbeat that carries the number from which it goes on: who asks knows at once that somebody is there. Before it
    comes a reset when `after` is older than what is remembered or than the rules that hold now, or larger than anything that was
    ever said.
    """
    if after is not None and not await _is_remembered(store, projects, after):
        yield Change(reset=True)
        after = None
    here = projects.seq if after is None else after
    yield Change(seq=here, heartbeat=True)
    while True:
        async for change in _between(store, here, projects.seq):
            here = change.seq
            yield change
        await projects.wait_for_news(here, heartbeat_seconds)
        if projects.seq <= here:
            yield Change(seq=here, heartbeat=True)


async def _is_remembered(store: Store, projects: Projects, after: int) -> bool:
    """Whether every change behind `after` can still be told."""
    if not projects.since <= after <= projects.seq:
        return False
    async with store.transaction() as tables:
        oldest, newest = await tables.views.change_bounds()
    return after >= newest or (oldest > 0 and after >= oldest - 1)


async def _between(store: Store, here: int, there: int) -> AsyncIterator[Change]:
    """The changes behind `here`, up to `there`: what is newer is not in memory yet, so nobody may hear of it."""
    while here < there:
        async with store.transaction() as tables:
            changes = await tables.views.changes(here, BATCH)
        for change in changes:
            if change.seq > there:
                return
            here = change.seq
            yield change
        if len(changes) < BATCH:
            return
