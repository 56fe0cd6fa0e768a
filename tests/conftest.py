"""Fixtures for every test; those that start processes are made once a session and only when a test asks for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support import components
from tests.support.kubo import Kubo, nodes
from tests.support.postgres import Cluster, cluster

# How long an example takes says something about the machine: in a fresh clone the first text waits for a table of characters.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names the system components that were not here, so that a skipped test is never taken for a passed one."""
    if line := components.skipped_line():
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[Cluster]:
    """A private PostgreSQL server; skips the test when there is none on this machine."""
    components.require("PostgreSQL")
    binaries = components.postgres_binaries()
    assert binaries is not None
    with cluster(binaries) as running:
        yield running


@pytest.fixture
def postgres_url(postgres_cluster: Cluster) -> Iterator[str]:
    """The URL of an empty PostgreSQL database of this test's own."""
    with postgres_cluster.fresh_database() as url:
        yield url


@pytest.fixture(scope="session")
def kubo_swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Kubo]]:
    """Two Kubo nodes that share a swarm key and have not been told of one another; skips the test when there is no Kubo."""
    components.require("Kubo")
    with nodes(tmp_path_factory.mktemp("kubo"), 2) as running:
        yield running


@pytest.fixture(scope="session")
def kubo(kubo_swarm: list[Kubo]) -> Kubo:
    """A Kubo node for all tests: what one puts there the others may find."""
    return kubo_swarm[0]
