"""A homeserver as our services see it, in memory, failing wherever a test wants it to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from matrix_pypi_bot.services.homeserver import HomeserverRefused, JsonObject

SERVER = "hs.example"
BOT = f"@pypi:{SERVER}"


@dataclass
class FakeRoom:
    """A room: its current state by (type, state key), every event that was ever sent, and who is in."""

    state: dict[tuple[str, str], JsonObject] = field(default_factory=dict)
    events: list[JsonObject] = field(default_factory=list)
    joined: bool = True
    finished: bool = True


@dataclass
class FakeHomeserver:
    """`services.homeserver.Homeserver`. `on_call(what, phase)` runs before ("before") and after ("after") each request took effect;

    what it raises is what the caller sees: a failure after the effect is an answer that got lost.
    """

    rooms: dict[str, FakeRoom] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    published: list[str] = field(default_factory=list)
    declined: list[tuple[str, str]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    on_call: Callable[[str, str], None] = lambda what, phase: None
    busy: dict[str, int] = field(default_factory=dict)
    most_busy: int = 0
    _transactions: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def busy_now(self) -> bool:
        """Whether an event is on its way."""
        return any(self.busy.values())

    async def create_room(self, request: Mapping[str, Any]) -> str:
        return await self._do("create_room", lambda: self._create(request))

    async def resolve(self, alias: str) -> str:
        return await self._do("resolve", lambda: self._alias(alias))

    async def add_alias(self, alias: str, room_id: str) -> None:
        def add() -> None:
            if alias in self.aliases:
                raise HomeserverRefused(409, "M_UNKNOWN", "Room alias already exists", what="add")
            self.aliases[alias] = room_id

        await self._do("add_alias", add)

    async def remove_alias(self, alias: str) -> None:
        await self._do("remove_alias", lambda: self.aliases.pop(alias, None))

    async def join(self, room_id: str) -> None:
        def join() -> None:
            room = self.rooms.get(room_id)
            if room is None or not room.finished:
                raise HomeserverRefused(404, "M_UNKNOWN", "Can't join remote room because no servers ...", what="join")
            room.joined = True

        await self._do("join", join)

    async def decline(self, room_id: str, reason: str) -> None:
        await self._do("decline", lambda: self.declined.append((room_id, reason)))

    async def publish(self, room_id: str) -> None:
        await self._do("publish", lambda: self.published.append(room_id))

    async def state(self, room_id: str) -> list[JsonObject]:
        return await self._do("state", lambda: list(self._room(room_id).state.values()))

    async def put_state(self, room_id: str, type: str, state_key: str, content: bytes) -> str:
        return await self._do(
            "put_state", lambda: self.set_state(room_id, type, state_key, json.loads(content)), room_id
        )

    async def send(self, room_id: str, type: str, content: bytes, txn_id: str) -> str:
        def send() -> str:
            room = self._room(room_id)
            if (room_id, txn_id) not in self._transactions:
                self._transactions[room_id, txn_id] = self._add(room, room_id, type, None, json.loads(content))[
                    "event_id"
                ]
            return self._transactions[room_id, txn_id]

        return await self._do("send", send, room_id)

    def set_state(self, room_id: str, type: str, state_key: str, content: JsonObject, sender: str = BOT) -> str:
        """What a state event does; the same content again is no new event."""
        room = self._room(room_id)
        current = room.state.get((type, state_key))
        if current is None or (current["content"], current["sender"]) != (content, sender):
            current = room.state[type, state_key] = self._add(room, room_id, type, state_key, content, sender)
        return str(current["event_id"])

    def contents(self, room_id: str) -> list[Any]:
        """The contents of all events sent to a room after it was made, in order."""
        return [event["content"] for event in self.rooms[room_id].events]

    def _create(self, request: Mapping[str, Any]) -> str:
        alias = f"#{request['room_alias_name']}:{SERVER}"
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
            room.state[type, ""] = self._add(room, room_id, type, "", content)
        room.events.clear()
        return room_id

    def _add(
        self, room: FakeRoom, room_id: str, type: str, state_key: str | None, content: JsonObject, sender: str = BOT
    ) -> JsonObject:
        event = {"type": type, "room_id": room_id, "sender": sender, "content": content}
        event |= {} if state_key is None else {"state_key": state_key}
        event["event_id"] = f"${room_id[1:]}-{len(room.state)}-{len(room.events)}"
        room.events.append(event)
        return event

    def _alias(self, alias: str) -> str:
        if alias not in self.aliases:
            raise HomeserverRefused(404, "M_NOT_FOUND", "no such alias", what="resolve")
        return self.aliases[alias]

    def _room(self, room_id: str) -> FakeRoom:
        room = self.rooms.get(room_id)
        if room is None or not room.joined:
            raise HomeserverRefused(403, "M_FORBIDDEN", "not in the room", what="use")
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
