"""`matrix-pypi up --orgs 3`: three organisations on one machine whose homeservers federate, watched over and kept like one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.components import postgres_binaries, require
from tests.support.dists import Dist, wheel
from tests.support.matrix import MatrixRefusal, MatrixUser
from tests.support.member import PROCESSES, Member, Process
from tests.support.organisations import NAMES, Organisations
from tests.support.postgres import cluster
from tests.support.stack import Stack
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

ATTESTATION = "io.matrix_pypi.attestation.v1"
COMMAND = str(Path(sys.executable).with_name("matrix-pypi"))
FEDERATED_SECONDS = 90  # on a busy machine; on an idle one it is a tenth of that


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    return subprocess.run([COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


def told(stack: Stack) -> list[dict[str, object]]:
    """What stack.json says of the organisations."""
    return list(json.loads((stack.home / "stack.json").read_text())["orgs"])


def join(user: MatrixUser, alias: str) -> str:
    """The room of `alias`, joined as soon as it is there and open: a room has its alias before it has its events and rules."""

    def joined() -> str | None:
        try:
            return user.join(alias)
        except MatrixRefusal as refusal:
            assert refusal.status in (403, 404, 502), refusal
            return None

    return wait_until(joined, f"{alias} may be joined", timeout_seconds=FEDERATED_SECONDS)


def reader_of(member: Member) -> MatrixUser:
    """A new user of the organisation's homeserver, who is not its bot."""
    return member.matrix_user(f"reader{os.urandom(4).hex()}")


def explained(three_orgs: Organisations, member: Member, dist: Dist) -> str:
    """What the organisation's bot says of a file."""
    done = run("explain", dist.filename, "--home", three_orgs.stack.home, "--org", member.name)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- what is there --------------------------------------------------------------------------------------------------


def test_each_has_everything_of_its_own(three_orgs: Organisations) -> None:
    orgs = told(three_orgs.stack)
    assert [org["name"] for org in orgs] == [*NAMES]
    assert [org["frontend"] for org in orgs] == [f"http://127.0.0.1:{three_orgs.stack.port + n}" for n in range(3)]
    for key in ("server_name", "homeserver", "bot", "root_key_file", "mirror_key_file", "trust_room", "config_file"):
        assert len({org[key] for org in orgs}) == 3, key
    assert len({pid for member in three_orgs.members for pid in member.org.pids.values()}) == 9
    for member in three_orgs.members:
        assert member.org.ready()
        assert member.org.bot == f"@pypi:{member.org.server_name}"


def test_one_line_is_ready_and_each_index_is_named(three_orgs: Organisations) -> None:
    lines = three_orgs.stack.home.with_name("home.output").read_text().splitlines()
    assert len([line for line in lines if line.startswith("ready")]) == 1
    for member in three_orgs.members:
        assert [line for line in lines if line.startswith(f"  {member.name} ") and member.org.simple in line]


def test_status_tells_of_all(three_orgs: Organisations) -> None:
    done = run("status", "--home", three_orgs.stack.home, "--json")
    orgs = json.loads(done.stdout)["orgs"]
    assert (done.returncode, [org["name"] for org in orgs]) == (0, [*NAMES])
    assert [process["ready"] for org in orgs for process in org["processes"]] == [True] * 9


def test_each_serves_and_answers_for_itself(three_orgs: Organisations, name: str) -> None:
    dist = wheel(name)
    three_orgs.upstream.publish(dist)
    for member in three_orgs.members:
        assert member.file(dist).body == dist.content
        wait_until(
            lambda member=member: f"by {member.name}, signed here" in explained(three_orgs, member, dist),
            f"{member.name} has attested it",
        )
    assert run("explain", dist.filename, "--home", three_orgs.stack.home, "--org", "orgx").returncode == 4


def test_one_can_lose_the_upstream_that_the_others_have(three_orgs: Organisations, name: str) -> None:
    dist = wheel(name)
    three_orgs.upstream.publish(dist)
    three_orgs.doors["orgc"].off()
    assert [three_orgs[org].page(name).status for org in ("orga", "orgb")] == [200, 200]
    assert three_orgs["orgc"].page(name).status == 503
    three_orgs.doors["orgc"].on()
    three_orgs["orgc"].page_once(name, lambda page: page.status == 200, "is there again")


# ---- federation -----------------------------------------------------------------------------------------------------


def test_a_user_of_one_homeserver_reads_the_room_of_a_project_of_another(three_orgs: Organisations, name: str) -> None:
    dist = wheel(name)
    three_orgs.upstream.publish(dist)
    org = three_orgs["orga"].org
    assert three_orgs["orga"].file(dist).status == 200
    neighbour, reader = reader_of(three_orgs["orga"]), reader_of(three_orgs["orgb"])
    # First here: who joins while an event is being sent gets it from a homeserver only with the next one.
    attested(neighbour, join(neighbour, org.alias(name)), org.bot)
    attested(reader, join(reader, org.alias(name)), org.bot)


def attested(user: MatrixUser, room: str, bot: str) -> None:
    """Returns when the user's homeserver shows an attestation of the bot in the room."""
    user.wait_for_state(
        room,
        lambda state: any((event["type"], event["sender"]) == (ATTESTATION, bot) for event in state),
        timeout_seconds=FEDERATED_SECONDS,
    )


def test_trust_rooms_are_joined_by_alias_from_everywhere(three_orgs: Organisations) -> None:
    for home in three_orgs.members:
        reader = reader_of(home)
        for member in three_orgs.members:
            room = join(reader, f"#pypi-trust:{member.org.server_name}")
            assert room == member.org.told["trust_room"]
            assert reader.wait_for_content(room, "io.matrix_pypi.keys.v1", member.org.bot)["v"] == 1


@pytest.mark.parametrize("away", ["orga", "orgc"])
def test_what_was_said_while_a_homeserver_was_away_arrives_within_seconds_of_its_return(
    three_orgs: Organisations, name: str, away: str
) -> None:
    dist = wheel(name)
    three_orgs.upstream.publish(dist)
    assert three_orgs["orgb"].page(name).status == 200
    speaker, listener = reader_of(three_orgs["orgb"]), reader_of(three_orgs[away])
    alias = three_orgs["orgb"].org.alias(name)
    room = join(speaker, alias)
    assert join(listener, alias) == room
    with three_orgs[away].down("homeserver"):
        texts = [speaker.say(room, f"said {number}") for number in range(3)]
    heard = wait_until(
        lambda: len(found := listener.timeline(room, "m.room.message")) == 3 and found,
        f"{away} hears what it missed",
        timeout_seconds=FEDERATED_SECONDS,
    )
    assert [event["event_id"] for event in heard] == texts


# ---- kept running, stopped, started again ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROCESSES)
def test_a_child_of_any_that_is_killed_is_started_again(three_orgs: Organisations, name: Process) -> None:
    before = {member.name: member.org.pids for member in three_orgs.members}
    three_orgs["orgb"].kill_and_wait(name)
    after = {member.name: member.org.pids for member in three_orgs.members}
    changed = {(org, part) for org in NAMES for part, pid in after[org].items() if before[org][part] != pid}
    assert changed == {("orgb", name)}
    assert f"orgb-{name} was killed by SIGKILL" in three_orgs.stack.home.with_name("home.output").read_text()


def test_a_stack_grows_keeps_what_it_has_and_does_not_shrink(tmp_path: Path) -> None:
    arguments = ("--upstream", "http://127.0.0.1:9/simple/")
    with Stack(tmp_path / "home", *arguments) as alone:
        first = alone.org.told
    with Stack(tmp_path / "home", *arguments, orgs=2) as grown:
        a, b = told(grown)
        kept = ("name", "server_name", "homeserver", "bot", "trust_room", "root_key_file")
        assert {key: a[key] for key in kept} == {key: first[key] for key in kept}
        assert b["name"] == "orgb"
        found = run("up", "--home", tmp_path / "home", "--orgs", "1")
        assert "is using" in found.stderr
    fewer = run("up", "--home", tmp_path / "home", "--orgs", "1", "--port", str(grown.port))
    assert (fewer.returncode, "give --orgs 2" in fewer.stderr) == (3, True)
    again = Stack(tmp_path / "home", *arguments, orgs=2)
    again._arguments = arguments  # without --orgs: as many as there are
    with again:
        assert [(org["name"], org["server_name"]) for org in told(again)] == [
            (org["name"], org["server_name"]) for org in (a, b)
        ]


def test_each_bot_has_a_database_of_its_own_and_says_which_one_is_missing(tmp_path: Path) -> None:
    require("PostgreSQL")
    binaries = postgres_binaries()
    assert binaries is not None
    with cluster(binaries) as server, server.fresh_database("mpypi") as url:
        stack = Stack(tmp_path / "home", "--upstream", "http://127.0.0.1:9/simple/", "--database", url, orgs=2)
        with pytest.raises(
            AssertionError, match=r'orgb-bot ended with exit code 4 .*database "mpypi_orgb" does not exist'
        ):
            stack.start()
        with server.fresh_database("mpypi_orgb"):
            with stack:
                assert [member.org.ready() for member in stack.members] == [True, True]
