"""Two mirrors that know each other: what one has lost the other gives back, block by block, with the upstream away.

Two stacks of their own, for one upstream. They attest nothing to one another here: each decided to serve the files before, by itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tests.support.dists import wheel
from tests.support.installers import Environment, Uv
from tests.support.mirrors import Mirrors, block
from tests.support.stack import Stack
from tests.support.upstream import Upstream

pytestmark = pytest.mark.integration
MIB = 1 << 20


@pytest.fixture(scope="module")
def own_upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def running_mirrors(own_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirrors]:
    arguments = ("--upstream", own_upstream.url)
    with Stack(tmp_path_factory.mktemp("a") / "home", *arguments) as a:
        peers = json.dumps([{"name": "a", "gateway": a.org.frontend}])
        environment = {"MATRIX_PYPI__PEERS": peers}
        with Stack(tmp_path_factory.mktemp("b") / "home", *arguments, environment=environment) as b:
            yield Mirrors(a, b, own_upstream)


@pytest.fixture
def mirrors(running_mirrors: Mirrors) -> Iterator[Mirrors]:
    yield running_mirrors
    running_mirrors.upstream.mend()


def test_what_a_mirror_has_lost_installs_from_the_other_while_the_upstream_is_away(
    mirrors: Mirrors, name: str, empty_environment: Callable[[], Environment]
) -> None:
    small = wheel(f"{name}-small", payload_bytes=100_000)
    large = wheel(f"{name}-large", requires=[f"{name}-small"], payload_bytes=200 * MIB)
    mirrors.both_serve(small, large)
    mirrors.b_loses_its_store_and_the_upstream_goes()
    outcome = Uv().install(mirrors.b.org.simple, large.project, environment=empty_environment())
    assert outcome.returncode == 0, outcome.output
    assert set(outcome.packages) == {small.project, large.project}
    assert mirrors.b.file(large).headers["x-matrix-pypi-source"] == "cache"


def test_what_comes_from_a_peer_says_so_and_is_the_whole_file(mirrors: Mirrors, name: str) -> None:
    dist = wheel(name, payload_bytes=3 * MIB)
    mirrors.both_serve(dist)
    mirrors.b_loses_its_store_and_the_upstream_goes()
    reply = mirrors.b.file(dist)
    assert (reply.status, reply.headers["x-matrix-pypi-source"]) == (200, "peer")
    assert reply.body == dist.content


def test_the_end_of_a_large_file_is_served_before_the_rest_of_it_has_come(mirrors: Mirrors, name: str) -> None:
    dist = wheel(name, payload_bytes=100 * MIB)
    mirrors.both_serve(dist)
    mirrors.b_loses_its_store_and_the_upstream_goes()
    start = dist.size - 70_000
    reply = mirrors.b.file(dist, Range=f"bytes={start}-{dist.size - 1}")
    assert (reply.status, reply.body) == (206, dist.content[start:])


def test_a_mirror_gives_no_block_of_a_file_that_it_refuses(mirrors: Mirrors, name: str) -> None:
    dist = wheel(name, payload_bytes=2 * MIB)
    mirrors.both_serve(dist)
    mirrors.upstream.publish(wheel(name, payload_bytes=2 * MIB, salt="another"))
    mirrors.a.page_once(name, lambda page: mirrors.a.file(dist).status == 403, "lists it as changed")
    assert block(mirrors.a, dist).status in (403, 404, 410)


def test_a_mirror_fetches_nothing_for_strangers(mirrors: Mirrors, name: str) -> None:
    dist = wheel(name, payload_bytes=2 * MIB)
    mirrors.upstream.publish(dist)
    assert mirrors.a.page(name).status == 200
    asked = len(mirrors.upstream.seen(dist))
    assert block(mirrors.a, dist).status == 404
    assert len(mirrors.upstream.seen(dist)) == asked
