"""False statements, false accusations, stolen keys and forked logs. The numbers are those of docs/protocol/simulation.md."""

from __future__ import annotations

from typing import cast

import pytest

from matrix_pypi_bot.core.evidence import Mode
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.statements.keys import Revoked
from matrix_pypi_bot.core.statements.refutation import Fault
from matrix_pypi_bot.wire.cids import CidBuilder
from tests.byzantine.scenes import AN_HOUR, FALSE, ONE, OTHER, TWO, away, back, liar, rule, scene, statements, verdicts
from tests.support.bot_world import START_MS
from tests.support.dists import wheel
from tests.support.virtual import VirtualClock, virtual


@virtual
async def test_04_one_lies_while_upstream_is_there_and_every_honest_one_suspends_it() -> None:
    async with scene("orgb", "orgv", liars=["orga"]) as world:
        world.publish(ONE)
        liar(world, "orga").tell(liar(world, "orga").attestation(FALSE))
        await world.minutes(10)
        for node in world.nodes.values():
            assert node.outcasts == {"orga"}
            assert ("orga", "pypi-digest", "UPHELD") in verdicts(node)
            assert await rule(node, ONE) == "R8"
        assert not world.frauds


@virtual
async def test_09_one_key_says_two_things_to_two_organisations_and_is_found_out_in_one_exchange() -> None:
    async with scene("orgb", "orgv", liars=["orga"]) as world:
        await away(world, "orgb", "orgv")
        evil = liar(world, "orga")
        evil.tell(evil.attestation(ONE), to=["orgb"])
        evil.only_for[len(evil.log) - 1] = "orgb"
        evil.tell(evil.attestation(FALSE), to=["orgv"])
        evil.only_for[len(evil.log) - 1] = "orgv"
        await world.minutes(15)
        for node in world.nodes.values():
            assert ("orga", "equivocation", "UPHELD") in verdicts(node)
            assert node.outcasts == {"orga"}


@virtual
async def test_10_the_same_digest_again_is_no_equivocation() -> None:
    async with scene("orgv", liars=["orga", "orgb"]) as world:
        world.publish(ONE)
        one = liar(world, "orga")
        right = CidBuilder()
        right.update(ONE.content)
        one.tell(one.attestation(ONE))
        await world.minutes(10)
        one.tell(one.attestation(ONE, seq=7, told_cid=right.finish()))
        await world.minutes(10)
        assert len(statements(world["orgv"], "attestation")) == 2
        assert not verdicts(world["orgv"])
        assert not world["orgv"].outcasts


@virtual
async def test_17_while_fewer_than_k_know_better_a_lying_upstream_frames_them() -> None:
    """The exception in T4: upstream shows V alone another digest, and one organisation contradicts it. A second one makes it R5."""
    async with scene("orga", "orgv", liars=["orgb"]) as world:
        world.publish(ONE, to=["orga"])
        world.publish(FALSE, to=["orgv"])
        await world["orga"].ask(ONE)
        await world.minutes(10)
        assert world["orgv"].outcasts == {"orga"}
        assert not world["orga"].outcasts


@virtual
async def test_20_a_raw_cid_of_other_bytes_convicts_without_any_fetch_although_the_statement_is_never_taken() -> None:
    async with scene("orgb", "orgv", liars=["orga"]) as world:
        await away(world, "orgb", "orgv")
        wrong = CidBuilder()
        wrong.update(b"other bytes")
        evil = liar(world, "orga")
        lie = evil.attestation(ONE, told_cid=wrong.finish())
        evil.tell(lie)
        await world.minutes(10)
        for node in world.nodes.values():
            assert lie.id not in statements(node)
            assert node.outcasts == {"orga"}


@virtual
async def test_23_24_a_stolen_key_counts_for_what_was_heard_before_the_theft_whatever_its_statements_say() -> None:
    files = [wheel("mxa", f"{number}.0") for number in range(1, 31)]
    async with scene("orgv", liars=["orga", "orgb"]) as world:
        await away(world, "orgv")
        one, other = liar(world, "orga"), liar(world, "orgb")
        for file in files[:3]:
            one.tell(one.attestation(file))
            other.tell(other.attestation(file))
        await world.minutes(10)
        theft = Instant(one.now + 1)
        assert [await rule(world["orgv"], file) for file in files[:3]] == ["R19"] * 3
        await world.minutes(10)
        long_ago = Instant.of_ms(START_MS - 10_000_000)
        for file in files[3:]:
            other.tell(other.attestation(file))
            one.tell(one.attestation(file, issued=long_ago, seq=1))
        await world.minutes(10)
        assert await rule(world["orgv"], files[7]) == "R19"  # until the organisation notices
        await world.minutes(AN_HOUR)
        one.tell(one.manifest(revoked=Revoked(at=one.now, reason="stolen", compromised_since=theft)))
        await world.minutes(10)
        assert {await rule(world["orgv"], file) for file in files[3:]} == {"R18"}
        assert {await rule(world["orgv"], file) for file in files[:3]} == {"R19"}


@virtual
async def test_25_false_accusations_change_nothing_and_cost_upstream_one_request_a_minute() -> None:
    async with scene("orgh", "orgv", liars=["orga"]) as world:
        world.publish(ONE)
        for node in world.nodes.values():
            await node.ask(ONE)
        await world.minutes(10)
        [truth] = [
            one for one in liar(world, "orga").attestations_heard()
            if one.signatures[0].keyid == world["orgh"].organisation.mirror.keyid
        ]  # fmt: skip
        evil, before = liar(world, "orga"), len(world["orgv"].index.asked)
        begun = world.clock.minute
        for _ in range(60):
            evil.tell(evil.accusation(truth))
            evil.tell(evil.accusation(truth, Fault.PYPI_ABSENT))
            forged = {**truth.to_json(), "payload": FALSE.sha256}
            evil.tell(evil.accusation(truth, Fault.EQUIVOCATION, envelopes=(truth.to_json(), forged)))
            await world.minutes(0.5)
        assert len(world["orgv"].index.asked) - before <= world.clock.minute - begun + 1
        assert not world["orgv"].outcasts
        assert {result for _, _, result in verdicts(world["orgv"])} == {"DISMISSED"}
        assert await rule(world["orgv"], ONE) == "R8"


@virtual
async def test_25_whoever_is_guilty_cannot_forestall_a_good_accusation_by_a_bad_one_of_himself() -> None:
    async with scene("orgv", liars=["orga", "orgb"]) as world:
        await away(world, "orgv")
        evil, accuser = liar(world, "orga"), liar(world, "orgb")
        said = evil.attestation(ONE)
        other = evil.attestation(
            FALSE, source={"kind": "pypi", "method": "guess"}
        )  # signed well, and no statement of ours
        evil.tell(said)
        evil.tell(evil.accusation(said, Fault.EQUIVOCATION, envelopes=(said.to_json(), said.to_json())))
        await world.minutes(10)
        assert ("orga", "equivocation", "DISMISSED") in verdicts(world["orgv"])
        accuser.tell(accuser.accusation(said, Fault.EQUIVOCATION, envelopes=(said.to_json(), other.to_json())))
        await world.minutes(10)
        assert world["orgv"].outcasts == {"orga"}


@virtual
async def test_26_one_contests_everything_while_upstream_is_away() -> None:
    async with scene("orga", "orgb", "orgv", liars=["orgc"], mode=Mode.KOFN) as world:
        world.publish(ONE, TWO, OTHER)
        await world["orgv"].ask(ONE)
        await world.minutes(20)
        await away(world, "orgv")
        for name in ("orga", "orgb"):
            await world[name].ask(ONE, TWO)
        await world.minutes(20)
        assert [await rule(world["orgv"], file) for file in (ONE, TWO)] == ["R13", "R19"]
        evil = liar(world, "orgc")
        for envelope in evil.attestations_heard():
            evil.tell(evil.accusation(envelope))
        await world.minutes(20)
        assert [await rule(world["orgv"], file) for file in (ONE, TWO)] == ["R13", "R14"]
        await back(world, "orgv")
        assert [await rule(world["orgv"], file) for file in (ONE, TWO)] == ["R8", "R8"]
        assert not world["orgv"].outcasts


@virtual
async def test_27_two_heads_of_one_size_are_a_fork_for_everybody_at_the_first_exchange() -> None:
    async with scene("orgb", "orgv", liars=["orga"]) as world:
        evil = liar(world, "orga")
        assert await world["orgb"].forks.found((evil.head(9, b"1" * 32), evil.head(9, b"2" * 32)))
        await world.minutes(10)
        for node in world.nodes.values():
            assert node.outcasts == {"orga"}


@virtual
async def test_29_an_older_manifest_is_ignored_and_an_expired_one_takes_all_weight() -> None:
    async with scene("orgv", liars=["orga", "orgb"]) as world:
        one, other = liar(world, "orga"), liar(world, "orgb")
        old = one.manifest()
        one.tell(one.manifest())
        await world.minutes(10)
        one.tell(old)
        await world.minutes(10)
        held = world["orgv"].members.manifest("orga")
        assert held is not None
        assert held.version == 3
        await away(world, "orgv")
        for each in (one, other):
            each.tell(each.attestation(ONE))
        await world.minutes(20)
        assert await rule(world["orgv"], ONE) == "R19"
        one.tell(one.manifest(expires=Instant(one.now + 3_600)))
        await world.minutes(30)
        assert await rule(world["orgv"], ONE) == "R19"
        await world.minutes(2 * AN_HOUR)
        assert await rule(world["orgv"], ONE) in ("R18", "R14")


@pytest.mark.parametrize("day", [-1, 1])
@virtual
async def test_38_a_clock_that_is_a_day_wrong_serves_nothing_false(day: int) -> None:
    async with scene("orga", "orgb", "orgv") as world:
        clock = cast(VirtualClock, world["orgv"].clock)
        clock.skew_ms = day * 86_400_000
        world.publish(ONE)
        for name in ("orga", "orgb"):
            await world[name].ask(ONE)
        await world.minutes(20)
        assert await rule(world["orgv"], ONE) == "R8"
        await away(world, "orgv")
        assert await rule(world["orgv"], ONE) == "R13"
        assert not world.frauds
        assert not world["orgv"].outcasts
