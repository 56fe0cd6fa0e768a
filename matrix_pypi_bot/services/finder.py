"""Where pinned organisations have the room of a project. Asking makes no room; who is to make one is asked for by another name.

Three organisations that begin with a project at the same time must end in one room. So each looks at all others first, and when nobody
has one, asks those whose bot's user id sorts before its own to make it, in that order: all who can reach the first of them meet there.
Where that fails, several rooms are made, and read as one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from matrix_pypi_bot.services.homeserver import Homeserver, HomeserverAway, HomeserverRefused, Place
from matrix_pypi_bot.services.pauses import Pauses
from matrix_pypi_bot.services.together import together
from matrix_pypi_bot.wire.names import InvalidName, ProjectName, probe_alias, room_alias

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 10.0
MAKE_SECONDS: Final = 20.0  # the other one looks around first, as we did
FIRST_PAUSE_SECONDS: Final = 5.0  # in which an organisation that did not answer is not asked again
LONGEST_PAUSE_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Peer:
    """A pinned organisation in Matrix: its name, and its bot's user id."""

    org: str
    user: str

    @property
    def server(self) -> str:
        """The server of the bot, e.g. `org.example:8448`."""
        return self.user.partition(":")[2]


@dataclass(frozen=True, slots=True)
class Found:
    """The room that an organisation has of a project."""

    peer: Peer
    place: Place

    @property
    def via(self) -> tuple[str, ...]:
        """The servers to join by: that of the organisation, which is in it, first."""
        return tuple(dict.fromkeys((self.peer.server, *self.place.servers)))


class Finder:
    """Asks the servers of pinned organisations. Make it in a running loop. `bot` is our own user id."""

    def __init__(self, homeserver: Homeserver, peers: Sequence[Peer], *, bot: str) -> None:
        self.peers = tuple(sorted(peers, key=lambda peer: peer.user))
        self._homeserver = homeserver
        self._bot = bot
        self._pauses = Pauses(first_seconds=FIRST_PAUSE_SECONDS, longest_seconds=LONGEST_PAUSE_SECONDS)
        self._loop = asyncio.get_running_loop()

    async def look(self, project: ProjectName) -> list[Found]:
        """What the others have now, in the order in which all would choose. Raises HomeserverAway when our own is gone."""
        async with together() as group:
            asked = [group.create_task(self._ask(peer, probe_alias, project, LOOK_SECONDS)) for peer in self.peers]
        answers = [task.result() for task in asked]
        if gone := next((answer for answer in answers if isinstance(answer, HomeserverAway)), None):
            raise gone
        return [answer for answer in answers if isinstance(answer, Found)]

    async def have_made(self, project: ProjectName) -> Found | None:
        """The room that the first of those who come before us made, if they are there. Raises HomeserverAway when our own is gone."""
        for peer in self.peers:
            if peer.user >= self._bot:
                break
            answer = await self._ask(peer, room_alias, project, MAKE_SECONDS)
            if isinstance(answer, HomeserverAway):
                raise answer
            if answer is not None:
                return answer
        return None

    async def trust_room(self, peer: Peer) -> Found | None:
        """The peer's trust room. Raises HomeserverAway when our own is gone."""
        return await self._resolve(peer, f"#pypi-trust:{peer.server}", LOOK_SECONDS)

    def end_pauses(self) -> None:
        """Our own homeserver was away: that the others did not answer says nothing."""
        self._pauses.end_all()

    async def _ask(
        self, peer: Peer, alias: Callable[[ProjectName, str], str], project: ProjectName, seconds: float
    ) -> Found | HomeserverAway | None:
        """The answer; None for a no, or no answer; HomeserverAway (not raised, as others are asked beside it) when our own is gone."""
        if self._pauses.left(peer.org, self._loop.time()):
            return None
        try:
            found = await self._resolve(peer, alias(project, peer.server), seconds)
        except InvalidName:  # longer than an alias may be: there is none
            return None
        except HomeserverAway as problem:
            return problem
        return found

    async def _resolve(self, peer: Peer, alias: str, seconds: float) -> Found | None:
        try:
            async with asyncio.timeout(seconds):
                place = await self._homeserver.resolve(alias)
        except HomeserverRefused:
            self._pauses.succeeded(peer.org)
            return None
        except (HomeserverAway, TimeoutError) as error:
            if isinstance(error, HomeserverAway) and error.unreachable:
                raise
            pause = self._pauses.failed(peer.org, self._loop.time())
            log.info("organisation did not answer", extra={"org": peer.org, "alias": alias, "retry_seconds": pause})
            return None
        self._pauses.succeeded(peer.org)
        return Found(peer, place)
