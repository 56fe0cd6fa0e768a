"""PostgreSQL goes away under a running stack and comes back: nothing is lost, and nobody has to restart anything.

A cluster and a stack of their own, because a database that goes away disturbs others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.support.components import postgres_binaries, require
from tests.support.dists import Dist, wheel
from tests.support.matrix import MatrixRefusal, MatrixUser
from tests.support.postgres import Cluster, cluster
from tests.support.stack import Stack
from tests.support.upstream import Upstream
from tests.support.verifying import ATTESTATION, keyid, mirror_key, verified
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration


@dataclass(frozen=True, slots=True)
class Site:
    """A stack whose database can be stopped."""

    stack: Stack
    upstream: Upstream
    database: Cluster

    @contextmanager
    def database_away(self) -> Iterator[None]:
        """Returns when everything is ready again, in the processes that ran before."""
        before = self.stack.org.pids
        with self.database.away():
            yield
        self.stack.wait_until_ready()
        assert self.stack.org.pids == before

    def attested_once(self, reader: MatrixUser, dist: Dist) -> None:
        """Raises AssertionError unless the room comes to hold one attestation of the file, a true one."""
        mirror = mirror_key(reader, self.stack.org)
        room = wait_until(lambda: self._joined(reader, dist), f"anybody may join the room of {dist.project}")
        content = reader.wait_for_content(room, ATTESTATION, f"{keyid(mirror)[:16]}/{dist.filename}")
        assert verified(content, mirror)["subject"] == [{"name": dist.filename, "digest": {"sha256": dist.sha256}}]
        events = [event["content"] for event in reader.timeline(room, ATTESTATION)]
        assert events.count(content) == 1

    def _joined(self, reader: MatrixUser, dist: Dist) -> str | None:
        """The room; None while it is being made, when it has its name already and not yet its rules."""
        try:
            return reader.join(self.stack.org.alias(dist.project))
        except MatrixRefusal as refusal:
            assert refusal.status in (403, 404)
            return None


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    require("PostgreSQL")
    binaries = postgres_binaries()
    assert binaries is not None
    home = tmp_path_factory.mktemp("postgres-away") / "home"
    with cluster(binaries) as database, database.fresh_database() as url, Upstream() as upstream:
        environment = {"MATRIX_PYPI__INDEX__RETRY_SECONDS": "1"}
        with Stack(home, "--upstream", upstream.url, "--database", url, environment=environment) as stack:
            yield Site(stack, upstream, database)


@pytest.fixture
def stack(site: Site) -> Stack:
    """For the report of a failed test."""
    return site.stack


def test_what_is_held_is_served_while_the_database_is_away_and_what_was_fetched_then_is_attested_afterwards(
    site: Site, stack: Stack
) -> None:
    held, known = wheel("mxpg", payload_bytes=100_000), wheel("mxpg", "2.0")
    new = wheel("mxpg-new")
    site.upstream.publish(held, known, new)
    page = stack.page("mxpg").json
    assert stack.file(held).body == held.content

    with site.database_away():
        assert stack.page("mxpg", Cache_Control="no-cache").json == page
        assert (stack.file(held).body, stack.file(known).body) == (held.content, known.content)
        assert (stack.page("mxpg-new").status, stack.file(new).status) == (503, 504)

    reader = stack.matrix_user("witness")
    for dist in (held, known):
        site.attested_once(reader, dist)
    assert wait_until(lambda: stack.file(new).body == new.content, "what is new is served again")
    site.attested_once(reader, new)


def test_what_was_signed_just_before_the_database_went_away_arrives_afterwards_beside_what_was_there(
    site: Site, stack: Stack
) -> None:
    site.upstream.publish(first := wheel("mxpg-mail"), second := wheel("mxpg-mail", "2.0"))
    assert stack.file(first).body == first.content
    reader = stack.matrix_user("second-witness")
    site.attested_once(reader, first)

    assert stack.file(second).body == second.content
    with site.database_away():
        assert stack.file(second).body == second.content
    site.attested_once(reader, second)
    site.attested_once(reader, first)
