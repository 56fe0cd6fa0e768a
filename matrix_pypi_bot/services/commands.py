"""What people write to the bot in rooms: read, bounded, answered with a notice and one reaction.

A command is whatever a person writes as text that begins with `!pypi`. Notices are never answered: bots write them, and two bots that
answered one another would not stop. In a room of several organisations each bot answers for itself, by its organisation's name.
"""

from __future__ import annotations

import asyncio
import html
import json
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cachetools import LRUCache

from matrix_pypi_bot.ports import PROJECT_ROOM, Clock, Postman, Store
from matrix_pypi_bot.services.homeserver import JsonObject
from matrix_pypi_bot.services.room_answers import RoomAnswers
from matrix_pypi_bot.wire.names import ProjectName
from matrix_pypi_bot.wire.problems import Problem, clean_line

log = logging.getLogger(__name__)

MESSAGE: Final = "m.room.message"
REACTION: Final = "m.reaction"
PREFIX: Final = "!pypi"
MAX_AGE_MS: Final = 600_000  # what was written while the bot was away and nobody waits for any more
MAX_WAITING: Final = 50
PER_SENDER: Final = 6  # answers in a minute
PER_ROOM: Final = 12
PER_SERVER: Final = 30  # accounts are free, homeservers are less so
ALL_PER_MINUTE: Final = 120  # each costs a look at a project and two events
MAX_COUNTED: Final = 10_000
MAX_LINE_CHARACTERS: Final = 300
_MINUTE_MS: Final = 60_000
_ONLY_READ: Final = "@"  # in the key of a room of another organisation (`ports.RoomRow`)
_GOOD, _BAD = "\u2705", "\u274c"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What somebody asked. `room` is the room's key; `thread` the event at the root of the thread in which it was asked."""

    room: str
    event_id: str
    sender: str
    words: tuple[str, ...]
    thread: str | None

    @property
    def project(self) -> ProjectName | None:
        """The project whose room it is."""
        return ProjectName(self.room.removeprefix(PROJECT_ROOM)) if self.room.startswith(PROJECT_ROOM) else None


def read_command(room: str, event: JsonObject, *, bot: str, now_ms: int) -> Command | None:
    """The command in a timeline event; None for everything else that people and bots write. Total."""
    content, sender, event_id = event.get("content"), event.get("sender"), event.get("event_id")
    if event.get("type") != MESSAGE or "state_key" in event or not isinstance(content, Mapping):
        return None
    body, sent = content.get("body"), event.get("origin_server_ts")
    if content.get("msgtype") != "m.text" or not isinstance(body, str) or not isinstance(event_id, str):
        return None
    if not isinstance(sender, str) or sender == bot or not isinstance(sent, int) or sent < now_ms - MAX_AGE_MS:
        return None
    relation = content.get("m.relates_to")
    told = relation if isinstance(relation, Mapping) else {}
    if told.get("rel_type") == "m.replace":
        return None
    first, *words = body.split() or [""]
    if first.lower() != PREFIX:
        return None
    root = told.get("event_id") if told.get("rel_type") == "m.thread" else None
    thread = root if isinstance(root, str) else None
    return Command(room=room, event_id=event_id, sender=sender, words=tuple(words), thread=thread)


class Commands:
    """Answers commands, one after the other. Make it in a running loop and have `run()` run."""

    def __init__(self, *, answers: RoomAnswers, store: Store, clock: Clock, postman: Postman, bot: str) -> None:
        self._answers = answers
        self._store = store
        self._clock = clock
        self._postman = postman
        self._bot = bot
        self._waiting: deque[Command] = deque()
        self._wake = asyncio.Event()
        self._minute = -1
        self._counts: LRUCache[str, int] = LRUCache(MAX_COUNTED)

    def hear(self, room: str, event: JsonObject) -> bool:
        """Whether the event is a command that will be answered. One too many is not, and none in a room that we only read."""
        if _ONLY_READ in room:
            return False
        now_ms = self._clock.now_ms()
        command = read_command(room, event, bot=self._bot, now_ms=now_ms)
        if command is None or len(self._waiting) >= MAX_WAITING or not self._may(command, now_ms):
            return False
        self._waiting.append(command)
        self._wake.set()
        return True

    async def run(self) -> None:
        """Answers whatever was asked, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self.answer(self._waiting.popleft())

    async def answer(self, command: Command) -> None:
        """The answer is on its way to the room, unless the database is away."""
        try:
            lines, good = await self._answers.lines(command.words, command.project), True
        except Problem as problem:
            lines, good = [problem.detail, *([problem.hint] if problem.hint else [])], False
        except Exception:
            log.exception("command failed", extra={"room": command.room, "event_id": command.event_id})
            lines, good = [f"that failed here; the bot's log knows it as {command.event_id}"], False
        now_ms = self._clock.now_ms()
        try:
            async with self._store.transaction() as tables:
                for type, content in ((REACTION, _reaction(command, good)), (MESSAGE, _notice(command, lines))):
                    await tables.mail.send(command.room, type, None, json.dumps(content).encode(), now_ms)
        except Problem as problem:
            log.warning("command not answered", extra={"room": command.room, "reason": problem.detail})
            return
        self._postman.poke()

    def _may(self, command: Command, now_ms: int) -> bool:
        if (minute := now_ms // _MINUTE_MS) != self._minute:
            self._minute = minute
            self._counts.clear()
        limits = {
            command.sender: PER_SENDER,
            f"room {command.room}": PER_ROOM,
            f"server {command.sender.partition(':')[2]}": PER_SERVER,
            "all": ALL_PER_MINUTE,
        }
        if any(self._counts.get(key, 0) >= limit for key, limit in limits.items()):
            return False
        for key in limits:
            self._counts[key] = self._counts.get(key, 0) + 1
        return True


def _reaction(command: Command, good: bool) -> JsonObject:
    relation = {"rel_type": "m.annotation", "event_id": command.event_id, "key": _GOOD if good else _BAD}
    return {"m.relates_to": relation}


def _notice(command: Command, lines: Sequence[str]) -> JsonObject:
    """A reply, in the thread if it was asked in one. Nobody is mentioned: it must wake nobody."""
    shown = [clean_line(line, MAX_LINE_CHARACTERS) for line in lines]
    relation: JsonObject = {"m.in_reply_to": {"event_id": command.event_id}}
    if command.thread is not None:
        relation |= {"rel_type": "m.thread", "event_id": command.thread, "is_falling_back": False}
    return {
        "msgtype": "m.notice",
        "body": "\n".join(shown),
        "format": "org.matrix.custom.html",
        "formatted_body": "<br>".join(map(html.escape, shown)),
        "m.mentions": {},
        "m.relates_to": relation,
    }
