"""The rooms of pinned organisations, kept in view: their trust rooms, their rooms of projects, and those that we were put out of.

Nothing here is waited for by anybody, and none of it is tried again hot: pauses grow, and joins have a rate of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Final

from aiolimiter import AsyncLimiter

from matrix_pypi_bot.ports import TRUST_ROOM, Store, StoreAway, others_room
from matrix_pypi_bot.services.finder import Found, Peer
from matrix_pypi_bot.services.homeserver import Homeserver, HomeserverAway, JsonObject, Place
from matrix_pypi_bot.services.pauses import Pauses
from matrix_pypi_bot.services.rooms import Rooms
from matrix_pypi_bot.services.together import together
from matrix_pypi_bot.wire.names import ProjectName, project_of_alias
from matrix_pypi_bot.wire.problems import Problem

log = logging.getLogger(__name__)

FOLLOWED_PER_MINUTE: Final = (
    60  # a newcomer reads of thousands of projects at once, and a room costs its homeserver a second
)
WAITING: Final = 10_000  # projects; what is more is heard of again with the next statement about it
INVITATIONS: Final = 100
FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 3_600.0
ROOM_PAUSES_SECONDS: Final = (5.0, 30.0, 300.0)  # what is in a log may be said before there is a room to say it in
LOOK_AGAIN_SECONDS: Final = 3_600.0  # whether a trust room is still the one that its alias leads to
CANONICAL_ALIAS: Final = "m.room.canonical_alias"


class Neighbours:
    """Make it in a running loop and have `run()` run."""

    def __init__(
        self,
        *,
        store: Store,
        homeserver: Homeserver,
        rooms: Rooms,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
        room_pauses_seconds: Sequence[float] = ROOM_PAUSES_SECONDS,
    ) -> None:
        self._store = store
        self._homeserver = homeserver
        self._rooms = rooms
        self._pauses = Pauses(first_seconds=first_pause_seconds, longest_seconds=LONGEST_PAUSE_SECONDS)
        self._limiter = AsyncLimiter(FOLLOWED_PER_MINUTE, 60)
        self._loop = asyncio.get_running_loop()
        self._first_pause_seconds = first_pause_seconds
        self._room_pauses_seconds = room_pauses_seconds
        self._looked: dict[str, float] = {}
        self._lost: set[str] = set()
        self._projects: dict[ProjectName, None] = {}
        self._looks: dict[ProjectName, int] = {}
        self._invitations: dict[str, Peer] = {}
        self._wake = asyncio.Event()
        self._errand = asyncio.Event()

    def follow(self, project: ProjectName) -> None:
        """A pinned organisation said something about the project: its room, if it has one, is joined soon."""
        if self._rooms.finder.peers and len(self._projects) < WAITING:
            self._projects[project] = None
            self._errand.set()

    def invited(self, room_id: str, sender: str) -> bool:
        """Whether the invitation comes from a pinned organisation's bot; then it is looked into soon."""
        peer = next((peer for peer in self._rooms.finder.peers if peer.user == sender), None)
        if peer is None:
            return False
        if len(self._invitations) < INVITATIONS:
            self._invitations[room_id] = peer
            self._errand.set()
        return True

    def lost(self) -> None:
        """We were put out of a room."""
        self._wake.set()

    def retry_now(self) -> None:
        """The homeserver is back: nothing waits any longer, and the others are to hear of it.

        A homeserver that could not reach ours tries again after up to hours, or at once when ours asks it something: so the trust
        rooms' aliases are looked up again.
        """
        self._pauses.end_all()
        self._looked.clear()
        self._rooms.finder.end_pauses()
        self._wake.set()
        self._errand.set()

    async def run(self) -> None:
        """Until cancelled."""
        if self._rooms.finder.peers:
            async with together() as group:
                group.create_task(self._stay())
                group.create_task(self._run_errands())

    async def _stay(self) -> None:
        """In the trust rooms, and again in what we were put out of."""
        while True:
            self._wake.clear()
            seconds = min([await self._visit(peer) for peer in self._rooms.finder.peers])
            seconds = min(seconds, await self._return())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake.wait()

    async def _visit(self, peer: Peer) -> float:
        """Is in the peer's trust room, if it can be; the seconds until that is to be looked at again."""
        key, now = others_room(TRUST_ROOM, peer.org), self._loop.time()
        if left := max(self._pauses.left(key, now), self._looked.get(key, 0.0) - now):
            return left
        try:
            await self._enter_trust_room(peer, key)
        except Problem as problem:
            seconds = self._pauses.failed(key, self._loop.time())
            log.warning(
                "trust room cannot be read", extra={"org": peer.org, "reason": problem.detail, "retry_seconds": seconds}
            )
            return seconds
        self._pauses.succeeded(key)
        self._looked[key] = self._loop.time() + LOOK_AGAIN_SECONDS
        return LOOK_AGAIN_SECONDS

    async def _enter_trust_room(self, peer: Peer, key: str) -> None:
        found = await self._rooms.finder.trust_room(peer)
        if found is None:
            raise Problem(f"{peer.server} shows no trust room")
        row = await self._rooms.known(key)
        if row is None or row.room_id != found.place.room_id or row.lost:
            await self._rooms.others.join(found)
            await self._rooms.others.settle(key, found, alias=f"#pypi-trust:{peer.server}")

    async def _return(self) -> float:
        """Asks to be let in again where we were put out, each time after a longer pause; the seconds until the next attempt."""
        try:
            async with self._store.transaction() as t:
                rows = [row for row in await t.mail.lost_rooms() if row.about != TRUST_ROOM]
        except StoreAway:
            return self._first_pause_seconds
        seconds = LOOK_AGAIN_SECONDS
        for row in rows:
            left = self._pauses.left(row.room_id, self._loop.time())
            if row.room_id not in self._lost:
                self._lost.add(row.room_id)
                left = self._pauses.failed(row.room_id, self._loop.time())
            elif not left:
                left = await self._knock(row.key, row.room_id)
            seconds = min(seconds, left)
        return seconds

    async def _knock(self, key: str, room_id: str) -> float:
        try:
            row = await self._rooms.known(key)
            if row is not None:
                await self._rooms.others.rejoin(row)
        except Problem as problem:
            log.info("room stays closed to us", extra={"room": key, "room_id": room_id, "reason": problem.detail})
        # Also when it let us in: if it puts us out again, the pause grows.
        return self._pauses.failed(room_id, self._loop.time())

    async def _run_errands(self) -> None:
        while True:
            self._errand.clear()
            while self._invitations or self._projects:
                await self._limiter.acquire()
                try:
                    await self._next_errand()
                except (StoreAway, HomeserverAway) as problem:
                    log.info("rooms of others must wait", extra={"reason": problem.detail})
                    await asyncio.sleep(self._first_pause_seconds)
            await self._errand.wait()

    async def _next_errand(self) -> None:
        """Does one of them; it stays for later when the homeserver or the database is away."""
        room_id = next(iter(self._invitations), None)
        project = next(iter(self._projects), None)
        try:
            if room_id is not None:
                await self._accept(room_id, self._invitations[room_id])
            elif project is not None:
                await self._look_for(project)
        except (StoreAway, HomeserverAway):
            raise
        except Problem as problem:
            log.warning("room of others was left out", extra={"reason": problem.detail})
        if room_id is not None:
            del self._invitations[room_id]
        elif project is not None:
            del self._projects[project]

    async def _look_for(self, project: ProjectName) -> None:
        """Joins the project's room; where there is none yet, others are asked again, a few times."""
        looks = self._looks.pop(project, 0)
        if (
            not await self._rooms.follow(project)
            and looks < len(self._room_pauses_seconds)
            and len(self._looks) < WAITING
        ):
            self._looks[project] = looks + 1
            self._loop.call_later(self._room_pauses_seconds[looks], self.follow, project)

    async def _accept(self, room_id: str, peer: Peer) -> None:
        """Joins, looks by the room's alias what it is about, and leaves again when it is about no project."""
        found = Found(peer, Place(room_id, ()))
        await self._rooms.others.join(found)
        project = _project_in(await self._homeserver.state(room_id), self._rooms.finder.peers)
        if project is not None:
            await self._rooms.take(project, found)
        else:
            await self._homeserver.decline(room_id, "This room bears no alias of a package's room.")


def _project_in(state: Sequence[JsonObject], peers: Sequence[Peer]) -> ProjectName | None:
    """The project whose room this says it is: its alias is that of a pinned organisation's server."""
    for event in state:
        content = event.get("content")
        if (event.get("type"), event.get("state_key")) == (CANONICAL_ALIAS, "") and isinstance(content, dict):
            alias = str(content.get("alias"))
            return next((name for peer in peers if (name := project_of_alias(alias, peer.server))), None)
    return None
