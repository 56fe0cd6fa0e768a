"""What was installed is attested in the project's Matrix room, where anybody can read it and check it with other tools."""

from __future__ import annotations

import pytest

from tests.support.dists import Dist, wheel
from tests.support.matrix import MatrixRefusal, MatrixUser
from tests.support.stack import Stack
from tests.support.upstream import Upstream
from tests.support.upstream_pages import UPLOAD_TIME
from tests.support.verifying import ATTESTATION, keyid, mirror_key, raw_cid, verified
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration
LEVELS = {"users_default": 0, "events_default": 0, "state_default": 100, "ban": 50, "kick": 50, "invite": 50}
ATTESTER_TYPES = (ATTESTATION, "io.matrix_pypi.withdrawal.v1", "io.matrix_pypi.index.v1")


@pytest.fixture
def installed(stack: Stack, upstream: Upstream, name: str) -> Dist:
    """A wheel of a project of this test's own that a client has fetched."""
    upstream.publish(dist := wheel(name, payload_bytes=100_000))
    assert stack.file(dist).body == dist.content
    return dist


def state_key(reader: MatrixUser, stack: Stack, dist: Dist) -> str:
    return f"{keyid(mirror_key(reader, stack.org))[:16]}/{dist.filename}"


def test_another_user_reads_the_attestation_and_securesystemslib_verifies_it(
    stack: Stack, installed: Dist, alice: MatrixUser
) -> None:
    org = stack.org
    room = alice.join(org.alias(installed.project))
    content = alice.wait_for_content(room, ATTESTATION, state_key(alice, stack, installed))
    key = mirror_key(alice, org)
    statement = verified(content, key)
    assert statement["predicateType"] == "urn:matrix-pypi:attestation:v1"
    assert statement["subject"] == [{"name": installed.filename, "digest": {"sha256": installed.sha256}}]
    predicate = statement["predicate"]
    said = {name: predicate[name] for name in ("project", "version", "size", "cid", "coreMetadata", "signer")}
    assert said == {
        "project": installed.project,
        "version": installed.version,
        "size": installed.size,
        "cid": raw_cid(installed.content),
        "coreMetadata": {"sha256": installed.metadata_sha256},
        "signer": {"org": org.name, "key": keyid(key)},
    }
    source = predicate["source"]
    assert (source["kind"], source["method"], source["index"]) == ("pypi", "bytes", "pypi")
    assert source.get("uploadTime", UPLOAD_TIME) == UPLOAD_TIME


def test_a_file_that_many_fetch_is_attested_once(stack: Stack, installed: Dist, alice: MatrixUser) -> None:
    for _ in range(3):
        assert stack.file(installed).status == 200
    room = alice.join(stack.org.alias(installed.project))
    alice.wait_for_content(room, ATTESTATION, state_key(alice, stack, installed))
    assert [event["sender"] for event in alice.timeline(room, ATTESTATION)] == [stack.org.bot]


def test_a_file_that_nobody_fetched_is_not_attested(
    stack: Stack, upstream: Upstream, installed: Dist, alice: MatrixUser
) -> None:
    upstream.publish(other := wheel(installed.project, "2.0"))
    stack.page_once(installed.project, lambda page: page.json["versions"] == ["1.0", "2.0"], "lists the new version")
    room = alice.join(stack.org.alias(installed.project))
    alice.wait_for_content(room, ATTESTATION, state_key(alice, stack, installed))
    assert other.filename not in str(alice.state_of(room, ATTESTATION))


def test_the_room_is_made_so_that_nobody_needs_to_be_trusted_for_being_there(
    stack: Stack, installed: Dist, alice: MatrixUser
) -> None:
    room = alice.join(stack.org.alias(installed.project))
    state = {(event["type"], event["state_key"]): event for event in alice.state(room)}
    created = state["m.room.create", ""]
    assert (created["sender"], created["content"]["room_version"]) == (stack.org.bot, "12")
    assert created["content"].get("m.federate", True) is True
    levels = state["m.room.power_levels", ""]["content"]
    assert {name: levels[name] for name in LEVELS} == LEVELS
    assert {kind: levels["events"][kind] for kind in ATTESTER_TYPES} == dict.fromkeys(ATTESTER_TYPES, 25)
    assert state["m.room.join_rules", ""]["content"]["join_rule"] == "public"
    assert state["m.room.history_visibility", ""]["content"]["history_visibility"] == "world_readable"
    assert state["m.room.canonical_alias", ""]["content"]["alias"] == stack.org.alias(installed.project)
    assert not {"m.room.encryption", "m.room.server_acl", "m.room.policy"} & {kind for kind, _ in state}


def test_a_stranger_cannot_write_into_an_attesters_slot(stack: Stack, installed: Dist, alice: MatrixUser) -> None:
    room = alice.join(stack.org.alias(installed.project))
    slot = state_key(alice, stack, installed)
    content = alice.wait_for_content(room, ATTESTATION, slot)
    with pytest.raises(MatrixRefusal) as refused:
        alice.put_state(room, ATTESTATION, slot, {})
    assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")
    assert alice.content(room, ATTESTATION, slot) == content


def test_asking_for_the_room_of_a_project_makes_it(
    stack: Stack, upstream: Upstream, name: str, alice: MatrixUser
) -> None:
    upstream.publish(wheel(name))
    room = alice.join(stack.org.alias(name))
    assert alice.resolve(stack.org.alias(name)) == room
    assert alice.state_of(room, ATTESTATION) == {}


@pytest.mark.parametrize("spelled", ["{}-that-nobody-published", "{}_Not.Normalised", "{}%2F..", "-{}"])
def test_asking_for_the_room_of_a_project_that_does_not_exist_makes_nothing(
    stack: Stack, name: str, alice: MatrixUser, spelled: str
) -> None:
    alias = stack.org.alias(spelled.format(name))
    assert alice.resolve(alias) is None
    with pytest.raises(MatrixRefusal) as refused:
        alice.join(alias)
    assert refused.value.status == 404


def test_the_space_leads_to_the_rooms_with_activity(stack: Stack, installed: Dist, alice: MatrixUser) -> None:
    room = alice.join(stack.org.alias(installed.project))
    space = alice.join(stack.org.told["space"])

    def children(of: str) -> list[str]:
        return [child for child, content in alice.state_of(of, "m.space.child").items() if content.get("via")]

    def leads_there() -> bool:
        shards = children(space)
        return room in shards or any(room in children(alice.join(shard)) for shard in shards)

    wait_until(leads_there, f"the Space, or the Space of a letter in it, lists {room}")
