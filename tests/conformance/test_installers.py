"""Real pip and uv install from the synthetic upstream itself: what fails through the proxy and works here is the proxy's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dists import graph, sdist, wheel
from tests.support.installers import INSTALLERS, Environment, Installer, UvProject
from tests.support.upstream import Upstream

pytestmark = pytest.mark.integration
each_installer = pytest.mark.parametrize("installer", INSTALLERS, ids=lambda installer: installer.name)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment.empty(tmp_path)


@each_installer
@pytest.mark.parametrize("html_only", [False, True], ids=["json", "html"])
def test_wheels_and_sdists_install_by_their_names(
    upstream: Upstream, environment: Environment, installer: Installer, html_only: bool
) -> None:
    upstream.publish(wheel("mx-a", requires=["mx-b>=1"]), sdist("mx-b"))
    for project in ("mx-a", "mx-b"):
        upstream.listing(project).html_only = html_only
    outcome = installer.install(upstream.url, "mx-a", environment=environment)
    assert outcome.packages == {"mx-a": "1.0", "mx-b": "1.0"}, outcome.output


@each_installer
def test_a_graph_of_sixty_wheels_installs_from_its_root(
    upstream: Upstream, environment: Environment, installer: Installer
) -> None:
    wheels = graph("mx-g")
    upstream.publish(*wheels)
    outcome = installer.install(upstream.url, "mx-g-000", environment=environment)
    assert outcome.packages == {dist.project: "1.0" for dist in wheels}, outcome.output
    assert [upstream.hits("GET", dist) for dist in wheels] == [1] * 60


@each_installer
def test_wrong_bytes_are_not_installed(upstream: Upstream, environment: Environment, installer: Installer) -> None:
    upstream.publish(a := wheel("mx-a"))
    upstream.corrupt(a)
    outcome = installer.install(upstream.url, "mx-a", environment=environment)
    assert (outcome.returncode != 0, outcome.packages) == (True, {}), outcome.output


def test_a_lock_file_asks_for_files_and_for_no_page(upstream: Upstream, environment: Environment) -> None:
    upstream.publish(a := wheel("mx-a", requires=["mx-b"]), b := wheel("mx-b"))
    project = UvProject.depending_on("mx-a", environment=environment)
    assert project.lock(upstream.url).returncode == 0
    pages = upstream.hits("GET", "mx-a"), upstream.hits("GET", "mx-b")
    outcome = project.sync_frozen(upstream.url)
    assert outcome.packages == {"mx-a": "1.0", "mx-b": "1.0"}, outcome.output
    assert (upstream.hits("GET", "mx-a"), upstream.hits("GET", "mx-b")) == pages
    assert (upstream.hits("GET", a), upstream.hits("GET", b)) == (1, 1)
