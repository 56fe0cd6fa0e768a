"""`matrix-pypi up --storage kubo`: a Kubo node beside the rest, closed, watched over, and used by the frontend's configuration."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from matrix_pypi_bot.wire.cids import CidBuilder
from tests.support import components
from tests.support.dists import wheel
from tests.support.http_client import Reply, ask
from tests.support.member import START_SECONDS, Member
from tests.support.stack import Stack
from tests.support.upstream import Upstream
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    """The upstream of the stack."""
    with Upstream() as running:
        yield running


@pytest.fixture(scope="module")
def stack(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with a node."""
    components.require("Kubo")
    home = tmp_path_factory.mktemp("up-kubo") / "home"
    with Stack(home, "--storage", "kubo", "--upstream", upstream.url) as running:
        yield running


def rpc(stack: Member, command: str, *, token: bool = True) -> Reply:
    """What the node answers to a command."""
    headers = {"Authorization": f"Bearer {stack.org.secret('kubo_token_file')}"} if token else {}
    return ask(f"{stack.org.told['kubo']}/api/v0/{command}", "POST", **headers)


def test_stack_json_names_the_node_and_its_token(stack: Stack) -> None:
    org = stack.org.told
    assert org["kubo"].startswith("http://127.0.0.1:")
    assert stat.S_IMODE(Path(org["kubo_token_file"]).stat().st_mode) == 0o600
    assert {*org["pids"]} == {"kubo", "homeserver", "bot", "frontend"}
    assert rpc(stack, "version").json["Version"].startswith("0.")


def test_the_node_is_closed(stack: Stack) -> None:
    assert [rpc(stack, "version", token=False).status, rpc(stack, "config/show").status] == [403, 403]
    told = rpc(stack, "id").json
    assert [address.split("/")[2] for address in told["Addresses"]] == ["127.0.0.1"]
    assert "Swarm is limited to private network" in (stack.home / "logs" / "orga-kubo.log").read_text()
    assert (stack.home / "swarm.key").read_text() == (stack.home / "orga" / "kubo" / "swarm.key").read_text()


def test_the_frontends_configuration_has_it_as_a_store_that_passes_every_trial(stack: Stack) -> None:
    command = [
        BIN / "matrix-pypi-index",
        "check-storage",
        "kubo",
        "-c",
        stack.org.told["frontend_config_file"],
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, [outcome for outcome in outcomes if outcome["result"] == "failed"]) == (0, [])
    assert len(outcomes) > 10


def holds(stack: Stack, cid: str) -> bool:
    """Whether the node has the file pinned."""
    return rpc(stack, f"pin/ls?arg={cid}&type=recursive").status == 200


@pytest.mark.parametrize("payload_bytes", [1_000, 3 << 20])
def test_what_a_client_was_given_is_in_the_node_by_itself_until_it_is_refused(
    stack: Stack, upstream: Upstream, payload_bytes: int
) -> None:
    dist = wheel(f"mxnode{payload_bytes}", payload_bytes=payload_bytes)
    upstream.publish(dist)
    assert stack.file(dist).body == dist.content
    builder = CidBuilder()
    builder.update(dist.content)
    cid = builder.finish()
    wait_until(lambda: holds(stack, cid), f"the node holds {dist.filename}")
    assert rpc(stack, f"cat?arg={cid}").body == dist.content
    upstream.publish(wheel(dist.project, payload_bytes=payload_bytes, salt="another"))
    stack.page_once(dist.project, lambda page: stack.file(dist).status == 403, "lists it as changed")
    wait_until(lambda: not holds(stack, cid), f"the node does not hold {dist.filename} any more")


def test_a_node_that_is_killed_is_started_again_with_what_it_held(stack: Stack) -> None:
    before = stack.org.told["pids"]
    os.kill(before["kubo"], signal.SIGKILL)

    def back() -> bool:
        pids = stack.org.told["pids"]
        try:
            return pids["kubo"] != before["kubo"] and rpc(stack, "version").status == 200
        except OSError:
            return False

    wait_until(back, "the node is back", timeout_seconds=START_SECONDS)
    assert stack.org.told["pids"] | {"kubo": 0} == before | {"kubo": 0}


def test_the_node_survives_a_stop_and_a_start(stack: Stack) -> None:
    before, peer = stack.org.told, rpc(stack, "id").json["ID"]
    assert stack.stop() == 0
    stack.start()
    after = stack.org.told
    assert (after["kubo"], rpc(stack, "id").json["ID"]) == (before["kubo"], peer)


def test_without_kubo_nothing_starts_and_it_says_how_to_get_one(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    command = [BIN / "matrix-pypi", "up", "--storage", "kubo", "--home", tmp_path / "home", "--port", "18999"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert (done.returncode, done.stdout) == (4, "")
    assert "there is no ipfs on PATH" in done.stderr
    assert "hint: put Kubo's `ipfs` (0.40 or newer) on PATH" in done.stderr
    assert not (tmp_path / "home" / "pids.json").exists()


def test_the_nodes_of_several_organisations_are_connected(upstream: Upstream, tmp_path: Path) -> None:
    components.require("Kubo")
    with Stack(tmp_path / "home", "--storage", "kubo", "--upstream", upstream.url, orgs=2) as two:
        nodes = [rpc(member, "id").json["ID"] for member in two.members]

        def peers() -> list[list[str]]:
            return [[peer["Peer"] for peer in rpc(member, "swarm/peers").json["Peers"] or []] for member in two.members]

        wait_until(lambda: peers() == [[nodes[1]], [nodes[0]]], "the nodes have met")
        assert len({member.org.told["kubo_token_file"] for member in two.members}) == 2
