"""People talk to the bot in a project's room, and a maintainer attests his own build by what he pastes there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.dists import Dist, wheel
from tests.support.matrix import MatrixUser
from tests.support.stack import Stack
from tests.support.upstream import Upstream
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

ATTESTATION = "io.matrix_pypi.attestation.v1"


def installed(stack: Stack, upstream: Upstream, name: str) -> Dist:
    dist = wheel(name)
    upstream.publish(dist)
    assert stack.file(dist).body == dist.content
    return dist


def room_of(stack: Stack, reader: MatrixUser, name: str) -> str:
    """The project's room, joined, as soon as there is one."""
    wait_until(lambda: reader.resolve(stack.org.alias(name)), f"the room of {name} is there")
    return reader.join(stack.org.alias(name))


def answered(reader: MatrixUser, room: str, asked: str) -> dict[str, Any]:
    """The content of the bot's reply to an event."""

    def look() -> dict[str, Any] | None:
        for event in reader.timeline(room, "m.room.message"):
            content: dict[str, Any] = event["content"]
            if content.get("m.relates_to", {}).get("m.in_reply_to", {}).get("event_id") == asked:
                return content
        return None

    return wait_until(look, "the bot answers")


def run(stack: Stack, *arguments: str | Path) -> str:
    """What `matrix-pypi ...` prints, which must succeed."""
    program = Path(sys.executable).with_name("matrix-pypi")
    done = subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_question_in_the_room_is_answered_there_once(
    stack: Stack, upstream: Upstream, alice: MatrixUser, name: str
) -> None:
    dist = installed(stack, upstream, name)
    room = room_of(stack, alice, name)
    asked = alice.say(room, f"!pypi why {dist.filename}")
    told = answered(alice, room, asked)
    assert (told["msgtype"], told["body"].splitlines()[0]) == ("m.notice", f"orga: {dist.filename}: serve+attest R8")
    reactions = [event["content"]["m.relates_to"] for event in alice.timeline(room, "m.reaction")]
    assert [(one["event_id"], one["key"]) for one in reactions] == [(asked, "\u2705")]
    later = alice.say(room, "!pypi status")
    answered(alice, room, later)
    assert len(alice.timeline(room, "m.room.message")) == 4, "two questions and two answers: no notice was answered"


def test_a_maintainer_pastes_what_he_signed_and_readers_see_that_he_built_it(
    stack: Stack, upstream: Upstream, alice: MatrixUser, name: str, tmp_path: Path
) -> None:
    dist = installed(stack, upstream, name)
    room = room_of(stack, alice, name)
    key, built, config = tmp_path / "maintainer_key", tmp_path / dist.filename, stack.org.told["config_file"]
    built.write_bytes(dist.content)
    public = run(stack, "keys", "new-maintainer", key).split("public key  ")[1].split()[0]
    line = run(stack, "attest", built, "--key", key).strip()
    assert "E_KEY_UNKNOWN" in answered(alice, room, alice.say(room, line))["body"]
    run(stack, "keys", "delegate", name, public, "-c", config)
    assert "published" in answered(alice, room, alice.say(room, line))["body"]
    slots = wait_until(
        lambda: [slot for slot in alice.state_of(room, ATTESTATION) if slot.endswith(f"/{dist.filename}")][1:],
        "the maintainer's statement stands beside the mirror's",
    )
    assert slots
    (told,) = json.loads(run(stack, "verify", f"{name}==1.0", "--home", stack.home, "--json"))["files"]
    assert (told["status"], told["orgs"], told["built_by_maintainer"]) == ("ok", ["orga"], True)
    page = stack.get(f"/trust/{name}/{dist.filename}").body.decode()
    assert "built these bytes" in page
