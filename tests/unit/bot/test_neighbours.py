"""Rooms of pinned organisations are kept in view: trust rooms from whenever they are there, lost ones without haste, invitations."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest

from matrix_pypi_bot.services.homeserver import HomeserverAway
from matrix_pypi_bot.wire.names import ProjectName
from tests.support.room_federation import Federation, Member

FLASK = "project:flask"
PROJECT = ProjectName("flask")


async def run_until(
    member: Member, condition: Callable[[], object], *, then: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Runs the neighbours of a member until the condition holds."""
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        running = group.create_task(member.neighbours.run())
        if then is not None:
            await then()
        while not condition():
            await asyncio.sleep(0)
        running.cancel()


async def test_the_trust_room_of_a_pinned_organisation_is_joined_and_expected_to_be_its_bots() -> None:
    both = Federation("orga", "orgb")
    theirs = await both["orgb"].rooms.ensure("trust")
    orga = both["orga"]
    await run_until(orga, lambda: orga.found)
    assert orga.keys == {"trust@orgb": theirs.room_id}
    assert orga.store.mail.by_key["trust@orgb"].constitution == theirs.constitution


async def test_a_trust_room_that_comes_later_is_joined_later(caplog: pytest.LogCaptureFixture) -> None:
    both = Federation("orga", "orgb")
    orga = both["orga"]

    async def make() -> None:
        while "trust room cannot be read" not in caplog.messages:
            await asyncio.sleep(0)
        await both["orgb"].rooms.ensure("trust")

    await run_until(orga, lambda: "trust@orgb" in orga.keys, then=make)


async def test_a_trust_room_somebody_else_made_is_an_alarm(caplog: pytest.LogCaptureFixture) -> None:
    three = Federation("orga", "orgb", "mallory")
    await three["mallory"].rooms.ensure("trust")
    three.aliases["#pypi-trust:orgb.example"] = three.aliases["#pypi-trust:mallory.example"]
    orga = three["orga"]
    orga.begin([three["orgb"].peer])
    three.rooms["!room0"].enter("@pypi:orgb.example")
    await run_until(orga, lambda: orga.found)
    await orga.read("trust@orgb")
    [parts] = [record.__dict__["parts"] for record in caplog.records if record.message == "constitution changed alarm"]
    assert parts == ("creators",)


async def test_a_room_that_we_were_put_out_of_is_asked_for_again_only_after_growing_pauses() -> None:
    both = Federation("orga", "orgb", pins={"orgb": []})
    orga, orgb = both["orga"], both["orgb"]
    await orgb.rooms.ensure("trust")
    await orgb.rooms.ensure(FLASK)
    await orga.rooms.ensure(FLASK)
    orgb.room.put_out(orga.peer.user, banned=True, by=orgb.peer.user)
    await orga.rooms.others.lose(orga.keys[FLASK])
    orga.homeserver.calls.clear()
    asked: list[float] = []
    loop = asyncio.get_running_loop()

    def on_call(what: str, phase: str) -> None:
        if what == "join" and phase == "before":
            asked.append(loop.time())
            if len(asked) == 4:
                orgb.room.banned.clear()

    await run_until(orga, lambda: "trust@orgb" in orga.keys)
    orga.homeserver.on_call = on_call
    await run_until(orga, lambda: not orga.store.mail.by_key[FLASK].lost)
    pauses = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert [pause >= least for pause, least in zip(pauses, (0.02, 0.04, 0.08), strict=True)] == [True] * 3


async def test_what_was_heard_of_while_the_homeserver_was_away_is_joined_when_it_is_back() -> None:
    both = Federation("orga", "orgb")
    orga = both["orga"]
    await both["orgb"].rooms.ensure("trust")
    await both["orgb"].rooms.ensure(FLASK)
    orga.store.mail.by_key.clear()

    def gone(what: str, phase: str) -> None:
        raise HomeserverAway("connection refused", unreachable=True)

    orga.homeserver.on_call = gone

    async def come_back() -> None:
        orga.neighbours.follow(PROJECT)
        while orga.homeserver.calls.count("resolve") < 2:
            await asyncio.sleep(0)
        orga.homeserver.on_call = lambda what, phase: None
        orga.neighbours.retry_now()

    await run_until(orga, lambda: {FLASK, "trust@orgb"} <= orga.keys.keys(), then=come_back)


async def test_when_the_homeserver_is_back_every_other_server_is_asked_something_so_that_it_goes_on_sending() -> None:
    both = Federation("orga", "orgb")
    orga = both["orga"]
    await both["orgb"].rooms.ensure("trust")
    await run_until(orga, lambda: orga.found)
    orga.homeserver.calls.clear()

    async def come_back() -> None:
        orga.neighbours.retry_now()

    await run_until(orga, lambda: "resolve" in orga.homeserver.calls, then=come_back)
    assert orga.homeserver.calls == ["resolve"]


async def test_only_invitations_of_pinned_organisations_are_accepted() -> None:
    both = Federation("orga", "orgb", pins={"orgb": []})
    orga = both["orga"]
    await both["orgb"].rooms.ensure("trust")
    row = await both["orgb"].rooms.ensure(FLASK)
    assert not orga.neighbours.invited(row.room_id, "@mallory:orgb.example")
    assert orga.neighbours.invited(row.room_id, "@pypi:orgb.example")
    await run_until(orga, lambda: FLASK in orga.keys)
    assert orga.keys[FLASK] == row.room_id


async def test_an_invitation_to_a_room_about_no_project_is_declined_after_a_look() -> None:
    both = Federation("orga", "orgb", pins={"orgb": []})
    orga = both["orga"]
    await both["orgb"].rooms.ensure("trust")
    space = await both["orgb"].rooms.ensure("space")
    orga.neighbours.invited(space.room_id, "@pypi:orgb.example")
    await run_until(orga, lambda: orga.homeserver.declined)
    assert orga.homeserver.declined == [(space.room_id, "This room bears no alias of a package's room.")]
    assert FLASK not in orga.keys


async def test_with_nobody_pinned_nothing_is_done() -> None:
    alone = Federation("orga")
    alone["orga"].neighbours.follow(PROJECT)
    await alone["orga"].neighbours.run()
    assert alone["orga"].homeserver.calls == []


async def test_a_room_that_is_made_after_we_asked_for_it_is_joined_a_little_later() -> None:
    both = Federation("orga", "orgb")
    orga, orgb = both["orga"], both["orgb"]
    orga.neighbours.follow(PROJECT)

    async def make() -> None:
        while orga.homeserver.calls.count("resolve") < 3:  # the trust room, and the project's twice
            await asyncio.sleep(0)
        await orgb.rooms.ensure(FLASK)

    await run_until(orga, lambda: FLASK in orga.keys, then=make)
    assert orga.keys[FLASK] == orgb.keys[FLASK]


async def test_a_room_that_is_never_made_is_asked_for_a_few_times() -> None:
    both = Federation("orga", "orgb")
    orga = both["orga"]
    await both["orgb"].rooms.ensure("trust")
    await run_until(orga, lambda: "trust@orgb" in orga.keys)
    orga.homeserver.calls.clear()
    orga.neighbours.follow(PROJECT)

    async def wait() -> None:
        await asyncio.sleep(0.05)

    await run_until(orga, lambda: True, then=wait)
    assert orga.homeserver.calls.count("resolve") == 3
