"""Invitations of strangers, turned down with a word: the bot lives in the rooms of packages and has nothing to say anywhere else."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from aiolimiter import AsyncLimiter

from matrix_pypi_bot.services.homeserver import Homeserver, HomeserverAway, HomeserverRefused

PER_MINUTE: Final = 30
WAITING: Final = 100  # strangers can invite at will; what is more than this stays an open invitation


class Invitations:
    """Make it in a running loop and have `run()` run."""

    def __init__(self, homeserver: Homeserver, *, server_name: str) -> None:
        self._homeserver = homeserver
        self._reason = (
            f"This bot speaks in the rooms of packages, such as #pypi_<package>:{server_name}. Join one of them."
        )
        self._limiter = AsyncLimiter(PER_MINUTE, 60)
        self._waiting: asyncio.Queue[str] = asyncio.Queue(WAITING)

    def turn_down(self, room_id: str) -> None:
        """Soon, and once; that it fails is nobody's loss."""
        with contextlib.suppress(asyncio.QueueFull):
            self._waiting.put_nowait(room_id)

    async def run(self) -> None:
        """Turns down what comes, until cancelled."""
        while True:
            room_id = await self._waiting.get()
            await self._limiter.acquire()
            with contextlib.suppress(HomeserverAway, HomeserverRefused):
                await self._homeserver.decline(room_id, self._reason)
