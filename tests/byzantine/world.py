"""A world of organisations: the bot's real services each over its own database, a network that cannot be trusted, and virtual time."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.rejected import Rejected
from matrix_pypi_bot.ports import PROJECT_ROOM, TRUST_ROOM, RoomRow
from matrix_pypi_bot.services.finder import Peer
from matrix_pypi_bot.services.ingest import Ingest
from matrix_pypi_bot.services.own import Own
from matrix_pypi_bot.services.reassert import Reasserter
from matrix_pypi_bot.wire.messages import Decision
from matrix_pypi_bot.wire.names import FileName, ProjectName
from matrix_pypi_bot.wire.problems import Problem
from tests.byzantine.network import Event, Network, room_id
from tests.support.bot_world import ManualClock, ScriptedIndex, report
from tests.support.dists import Dist
from tests.support.federation import Participant, Trusting
from tests.support.memory_store import DirectStore
from tests.support.virtual import VirtualClock

ROUND_SECONDS = 60.0
PULL_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One client's request: the rule by which it was answered, and the digest that was served, None when none was."""

    minute: float
    node: str
    file: str
    rule: str
    sha256: str | None


class Node(Participant):
    """An honest organisation. It reads rooms and logs, and whoever asks it for a file is noted."""

    store: DirectStore

    def __init__(self, world: World, name: str, others: Iterable[str], trust: Trusting, store: DirectStore) -> None:
        super().__init__(
            name, store, ScriptedIndex(), cast(ManualClock, VirtualClock()), others, trust,
            postman=self, round_seconds=world.round_seconds,
        )  # fmt: skip
        self.world = world
        self.head_times: dict[str, Instant] = {}
        self.members.head_times = self.head_times
        own = Own(mxid=f"@pypi:{name}", keyids=lambda: frozenset({self.organisation.mirror.keyid}))
        self.ingest = Ingest(
            store=store,
            clock=self.clock,
            intake=self.intake,
            own=own,
            reasserter=Reasserter(
                own=own,
                clock=self.clock,
                keys=lambda: self.intake.keys,
                peers=[Peer(other.name, f"@pypi:{other.name}") for other in self.members.pinned],
            ),
            on_constitution=lambda key: None,
            on_invited=lambda room, sender: None,
            on_mail=self.poke,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._poked = False

    async def start(self) -> None:
        async with self.store.transaction() as tables:
            for key in (TRUST_ROOM, *(f"{PROJECT_ROOM}{project}" for project in self.world.projects)):
                row = RoomRow(key=key, room_id=room_id(key), alias=f"#{key}", constitution="", created_ms=0)
                await tables.mail.keep_room(row)
        await super().start()
        self._tasks = [asyncio.create_task(self.docket.run()), asyncio.create_task(self._pull())]
        self.poke()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await super().stop()
        self.store.close()

    # What it says and hears ----------------------------------------------------------------------------------------------

    def poke(self) -> None:
        """There is mail: it is in the rooms a moment later."""
        if not self._poked:
            self._poked = True
            asyncio.get_running_loop().call_soon(lambda: self._tasks.append(asyncio.ensure_future(self._post())))

    async def _post(self) -> None:
        self._poked = False
        async with self.store.transaction() as tables:
            for room in await tables.mail.rooms_with_mail():
                while (row := await tables.mail.next_to(room)) is not None:
                    event = self.world.network.post(self.name, room, row.type, json.loads(row.content), row.state_key)
                    await tables.mail.sent(row.n, event["event_id"])

    async def receive(self, event: Event) -> None:
        """Matrix brings an event; it goes through the real inbox."""
        await self.ingest.receive(
            event["event_id"], [(event["event_id"], event["room_id"], json.dumps(event).encode())]
        )
        await self.ingest.drain()

    def leaves(self, start: int, reader: str) -> list[bytes]:
        """Its log, from there on, the same for every reader."""
        query = (
            "SELECT envelope FROM envelope JOIN log_leaf ON statement_id = id WHERE log_leaf.n >= ? ORDER BY log_leaf.n"
        )
        return [row["envelope"] for row in self.store.rows(query, start)]

    def copies(self, start: int, reader: str) -> list[bytes]:
        """What it has read in others' logs, for whoever pulls them from here."""
        query = "SELECT envelope FROM envelope WHERE via = 'log' AND org != ? ORDER BY n LIMIT -1 OFFSET ?"
        return [row["envelope"] for row in self.store.rows(query, reader, start)]

    async def _pull(self) -> None:
        """Reads the others' logs from time to time, and the copies that they keep, each where the last reading ended."""
        while True:
            await asyncio.sleep(self.world.pull_seconds)
            for name, other in self.world.speakers.items():
                if name != self.name and self.world.network.path(name, self.name).log:
                    self.head_times[name] = Instant.of_ms(self.clock.now_ms())
                    for what in (other.leaves, other.copies):
                        place = f"{name} {what.__name__}"
                        start = self.heard.get(place, 0)
                        lines = what(start, self.name)
                        self.heard[place] = start + len(lines)
                        await self.read(lines)

    async def read(self, lines: Sequence[bytes]) -> None:
        """Leaves of somebody's log arrive."""
        if not lines:
            return
        news = []
        async with self.store.transaction() as tables:
            for line in lines:
                try:
                    checked = self.intake.check(json.loads(line))
                except Rejected:
                    continue
                if await self.intake.keep(tables, checked, via="log", at_ms=self.clock.now_ms()):
                    news.append(checked)
        for checked in news:
            self.intake.tell(checked)

    # What clients do -----------------------------------------------------------------------------------------------------

    async def ask(self, *dists: Dist) -> None:
        """Clients ask for files; the frontend finds the bytes, whoever has them, and reports what it stored."""
        for dist in dists:
            try:
                told = await self.answers.decision(ProjectName(dist.project), FileName(dist.filename), None)
            except Problem as problem:
                told = Decision(
                    action="unavailable", http=504, rule=problem.code.name, reason=problem.detail,
                    project=dist.project, file=dist.filename, path="",
                )  # fmt: skip
            served = told.sha256 if told.serves else None
            self.world.note(Asked(
                minute=self.world.clock.minute, node=self.name, file=dist.filename, rule=told.rule, sha256=served
            ))  # fmt: skip
            if served == dist.sha256:
                await self.attester.stored(report(dist))


@dataclass(slots=True)
class World:
    """Everybody, everything that is published, and what clients were given."""

    chance: random.Random
    clock: VirtualClock
    network: Network
    projects: tuple[str, ...]
    round_seconds: float = ROUND_SECONDS
    pull_seconds: float = PULL_SECONDS
    nodes: dict[str, Node] = field(default_factory=dict)
    speakers: dict[str, Any] = field(default_factory=dict)
    truth: dict[str, str] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    _acts: set[asyncio.Future[Any]] = field(default_factory=set)

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    async def join(self, name: str, others: Iterable[str], *, saved: bytes | None = None, **trust: Any) -> Node:
        """An organisation begins its work; `saved` is the database it begins with."""
        node = Node(self, name, others, Trusting(**trust), DirectStore(saved))
        self.nodes[name] = self.speakers[name] = self.network.members[name] = node
        await node.start()
        return node

    def publish(self, *dists: Dist, to: Iterable[str] = (), **told: Any) -> None:
        """Upstream lists the files, to everybody or to those named; what it says first is the truth."""
        for dist in dists:
            self.truth.setdefault(dist.filename, dist.sha256)
            for name in to or self.nodes:
                self.nodes[name].index.publish(dist, **told)

    def note(self, asked: Asked) -> None:
        """A client was answered."""
        self.asked.append(asked)

    def at(self, minute: float, act: Callable[..., Any], *arguments: Any) -> None:
        """Has something done at that minute from now."""
        asyncio.get_running_loop().call_later(minute * 60, self._act, act, arguments)

    def _act(self, act: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        if asyncio.iscoroutine(work := act(*arguments)):
            task = asyncio.ensure_future(work)
            self._acts.add(task)
            task.add_done_callback(self._acts.discard)

    @property
    def frauds(self) -> list[Asked]:
        """What clients were given that upstream never published."""
        return [asked for asked in self.asked if asked.sha256 not in (None, self.truth.get(asked.file))]

    async def minutes(self, count: float) -> None:
        """Time passes."""
        await asyncio.sleep(count * 60)


@asynccontextmanager
async def new_world(*projects: str, seed: int = 0, **options: Any) -> AsyncIterator[World]:
    """A world in which nobody is yet; must be entered in a `VirtualLoop`."""
    chance = random.Random(seed)
    made = World(chance, VirtualClock(), Network(chance), projects, **options)
    try:
        yield made
    finally:
        for node in made.nodes.values():
            await node.stop()
