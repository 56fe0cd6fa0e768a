"""Inbox, outbox and rooms in memory: `ports.Store` as far as the Matrix services use it, held to the same tests as the databases."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

from matrix_pypi_bot.core.claims import Claim
from matrix_pypi_bot.ports import Backlog, EnvelopeRow, InboxRow, OutboxRow, RoomRow, Transaction, VerdictRow
from matrix_pypi_bot.wire.names import FileName, ProjectName


@dataclass
class Letter:
    """An outbox row with its turn and what became of it."""

    row: OutboxRow
    place: int
    status: str = "queued"
    event_id: str | None = None


@dataclass
class MemoryMail:
    """`ports.Mail`."""

    seen: set[str] = field(default_factory=set)
    inbox: dict[int, InboxRow] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)
    letters: dict[int, Letter] = field(default_factory=dict)
    by_key: dict[str, RoomRow] = field(default_factory=dict)
    answered: dict[str, str] = field(default_factory=dict)
    number: int = 0

    def _next(self) -> int:
        self.number += 1
        return self.number

    async def receive(self, txn_id: str, events: list[tuple[str, str, bytes]], at_ms: int) -> int:
        before = len(self.seen)
        for event_id, room_id, raw in events:
            if event_id not in self.seen:
                self.seen.add(event_id)
                n = self._next()
                self.inbox[n] = InboxRow(n=n, event_id=event_id, room_id=room_id, raw=raw)
        return len(self.seen) - before

    async def unread(self, limit: int) -> list[InboxRow]:
        return [row for n, row in sorted(self.inbox.items()) if n not in self.problems][:limit]

    async def read(self, n: int) -> None:
        del self.inbox[n]

    async def forget(self, n: int) -> None:
        self.seen.discard(self.inbox.pop(n).event_id)

    async def unreadable(self, n: int, problem: str) -> None:
        self.problems[n] = problem

    def _queued(self, room: str | None = None) -> list[Letter]:
        waiting = [letter for letter in self.letters.values() if letter.status == "queued"]
        return sorted((x for x in waiting if room in (None, x.row.room)), key=lambda letter: letter.place)

    async def send(self, room: str, type: str, state_key: str | None, content: bytes, at_ms: int) -> None:
        n = place = self._next()
        for letter in self._queued(room):
            if state_key is not None and (letter.row.type, letter.row.state_key) == (type, state_key):
                if letter.row.content == content:
                    return
                place = letter.place
                del self.letters[letter.row.n]
        row = OutboxRow(n=n, room=room, type=type, state_key=state_key, content=content, txn_id=f"txn{n}", attempts=0)
        self.letters[n] = Letter(row, place)

    async def rooms_with_mail(self) -> list[str]:
        return list(dict.fromkeys(letter.row.room for letter in self._queued()))

    async def next_to(self, room: str) -> OutboxRow | None:
        return next((letter.row for letter in self._queued(room)), None)

    async def sent(self, n: int, event_id: str) -> None:
        if n in self.letters:
            letter = self.letters[n]
            letter.status, letter.event_id, letter.row = "sent", event_id, replace(letter.row, content=b"")

    async def failed(self, n: int, error: str) -> None:
        if n in self.letters:
            row = self.letters[n].row
            self.letters[n].row = replace(row, attempts=row.attempts + 1)

    async def set_aside(self, n: int, error: str) -> None:
        self.letters[n].status = "aside"

    async def sent_as(self, event_id: str) -> OutboxRow | None:
        return next((letter.row for letter in self.letters.values() if letter.event_id == event_id), None)

    async def backlog(self) -> Backlog:
        statuses = [letter.status for letter in self.letters.values()]
        return Backlog(
            unread=len(self.inbox) - len(self.problems),
            unreadable=len(self.problems),
            queued=statuses.count("queued"),
            aside=statuses.count("aside"),
        )

    async def room(self, key: str) -> RoomRow | None:
        return self.by_key.get(key)

    async def room_by_id(self, room_id: str) -> RoomRow | None:
        return next((row for row in self.by_key.values() if row.room_id == room_id), None)

    async def rooms(self) -> list[RoomRow]:
        return [row for _, row in sorted(self.by_key.items())]

    async def lost_rooms(self) -> list[RoomRow]:
        return [row for row in await self.rooms() if row.lost]

    async def keep_room(self, row: RoomRow) -> None:
        self.by_key[row.key] = row

    async def rename_room(self, key: str, new_key: str) -> None:
        assert new_key not in self.by_key
        self.by_key[new_key] = replace(self.by_key.pop(key), key=new_key)

    async def said_again(self, event_id: str, statement_id: str, at_ms: int) -> int:
        if event_id in self.answered:
            return 0
        self.answered[event_id] = statement_id
        return list(self.answered.values()).count(statement_id)


@dataclass
class MemoryLedger:
    """The part of `ports.Ledger` that arriving events touch."""

    envelopes: dict[str, EnvelopeRow] = field(default_factory=dict)
    sightings: list[tuple[str, str, str, str]] = field(default_factory=list)
    judged: list[VerdictRow] = field(default_factory=list)

    async def keep(self, row: EnvelopeRow, claims: Sequence[Claim] = ()) -> bool:
        return self.envelopes.setdefault(row.id, row) is row

    async def envelope(self, statement_id: str) -> EnvelopeRow | None:
        return self.envelopes.get(statement_id)

    async def said(self, kind: str, project: ProjectName, file: FileName | None) -> list[EnvelopeRow]:
        rows = self.envelopes.values()
        return [row for row in rows if (row.kind, row.project, row.file) == (kind, project, file)]

    async def carried_by(self, event_id: str) -> EnvelopeRow | None:
        carried = (self.envelopes[id] for id, _, event, _ in self.sightings if event == event_id)
        return next(carried, None)

    async def verdicts(self, project: ProjectName) -> list[VerdictRow]:
        return [row for row in self.judged if row.project == project]

    async def sighted(self, statement_id: str, *, room_id: str, event_id: str, sender: str, at_ms: int) -> None:
        self.sightings.append((statement_id, room_id, event_id, sender))


@dataclass
class _View:
    mail: MemoryMail
    ledger: MemoryLedger


class MemoryStore:
    """`ports.Store`. `before_commit` is called at the end of every transaction; what it raises fails the transaction."""

    def __init__(self) -> None:
        self.mail = MemoryMail()
        self.ledger = MemoryLedger()
        self.before_commit: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def transaction(self, *, reads_only: bool = False) -> AsyncIterator[Transaction]:
        view = _View(copy.copy(self.mail), copy.copy(self.ledger))
        for part in (view.mail, view.ledger):
            for name, value in vars(part).items():
                setattr(part, name, _copied(value))
        yield cast(Transaction, view)
        self.before_commit()
        self.mail, self.ledger = view.mail, view.ledger


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: copy.copy(item) for key, item in value.items()}
    return copy.copy(value)
