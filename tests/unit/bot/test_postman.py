"""The outbox is emptied: everything, in order, whatever fails when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matrix_pypi_bot.ports import Backlog, StoreAway
from matrix_pypi_bot.services.homeserver import HomeserverAway, HomeserverRefused
from matrix_pypi_bot.services.postman import PARALLEL_ROOMS, Postman
from matrix_pypi_bot.services.rooms import SPACE_CHILD, Rooms
from tests.support.homeserver import BOT, SERVER, FakeHomeserver
from tests.support.mailbox import MemoryStore

ATTESTATION = "io.matrix_pypi.attestation.v1"
FLASK, DJANGO = "project:flask", "project:django"
FAILURES = ("unreachable", "timeout", "limited", "forbidden", "unknown", "lost room")


class FixedClock:
    """It is always the same moment."""

    def now_ms(self) -> int:
        return 1_000


class World:
    """A postman with a homeserver and a store that fail when they are told to."""

    def __init__(self, *, first_pause_seconds: float = 0.0, max_created_per_minute: int = 1_000) -> None:
        self.store, self.homeserver = MemoryStore(), FakeHomeserver()
        self.rooms = Rooms(
            store=self.store,
            homeserver=self.homeserver,
            clock=FixedClock(),
            server_name=SERVER,
            bot_mxid=BOT,
            max_created_per_minute=max_created_per_minute,
        )
        self.postman = Postman(
            store=self.store, homeserver=self.homeserver, rooms=self.rooms, first_pause_seconds=first_pause_seconds
        )

    async def queue(self, room: str, *contents: object, type: str = ATTESTATION, key: str | None = "k") -> None:
        """One event a content, each in a slot of its own unless `key` is None: then they are timeline events."""
        async with self.store.transaction() as t:
            for content in contents:
                state_key = None if key is None else f"{key}-{content}"
                await t.mail.send(room, type, state_key, json.dumps({"says": content}).encode(), 1)

    async def until_empty(self) -> None:
        """Runs the postman until nothing is queued."""
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            running = group.create_task(self.postman.run())
            while self.backlog().queued or self.homeserver.busy_now:
                await asyncio.sleep(0)
            running.cancel()

    def backlog(self) -> Backlog:
        statuses = [letter.status for letter in self.store.mail.letters.values()]
        return Backlog(unread=0, unreadable=0, queued=statuses.count("queued"), aside=statuses.count("aside"))

    def said_in(self, key: str, type: str = ATTESTATION) -> list[object]:
        """What was said in a room, in order, every event that ever was one."""
        room = self.homeserver.rooms[self.store.mail.by_key[key].room_id]
        return [event["content"]["says"] for event in room.events if event["type"] == type]


def failing(homeserver: FakeHomeserver, plan: Iterator[tuple[str, str]]) -> None:
    """Every request fails as the plan says: (what goes wrong, before or after it took effect); then all is well."""

    def on_call(what: str, phase: str) -> None:
        nonlocal planned
        if planned is None or planned[1] != phase:
            return
        failure, planned = planned[0], next(plan, None)
        if failure == "unreachable":
            raise HomeserverAway("connection refused", unreachable=True)
        if failure == "timeout":
            raise HomeserverAway("too slow")
        if failure == "lost room":
            for room in homeserver.rooms.values():
                room.joined = False
            return
        status, errcode = {"limited": (429, "M_LIMIT_EXCEEDED"), "forbidden": (403, "M_FORBIDDEN")}.get(
            failure, (400, "M_UNKNOWN")
        )
        raise HomeserverRefused(status, errcode, "no", what=what)

    planned = next(plan, None)
    homeserver.on_call = on_call


@settings(max_examples=120, deadline=None)
@given(
    mail=st.lists(st.tuples(st.sampled_from([FLASK, DJANGO, "project:numpy"]), st.booleans()), min_size=1, max_size=12),
    plan=st.lists(st.tuples(st.sampled_from(FAILURES), st.sampled_from(["before", "after"])), max_size=25),
    store_failures=st.lists(st.booleans(), max_size=15),
)
def test_whatever_fails_when_every_event_arrives_once_and_in_order(
    mail: list[tuple[str, bool]], plan: list[tuple[str, str]], store_failures: list[bool]
) -> None:
    async def live() -> None:
        world = World()
        for number, (room, timeline) in enumerate(mail):
            await world.queue(room, number, key=None if timeline else "k")
        left = iter(store_failures)

        def before_commit() -> None:
            if next(left, False):
                raise StoreAway("the disk is full")

        world.store.before_commit = before_commit
        failing(world.homeserver, iter(plan))
        await world.until_empty()
        for room in {room for room, _ in mail}:
            expected = [number for number, (to, _) in enumerate(mail) if to == room]
            assert world.said_in(room) == expected

    asyncio.run(live())


async def test_a_room_that_cannot_be_written_does_not_keep_the_others_waiting() -> None:
    world = World(first_pause_seconds=3_600)
    await world.queue(FLASK, 1)
    await world.queue(DJANGO, 1, 2)
    await world.queue("trust", 1)
    await world.rooms.ensure(FLASK)
    flask = world.store.mail.by_key[FLASK].room_id
    put_state = world.homeserver.put_state

    async def slow_for_flask(room_id: str, *rest: str | bytes) -> str:
        if room_id == flask:
            raise HomeserverAway("too slow")
        return await put_state(room_id, *rest)  # type: ignore[arg-type]

    world.homeserver.put_state = slow_for_flask  # type: ignore[method-assign]
    await run_until(world, lambda: world.backlog().queued == 1)
    assert (world.said_in(DJANGO), world.said_in("trust"), world.said_in(FLASK)) == ([1, 2], [1], [])


async def test_a_homeserver_that_cannot_be_reached_is_asked_by_one_room_only_and_at_once_when_it_is_back() -> None:
    world = World(first_pause_seconds=3_600)
    for number in range(20):
        await world.queue(f"project:p{number}", 1)

    def refuse(what: str, phase: str) -> None:
        raise HomeserverAway("connection refused", unreachable=True)

    world.homeserver.on_call = refuse
    async with asyncio.TaskGroup() as group:
        running = group.create_task(world.postman.run())
        for _ in range(100):
            await asyncio.sleep(0)
        asked_while_away = len(world.homeserver.calls)
        world.homeserver.on_call = lambda what, phase: None
        world.postman.retry_now()
        while world.backlog().queued:
            await asyncio.sleep(0)
        running.cancel()
    assert asked_while_away <= PARALLEL_ROOMS


async def test_mail_goes_as_soon_as_a_homeserver_that_was_thought_away_says_something() -> None:
    world = World(first_pause_seconds=3_600)
    await world.queue(FLASK, 1)
    failing(world.homeserver, iter([("unreachable", "before")]))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(world.postman.run())
        while not world.homeserver.calls:
            await asyncio.sleep(0)
        while world.backlog().queued:
            world.postman.homeserver_spoke()
            await asyncio.sleep(0)
        running.cancel()
    assert world.said_in(FLASK) == [1]


async def test_a_sign_of_life_shortens_no_pause_of_a_room_that_was_refused() -> None:
    world = World(first_pause_seconds=3_600)
    await world.queue(FLASK, 1)
    failing(world.homeserver, iter([("forbidden", "before")]))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(world.postman.run())
        for _ in range(100):
            world.postman.homeserver_spoke()
            await asyncio.sleep(0)
        running.cancel()
    assert world.backlog().queued == 1


async def test_no_more_than_a_few_rooms_are_served_side_by_side() -> None:
    world = World()
    for number in range(20):
        await world.queue(f"project:p{number}", 1, 2, 3)
    await world.until_empty()
    assert 1 < world.homeserver.most_busy <= PARALLEL_ROOMS


@pytest.mark.parametrize("errcode", ["M_TOO_LARGE", "M_BAD_JSON"])
async def test_an_event_that_can_never_be_sent_is_set_aside_and_the_next_one_goes(
    errcode: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    await world.queue(FLASK, 1, 2)
    refusals = iter([HomeserverRefused(413, errcode, "no", what="send")])

    def refuse_once(what: str, phase: str) -> None:
        if what == "put_state" and (refusal := next(refusals, None)):
            raise refusal

    world.homeserver.on_call = refuse_once
    await world.until_empty()
    assert (world.said_in(FLASK), world.backlog().aside) == ([2], 1)
    assert "event can never be sent, set aside" in caplog.messages


@pytest.mark.parametrize(
    ("status", "errcode"), [(400, "M_UNKNOWN"), (400, "M_DUPLICATE_ANNOTATION"), (403, "M_FORBIDDEN")]
)
async def test_an_answer_that_the_homeserver_does_not_take_keeps_no_statement_waiting(
    status: int, errcode: str
) -> None:
    world = World(first_pause_seconds=3_600)
    await world.queue(FLASK, "answer", type="m.room.message", key=None)
    await world.queue(FLASK, 1)

    def refuse(what: str, phase: str) -> None:
        if what == "send":  # as of a thread that begins at an answer: whoever asked chose it
            raise HomeserverRefused(status, errcode, "no", what=what)

    world.homeserver.on_call = refuse
    await world.until_empty()
    assert (world.said_in(FLASK), world.backlog().aside) == ([1], 1)


async def test_a_project_that_no_room_can_be_named_after_does_not_stop_the_mail() -> None:
    world = World()
    await world.queue("project:" + "x" * 250, 1)
    await world.queue(FLASK, 1)
    await world.until_empty()
    assert (world.said_in(FLASK), world.backlog().aside) == ([1], 1)


async def test_what_relates_to_an_event_of_another_room_is_said_without_that_relation_and_holds_nothing_up() -> None:
    world = World()
    elsewhere = {"says": 1, "m.relates_to": {"rel_type": "m.thread", "event_id": "$elsewhere"}}
    async with world.store.transaction() as t:
        await t.mail.send(FLASK, "m.room.message", None, json.dumps(elsewhere).encode(), 1)
    await world.queue(FLASK, 2)
    await world.until_empty()
    [message] = [e for e in world.homeserver.rooms["!room0"].events if e["type"] == "m.room.message"]
    assert (message["content"], world.said_in(FLASK)) == ({"says": 1}, [2])


async def test_a_refusal_to_make_the_room_sets_nothing_aside() -> None:
    world = World()
    await world.queue(FLASK, 1)
    refusals = iter([HomeserverRefused(400, "M_INVALID_PARAM", "no", what="make")] * 3)

    def refuse(what: str, phase: str) -> None:
        if what == "create_room" and (refusal := next(refusals, None)):
            raise refusal

    world.homeserver.on_call = refuse
    await world.until_empty()
    assert world.said_in(FLASK) == [1]


async def test_content_that_is_replaced_on_its_way_is_sent_after_what_it_replaces() -> None:
    world = World()
    await world.queue(FLASK, "same")
    world.homeserver.on_call = lambda what, phase: None

    async def replace_it() -> None:
        async with world.store.transaction() as t:
            await t.mail.send(FLASK, ATTESTATION, "k-same", b'{"says": "newer"}', 2)

    put_state = world.homeserver.put_state

    async def replaced_meanwhile(*request: str | bytes) -> str:
        event_id = await put_state(*request)  # type: ignore[arg-type]
        if b"same" in request[-1]:  # type: ignore[operator]
            await replace_it()
        return event_id

    world.homeserver.put_state = replaced_meanwhile  # type: ignore[method-assign]
    await world.until_empty()
    assert world.said_in(FLASK) == ["same", "newer"]


async def test_a_room_is_listed_in_the_space_under_its_letter_once_something_was_said_in_it() -> None:
    world = World()
    await world.queue(FLASK, 1, 2)
    await world.until_empty()
    by_key = world.store.mail.by_key
    listed = {
        key: [
            event["state_key"] for event in world.homeserver.rooms[row.room_id].events if event["type"] == SPACE_CHILD
        ]
        for key, row in by_key.items()
    }
    assert listed == {
        FLASK: [],
        "space:f": [by_key[FLASK].room_id],
        "space": [by_key["space:f"].room_id],
    }


async def test_rooms_beyond_the_allowed_rate_wait_without_holding_up_those_that_exist() -> None:
    world = World(max_created_per_minute=1)
    await world.rooms.ensure("trust")
    await world.queue(FLASK, 1)
    await world.queue("trust", 1, 2)
    await run_until(world, lambda: world.backlog().queued == 2)  # flask's, and what tells the Space of the trust room
    assert (world.said_in("trust"), world.homeserver.calls.count("create_room")) == ([1, 2], 1)


async def run_until(world: World, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        running = group.create_task(world.postman.run())
        while not condition():
            await asyncio.sleep(0)
        running.cancel()
