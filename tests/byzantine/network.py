"""Rooms and logs as an adversary may make them: late, out of order, twice, not at all, different for each reader."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

Event = dict[str, Any]


@dataclass(slots=True)
class Path:
    """From one organisation to another. Seconds of delay are drawn for each event; `copies` is how often each arrives."""

    room: bool = True
    log: bool = True
    delay_seconds: tuple[float, float] = (0.0, 120.0)
    copies: int = 1
    withholds: Callable[[Event], bool] = lambda event: False


class Member(Protocol):
    """Who is in the rooms."""

    name: str

    async def receive(self, event: Event) -> None:
        """An event arrived."""
        ...


@dataclass(slots=True)
class Network:
    """One room a project and one for trust, all of whose members are in all of them. Everything drawn comes from `chance`."""

    chance: random.Random
    members: dict[str, Member] = field(default_factory=dict)
    history: list[Event] = field(default_factory=list)
    paths: dict[tuple[str, str], Path] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def path(self, sender: str, receiver: str) -> Path:
        """How events and leaves get from one to the other."""
        return self.paths.setdefault((sender, receiver), Path())

    def cut(self, one: str, other: str, *, room: bool = False, log: bool = False) -> None:
        """Both ways: what is False is no way any more."""
        for pair in ((one, other), (other, one)):
            self.path(*pair).room, self.path(*pair).log = room, log

    def post(
        self, sender: str, room: str, type: str, content: Mapping[str, Any], state_key: str | None = None
    ) -> Event:
        """Sends an event to everybody who is in the room; what becomes of it is each path's business."""
        event = self.make(sender, room, type, content, state_key)
        for name in self.members:
            self.deliver(event, sender, name)
        return event

    def make(
        self, sender: str, room: str, type: str, content: Mapping[str, Any], state_key: str | None = None
    ) -> Event:
        """An event that is in the room's history and that nobody was sent yet."""
        event: Event = {
            "event_id": f"$e{next(self._numbers)}",
            "room_id": room_id(room),
            "sender": f"@pypi:{sender}",
            "type": type,
            "content": dict(content),
            "origin_server_ts": 0,
        }
        if state_key is not None:
            event["state_key"] = state_key
        self.history.append(event)
        return event

    def deliver(self, event: Event, sender: str, receiver: str) -> None:
        """Has it arrive, if it does."""
        if sender == receiver:
            return
        path = self.path(sender, receiver)
        if not path.room or path.withholds(event):
            return
        for _ in range(path.copies):
            delay = self.chance.uniform(*path.delay_seconds)
            asyncio.get_running_loop().call_later(delay, self._arrive, event, receiver)

    def redact(self, by: str, event: Event) -> None:
        """Its content is gone for everybody who has not read it yet; the others are told that it is."""
        event["content"] = {}
        room = event["room_id"].removeprefix("!").partition(":")[0].replace("~", ":")
        self.post(by, room, "m.room.redaction", {"redacts": event["event_id"]})

    def _arrive(self, event: Event, receiver: str) -> None:
        task = asyncio.get_running_loop().create_task(self.members[receiver].receive(event))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            raise AssertionError("an event made a participant stumble") from task.exception()


def room_id(key: str) -> str:
    """The id of the room with this key (`trust`, `project:<name>`)."""
    return f"!{key.replace(':', '~')}:sim"
