"""What the Matrix services need of a homeserver, and the two ways in which it says no."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from matrix_pypi_bot.wire.problems import Problem, clean_line

JsonObject = dict[str, Any]

# The homeserver will say the same of the same event for ever: its content is wrong, not the moment.
_PERMANENT: Final = frozenset({"M_TOO_LARGE", "M_BAD_JSON", "M_NOT_JSON", "M_INVALID_PARAM", "M_MISSING_PARAM"})
_NOT_IN_ROOM: Final = frozenset({"M_FORBIDDEN", "M_NOT_FOUND", "M_NOT_JOINED"})
_BAD_TOKEN: Final = frozenset({"M_UNKNOWN_TOKEN", "M_MISSING_TOKEN", "M_USER_DEACTIVATED"})


class HomeserverAway(Problem):
    """The homeserver could not be reached, was too slow, or answered 5xx or nonsense. Trying again later is right.

    `unreachable`: there was no connection at all, so that every other request would fail too.
    """

    def __init__(self, detail: str, *, unreachable: bool = False) -> None:
        super().__init__(detail, hint="is the homeserver running, and is homeserver.address right?")
        self.unreachable = unreachable


class HomeserverRefused(Problem):
    """The homeserver understood and said no: HTTP `status`, its `errcode` (`""` when it gave none)."""

    def __init__(self, status: int, errcode: str, message: str, *, what: str) -> None:
        self.status = status
        self.errcode = clean_line(errcode, 60)
        self._message = message
        super().__init__(
            f"the homeserver refused to {what}: {status} {self.errcode} {clean_line(message, 160)}".strip()
        )

    @property
    def permanent(self) -> bool:
        """Whether the same request can never succeed."""
        return self.errcode in _PERMANENT or self.status == 413

    @property
    def no_access(self) -> bool:
        """Whether we are not (or no longer) in the room, or it is no longer there."""
        # Synapse says 404 M_UNKNOWN of a room in which no server is left.
        return self.errcode in _NOT_IN_ROOM or self.status == 404

    @property
    def bad_token(self) -> bool:
        """Whether our as_token was not accepted."""
        return self.errcode in _BAD_TOKEN

    @property
    def alias_taken(self) -> bool:
        """Whether createRoom lost a race for its alias. Synapse says M_UNKNOWN there, not only M_ROOM_IN_USE."""
        return self.errcode == "M_ROOM_IN_USE" or (
            self.status in (400, 409)
            and self.errcode == "M_UNKNOWN"
            and "alias" in self.detail
            and "exists" in self.detail
        )


@dataclass(frozen=True, slots=True)
class Place:
    """A room, and servers that are in it."""

    room_id: str
    servers: tuple[str, ...]


class Homeserver(Protocol):
    """The client-server API as our bot user. Every call may raise HomeserverAway or HomeserverRefused, and nothing else."""

    async def create_room(self, request: Mapping[str, Any]) -> str:
        """The id of a room made as `request` (the body of createRoom) says."""
        ...

    async def resolve(self, alias: str) -> Place:
        """The room that has this alias, here or on another server.

        Asking for an alias of our own namespace that does not exist makes the homeserver ask *us*: only ask for one that exists.
        """
        ...

    async def add_alias(self, alias: str, room_id: str) -> None: ...

    async def remove_alias(self, alias: str) -> None: ...

    async def join(self, room_id: str, *, via: Sequence[str] = ()) -> None:
        """Being in the room already is no error. `via`: servers that are in it; needed where our own is not, as ids name none."""
        ...

    async def decline(self, room_id: str, reason: str) -> None:
        """The invitation to the room is turned down."""
        ...

    async def publish(self, room_id: str) -> None:
        """The room is listed in the homeserver's directory."""
        ...

    async def state(self, room_id: str) -> Sequence[JsonObject]:
        """The current state: raw events, as they came."""
        ...

    async def put_state(self, room_id: str, type: str, state_key: str, content: bytes) -> str:
        """The id of the state event. The same content again is no new event and has the same id."""
        ...

    async def send(self, room_id: str, type: str, content: bytes, txn_id: str) -> str:
        """The id of the timeline event. The same transaction id again is no new event and has the same id."""
        ...


class HomeserverLink(Protocol):
    """What it takes to become, and to stay, an appservice that the homeserver talks to. Raises like `Homeserver`."""

    async def answers(self) -> None:
        """The homeserver is there."""
        ...

    async def introduce(self) -> str:
        """Our bot user exists; its user id as the homeserver sees it."""
        ...

    async def set_name(self) -> None:
        """The bot has its display name."""
        ...

    async def ping(self) -> None:
        """The homeserver reached us, and sends at once what it kept for us."""
        ...
