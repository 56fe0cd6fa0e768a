"""Rooms in bad hands: what they take away, put in other places or never bring. The numbers are those of docs/protocol/simulation.md."""

from __future__ import annotations

import base64
import json

import pytest

from matrix_pypi_bot.core.envelope import Envelope, seal
from tests.byzantine.network import room_id
from tests.byzantine.scenes import FALSE, ONE, OTHER, TWO, away, liar, rule, scene, statements, verdicts
from tests.byzantine.world import World
from tests.support.dists import wheel
from tests.support.virtual import virtual

ATTESTATION = "io.matrix_pypi.attestation.v1"
ROOM = "project:mxa"


def attested(world: World, org: str) -> list[dict[str, object]]:
    """The events by which an organisation attested something."""
    return [e for e in world.network.history if (e["type"], e["sender"]) == (ATTESTATION, f"@pypi:{org}")]


@virtual
async def test_11_36_redacting_everything_changes_no_decision_and_a_newcomer_has_it_all_from_the_logs() -> None:
    async with scene("orga", "orgb", "orgv", liars=["orgc"]) as world:
        world.publish(ONE, TWO)
        for name in ("orga", "orgb"):
            await world[name].ask(ONE, TWO)
        liar(world, "orgc").tell(liar(world, "orgc").review(ONE, TWO))
        await world.minutes(10)
        await away(world, "orgv")
        before = statements(world["orgv"])
        decided = [await rule(world["orgv"], file) for file in (ONE, TWO)]
        for event in [e for e in world.network.history if e["type"] == ATTESTATION]:
            world.network.redact("orgc", event)
        await world.minutes(10)
        assert statements(world["orgv"]) >= before
        assert [await rule(world["orgv"], file) for file in (ONE, TWO)] == decided == ["R19", "R19"]
        # Whoever joins now finds empty events in the room, and the logs.
        newcomer = await world.join("orgn", ["orga", "orgb", "orgc", "orgv"])
        newcomer.index.off()
        for event in list(world.network.history):
            await newcomer.receive(event)
        await world.minutes(20)
        assert statements(newcomer, "attestation") == statements(world["orgv"], "attestation")
        assert [await rule(newcomer, file) for file in (ONE, TWO)] in (["R19", "R19"], ["R18", "R18"])


@virtual
async def test_12_a_server_that_is_shut_out_goes_on_over_logs() -> None:
    async with scene("orga", "orgb", "orgv") as world:
        for other in ("orga", "orgv"):
            world.network.cut("orgb", other, log=True)
        await away(world, "orgv")
        world.publish(ONE)
        for name in ("orga", "orgb"):
            await world[name].ask(ONE)
        await world.minutes(15)
        assert await rule(world["orgv"], ONE) == "R19"


@virtual
async def test_14_a_slot_that_somebody_else_overwrote_still_says_what_it_said() -> None:
    async with scene("orga", "orgv", liars=["orgc"]) as world:
        world.publish(ONE)
        await world["orga"].ask(ONE)
        await world.minutes(10)
        before = statements(world["orgv"])
        [event] = attested(world, "orga")
        evil = liar(world, "orgc")
        content = {"v": 1, "dsse": evil.attestation(FALSE).to_json()}
        world.network.post("orgc", ROOM, ATTESTATION, content, str(event["state_key"]))
        await world.minutes(10)
        assert statements(world["orgv"], "attestation") <= before | statements(world["orga"])
        assert world["orgv"].ingest.outcomes["E_STATE_KEY"] == 1
        assert not world["orgv"].outcasts


@virtual
async def test_15_an_envelope_in_another_room_or_slot_is_dropped_and_its_signer_not_blamed() -> None:
    async with scene("orga", "orgv", liars=["orgc"]) as world:
        world.publish(ONE, OTHER)
        world.network.path("orga", "orgv").room = world.network.path("orga", "orgv").log = False
        world.network.path("orgc", "orgv").log = False
        await world["orga"].ask(ONE)
        await world.minutes(10)
        [event] = attested(world, "orga")
        content, slot = event["content"], str(event["state_key"])
        world.network.post("orgc", "project:mxb", ATTESTATION, content, slot)  # type: ignore[arg-type]
        world.network.post("orgc", ROOM, ATTESTATION, content, slot + ".x")  # type: ignore[arg-type]
        await world.minutes(10)
        outcomes = world["orgv"].ingest.outcomes
        assert (outcomes["E_WRONG_ROOM"], outcomes["E_STATE_KEY"]) == (1, 1)
        assert not statements(world["orgv"], "attestation")
        assert not world["orgv"].outcasts


@virtual
async def test_21_junk_by_keys_nobody_pinned_is_dropped_before_any_signature_is_looked_at() -> None:
    async with scene("orgv", liars=["orga"]) as world:
        evil = liar(world, "orga")
        kept, inbox = len(statements(world["orgv"])), len(world["orgv"].store.rows("SELECT n FROM inbox"))
        for number in range(2_000):
            key = evil.other_key(number)
            junk = evil.attestation(ONE, by=key)
            event = {
                "event_id": f"$junk{number}", "room_id": room_id(ROOM), "sender": f"@junk{number}:evil", "type": ATTESTATION,
                "content": {"v": 1, "dsse": junk.to_json()}, "state_key": f"{key.keyid[:16]}/{ONE.filename}",
            }  # fmt: skip
            await world["orgv"].receive(event)
        assert world["orgv"].ingest.outcomes["E_KEY_UNKNOWN"] == 2_000
        assert len(statements(world["orgv"])) == kept
        assert len(world["orgv"].store.rows("SELECT n FROM inbox")) == inbox


@pytest.mark.parametrize(
    "payload",
    [
        b'{"a":1,"a":2}', b'{"a":1.5}', b'{"a":NaN}', b"[" * 9_000, b"\xff\xfe", b'{"a":9007199254740993}', b"x" * 20_000, b"",
    ],
)  # fmt: skip
@virtual
async def test_22_what_is_too_big_too_deep_or_ambiguous_is_a_code_and_nothing_else(payload: bytes) -> None:
    async with scene("orgv", liars=["orga"]) as world:
        evil = liar(world, "orga")
        good = evil.attestation(ONE)
        before = sum(world["orgv"].ingest.outcomes.values())
        dsse = {**good.to_json(), "payload": base64.b64encode(payload).decode()}
        world.network.post(
            "orga", ROOM, ATTESTATION, {"v": 1, "dsse": dsse}, f"{evil.mirror.keyid[:16]}/{ONE.filename}"
        )
        signed = json.loads(json.dumps(_sealed(world, payload).to_json()))
        world.network.post(
            "orga", ROOM, ATTESTATION, {"v": 1, "dsse": signed}, f"{evil.mirror.keyid[:16]}/{ONE.filename}"
        )
        await world.minutes(10)
        outcomes = world["orgv"].ingest.outcomes
        assert sum(outcomes.values()) == before + 2
        assert outcomes["unreadable"] == 0
        assert not statements(world["orgv"], "attestation")
        evil.tell(good)
        await world.minutes(10)
        assert len(statements(world["orgv"], "attestation")) == 1


def _sealed(world: World, payload: bytes) -> Envelope:
    return seal(payload, liar(world, "orga").mirror)


@pytest.mark.parametrize("seed", range(6))
@virtual
async def test_35_in_whatever_order_and_however_often_events_come_the_outcome_is_the_same(seed: int) -> None:
    async with scene("orga", "orgb", "orgv", "orgw", liars=["orgc"], seed=seed) as world:
        world.publish(ONE, TWO)
        for name in ("orga", "orgb", "orgc"):
            for reader in ("orgv", "orgw"):
                path = world.network.path(name, reader)
                path.delay_seconds, path.copies = (0.0, 3_000.0), 3
        for name in ("orgv", "orgw"):
            world[name].index.off()
        evil = liar(world, "orgc")
        for name in ("orga", "orgb"):
            await world[name].ask(ONE, TWO)
        for said in (evil.attestation(FALSE), evil.attestation(ONE), evil.attestation(TWO)):
            evil.tell(said)
        await world.minutes(120)
        v, w = world["orgv"], world["orgw"]
        mine = {row["id"] for row in v.store.rows("SELECT id FROM envelope WHERE org IN ('orga', 'orgb', 'orgc')")}
        theirs = {row["id"] for row in w.store.rows("SELECT id FROM envelope WHERE org IN ('orga', 'orgb', 'orgc')")}
        assert mine == theirs
        assert v.outcasts == w.outcasts == {"orgc"}
        assert {x for x in verdicts(v) if x[2] == "UPHELD"} == {x for x in verdicts(w) if x[2] == "UPHELD"}
        assert [await rule(v, file) for file in (ONE, TWO)] == [await rule(w, file) for file in (ONE, TWO)]


@pytest.mark.parametrize(
    "name", ["../mxa-1.0.whl", "mx\u017fa-1.0-py3-none-any.whl", "mxa-1.\u0660-py3-none-any.whl", "mxa-1.0\x00.whl"]
)
@virtual
async def test_39_names_that_are_none_cause_nothing(name: str) -> None:
    async with scene("orgv", liars=["orga"]) as world:
        evil, asked = liar(world, "orga"), len(world["orgv"].index.asked)
        good = evil.attestation(ONE)
        payload = good.payload.replace(ONE.filename.encode(), json.dumps(name)[1:-1].encode())
        evil.log.append(seal(payload, evil.mirror))
        slot = f"{evil.mirror.keyid[:16]}/{name}"
        world.network.post("orga", ROOM, ATTESTATION, {"v": 1, "dsse": seal(payload, evil.mirror).to_json()}, slot)
        await world.minutes(10)
        assert world["orgv"].ingest.outcomes["E_FILENAME"] == 1
        assert not statements(world["orgv"], "attestation")
        assert len(world["orgv"].index.asked) == asked


@virtual
async def test_30_whose_log_shows_no_life_for_a_day_does_not_count_for_what_was_never_verified_here() -> None:
    file = wheel("mxa", "9.0")
    async with scene("orga", "orgb", "orgv") as world:
        world.publish(ONE, file)
        await away(world, "orgv")
        for name in ("orga", "orgb"):
            await world[name].ask(ONE)
        await world.minutes(15)
        assert await rule(world["orgv"], ONE) == "R19"
        world.network.cut("orga", "orgv")
        await world.minutes(23 * 60)
        assert await rule(world["orgv"], ONE) == "R19"
        await world.minutes(2 * 60)
        assert await rule(world["orgv"], ONE) == "R18"
