"""kill -9 of any part at any moment during installs: nothing is lost, nothing wrong is served, everything is attested once.

A stack of its own, because being killed disturbs others. The moments come from a seeded generator, so a failure repeats.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from itertools import chain

import pytest

from tests.support.components import has
from tests.support.dists import Dist, wheel
from tests.support.installers import Environment, Uv
from tests.support.matrix import MatrixRefusal, MatrixUser
from tests.support.member import PROCESSES, Process
from tests.support.stack import Stack
from tests.support.upstream import Upstream
from tests.support.verifying import ATTESTATION, keyid, mirror_key, verified
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration
SEED = 20_240_102
ROUNDS = 9
WHEELS = 4  # in each round
DATABASES = [
    "sqlite",
    pytest.param("postgres", marks=pytest.mark.skipif(not has("PostgreSQL"), reason="no PostgreSQL")),
]
MakeEnvironment = Callable[[], Environment]


@pytest.fixture(scope="module")
def own_upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def stack(own_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("durable") / "home"
    with Stack(home, "--upstream", own_upstream.url) as stack:
        yield stack


def linked(prefix: str) -> list[Dist]:
    """Wheels that follow from the first, one by one."""
    names = [f"{prefix}-{number}" for number in range(WHEELS)]
    following = [[name] for name in names[1:]] + [[]]
    return [wheel(name, requires=needs, payload_bytes=150_000) for name, needs in zip(names, following, strict=True)]


def install_in_the_end(stack: Stack, dists: list[Dist], environment: Environment) -> None:
    """uv, again and again, as somebody does whose proxy comes and goes; it never installs anything but the right thing."""

    def succeeds() -> bool:
        outcome = Uv().install(stack.org.simple, dists[0].project, environment=environment)
        assert set(outcome.packages) <= {dist.project for dist in dists}
        return outcome.returncode == 0

    wait_until(succeeds, f"{dists[0].project} is installed", timeout_seconds=90)


def kill_while_installing(
    stack: Stack, upstream: Upstream, victim: Process, requests: int, dists: list[Dist], environment: Environment
) -> None:
    """Installs `dists` in the end, although `victim` is killed once upstream has got so many requests more."""
    before = len(upstream.seen())
    with ThreadPoolExecutor(1) as pool:
        installing = pool.submit(install_in_the_end, stack, dists, environment)
        wait_until(
            lambda: len(upstream.seen()) >= before + requests or installing.done(),
            f"upstream was asked {requests} times",
        )
        stack.kill_and_wait(victim)
        installing.result()


def body_or_none(stack: Stack, dist: Dist) -> bytes | None:
    """A whole body that came with 200; None when there is no answer, a refusal or a cut transfer."""
    try:
        reply = stack.file(dist)
    except (OSError, HTTPException):
        return None
    return reply.body if reply.status == 200 else None


def joined(reader: MatrixUser, alias: str) -> str | None:
    """The room; None while the bot has not yet finished one in whose making the homeserver was killed."""
    try:
        return reader.join(alias)
    except MatrixRefusal as refusal:
        if refusal.status != 403:
            raise
        return None


def attested_once(stack: Stack, reader: MatrixUser, dist: Dist, mirror: str) -> None:
    """Raises AssertionError unless the room holds one attestation of the file, ever, and it is true and ours."""
    room = wait_until(
        lambda: joined(reader, stack.org.alias(dist.project)), f"the room of {dist.project} may be joined"
    )
    content = reader.wait_for_content(room, ATTESTATION, f"{keyid(mirror)[:16]}/{dist.filename}", timeout_seconds=60)
    statement = verified(content, mirror)
    assert statement["subject"] == [{"name": dist.filename, "digest": {"sha256": dist.sha256}}]
    assert [event["content"] for event in reader.timeline(room, ATTESTATION)] == [content]


def test_whatever_is_killed_at_whatever_moment_every_installed_file_ends_up_attested_once_and_served_right(
    stack: Stack, own_upstream: Upstream, empty_environment: MakeEnvironment
) -> None:
    dice = random.Random(SEED)
    victims: list[Process] = dice.sample(PROCESSES * (ROUNDS // len(PROCESSES)), ROUNDS)
    batches = [linked(f"mxk{number}") for number in range(ROUNDS)]
    for victim, dists in zip(victims, batches, strict=True):
        own_upstream.publish(*dists)
        requests = dice.randrange(3 * WHEELS)  # a page, METADATA and a file of each
        kill_while_installing(stack, own_upstream, victim, requests, dists, empty_environment())
    reader = stack.matrix_user("witness")
    mirror = mirror_key(reader, stack.org)
    everything = list(chain.from_iterable(batches))
    for dist in everything:
        attested_once(stack, reader, dist, mirror)
    own_upstream.off()
    try:
        assert all(stack.file(dist).body == dist.content for dist in everything)
    finally:
        own_upstream.mend()


def test_a_frontend_killed_in_the_middle_of_a_file_serves_the_whole_of_it_afterwards(
    stack: Stack, own_upstream: Upstream
) -> None:
    own_upstream.publish(dist := wheel("mxhalf", payload_bytes=2_000_000))
    for after_bytes in (1, 1_000_000, 1_999_000):
        hold = own_upstream.hold(dist, after_bytes=after_bytes)
        with ThreadPoolExecutor(1) as pool:
            cut = pool.submit(body_or_none, stack, dist)
            hold.wait_until_reached()
            stack.kill_and_wait("frontend")
            assert cut.result() is None
        hold.release()
    own_upstream.mend()
    assert stack.file(dist).body == dist.content


@pytest.mark.parametrize("database", DATABASES)
def test_a_stack_that_was_stopped_serves_what_it_held_when_it_starts_again_with_upstream_away(
    own_upstream: Upstream,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
    empty_environment: MakeEnvironment,
    database: str,
) -> None:
    arguments = ["--upstream", own_upstream.url]
    if database == "postgres":
        arguments += ["--database", request.getfixturevalue("postgres_url")]
    own_upstream.publish(*(dists := linked(f"mxagain-{database}")))
    stack = Stack(tmp_path_factory.mktemp("again") / "home", *arguments)
    with stack:
        install_in_the_end(stack, dists, empty_environment())
        first = stack.org
        assert stack.stop() == 0
        own_upstream.off()
        try:
            stack.start()
            assert stack.org.told | {"pids": first.pids} == first.told
            install_in_the_end(stack, dists, empty_environment())
        finally:
            own_upstream.mend()
        reader = stack.matrix_user("witness")
        mirror = mirror_key(reader, stack.org)
        for dist in dists:
            attested_once(stack, reader, dist, mirror)
        assert stack.stop() == 0
