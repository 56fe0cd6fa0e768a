"""Organisations that pinned one another, each with a homeserver of its own; the homeservers federate."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from matrix_pypi_bot.services.alias_queries import AliasQueries
from matrix_pypi_bot.services.finder import Peer
from matrix_pypi_bot.services.neighbours import Neighbours
from matrix_pypi_bot.services.own import Own
from matrix_pypi_bot.services.postman import Postman
from matrix_pypi_bot.services.reassert import Reasserter
from matrix_pypi_bot.services.room_watch import RoomWatch
from matrix_pypi_bot.services.rooms import Rooms
from matrix_pypi_bot.wire.names import ProjectName
from tests.support.homeserver import FakeHomeserver, FakeRoom
from tests.support.mailbox import MemoryStore
from tests.support.statements import Organisation


class SetClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.ms = 1_000

    def now_ms(self) -> int:
        """The moment."""
        return self.ms


class Member:
    """An organisation of the federation: its bot's Matrix services."""

    def __init__(self, name: str, federation: Federation, pinned: Sequence[str]) -> None:
        self.name = name
        self.peer = Peer(name, f"@pypi:{name}.example")
        self.organisation = Organisation(name)
        self.store, self.clock = MemoryStore(), SetClock()
        self.homeserver = FakeHomeserver(
            server=self.peer.server, rooms=federation.rooms, aliases=federation.aliases, network=federation.network
        )
        self.found: list[str] = []
        self.begin([Peer(other, f"@pypi:{other}.example") for other in pinned])

    def begin(self, peers: Sequence[Peer]) -> None:
        """A life of the bot over its database."""
        self.rooms = Rooms(
            store=self.store,
            homeserver=self.homeserver,
            clock=self.clock,
            server_name=self.peer.server,
            bot_mxid=self.peer.user,
            max_created_per_minute=100,
            peers=peers,
            on_found=self.found.append,
            grant_seconds=10.0,
            join_pauses_seconds=(0.0,),
        )
        self.queries = AliasQueries(self.rooms, self._project_exists, server_name=self.peer.server)
        self.homeserver.answer_alias = self.queries.answer
        self.postman = Postman(
            store=self.store,
            homeserver=self.homeserver,
            rooms=self.rooms,
            first_pause_seconds=0.0,
            longest_pause_seconds=0.0,
        )
        self.neighbours = Neighbours(
            store=self.store,
            homeserver=self.homeserver,
            rooms=self.rooms,
            first_pause_seconds=0.01,
            room_pauses_seconds=(0.0, 0.01),
        )
        own = Own(mxid=self.peer.user, keyids=lambda: frozenset({self.organisation.keyid}))
        self.reasserter = Reasserter(own=own, clock=self.clock, keys=lambda: self.organisation.keys, peers=peers)
        self.watch = RoomWatch(
            store=self.store, clock=self.clock, rooms=self.rooms, reasserter=self.reasserter, bot=self.peer.user
        )

    async def _project_exists(self, project: ProjectName) -> bool:
        return project == "flask"

    async def read(self, key: str) -> None:
        """Looks at a room's state, as after something happened in it."""
        row = await self.rooms.known(key)
        assert row is not None
        await self.watch.look(row, await self.homeserver.state(row.room_id))

    async def attest(self, *files: str) -> None:
        """Says in the room of flask what these files are, and returns when it is said."""
        async with self.store.transaction() as t:
            for file in files:
                post = self.organisation.post(file)
                content = json.dumps(post.content).encode()
                await t.mail.send("project:flask", post.type, post.state_key, content, 1)
        await self.send()

    async def send(self) -> None:
        """Returns when the outbox is empty; the clock runs on meanwhile."""
        self.postman.poke()
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            running = group.create_task(self.postman.run())
            while (await self._backlog()) or self.homeserver.busy_now:
                self.clock.ms += 1_000
                self.postman.poke()
                await asyncio.sleep(0)
            running.cancel()

    async def _backlog(self) -> int:
        async with self.store.transaction() as t:
            return (await t.mail.backlog()).queued

    @property
    def room(self) -> FakeRoom:
        """The room in which it speaks about flask."""
        return self.homeserver.rooms[self.store.mail.by_key["project:flask"].room_id]

    @property
    def keys(self) -> dict[str, str]:
        """The rooms that it knows: key to id."""
        return {key: row.room_id for key, row in self.store.mail.by_key.items()}

    def said_in(self, room: FakeRoom) -> set[str]:
        """The files that it attested in a room, as its state shows."""
        events = [event for event in room.state.values() if event["sender"] == self.peer.user]
        return {
            e["content"]["hint"]["file"]
            for e in events
            if e["type"] == "io.matrix_pypi.attestation.v1" and e["content"]
        }


class Federation:
    """`Federation("orga", "orgb")`: everybody pinned everybody, unless `pins` says whom somebody pinned."""

    def __init__(self, *names: str, pins: dict[str, Sequence[str]] | None = None) -> None:
        self.rooms: dict[str, FakeRoom] = {}
        self.aliases: dict[str, str] = {}
        self.network: dict[str, FakeHomeserver] = {}
        others = {name: [other for other in names if other != name] for name in names} | (pins or {})
        self.members = {name: Member(name, self, others[name]) for name in names}

    def __getitem__(self, name: str) -> Member:
        return self.members[name]
