"""Two mirrors whose Kubo nodes share a swarm key: what one lost comes block by block over the swarm, with the upstream away."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest

from tests.support import components
from tests.support.backends import content_of
from tests.support.dists import Dist, wheel
from tests.support.http_client import Reply, ask
from tests.support.installers import Environment, Uv
from tests.support.mirrors import Mirrors
from tests.support.stack import Stack
from tests.support.upstream import Upstream
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

MIB = 1 << 20


def only_the_node_of_a_has(mirrors: Mirrors, *dists: Dist) -> None:
    """Both decided to serve them; `b` has nothing any more, and the upstream is away."""
    mirrors.both_serve(*dists)
    for dist in dists:
        cid = content_of(dist.content).cid
        wait_until(lambda cid=cid: holds(mirrors.a, cid), f"the node of a has {dist.filename}")
        assert not holds(mirrors.b, cid)
    mirrors.b_loses_its_store_and_the_upstream_goes()
    introduce(mirrors)


def introduce(mirrors: Mirrors) -> None:
    """The nodes are connected."""
    (address,) = rpc(mirrors.a, "id").json["Addresses"]
    assert rpc(mirrors.b, f"swarm/peering/add?arg={address}").status == 200
    wait_until(lambda: rpc(mirrors.b, "swarm/peers").json["Peers"], "the nodes have met")


def holds(mirror: Stack, cid: str) -> bool:
    """Whether the mirror's node has the file pinned."""
    return rpc(mirror, f"pin/ls?arg={cid}&type=recursive").status == 200


def rpc(mirror: Stack, command: str) -> Reply:
    """What the mirror's node answers."""
    token = mirror.org.secret("kubo_token_file")
    return ask(f"{mirror.org.told['kubo']}/api/v0/{command}", "POST", Authorization=f"Bearer {token}")


@pytest.fixture(scope="module")
def running_mirrors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirrors]:
    components.require("Kubo")
    homes = [tmp_path_factory.mktemp(name) / "home" for name in ("a", "b")]
    with Upstream() as upstream:
        arguments = ("--storage", "kubo", "--upstream", upstream.url)
        with Stack(homes[0], *arguments) as a:
            homes[1].mkdir(mode=0o700)
            shutil.copy2(homes[0] / "swarm.key", homes[1] / "swarm.key")
            # Its own node would have kept what its store is to lose.
            alone = {"MATRIX_PYPI__BACKENDS__KUBO__COPIES": "false"}
            with Stack(homes[1], *arguments, environment=alone) as b:
                yield Mirrors(a, b, upstream)


@pytest.fixture
def mirrors(running_mirrors: Mirrors) -> Iterator[Mirrors]:
    yield running_mirrors
    running_mirrors.upstream.mend()


def test_what_a_mirror_has_lost_installs_over_the_swarm(
    mirrors: Mirrors, name: str, empty_environment: Callable[[], Environment]
) -> None:
    small = wheel(f"{name}-small", payload_bytes=100_000)
    large = wheel(f"{name}-large", requires=[f"{name}-small"], payload_bytes=200 * MIB)
    only_the_node_of_a_has(mirrors, small, large)
    outcome = Uv().install(mirrors.b.org.simple, large.project, environment=empty_environment())
    assert outcome.returncode == 0, outcome.output
    assert set(outcome.packages) == {small.project, large.project}


def test_what_comes_over_the_swarm_says_so_and_is_the_whole_file(mirrors: Mirrors, name: str) -> None:
    dist = wheel(name, payload_bytes=3 * MIB)
    only_the_node_of_a_has(mirrors, dist)
    reply = mirrors.b.file(dist)
    assert (reply.status, reply.headers["x-matrix-pypi-source"]) == (200, "kubo")
    assert reply.body == dist.content


def test_what_nobody_in_the_swarm_has_is_unavailable_in_bounded_time(mirrors: Mirrors, name: str) -> None:
    dist = wheel(name, payload_bytes=3 * MIB)
    mirrors.upstream.publish(dist)
    assert mirrors.b.file(dist).status == 200
    mirrors.b_loses_its_store_and_the_upstream_goes()
    introduce(mirrors)
    assert mirrors.b.file(dist).status == 504
