"""Several organisations end in one room of a project where they can, read all of them where they cannot, and speak where they may."""

from __future__ import annotations

import asyncio

import pytest

from matrix_pypi_bot.services.finder import Found
from matrix_pypi_bot.services.homeserver import HomeserverAway, HomeserverRefused, Place
from matrix_pypi_bot.services.others_rooms import MAX_ROOMS_OF_ORG
from matrix_pypi_bot.services.room_maker import Made
from matrix_pypi_bot.services.rooms import NotGranted, TooManyRooms
from matrix_pypi_bot.wire.names import ProjectName, probe_alias, project_of_alias, project_of_probe
from tests.support.room_federation import Federation

FLASK = "project:flask"
PROJECT = ProjectName("flask")
WHEEL, SDIST = "flask-3.1.3-py3-none-any.whl", "flask-3.1.3.tar.gz"


async def test_the_room_that_a_pinned_organisation_has_is_joined_and_bears_our_alias_too() -> None:
    both = Federation("orga", "orgb", pins={"orgb": []})
    made = await both["orgb"].rooms.ensure(FLASK)
    joined = await both["orga"].rooms.ensure(FLASK)
    assert (joined.room_id, joined.made_by, joined.servers) == (made.room_id, "orgb", ("orgb.example",))
    assert both.aliases["#pypi_flask:orga.example"] == made.room_id
    assert both["orga"].found == [FLASK]
    assert both["orga"].room.members == {"@pypi:orga.example", "@pypi:orgb.example"}


async def test_looking_for_a_room_makes_none() -> None:
    both = Federation("orga", "orgb")
    await both["orga"].rooms.follow(PROJECT)
    assert both.rooms == {}
    assert not await both["orgb"].queries.answer(probe_alias(PROJECT, "orgb.example"))


@pytest.mark.parametrize("order", [("orga", "orgb", "orgc"), ("orgc", "orgb", "orga"), ("orgb", "orgc", "orga")])
async def test_organisations_that_begin_at_the_same_time_end_in_one_room(order: tuple[str, ...]) -> None:
    three = Federation("orga", "orgb", "orgc")
    await asyncio.gather(*(three[name].rooms.ensure(FLASK) for name in order))
    assert {three[name].keys[FLASK] for name in order} == {"!room0"}
    assert len(three.rooms) == 1


async def test_a_room_belongs_to_all_organisations_that_were_pinned_when_it_was_made() -> None:
    three = Federation("orga", "orgb", "orgc")
    row = await three["orgb"].rooms.ensure(FLASK)
    create = three.rooms[row.room_id].state["m.room.create", ""]
    # The first in the order of user ids made it, because it was asked to.
    assert (create["sender"], create["content"]["additional_creators"]) == (
        "@pypi:orga.example",
        ["@pypi:orgb.example", "@pypi:orgc.example"],
    )


async def test_the_trust_room_and_the_space_belong_to_nobody_else() -> None:
    both = Federation("orga", "orgb")
    for key in ("trust", "space"):
        row = await both["orgb"].rooms.ensure(key)
        assert "additional_creators" not in both.rooms[row.room_id].state["m.room.create", ""]["content"]


async def test_who_cannot_reach_the_first_makes_the_room_and_asks_it_again_only_after_a_pause() -> None:
    three = Federation("orga", "orgb", "orgc")
    for name in ("orgb", "orgc"):
        three[name].homeserver.away = {"orga.example"}
    rows = [await three[name].rooms.ensure(FLASK) for name in ("orgc", "orgb")]
    assert {row.room_id for row in rows} == {"!room0"}
    three["orgc"].homeserver.calls.clear()
    await three["orgc"].rooms.ensure("project:django")
    assert three["orgc"].homeserver.calls.count("resolve") == 2  # orgb is looked at and asked to make it; orga is not


async def test_a_room_that_cannot_be_joined_is_no_room(caplog: pytest.LogCaptureFixture) -> None:
    both = Federation("orga", "orgb", pins={"orgb": []})
    theirs = await both["orgb"].rooms.ensure(FLASK)
    both.rooms[theirs.room_id].banned.add("@pypi:orga.example")
    ours = await both["orga"].rooms.ensure(FLASK)
    assert (ours.made_by, ours.room_id != theirs.room_id) == ("", True)
    assert "room of a pinned organisation cannot be joined" in caplog.messages


async def test_a_room_that_is_just_being_made_is_waited_for() -> None:
    both = Federation("orga", "orgb")
    made = await both["orga"].rooms.ensure(FLASK)
    both.rooms[made.room_id].finished = False

    def finish(what: str, phase: str) -> None:
        if what == "join" and phase == "before":
            refused.append(both.rooms[made.room_id].finished)
            both["orgb"].homeserver.on_call = lambda what, phase: both.rooms[made.room_id].__setattr__("finished", True)

    refused: list[bool] = []
    both["orgb"].homeserver.on_call = finish
    assert (await both["orgb"].rooms.ensure(FLASK)).room_id == made.room_id
    assert refused == [False]


async def test_when_our_own_homeserver_is_gone_no_room_is_made_instead_of_joined() -> None:
    both = Federation("orga", "orgb")

    def gone(what: str, phase: str) -> None:
        raise HomeserverAway("connection refused", unreachable=True)

    both["orga"].homeserver.on_call = gone
    with pytest.raises(HomeserverAway):
        await both["orga"].rooms.ensure(FLASK)


async def test_rooms_made_before_anybody_was_pinned_are_all_read_and_each_goes_on_speaking_in_its_own() -> None:
    three = Federation("orga", "orgb", "orgc", pins={"orga": [], "orgb": [], "orgc": []})
    for name in ("orga", "orgb", "orgc"):
        await three[name].rooms.ensure(FLASK)
    orga = three["orga"]
    orga.begin([three["orgb"].peer, three["orgc"].peer])
    await orga.rooms.follow(PROJECT)
    await orga.rooms.follow(PROJECT)
    assert orga.keys == {FLASK: "!room0", f"{FLASK}@orgb": "!room1", f"{FLASK}@orgc": "!room2"}
    await orga.attest(WHEEL)
    assert (orga.said_in(three.rooms["!room0"]), orga.said_in(three.rooms["!room1"])) == ({WHEEL}, set())


async def test_two_organisations_that_show_one_room_are_joined_once() -> None:
    three = Federation("orga", "orgb", "orgc", pins={"orga": []})
    await three["orga"].rooms.ensure(FLASK)
    await three["orgb"].rooms.ensure(FLASK)
    await three["orgc"].rooms.ensure(FLASK)
    three["orga"].begin([three["orgb"].peer, three["orgc"].peer])
    await three["orga"].rooms.follow(PROJECT)
    assert len(three["orga"].keys) == len(three.rooms)


async def test_the_first_room_that_is_heard_of_is_the_one_to_speak_in() -> None:
    both = Federation("orga", "orgb", pins={"orgb": []})
    await both["orgb"].rooms.ensure(FLASK)
    await both["orga"].rooms.follow(PROJECT)
    row = await both["orga"].rooms.known(FLASK)
    assert row is not None
    assert (row.made_by, row.alias) == ("orgb", "#pypi_flask:orga.example")


async def test_a_room_that_we_are_invited_to_while_we_make_our_own_is_read_too() -> None:
    both = Federation("orga", "orgb", pins={"orgb": []})
    orga, orgb = both["orga"], both["orgb"]
    theirs = await orgb.rooms.ensure(FLASK)
    orgb.homeserver.answer_alias = None  # only the invitation tells of it
    both.aliases.clear()
    await asyncio.gather(
        orga.rooms.ensure(FLASK), orga.rooms.take(PROJECT, Found(orgb.peer, Place(theirs.room_id, ())))
    )
    assert orga.keys == {FLASK: "!room1", f"{FLASK}@orgb": "!room0"}


async def test_an_invitation_is_read_also_when_making_our_own_room_fails_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = Federation("orga", "orgb", pins={"orgb": []})
    orga, orgb = both["orga"], both["orgb"]
    theirs = await orgb.rooms.ensure(FLASK)
    orgb.homeserver.answer_alias = None
    both.aliases.clear()
    invited = asyncio.Event()

    async def make(*_: object, **__: object) -> Made:
        await invited.wait()
        raise TooManyRooms(FLASK, retry_seconds=9.0)

    monkeypatch.setattr(orga.rooms._maker, "make", make)
    making = asyncio.create_task(orga.rooms.ensure(FLASK))
    while not orga.homeserver.calls:
        await asyncio.sleep(0)
    taking = asyncio.create_task(orga.rooms.take(PROJECT, Found(orgb.peer, Place(theirs.room_id, ()))))
    await asyncio.sleep(0)
    invited.set()
    with pytest.raises(TooManyRooms):
        await making
    await taking
    assert orga.keys == {FLASK: "!room0"}


async def test_no_more_than_a_few_rooms_of_one_organisation_are_read(caplog: pytest.LogCaptureFixture) -> None:
    both = Federation("orga", "orgb", pins={"orga": [], "orgb": []})
    orga, orgb = both["orga"], both["orgb"]
    await orga.rooms.ensure(FLASK)
    orga.begin([orgb.peer])
    for _ in range(MAX_ROOMS_OF_ORG + 1):
        await orgb.rooms.ensure(FLASK)
        await orga.rooms.follow(PROJECT)
        orgb.store.mail.by_key.clear()
        both.aliases = {alias: room for alias, room in both.aliases.items() if "orgb" not in alias}
        orga.homeserver.aliases = orgb.homeserver.aliases = both.aliases
    assert len(orga.keys) == 1 + MAX_ROOMS_OF_ORG
    assert "too many rooms alarm" in caplog.messages


async def test_who_was_pinned_later_is_let_in_by_who_made_the_room_and_then_speaks_there() -> None:
    both = Federation("orga", "orgb", pins={"orgb": []})
    orga, orgb = both["orga"], both["orgb"]
    await orgb.rooms.ensure(FLASK)
    orgb.begin([orga.peer])
    joined = await orga.rooms.ensure(FLASK)
    assert orga.room.level("@pypi:orga.example") == 0
    with pytest.raises(NotGranted):
        await orga.rooms.await_grant(joined)
    await orgb.read(FLASK)
    await orgb.read(FLASK)
    await orgb.send()
    assert orgb.room.state["m.room.power_levels", ""]["content"]["users"] == {"@pypi:orga.example": 25}
    await orga.attest(WHEEL)
    assert (orga.said_in(orgb.room), orga.keys[FLASK]) == ({WHEEL}, orgb.keys[FLASK])


async def test_the_level_of_an_attester_is_no_change_of_a_constitution(caplog: pytest.LogCaptureFixture) -> None:
    both = Federation("orga", "orgb", pins={"orgb": []})
    orga, orgb = both["orga"], both["orgb"]
    await orgb.rooms.ensure(FLASK)
    orgb.begin([orga.peer])
    await orga.rooms.ensure(FLASK)
    await orgb.read(FLASK)
    await orgb.send()
    for member in (orga, orgb):
        await member.read(FLASK)
    assert "constitution changed alarm" not in caplog.messages
    levels = dict(orgb.room.state["m.room.power_levels", ""]["content"])
    orgb.homeserver.set_state(orgb.keys[FLASK], "m.room.power_levels", "", {**levels, "users": {orga.peer.user: -1}})
    await orga.read(FLASK)
    assert "constitution changed alarm" in caplog.messages


async def test_who_is_not_let_in_says_so_once_and_speaks_in_a_room_of_his_own_which_does_not_belong_to_who_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    both = Federation("orga", "orgb", pins={"orgb": []})
    orga, orgb = both["orga"], both["orgb"]
    theirs = await orgb.rooms.ensure(FLASK)
    await orga.attest(WHEEL, SDIST)
    assert orga.said_in(orga.room) == {WHEEL, SDIST}
    assert orga.keys | {FLASK: "?"} == {
        FLASK: "?",
        f"{FLASK}@orgb": theirs.room_id,
        "space:f": "!room2",
        "space": "!room3",
    }
    assert both.aliases["#pypi_flask:orga.example"] == orga.keys[FLASK] != theirs.room_id
    assert "additional_creators" not in orga.room.state["m.room.create", ""]["content"]
    assert caplog.messages.count("own room instead of one of others") == 1
    orgb.begin([orga.peer])
    await orgb.rooms.follow(PROJECT)
    assert orgb.keys[f"{FLASK}@orga"] == orga.keys[FLASK]


async def test_a_move_that_a_crash_cut_short_is_finished() -> None:
    both = Federation("orga", "orgb", pins={"orgb": []})
    orga = both["orga"]
    theirs = await both["orgb"].rooms.ensure(FLASK)
    row = await orga.rooms.ensure(FLASK)
    await both["orga"].rooms.show(PROJECT)
    await orga.rooms.others.set_apart(row, lost=False)
    again = await orga.rooms.ensure(FLASK)
    assert (again.made_by, again.room_id != theirs.room_id) == ("", True)
    assert both.aliases["#pypi_flask:orga.example"] == again.room_id
    assert "#pypi-room_flask:orga.example" not in both.aliases


async def test_who_is_put_out_speaks_in_a_room_of_his_own_and_reads_the_old_one_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    both = Federation("orga", "orgb", pins={"orgb": []})
    orga, orgb = both["orga"], both["orgb"]
    await orgb.rooms.ensure(FLASK)
    await orga.rooms.ensure(FLASK)
    orgb.room.put_out(orga.peer.user, banned=True, by=orgb.peer.user)
    await orga.attest(WHEEL)
    assert orga.said_in(orga.room) == {WHEEL}
    lost = await orga.rooms.known(f"{FLASK}@orgb")
    assert lost is not None
    assert lost.lost
    assert "room lost alarm" in caplog.messages


async def test_a_database_that_was_lost_finds_its_own_room_again_and_the_others_beside_it() -> None:
    both = Federation("orga", "orgb", pins={"orga": [], "orgb": []})
    orga, orgb = both["orga"], both["orgb"]
    for member in (orga, orgb):
        await member.rooms.ensure(FLASK)
    orga.store.mail.by_key.clear()
    orga.begin([orgb.peer])
    await orga.rooms.ensure(FLASK)
    assert orga.keys == {FLASK: "!room0", f"{FLASK}@orgb": "!room1"}


async def test_a_room_of_one_project_shown_as_that_of_another_is_not_joined_as_it() -> None:
    both = Federation("orga", "orgb")
    row = await both["orga"].rooms.ensure("project:django")
    both.aliases["#pypi-room_flask:orgb.example"] = row.room_id
    await both["orga"].rooms.follow(PROJECT)
    assert (await both["orga"].rooms.ensure(FLASK)).room_id != row.room_id


async def test_an_acl_against_our_server_makes_us_speak_where_others_hear_it(caplog: pytest.LogCaptureFixture) -> None:
    both = Federation("orga", "orgb", pins={"orgb": []})
    orga, orgb = both["orga"], both["orgb"]
    await orgb.rooms.ensure(FLASK)
    await orga.rooms.ensure(FLASK)
    old = orgb.keys[FLASK]
    orgb.homeserver.set_state(old, "m.room.server_acl", "", {"allow": ["*"], "deny": ["orga.*"]}, orgb.peer.user)
    await orga.read(FLASK)
    assert (orga.keys[FLASK] != old, orga.keys[f"{FLASK}@orgb"]) == (True, old)
    await orga.read(f"{FLASK}@orgb")
    assert caplog.messages.count("constitution changed alarm") == 1


async def test_a_tombstone_is_an_alarm_and_not_followed(caplog: pytest.LogCaptureFixture) -> None:
    both = Federation("orga", "orgb")
    orga, orgb = both["orga"], both["orgb"]
    await orgb.rooms.ensure(FLASK)
    row = await orga.rooms.ensure(FLASK)
    orgb.homeserver.set_state(row.room_id, "m.room.tombstone", "", {"replacement_room": "!evil"}, orgb.peer.user)
    await orga.read(FLASK)
    await orga.read(FLASK)
    assert caplog.messages.count("constitution changed alarm") == 1
    assert orga.keys[FLASK] == row.room_id
    await orga.attest(WHEEL)
    assert orga.said_in(orgb.room) == {WHEEL}


async def test_what_is_not_a_statement_is_never_worth_a_room_of_its_own() -> None:
    both = Federation("orga", "orgb", pins={"orgb": []})
    orga = both["orga"]
    await both["orgb"].rooms.ensure(FLASK)
    await orga.rooms.ensure(FLASK)
    async with orga.store.transaction() as t:
        await t.mail.send(FLASK, "m.room.power_levels", "", b"{}", 1)
    await orga.send()
    async with orga.store.transaction() as t:
        assert (await t.mail.backlog()).aside == 1
    assert len(both.rooms) == 1


async def test_an_alias_that_another_server_forbids_is_no_answer() -> None:
    both = Federation("orga", "orgb")

    def refuse(what: str, phase: str) -> None:
        if what == "resolve":
            raise HomeserverRefused(403, "M_FORBIDDEN", "no", what=what)

    both["orgb"].homeserver.on_call = refuse
    assert (await both["orgb"].rooms.ensure(FLASK)).made_by == ""


def test_the_alias_that_makes_no_room_is_another_one() -> None:
    assert probe_alias(PROJECT, "a.example:8448") == "#pypi-room_flask:a.example:8448"
    assert project_of_probe("#pypi-room_flask:a.example:8448", "a.example:8448") == "flask"
    assert project_of_alias("#pypi-room_flask:a.example:8448", "a.example:8448") is None
    assert project_of_probe("#pypi_flask:a.example:8448", "a.example:8448") is None
