"""What is served while upstream is there, while it is away, and when it lies. The numbers are those of docs/protocol/simulation.md."""

from __future__ import annotations

import pytest

from matrix_pypi_bot.core.evidence import Mode
from matrix_pypi_bot.wire.messages import Override
from tests.byzantine.scenes import AN_HOUR, FALSE, ONE, TWO, away, back, liar, rule, scene, verdicts
from tests.support.dists import wheel
from tests.support.virtual import virtual


@virtual
async def test_01_two_honest_organisations_fetch_a_file_and_both_attest_it() -> None:
    async with scene("orga", "orgb", "orgv") as world:
        world.publish(ONE)
        assert await rule(world["orga"], ONE) == "R8"
        await world.minutes(10)
        assert await rule(world["orgb"], ONE) == "R8"
        await world.minutes(10)
        await away(world, "orgv")
        assert await rule(world["orgv"], ONE) == "R19"
        assert not world.frauds


@virtual
async def test_02_what_was_verified_here_is_served_while_upstream_is_away() -> None:
    async with scene("orgv", liars=["orga", "orgb", "orgc"]) as world:
        world.publish(ONE)
        assert await rule(world["orgv"], ONE) == "R8"
        await away(world, "orgv")
        assert await rule(world["orgv"], ONE) == "R13"


@pytest.mark.parametrize(
    ("mode", "at_first", "when_all_have_spoken"),
    [(Mode.SELF, "R17", "R17"), (Mode.ACKED, "R18", "R19"), (Mode.KOFN, "R19", "R19")],
)
@virtual
async def test_03_what_was_never_verified_is_served_as_the_mode_says(
    mode: Mode, at_first: str, when_all_have_spoken: str
) -> None:
    async with scene("orga", "orgb", "orgc", "orgv", mode=mode) as world:
        world.publish(ONE)
        await away(world, "orgv", "orgc")
        for name in ("orga", "orgb"):
            await world[name].ask(ONE)
        await world.minutes(10)
        assert await rule(world["orgv"], ONE) == at_first
        await back(world, "orgc")
        assert await rule(world["orgv"], ONE) == when_all_have_spoken
        assert not world.frauds


@pytest.mark.parametrize("mode", [Mode.ACKED, Mode.KOFN])
@pytest.mark.parametrize(
    ("room", "log"), [(True, True), (False, True), (False, False)], ids=["5 open", "6 censored in rooms", "7 cut off"]
)
@virtual
async def test_05_06_07_all_others_but_one_lie_while_upstream_is_away(mode: Mode, room: bool, log: bool) -> None:
    async with scene("orgh", "orgv", liars=["orga", "orgb"], mode=mode) as world:
        world.publish(ONE)
        world.network.cut("orgh", "orgv", room=room, log=log)
        await away(world, "orgv")
        for name in ("orga", "orgb"):
            liar(world, name).tell(liar(world, name).attestation(FALSE))
            liar(world, name).tell(liar(world, name).review(FALSE))
        await world.minutes(AN_HOUR)
        for _ in range(3):
            await world["orgv"].ask(ONE)
            await world.minutes(AN_HOUR)
        if mode is Mode.ACKED or log:
            assert not world.frauds
        else:  # documented: with k liars, and nobody to be heard, `kofn` is lost
            assert world.frauds
        if log:
            assert ("orga", "pypi-digest", "CONTESTED") in verdicts(world["orgv"])
        await back(world, "orgv")
        await world["orgv"].ask(ONE)
        await world.minutes(10)
        # Two say otherwise than upstream, also when they were accused: who is right is not for upstream alone to say.
        assert await rule(world["orgv"], ONE) == "R5"
        assert not world["orgv"].outcasts
        order = Override(action="approve", target=ONE.filename, reason="checked by hand", sha256=ONE.sha256)
        await world["orgv"].overrides.apply(order)
        await world.minutes(10)
        assert await rule(world["orgv"], ONE) == "R8"
        assert world["orgv"].outcasts == {"orga", "orgb"}


@virtual
async def test_08_an_honest_one_that_cannot_look_does_not_say_that_it_did() -> None:
    async with scene("orgh", "orgv", liars=["orga", "orgb"]) as world:
        world.publish(ONE)
        await away(world, "orgv", "orgh")
        for name in ("orga", "orgb"):
            liar(world, name).tell(liar(world, name).attestation(FALSE))
        await world.minutes(AN_HOUR)
        assert await rule(world["orgv"], ONE) == "R18"


@virtual
async def test_16_upstream_changes_a_digest_for_everybody_and_nobody_is_suspended() -> None:
    async with scene("orga", "orgb", "orgv") as world:
        world.publish(ONE)
        for node in world.nodes.values():
            await node.ask(ONE)
        await world.minutes(20)
        world.publish(FALSE)
        await world.minutes(20)
        for node in world.nodes.values():
            assert await rule(node, ONE) == "R3"
            assert not node.outcasts
        assert not world.frauds


@pytest.mark.parametrize("accused", [False, True], ids=["nobody is accused", "who knows the file is accused"])
@virtual
async def test_17_upstream_shows_v_alone_another_digest_on_first_contact(accused: bool) -> None:
    async with scene("orga", "orgb", "orgv", liars=["orgc"]) as world:
        await away(world, "orgv")
        world.publish(ONE, to=["orga", "orgb"])
        world.publish(FALSE, to=["orgv"])
        for name in ("orga", "orgb"):
            assert await rule(world[name], ONE) == "R8"
        await world.minutes(10)
        if accused:
            accuser = liar(world, "orgc")
            for truth in accuser.attestations_heard():
                accuser.tell(accuser.accusation(truth))
            await world.minutes(10)
            contested = {(org, "pypi-digest", "CONTESTED") for org in ("orga", "orgb")}
            assert contested <= set(verdicts(world["orgv"]))
        await back(world, "orgv")
        assert await rule(world["orgv"], ONE) == "R5"
        await world.minutes(AN_HOUR)
        assert not world["orgv"].outcasts
        for name in ("orga", "orgb"):
            assert await rule(world[name], ONE) == "R8"
            assert not world[name].outcasts
        assert not world.frauds


@virtual
async def test_31_an_older_page_is_refused_and_the_one_held_stays() -> None:
    async with scene("orgv", liars=["orga"]) as world:
        world.publish(ONE)
        world.publish(TWO)
        assert await rule(world["orgv"], TWO) == "R8"
        listing = world["orgv"].index.listings["mxa"]
        listing.serial, newest = 1, listing.serial
        del listing.files[TWO.filename]
        await world.minutes(20)
        assert await rule(world["orgv"], TWO) == "R13"
        listing.serial = newest + 5
        world.publish(TWO)
        await world.minutes(20)
        assert await rule(world["orgv"], TWO) == "R8"


@virtual
async def test_33_a_quarantined_project_is_refused_within_one_refresh_and_stays_so_when_upstream_goes_away() -> None:
    async with scene("orga", "orgb", "orgv") as world:
        world.publish(ONE)
        for node in world.nodes.values():
            await node.ask(ONE)
        await world.minutes(20)
        world["orgv"].index.listings["mxa"].extra["project-status"] = {"status": "quarantined"}
        world.publish(wheel("mxa", "3.0"), to=["orgv"])
        await world.minutes(20)
        assert await rule(world["orgv"], ONE) == "R2"
        await away(world, "orgv")
        assert await rule(world["orgv"], ONE) == "R2"
