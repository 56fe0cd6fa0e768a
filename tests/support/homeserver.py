"""Homeservers as our services see them, in memory, one alone or several that federate, failing wherever a test wants it to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matrix_pypi_bot.services.constitution import creators_of
from matrix_pypi_bot.services.homeserver import HomeserverAway, HomeserverRefused, JsonObject, Place

SERVER = "hs.example"
BOT = f"@pypi:{SERVER}"


@dataclass
class FakeRoom:
    """A room: its current state by (type, state key), every event that was ever sent, who is in, and who must not come back."""

    state: dict[tuple[str, str], JsonObject] = field(default_factory=dict)
    events: list[JsonObject] = field(default_factory=list)
    members: set[str] = field(default_factory=set)
    banned: set[str] = field(default_factory=set)
    finished: bool = True

    @property
    def joined(self) -> bool:
        """Whether the bot of a test with one homeserver is in."""
        return BOT in self.members

    @joined.setter
    def joined(self, joined: bool) -> None:
        (self.members.add if joined else self.members.discard)(BOT)

    def enter(self, user: str) -> None:
        """The user joins, and the state says so."""
        self.members.add(user)
        self.state["m.room.member", user] = {
            "type": "m.room.member",
            "state_key": user,
            "sender": user,
            "content": {"membership": "join"},
            "event_id": f"$join-{user}",
        }

    def put_out(self, user: str, *, banned: bool, by: str) -> None:
        """Somebody kicks or bans the user."""
        self.members.discard(user)
        if banned:
            self.banned.add(user)
        event = self.state["m.room.member", user]
        self.state["m.room.member", user] = {
            **event,
            "sender": by,
            "content": {"membership": "ban" if banned else "leave"},
        }

    def level(self, user: str) -> float:
        """The user's power, as room version 12 counts it."""
        levels = self._levels()
        if user in creators_of(self.state["m.room.create", ""]):
            return float("inf")
        return float(levels.get("users", {}).get(user, levels.get("users_default", 0)))

    def needs(self, type: str, *, state: bool) -> float:
        """The level that an event of this type needs."""
        levels = self._levels()
        default = levels.get("state_default", 50) if state else levels.get("events_default", 0)
        return float(levels.get("events", {}).get(type, default))

    def _levels(self) -> JsonObject:
        event = self.state.get(("m.room.power_levels", ""))
        return event["content"] if event is not None else {}


@dataclass
class FakeHomeserver:
    """`services.homeserver.Homeserver` of one bot. `on_call(what, phase)` runs before ("before") and after ("after") each request took
    effect; what it raises is what the caller sees: a failure after the effect is an answer that got lost.

    Homeservers that are given the same `rooms`, `aliases` and `network` federate. `answer_alias` is what the appservice says to
    an alias of this server that does not exist; `away` are servers that this one does not reach.
    """

    server: str = SERVER
    rooms: dict[str, FakeRoom] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    network: dict[str, FakeHomeserver] = field(default_factory=dict)
    answer_alias: Callable[[str], Awaitable[bool]] | None = None
    away: set[str] = field(default_factory=set)
    published: list[str] = field(default_factory=list)
    declined: list[tuple[str, str]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    on_call: Callable[[str, str], None] = lambda what, phase: None
    busy: dict[str, int] = field(default_factory=dict)
    most_busy: int = 0
    _transactions: dict[tuple[str, str], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.network[self.server] = self

    @property
    def bot(self) -> str:
        """The user whose requests these are."""
        return f"@pypi:{self.server}"

    @property
    def busy_now(self) -> bool:
        """Whether an event is on its way."""
        return any(self.busy.values())

    async def create_room(self, request: Mapping[str, Any]) -> str:
        return await self._do("create_room", lambda: self._create(request))

    async def resolve(self, alias: str) -> Place:
        server = alias.partition(":")[2]
        if server in self.away:
            return await self._do("resolve", lambda: _raise(HomeserverAway("502 Failed to fetch alias")))
        other = self.network.get(server)
        if server != self.server and alias not in self.aliases and other is not None and other.answer_alias is not None:
            await other.answer_alias(alias)
        return await self._do("resolve", lambda: self._alias(alias))

    async def add_alias(self, alias: str, room_id: str) -> None:
        def add() -> None:
            if alias in self.aliases:
                raise HomeserverRefused(409, "M_UNKNOWN", "Room alias already exists", what="add")
            self.aliases[alias] = room_id

        await self._do("add_alias", add)

    async def remove_alias(self, alias: str) -> None:
        await self._do("remove_alias", lambda: self.aliases.pop(alias, None))

    async def join(self, room_id: str, *, via: Sequence[str] = ()) -> None:
        def join() -> None:
            room = self.rooms.get(room_id)
            servers = {user.partition(":")[2] for user in room.members} if room is not None else set()
            if room is None or not room.finished or (servers and servers.isdisjoint({self.server, *via})):
                raise HomeserverRefused(404, "M_UNKNOWN", "Can't join remote room because no servers ...", what="join")
            if self.bot in room.banned:
                raise HomeserverRefused(403, "M_FORBIDDEN", "You are banned from this room", what="join")
            room.enter(self.bot)

        await self._do("join", join)

    async def decline(self, room_id: str, reason: str) -> None:
        def decline() -> None:
            self.declined.append((room_id, reason))
            if room_id in self.rooms:
                self.rooms[room_id].members.discard(self.bot)

        await self._do("decline", decline)

    async def publish(self, room_id: str) -> None:
        await self._do("publish", lambda: self.published.append(room_id))

    async def state(self, room_id: str) -> list[JsonObject]:
        return await self._do("state", lambda: list(self._room(room_id).state.values()))

    async def put_state(self, room_id: str, type: str, state_key: str, content: bytes) -> str:
        def put() -> str:
            self._check(room_id, type, state=True)
            return self.set_state(room_id, type, state_key, json.loads(content), self.bot)

        return await self._do("put_state", put, room_id)

    async def send(self, room_id: str, type: str, content: bytes, txn_id: str) -> str:
        def send() -> str:
            room = self._check(room_id, type, state=False)
            related = json.loads(content).get("m.relates_to", {}).get("event_id")
            if related is not None and all(event["event_id"] != related for event in room.events):
                raise HomeserverRefused(400, "M_UNKNOWN", "Relations must be in the same room", what="send")
            if (room_id, txn_id) not in self._transactions:
                self._transactions[room_id, txn_id] = self._add(
                    room, room_id, type, None, json.loads(content), self.bot
                )["event_id"]
            return self._transactions[room_id, txn_id]

        return await self._do("send", send, room_id)

    def set_state(self, room_id: str, type: str, state_key: str, content: JsonObject, sender: str = BOT) -> str:
        """What a state event does, whoever may send it; the same content again is no new event."""
        room = self.rooms[room_id]
        current = room.state.get((type, state_key))
        if current is None or (current["content"], current["sender"]) != (content, sender):
            current = room.state[type, state_key] = self._add(room, room_id, type, state_key, content, sender)
        return str(current["event_id"])

    def contents(self, room_id: str) -> list[Any]:
        """The contents of all events sent to a room after it was made, in order."""
        return [event["content"] for event in self.rooms[room_id].events]

    def _create(self, request: Mapping[str, Any]) -> str:
        alias = f"#{request['room_alias_name']}:{self.server}"
        if alias in self.aliases:
            raise HomeserverRefused(400, "M_UNKNOWN", f"Room alias {alias} already exists", what="create")
        room_id = f"!room{len(self.rooms)}"
        room = self.rooms[room_id] = FakeRoom()
        self.aliases[alias] = room_id
        made = {
            "m.room.create": {"room_version": request["room_version"], **request["creation_content"]},
            "m.room.power_levels": {"historical": 100, **request["power_level_content_override"]},
            "m.room.join_rules": {"join_rule": "public"},
            "m.room.canonical_alias": {"alias": alias},
            "m.room.name": {"name": request["name"]},
            **{event["type"]: event["content"] for event in request["initial_state"]},
        }
        for type, content in made.items():
            room.state[type, ""] = self._add(room, room_id, type, "", content, self.bot)
        room.enter(self.bot)
        room.events.clear()
        return room_id

    def _add(
        self, room: FakeRoom, room_id: str, type: str, state_key: str | None, content: JsonObject, sender: str
    ) -> JsonObject:
        event = {"type": type, "room_id": room_id, "sender": sender, "content": content}
        event |= {} if state_key is None else {"state_key": state_key}
        event["event_id"] = f"${room_id[1:]}-{len(room.state)}-{len(room.events)}"
        room.events.append(event)
        return event

    def _alias(self, alias: str) -> Place:
        if alias not in self.aliases:
            raise HomeserverRefused(404, "M_NOT_FOUND", "no such alias", what="resolve")
        room = self.rooms.get(self.aliases[alias], FakeRoom())
        return Place(self.aliases[alias], tuple(sorted({user.partition(":")[2] for user in room.members})))

    def _room(self, room_id: str) -> FakeRoom:
        room = self.rooms.get(room_id)
        if room is None or self.bot not in room.members:
            raise HomeserverRefused(403, "M_FORBIDDEN", "not in the room", what="use")
        return room

    def _check(self, room_id: str, type: str, *, state: bool) -> FakeRoom:
        room = self._room(room_id)
        if room.level(self.bot) < room.needs(type, state=state):
            raise HomeserverRefused(403, "M_FORBIDDEN", "You don't have permission to post that", what="send")
        return room

    async def _do(self, what: str, effect: Callable[[], Any], room_id: str | None = None) -> Any:
        self.calls.append(what)
        if room_id is not None:
            self.busy[room_id] = self.busy.get(room_id, 0) + 1
            assert self.busy[room_id] == 1, f"two events at once to {room_id}"
            self.most_busy = max(self.most_busy, sum(self.busy.values()))
        try:
            await asyncio.sleep(0)
            self.on_call(what, "before")
            result = effect()
            await asyncio.sleep(0)
            self.on_call(what, "after")
            return result
        finally:
            if room_id is not None:
                self.busy[room_id] -= 1


def _raise(error: Exception) -> None:
    raise error
