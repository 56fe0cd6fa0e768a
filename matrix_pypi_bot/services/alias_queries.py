"""Somebody asked the homeserver for an alias of ours that it does not know: whether the room exists when the answer goes out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from aiolimiter import AsyncLimiter

from matrix_pypi_bot.ports import PROJECT_ROOM
from matrix_pypi_bot.services.flights import Flights
from matrix_pypi_bot.services.rooms import Rooms
from matrix_pypi_bot.wire.names import ProjectName, project_of_alias, project_of_probe
from matrix_pypi_bot.wire.problems import Problem

log = logging.getLogger(__name__)

LOOKUPS_PER_MINUTE: Final = 120  # strangers on any server can ask; each unknown name costs the upstream index a request
PROBES_PER_MINUTE: Final = 1_200  # each costs a question to the database, and makes nothing
LOOKUP_SECONDS: Final = 20.0  # the homeserver, and whoever asked it, waits
KEEP_FREE: Final = 0.5  # half of the rooms that may be made a minute are left to our own statements


class AliasQueries:
    """Makes the room of a project that exists, when somebody asks for its alias. Must be made in a running loop.

    `project_exists` tells whether upstream or the ledger knows the project; it may raise Problem, which means no.
    """

    def __init__(
        self, rooms: Rooms, project_exists: Callable[[ProjectName], Awaitable[bool]], *, server_name: str
    ) -> None:
        self._rooms = rooms
        self._project_exists = project_exists
        self._server = server_name
        self._lookups = AsyncLimiter(LOOKUPS_PER_MINUTE, 60)
        self._probes = AsyncLimiter(PROBES_PER_MINUTE, 60)
        self._flights: Flights[bool] = Flights()

    async def answer(self, alias: str) -> bool:
        """Whether the alias leads to a room now. Never raises for what other systems do: every failure is a no."""
        project, probed = project_of_alias(alias, self._server), project_of_probe(alias, self._server)
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                if probed is not None:
                    return await self._show(probed)
                return project is not None and await self._flights.join(project, lambda: self._look_up(project))
        except (Problem, TimeoutError) as error:
            log.warning("alias query failed", extra={"project": project or probed, "reason": str(error) or "too slow"})
            return False

    async def stop(self) -> None:
        """Nobody is being answered any more."""
        await self._flights.stop()

    async def _show(self, project: ProjectName) -> bool:
        """An organisation looks whether we have the room: the answer is what is there now, and waits for nobody."""
        if not self._probes.has_capacity():
            return False
        await self._probes.acquire()
        return await self._rooms.show(project)

    async def _look_up(self, project: ProjectName) -> bool:
        key = f"{PROJECT_ROOM}{project}"
        if row := await self._rooms.known(key):
            await self._rooms.restore_alias(row)
            return True
        if not self._lookups.has_capacity():
            log.warning("alias query refused, too many", extra={"project": project})
            return False
        await self._lookups.acquire()
        if not await self._project_exists(project):
            return False
        await self._rooms.ensure(key, keep_free=KEEP_FREE)
        return True
