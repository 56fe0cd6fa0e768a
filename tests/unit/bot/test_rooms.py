"""Rooms are made once, found again, completed, and never made for what does not exist."""

from __future__ import annotations

import asyncio

import pytest

from matrix_pypi_bot.ports import RoomRow
from matrix_pypi_bot.services.alias_queries import AliasQueries
from matrix_pypi_bot.services.constitution import (
    NoSuchRoom,
    constitution_hash,
    deviations,
    plan_room,
    read_constitution,
)
from matrix_pypi_bot.services.homeserver import HomeserverAway, HomeserverRefused, JsonObject
from matrix_pypi_bot.services.rooms import Rooms, TooManyRooms
from matrix_pypi_bot.wire.names import ProjectName
from matrix_pypi_bot.wire.problems import Problem
from tests.support.homeserver import BOT, SERVER, FakeHomeserver
from tests.support.mailbox import MemoryStore

FLASK = "project:flask"
ALIAS = f"#pypi_flask:{SERVER}"


class FixedClock:
    """It is always the same moment."""

    def now_ms(self) -> int:
        return 1_000


class House:
    """Rooms, and who asks for them."""

    def __init__(self, *, max_created_per_minute: int = 100, existing: tuple[str, ...] = ("flask",)) -> None:
        self.store, self.homeserver = MemoryStore(), FakeHomeserver()
        self.rooms = Rooms(
            store=self.store,
            homeserver=self.homeserver,
            clock=FixedClock(),
            server_name=SERVER,
            bot_mxid=BOT,
            max_created_per_minute=max_created_per_minute,
        )
        self.lookups: list[str] = []
        self.queries = AliasQueries(self.rooms, self.project_exists, server_name=SERVER)
        self.existing = existing

    async def project_exists(self, project: ProjectName) -> bool:
        self.lookups.append(project)
        await asyncio.sleep(0)
        if project == "trouble":
            raise Problem("the upstream cannot be reached")
        return project in self.existing

    def constitution(self, room_id: str) -> JsonObject:
        return read_constitution(self.homeserver.rooms[room_id].state.values())


async def test_a_package_room_has_the_constitution_of_the_design() -> None:
    house = House()
    row = await house.rooms.ensure(FLASK)
    assert house.constitution(row.room_id) == {
        "version": "12",
        "creators": [BOT],
        "type": None,
        "federate": True,
        "join": {"join_rule": "public"},
        "history": {"history_visibility": "world_readable"},
        "present": [],
        "levels": {
            "users": {},
            "users_default": 0,
            "events": {
                "io.matrix_pypi.attestation.v1": 25,
                "io.matrix_pypi.index.v1": 25,
                "io.matrix_pypi.withdrawal.v1": 25,
            },
            "events_default": 0,
            "state_default": 100,
            "ban": 50,
            "kick": 50,
            "invite": 50,
            "redact": 50,
        },
    }
    assert row == RoomRow(
        key=FLASK,
        room_id="!room0",
        alias=ALIAS,
        constitution=constitution_hash(house.constitution("!room0")),
        created_ms=1_000,
    )
    assert house.homeserver.published == ["!room0"]


@pytest.mark.parametrize(
    ("key", "alias"),
    [
        ("trust", f"#pypi-trust:{SERVER}"),
        ("space", f"#pypi:{SERVER}"),
        ("space:f", f"#pypi-letter-f:{SERVER}"),
        ("project:typing-extensions", f"#pypi_typing-extensions:{SERVER}"),
    ],
)
async def test_a_room_made_by_its_key_has_its_alias_and_deviates_in_nothing(key: str, alias: str) -> None:
    house = House()
    row = await house.rooms.ensure(key)
    assert (row.alias, house.homeserver.aliases) == (alias, {alias: row.room_id})
    actual = house.constitution(row.room_id)
    assert deviations(house.rooms.expected(row, actual), actual) == ()


@pytest.mark.parametrize(
    "key", ["", "project:", "project:My.Pkg", "space:", "space:ab", "space:/", "other", "project:" + "x" * 250]
)
def test_other_keys_are_no_rooms(key: str) -> None:
    with pytest.raises(NoSuchRoom):
        plan_room(key, server=SERVER, bot=BOT)


@pytest.mark.parametrize(
    ("type", "content", "part"),
    [
        ("m.room.server_acl", {"allow": ["*"]}, "present"),
        ("m.room.encryption", {}, "present"),
        ("m.room.policy", {"via": "evil.example"}, "present"),
        ("m.room.tombstone", {}, "present"),
        ("m.room.join_rules", {"join_rule": "invite"}, "join"),
        ("m.room.history_visibility", {}, "history"),
        ("m.room.power_levels", {"users": {"@mallory:evil.example": 100}}, "levels"),
        ("m.room.power_levels", "nonsense", "levels"),
        ("m.room.create", {"room_version": "12", "additional_creators": ["@mallory:evil.example"]}, "creators"),
        ("m.room.create", {"room_version": "12", "additional_creators": 5, "type": ["x"]}, "type"),
    ],
)
async def test_whatever_takes_the_room_from_somebody_is_a_deviation(type: str, content: object, part: str) -> None:
    house = House()
    row = await house.rooms.ensure(FLASK)
    event = {"type": type, "state_key": "", "sender": BOT, "content": content}
    state = [*house.homeserver.rooms[row.room_id].state.values(), event]
    expected = plan_room(FLASK, server=SERVER, bot=BOT).constitution
    assert part in deviations(expected, read_constitution(state))


async def test_names_topics_members_and_statements_are_no_part_of_the_constitution() -> None:
    house = House()
    row = await house.rooms.ensure(FLASK)
    for type, key in [("m.room.name", ""), ("m.room.topic", ""), ("m.room.member", "@x:y"), ("m.room.server_acl", "x")]:
        house.homeserver.set_state(row.room_id, type, key, {"whatever": 1})
    assert constitution_hash(house.constitution(row.room_id)) == row.constitution


async def test_a_room_is_made_once_for_all_who_ask_at_the_same_time() -> None:
    house = House()
    rows = await asyncio.gather(*(house.rooms.ensure(FLASK) for _ in range(20)))
    assert (len({row.room_id for row in rows}), house.homeserver.calls.count("create_room")) == (1, 1)


async def test_a_room_made_before_the_database_was_lost_is_found_by_its_alias() -> None:
    house = House()
    room_id = (await house.rooms.ensure(FLASK)).room_id
    house.store.mail.by_key.clear()
    assert (await house.rooms.ensure(FLASK)).room_id == room_id


async def test_a_room_half_made_when_the_homeserver_died_is_completed() -> None:
    house = House()
    row = await house.rooms.ensure(FLASK)
    house.store.mail.by_key.clear()
    for type in ("m.room.power_levels", "m.room.join_rules", "m.room.history_visibility"):
        del house.homeserver.rooms[row.room_id].state[type, ""]
    await house.rooms.ensure(FLASK)
    actual = house.constitution(row.room_id)
    assert deviations(house.rooms.expected(row, actual), actual) == ()


async def test_an_alias_without_a_room_behind_it_gets_a_new_room() -> None:
    house = House()
    house.homeserver.aliases[ALIAS] = "!never-made"
    row = await house.rooms.ensure(FLASK)
    assert house.homeserver.aliases == {ALIAS: row.room_id}


async def test_a_room_of_somebody_else_under_our_alias_is_used_and_reported_but_not_changed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    house = House()
    row = await house.rooms.ensure(FLASK)
    house.store.mail.by_key.clear()
    room = house.homeserver.rooms[row.room_id]
    room.state["m.room.create", ""] |= {"sender": "@mallory:hs.example"}
    room.state["m.room.power_levels", ""]["content"] = {}
    await house.rooms.ensure(FLASK)
    assert room.state["m.room.power_levels", ""]["content"] == {}
    assert "room of somebody else alarm" in caplog.messages


async def test_two_aliases_of_one_room_are_refused() -> None:
    house = House()
    row = await house.rooms.ensure(FLASK)
    house.homeserver.aliases[f"#pypi_django:{SERVER}"] = row.room_id
    with pytest.raises(Problem, match="which is the room project:flask"):
        await house.rooms.ensure("project:django")


async def test_the_directory_refuses_once_and_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    house = House()

    def refuse(what: str, phase: str) -> None:
        if what == "publish":
            raise HomeserverRefused(403, "M_FORBIDDEN", "Not allowed to publish room", what="publish")

    house.homeserver.on_call = refuse
    for key in (FLASK, "project:django", "trust"):
        await house.rooms.ensure(key)
    assert caplog.messages.count("rooms are not listed in the homeserver's directory") == 1
    assert house.homeserver.calls.count("publish") == 1


async def test_no_more_rooms_a_minute_are_made_than_allowed_and_found_ones_do_not_count() -> None:
    house = House(max_created_per_minute=2)
    await house.rooms.ensure(FLASK)
    await house.rooms.ensure("project:django")
    with pytest.raises(TooManyRooms) as refused:
        await house.rooms.ensure("project:numpy")
    assert refused.value.retry_seconds == 30
    assert (await house.rooms.ensure(FLASK)).key == FLASK


async def test_an_alias_query_makes_the_room_of_a_project_that_exists_once() -> None:
    house = House()
    answers = await asyncio.gather(*(house.queries.answer(ALIAS) for _ in range(10)))
    assert (answers, house.lookups, len(house.homeserver.rooms)) == ([True] * 10, ["flask"], 1)


@pytest.mark.parametrize(
    "alias",
    [
        f"#pypi_nonesuch:{SERVER}",
        f"#pypi_trouble:{SERVER}",
        f"#pypi_Flask:{SERVER}",
        f"#pypi_fl_ask:{SERVER}",
        "#pypi_flask:other.example",
        f"#pypi_:{SERVER}",
        f"#pypi:{SERVER}",
        f"#pypi-trust:{SERVER}",
        f"#pypi_../flask:{SERVER}",
        f"#pypi_fl\u017fask:{SERVER}",
        "\ud800",
        "",
    ],
)
async def test_every_other_alias_is_none_of_ours_and_makes_nothing(alias: str) -> None:
    house = House()
    assert (await house.queries.answer(alias), house.homeserver.rooms) == (False, {})


@pytest.mark.parametrize("unavailable", [HomeserverAway("x"), HomeserverRefused(400, "M_UNKNOWN", "x", what="x")])
async def test_an_alias_query_fails_softly(unavailable: Problem) -> None:
    house = House()

    def fail(what: str, phase: str) -> None:
        raise unavailable

    house.homeserver.on_call = fail
    assert not await house.queries.answer(ALIAS)


async def test_strangers_leave_half_of_the_rooms_that_may_be_made_to_our_own_statements() -> None:
    house = House(max_created_per_minute=4, existing=("a", "b", "c", "d"))
    answers = [await house.queries.answer(f"#pypi_{name}:{SERVER}") for name in "abcd"]
    assert answers == [True, True, False, False]
    await house.rooms.ensure("project:c")
    await house.rooms.ensure("project:d")


async def test_an_alias_that_somebody_took_away_from_our_room_is_given_back() -> None:
    house = House()
    row = await house.rooms.ensure(FLASK)
    house.homeserver.aliases.clear()
    assert await house.queries.answer(ALIAS)
    assert (house.homeserver.aliases, house.lookups) == ({ALIAS: row.room_id}, [])


async def test_a_room_that_we_left_is_joined_again_and_one_that_is_gone_is_made_anew() -> None:
    house = House()
    row = await house.rooms.ensure(FLASK)
    house.homeserver.rooms[row.room_id].joined = False
    assert await house.rooms.regain(FLASK) == row
    await delete_room(house.homeserver, row.room_id)
    assert (await house.rooms.regain(FLASK)).room_id != row.room_id


async def delete_room(homeserver: FakeHomeserver, room_id: str) -> None:
    """What an administrator does who purges a room, alias and all."""
    homeserver.rooms[room_id].joined = homeserver.rooms[room_id].finished = False
    homeserver.aliases = {alias: target for alias, target in homeserver.aliases.items() if target != room_id}
