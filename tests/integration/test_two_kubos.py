"""Two mirrors whose Kubo nodes share a swarm key: what one lost comes block by block over the swarm, with the upstream away."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import components
from tests.support.backends import content_of
from tests.support.dists import Dist, wheel
from tests.support.http_client import Reply, ask
from tests.support.installers import Environment, Uv
from tests.support.stack import Stack
from tests.support.upstream import Upstream
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Mirrors:
    """`a`, whose node holds what it has stored, and `b`, which may lose its store. Neither knows the other's gateway."""

    a: Stack
    b: Stack
    upstream: Upstream

    def only_the_node_of_a_has(self, *dists: Dist) -> None:
        """Both decided to serve them; `b` has nothing any more, and the upstream is away."""
        self.upstream.publish(*dists)
        for dist in dists:
            for mirror in (self.a, self.b):
                assert mirror.file(dist).body == dist.content
                gateway = f"{mirror.org.frontend}/ipfs/{content_of(dist.content).cid}?format=raw"
                wait_until(
                    lambda url=gateway: ask(url).status == 200, f"{dist.filename} is attested", timeout_seconds=60
                )
        index = Path(sys.executable).with_name("matrix-pypi-index")
        configuration = self.a.org.told["frontend_config_file"]
        copy = [index, "storage", "copy", "file", "kubo", "--all", "-c", configuration]
        done = subprocess.run(copy, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert self.b.stop() == 0
        shutil.rmtree(self.b.home / "orga" / "files")
        self.upstream.off()
        self.b.start()
        self.introduce()

    def introduce(self) -> None:
        """The nodes are connected."""
        (address,) = rpc(self.a, "id").json["Addresses"]
        assert rpc(self.b, f"swarm/peering/add?arg={address}").status == 200
        wait_until(lambda: rpc(self.b, "swarm/peers").json["Peers"], "the nodes have met")


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
            with Stack(homes[1], *arguments) as b:
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
    mirrors.only_the_node_of_a_has(small, large)
    outcome = Uv().install(mirrors.b.org.simple, large.project, environment=empty_environment())
    assert outcome.returncode == 0, outcome.output
    assert set(outcome.packages) == {small.project, large.project}


def test_what_comes_over_the_swarm_says_so_and_is_the_whole_file(mirrors: Mirrors, name: str) -> None:
    dist = wheel(name, payload_bytes=3 * MIB)
    mirrors.only_the_node_of_a_has(dist)
    reply = mirrors.b.file(dist)
    assert (reply.status, reply.headers["x-matrix-pypi-source"]) == (200, "kubo")
    assert reply.body == dist.content


def test_what_nobody_in_the_swarm_has_is_unavailable_in_bounded_time(mirrors: Mirrors, name: str) -> None:
    dist = wheel(name, payload_bytes=3 * MIB)
    mirrors.upstream.publish(dist)
    assert mirrors.b.file(dist).status == 200
    mirrors.b.stop()
    shutil.rmtree(mirrors.b.home / "orga" / "files")
    mirrors.upstream.off()
    mirrors.b.start()
    mirrors.introduce()
    assert mirrors.b.file(dist).status == 504
