"""What time alone changes: pages that clients with lock files never ask for, upstream that is back, reports that wait, old rows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from matrix_pypi_bot.ports import Clock, Store
from matrix_pypi_bot.services.attest import Attester
from matrix_pypi_bot.services.known import View
from matrix_pypi_bot.services.projects import Projects
from matrix_pypi_bot.services.refresh import Refresher
from matrix_pypi_bot.services.together import together
from matrix_pypi_bot.wire.names import ProjectName
from matrix_pypi_bot.wire.problems import Problem

log = logging.getLogger(__name__)

BUDGET: Final = 20  # pages a round: upstream must not notice that we watch over thousands of projects
LATELY_MS: Final = 7 * 86_400_000  # a project that nobody asked for in a week is read again when somebody does
KEPT_CHANGES: Final = 10_000
KEPT_SENDERS_MS: Final = 90 * 86_400_000
ROUND_SECONDS: Final = 30.0
TICK_SECONDS: Final = 1.0
_DAY_MS: Final = 86_400_000


class Clockwork:
    """Rounds. `daily()` is awaited about once a day, e.g. to renew what expires."""

    def __init__(
        self,
        *,
        projects: Projects,
        refresher: Refresher,
        attester: Attester,
        store: Store,
        clock: Clock,
        refresh_served_seconds: float,
        retry_seconds: float,
        daily: Callable[[], Awaitable[object]],
    ) -> None:
        self._projects = projects
        self._refresher = refresher
        self._attester = attester
        self._store = store
        self._clock = clock
        self._served_ms = int(refresh_served_seconds * 1000)
        self._round_seconds = max(0.05, min(ROUND_SECONDS, retry_seconds, refresh_served_seconds or ROUND_SECONDS))
        self._daily = daily
        self._next_day_ms = clock.now_ms() + _DAY_MS

    async def run(self) -> None:
        """Ticks and goes round until cancelled. A round may wait for upstream; what time alone decides does not."""
        async with together() as tasks:
            tasks.create_task(_again_and_again(self._round_seconds, self.go_round))
            tasks.create_task(_again_and_again(TICK_SECONDS, self.tick))

    async def tick(self) -> None:
        """Decides again, and has told, what time has changed: cooldowns and entries of the policy that ended. Raises Problem."""
        for project in self._projects.due():
            await self._projects.redecide(project)

    async def go_round(self) -> None:
        """One round. Raises Problem when the database is away."""
        await self._look_for_upstream()
        for project in self._old()[:BUDGET]:
            await self._read_again(project)
        await self._attester.try_again(BUDGET)
        now_ms = self._clock.now_ms()
        if now_ms >= self._next_day_ms:
            self._next_day_ms = now_ms + _DAY_MS
            await self._daily()
            async with self._store.transaction() as tables:
                await tables.views.forget_changes(KEPT_CHANGES)
                await tables.ledger.forget_senders(now_ms - KEPT_SENDERS_MS)

    async def _look_for_upstream(self) -> None:
        """Reads pages again whose last reading failed: one finds out, the others follow when it went well."""
        for project in self._down()[:BUDGET]:
            await self._read_again(project)
            if project in self._down():
                return

    def _down(self) -> list[ProjectName]:
        """The one asked about longest ago first: a single project that upstream never tells must not hide that it is back."""
        down = [project for project, view in self._lately() if view is not None and view.state == "down"]
        return sorted(down, key=self._refresher.asked_ms)

    def _old(self) -> list[ProjectName]:
        """Projects whose views are older than the setting allows, the oldest first."""
        if not self._served_ms:
            return []
        before_ms = self._clock.now_ms() - self._served_ms
        live = [
            (self._refresher.asked_ms(project) if view is None else view.checked_ms, project)
            for project, view in self._lately()
            if view is None or view.state != "down"
        ]
        return [project for checked_ms, project in sorted(live) if checked_ms <= before_ms]

    def _lately(self) -> list[tuple[ProjectName, View | None]]:
        """Projects that somebody asked for lately, and their views; None: it is not in memory any more."""
        since_ms = self._clock.now_ms() - LATELY_MS
        used = [project for project, used_ms in list(self._refresher.used.items()) if used_ms > since_ms]
        held = [(project, self._projects.held(project)) for project in used]
        return [
            (project, None if known is None else known.view)
            for project, known in held
            if known is None or known.view is not None
        ]

    async def _read_again(self, project: ProjectName) -> None:
        try:
            await self._refresher.read_again(project)
        except Problem as problem:
            log.info("page not read again", extra={"project": project, "reason": problem.detail})


async def _again_and_again(pause_seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(pause_seconds)
        try:
            await work()
        except Problem as problem:
            log.warning("clockwork must wait", extra={"reason": problem.detail})
