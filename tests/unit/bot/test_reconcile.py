"""Rooms are read again: what the inbox never saw goes into it, and a constitution that changed is told once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from matrix_pypi_bot.services import reconcile
from matrix_pypi_bot.services.homeserver import HomeserverAway, HomeserverRefused, JsonObject
from matrix_pypi_bot.services.intake import ledger_row
from matrix_pypi_bot.services.own import Own
from matrix_pypi_bot.services.reassert import Reasserter
from matrix_pypi_bot.services.reconcile import CHUNK_EVENTS, MOST_SECONDS, SETTLE_SECONDS, Reconciler
from matrix_pypi_bot.services.room_watch import RoomWatch
from matrix_pypi_bot.services.rooms import Rooms
from tests.support.homeserver import BOT, SERVER, FakeHomeserver
from tests.support.mailbox import MemoryStore
from tests.support.statements import Organisation

HOME, PEER = Organisation("home"), Organisation("peer")
FLASK, DJANGO = "project:flask", "project:django"
PEER_MXID = "@peer:other.example"


class FixedClock:
    """It is always the same moment."""

    def now_ms(self) -> int:
        return 1_000


class World:
    """Rooms on a homeserver, and what a reconciler brings of them."""

    def __init__(self, *, every_seconds: float = 3_600) -> None:
        self.store, self.homeserver = MemoryStore(), FakeHomeserver()
        self.rooms = Rooms(
            store=self.store,
            homeserver=self.homeserver,
            clock=FixedClock(),
            server_name=SERVER,
            bot_mxid=BOT,
            max_created_per_minute=100,
        )
        self.brought: list[list[str]] = []
        reasserter = Reasserter(
            own=Own(mxid=BOT, keyids=lambda: frozenset({HOME.keyid})), clock=FixedClock(), keys=lambda: HOME.keys
        )
        self.watch = RoomWatch(
            store=self.store,
            clock=FixedClock(),
            rooms=self.rooms,
            reasserter=reasserter,
            bot=BOT,
            on_mail=self.note_mail,
        )
        self.mail = 0
        self.reconciler = Reconciler(
            store=self.store,
            homeserver=self.homeserver,
            clock=FixedClock(),
            watch=self.watch,
            receive=self.receive,
            every_seconds=every_seconds,
            own=SERVER,
            servers=frozenset({"other.example"}),
            settle_seconds=0.0,
        )

    def note_mail(self) -> None:
        self.mail += 1

    async def receive(self, txn_id: str, events: Sequence[JsonObject]) -> None:
        self.brought.append([event["state_key"] for event in events])

    async def say(self, key: str, organisation: Organisation, *files: str) -> str:
        """Attestations in a room; its id."""
        room_id = (await self.rooms.ensure(key)).room_id
        for file in files:
            post = organisation.post(file)
            assert post.state_key is not None
            sender = BOT if organisation is HOME else PEER_MXID
            self.homeserver.set_state(room_id, post.type, post.state_key, dict(post.content), sender)
        return room_id

    async def run_until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            running = group.create_task(self.reconciler.run())
            while not condition():
                await asyncio.sleep(0)
            running.cancel()

    async def read_all(self) -> None:
        """Every room once."""
        await self.reconciler.read()

    def key_of(self, file: str) -> str:
        return str(PEER.post(file).state_key)


async def test_statements_in_the_state_of_every_room_are_brought_in_chunks_and_nothing_else_is() -> None:
    world = World()
    files = [f"flask-{n}.0-py3-none-any.whl" for n in range(CHUNK_EVENTS + 1)]
    await world.say(FLASK, PEER, *files)
    await world.say(DJANGO, PEER, "django-5.0-py3-none-any.whl")
    world.reconciler.request()
    await world.run_until(lambda: len(world.brought) == 3)
    assert world.brought == [
        [world.key_of("django-5.0-py3-none-any.whl")],
        [world.key_of(file) for file in files[:CHUNK_EVENTS]],
        [world.key_of(file) for file in files[CHUNK_EVENTS:]],
    ]


async def test_one_room_is_read_when_one_is_asked_for() -> None:
    world = World()
    await world.say(FLASK, PEER, "flask-1.0.tar.gz")
    await world.say(DJANGO, PEER, "django-5.0.tar.gz")
    world.reconciler.request(FLASK)
    await world.run_until(lambda: world.brought)
    assert world.brought == [[world.key_of("flask-1.0.tar.gz")]]


async def test_rooms_are_read_from_time_to_time_without_being_asked_for() -> None:
    world = World(every_seconds=0.01)
    await world.say(FLASK, PEER, "flask-1.0.tar.gz")
    await world.run_until(lambda: len(world.brought) == 2)


async def test_a_constitution_that_changed_is_told_once_and_so_is_that_it_was_restored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    world = World()
    room_id = await world.say(FLASK, PEER)
    good = dict(world.homeserver.rooms[room_id].state["m.room.power_levels", ""]["content"])
    caplog.clear()
    await world.read_all()
    world.homeserver.set_state(room_id, "m.room.power_levels", "", {**good, "users": {PEER_MXID: 100}})
    await world.read_all()
    await world.read_all()
    world.homeserver.set_state(room_id, "m.room.power_levels", "", good)
    await world.read_all()
    assert [(record.message, getattr(record, "parts", None)) for record in caplog.records] == [
        ("constitution changed alarm", ("levels",)),
        ("constitution restored", None),
    ]


async def test_a_slot_of_ours_that_was_touched_while_nobody_looked_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    room_id = await world.say(FLASK, HOME, "flask-1.0.tar.gz", "flask-2.0.tar.gz", "flask-3.0.tar.gz")
    kept, emptied, overwritten = (HOME.post(f"flask-{n}.0.tar.gz") for n in (1, 2, 3))
    assert emptied.state_key is not None
    assert overwritten.state_key is not None
    world.homeserver.rooms[room_id].state[emptied.type, emptied.state_key]["content"] = {}
    world.homeserver.set_state(room_id, kept.type, overwritten.state_key, dict(kept.content), PEER_MXID)
    await world.read_all()
    await world.read_all()
    assert caplog.messages == ["own statement redacted alarm", "own statement overwritten alarm"]


async def test_a_room_that_cannot_be_read_does_not_keep_the_others_from_being_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    await world.say(DJANGO, PEER, "django-5.0.tar.gz")
    await world.say(FLASK, PEER, "flask-1.0.tar.gz")
    failures = iter([HomeserverRefused(403, "M_FORBIDDEN", "no", what="read"), HomeserverAway("too slow")])

    def on_call(what: str, phase: str) -> None:
        if what == "state" and phase == "before" and (failure := next(failures, None)):
            raise failure

    world.homeserver.on_call = on_call
    await world.read_all()
    assert caplog.messages == ["room cannot be read alarm", "room was not read"]
    world.reconciler.request()
    await world.run_until(lambda: len(world.brought) == 2)


async def test_a_homeserver_that_is_gone_ends_the_round_and_not_the_reconciler() -> None:
    world = World()
    await world.say(DJANGO, PEER, "django-5.0.tar.gz")
    await world.say(FLASK, PEER, "flask-1.0.tar.gz")

    def gone(what: str, phase: str) -> None:
        raise HomeserverAway("connection refused", unreachable=True)

    world.homeserver.on_call = gone
    world.homeserver.calls.clear()
    world.reconciler.request()

    async def come_back() -> None:
        while not world.homeserver.calls:
            await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)
        assert world.homeserver.calls == ["state"]
        world.homeserver.on_call = lambda what, phase: None
        world.reconciler.request()

    async with asyncio.TaskGroup() as group:
        group.create_task(come_back())
        await world.run_until(lambda: len(world.brought) == 2)


@pytest.mark.parametrize("unreachable", [False, True])
async def test_a_room_that_could_not_be_read_is_read_later_without_being_asked_for_again(
    unreachable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "AGAIN_SECONDS", 0.0)
    world = World()
    await world.say(DJANGO, PEER, "django-5.0.tar.gz")
    await world.say(FLASK, PEER, "flask-1.0.tar.gz")
    failures = iter([HomeserverAway("gone for a moment", unreachable=unreachable)])

    def on_call(what: str, phase: str) -> None:
        if what == "state" and phase == "before" and (failure := next(failures, None)):
            raise failure

    world.homeserver.on_call = on_call
    world.reconciler.request(DJANGO)
    world.reconciler.request(FLASK)
    await world.run_until(lambda: len(world.brought) == 2)


def spoken(sender: str, *, sent_ms: object = 1_000) -> JsonObject:
    return {"type": "m.room.message", "sender": sender, "origin_server_ts": sent_ms}


async def test_the_first_word_of_another_server_after_an_absence_has_its_room_read_once() -> None:
    world = World()
    await world.say(FLASK, PEER, "flask-1.0.tar.gz")
    await world.say(DJANGO, PEER, "django-5.0.tar.gz")
    world.reconciler.was_away()
    await world.run_until(lambda: len(world.brought) == 2)
    for sender in (PEER_MXID, PEER_MXID, BOT, "@a:x.example", "@b:y.example", "nonsense"):
        world.reconciler.heard(FLASK, spoken(sender, sent_ms="nonsense"))
    await world.run_until(lambda: len(world.brought) == 3)
    world.reconciler.heard(FLASK, spoken(PEER_MXID))
    world.reconciler.request(DJANGO)
    await world.run_until(lambda: len(world.brought) == 4)
    assert world.brought[2:] == [[world.key_of("flask-1.0.tar.gz")], [world.key_of("django-5.0.tar.gz")]]


async def test_a_room_that_is_catching_up_is_read_when_it_is_quiet_again_or_has_not_been_for_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    await world.say(FLASK, PEER, "flask-1.0.tar.gz")
    loop = asyncio.get_running_loop()
    now = 1_000.0
    monkeypatch.setattr(loop, "time", lambda: now)
    due = world.reconciler._due
    world.reconciler._settle_seconds = SETTLE_SECONDS
    world.reconciler.heard(FLASK, spoken(PEER_MXID))
    assert due == {FLASK: now + SETTLE_SECONDS}
    now += 2
    world.reconciler.heard(FLASK, spoken(PEER_MXID))
    assert due == {FLASK: now + SETTLE_SECONDS}
    now += MOST_SECONDS - 3
    world.reconciler.heard(FLASK, spoken(PEER_MXID))
    assert due == {FLASK: 1_000 + MOST_SECONDS}


async def test_what_was_taken_out_of_a_room_while_nobody_looked_is_said_again() -> None:
    world = World()
    room_id = await world.say(FLASK, HOME, "flask-1.0.tar.gz")
    post = HOME.post("flask-1.0.tar.gz")
    async with world.store.transaction() as t:
        await t.ledger.keep(ledger_row(HOME.attest("flask-1.0.tar.gz"), via="own", at_ms=1))
    assert post.state_key is not None
    world.homeserver.rooms[room_id].state[post.type, post.state_key]["content"] = {}
    await world.read_all()
    await world.read_all()
    async with world.store.transaction() as t:
        row = await t.mail.next_to(FLASK)
    assert row is not None
    assert (row.type, row.state_key, world.mail) == (post.type, post.state_key, 1)


async def test_a_room_of_others_that_may_not_be_read_any_more_counts_as_lost_and_is_not_asked_for_again() -> None:
    world = World()
    room_id = await world.say(FLASK, PEER, "flask-1.0.tar.gz")
    world.store.mail.by_key[FLASK] = replace(world.store.mail.by_key[FLASK], made_by="peer")
    world.homeserver.rooms[room_id].joined = False
    await world.read_all()
    assert world.store.mail.by_key[FLASK].lost
    world.homeserver.calls.clear()
    await world.read_all()
    assert world.homeserver.calls == []


async def test_that_we_were_put_out_of_a_room_is_seen_in_its_state_too(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    room_id = await world.say(FLASK, PEER)
    world.store.mail.by_key[FLASK] = replace(world.store.mail.by_key[FLASK], made_by="peer")
    room = world.homeserver.rooms[room_id]
    room.put_out(BOT, banned=False, by=PEER_MXID)
    room.members.add(BOT)  # a homeserver goes on showing the state of the moment in which one left
    await world.read_all()
    assert world.store.mail.by_key[FLASK].lost
    assert "put out of a room alarm" in caplog.messages
