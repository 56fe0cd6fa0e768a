"""Rooms that other organisations made: joined, kept beside our own, noticed when we are put out of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from matrix_pypi_bot.ports import TRUST_ROOM, Clock, RoomRow, Store, others_room
from matrix_pypi_bot.services.constitution import constitution_hash, plan_room, read_constitution
from matrix_pypi_bot.services.finder import Found
from matrix_pypi_bot.services.homeserver import Homeserver, HomeserverAway, HomeserverRefused
from matrix_pypi_bot.wire.problems import Problem

log = logging.getLogger(__name__)

JOIN_PAUSES_SECONDS: Final = (0.5, 1.0, 2.0)
MAX_ROOMS_OF_ORG: Final = 4  # of one project: who makes more of them wants something else than to be read


class RoomTaken(Problem):
    """The room of one key is said to be that of another."""


class OthersRooms:
    """`on_found(key)` hears of each room that we are in from now on: something was said in it before."""

    def __init__(
        self,
        *,
        store: Store,
        homeserver: Homeserver,
        clock: Clock,
        server: str,
        bot: str,
        on_found: Callable[[str], None],
        join_pauses_seconds: Sequence[float] = JOIN_PAUSES_SECONDS,
    ) -> None:
        self._store = store
        self._homeserver = homeserver
        self._clock = clock
        self._server = server
        self._bot = bot
        self._on_found = on_found
        self._join_pauses_seconds = join_pauses_seconds

    async def join(self, found: Found) -> None:
        """We are in the room. Raises HomeserverAway and HomeserverRefused.

        Tried again for a few seconds: a room has its alias before it is open to everybody, and organisations that begin with a project
        at the same time look in just this moment.
        """
        for pause in self._join_pauses_seconds:
            try:
                await self._homeserver.join(found.place.room_id, via=found.via)
            except (HomeserverAway, HomeserverRefused) as problem:
                if isinstance(problem, HomeserverAway) and problem.unreachable:
                    raise
                await asyncio.sleep(pause)
            else:
                return
        await self._homeserver.join(found.place.room_id, via=found.via)

    async def settle(self, key: str, found: Found, *, alias: str) -> RoomRow:
        """The room that we are in, kept under this key. Raises HomeserverAway, HomeserverRefused, RoomTaken, StoreAway.

        What it should be is what we would have made, by whoever made it; a trust room is made by the bot that writes in it.
        """
        about = key.partition("@")[0]
        creators = read_constitution(await self._homeserver.state(found.place.room_id))["creators"]
        if about == TRUST_ROOM:
            creators = [found.peer.user]
        plan = plan_room(about, server=self._server, bot=self._bot)
        row = RoomRow(
            key=key,
            room_id=found.place.room_id,
            alias=alias,
            constitution=constitution_hash(plan.constitution | {"creators": creators}),
            created_ms=self._clock.now_ms(),
            made_by=found.peer.org,
            servers=found.via,
        )
        async with self._store.transaction() as t:
            other = await t.mail.room_by_id(row.room_id)
            if other is not None and other.key != key:
                raise RoomTaken(f"{found.peer.org} shows the room {row.room_id}, which is the room {other.key}")
            await t.mail.keep_room(row)
        log.info("room joined", extra={"room": key, "room_id": row.room_id, "creators": creators})
        self._on_found(key)
        return row

    async def read_too(self, about: str, found: Found) -> RoomRow | None:
        """The room, joined, as one that we only read; None when we know too many of that organisation. Raises as `settle`."""
        async with self._store.transaction() as t:
            if (known := await t.mail.room_by_id(found.place.room_id)) is not None:
                return known
            keys = [others_room(about, found.peer.org, number) for number in range(1, MAX_ROOMS_OF_ORG + 1)]
            free = [key for key in keys if await t.mail.room(key) is None]
        if not free:
            log.warning("too many rooms alarm", extra={"room": about, "org": found.peer.org, "most": MAX_ROOMS_OF_ORG})
            return None
        await self.join(found)
        return await self.settle(free[0], found, alias="")

    async def read_all(self, about: str, found: Iterable[Found]) -> None:
        """Those of these rooms that can be had now are read too. Raises HomeserverAway when our own is gone, and StoreAway."""
        for one in distinct(found):
            with not_now(one):
                await self.read_too(about, one)

    async def set_apart(self, row: RoomRow, *, lost: bool) -> None:
        """The room in which we spoke becomes one that we only read. Raises StoreAway."""
        async with self._store.transaction() as t:
            number = 1
            while await t.mail.room(key := others_room(row.key, row.made_by, number)) is not None:
                number += 1
            await t.mail.rename_room(row.key, key)
            await t.mail.keep_room(replace(row, key=key, alias="", lost=lost))

    async def rejoin(self, row: RoomRow) -> None:
        """We are in the room again, after we were put out of it. Raises HomeserverAway, HomeserverRefused, StoreAway."""
        await self._homeserver.join(row.room_id, via=row.servers)
        async with self._store.transaction() as t:
            if (now := await t.mail.room_by_id(row.room_id)) is not None:
                await t.mail.keep_room(replace(now, lost=False))
        log.info("room regained", extra={"room": row.key, "room_id": row.room_id})
        self._on_found(row.key)

    async def lose(self, room_id: str) -> None:
        """Notes that we were put out of a room. Raises StoreAway."""
        async with self._store.transaction() as t:
            if (row := await t.mail.room_by_id(room_id)) is not None and not row.lost:
                await t.mail.keep_room(replace(row, lost=True))


def distinct(found: Iterable[Found]) -> list[Found]:
    """One of each room, the first."""
    rooms: dict[str, Found] = {}
    for one in found:
        rooms.setdefault(one.place.room_id, one)
    return list(rooms.values())


@contextlib.contextmanager
def not_now(found: Found) -> Iterator[None]:
    """A room that cannot be had is left for another time, unless our own homeserver is gone."""
    try:
        yield
    except (HomeserverAway, HomeserverRefused, RoomTaken) as problem:
        if isinstance(problem, HomeserverAway) and problem.unreachable:
            raise
        log.warning(
            "room of a pinned organisation cannot be joined",
            extra={"org": found.peer.org, "room_id": found.place.room_id, "reason": problem.detail},
        )
