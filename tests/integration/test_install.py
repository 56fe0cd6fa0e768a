"""pip and uv install through the stack: first from upstream, then from what is held, then with the upstream away."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.dists import Dist, graph, sdist, wheel
from tests.support.installers import INSTALLERS, NEWEST_PIP, Environment, Installer, Pip, Uv, UvProject
from tests.support.stack import Stack
from tests.support.upstream import Upstream

pytestmark = pytest.mark.integration
each_installer = pytest.mark.parametrize("installer", INSTALLERS, ids=lambda installer: installer.name)
MakeEnvironment = Callable[[], Environment]


def three_wheels(name: str) -> list[Dist]:
    """`name` needs `name-b`, which needs `name-c`."""
    return [
        wheel(name, requires=[f"{name}-b>=1"], payload_bytes=200_000),
        wheel(f"{name}-b", requires=[f"{name}-c"]),
        wheel(f"{name}-c", requires_python=">=3.8"),
    ]


def versions(dists: list[Dist]) -> dict[str, str]:
    return {dist.project: dist.version for dist in dists}


def install(installer: Installer, stack: Stack, requirement: str, environment: Environment) -> dict[str, str]:
    outcome = installer.install(stack.org.simple, requirement, environment=environment)
    assert outcome.returncode == 0, outcome.output
    return outcome.packages


def asked_for(upstream: Upstream, dists: list[Dist]) -> dict[str, int]:
    """How often each page, file and METADATA was fetched."""
    paths = [path for dist in dists for path in (f"/simple/{dist.project}/", dist.path, f"{dist.path}.metadata")]
    return {path: upstream.hits("GET", path) for path in paths}


@each_installer
def test_a_cold_install_asks_upstream_once_for_each_thing(
    stack: Stack, upstream: Upstream, name: str, installer: Installer, empty_environment: MakeEnvironment
) -> None:
    upstream.publish(*(dists := three_wheels(name)))
    assert install(installer, stack, name, empty_environment()) == versions(dists)
    assert [upstream.hits("GET", dist) for dist in dists] == [1, 1, 1]
    assert [upstream.hits("GET", dist.project) for dist in dists] == [1, 1, 1]
    assert max(asked_for(upstream, dists).values()) == 1


@each_installer
def test_a_warm_install_asks_upstream_for_nothing(
    stack: Stack, upstream: Upstream, name: str, installer: Installer, empty_environment: MakeEnvironment
) -> None:
    upstream.publish(*(dists := three_wheels(name)))
    install(installer, stack, name, empty_environment())
    before = asked_for(upstream, dists)
    assert install(installer, stack, name, empty_environment()) == versions(dists)
    assert asked_for(upstream, dists) == before


@each_installer
def test_what_was_installed_before_installs_again_when_upstream_is_away(
    stack: Stack, upstream: Upstream, name: str, installer: Installer, empty_environment: MakeEnvironment
) -> None:
    upstream.publish(*(dists := three_wheels(name)))
    install(installer, stack, name, empty_environment())
    upstream.off()
    for dist in dists:
        stack.stale_page(dist.project)
    assert install(installer, stack, name, empty_environment()) == versions(dists)


@each_installer
def test_an_index_that_speaks_only_html_serves_as_well(
    stack: Stack, upstream: Upstream, name: str, installer: Installer, empty_environment: MakeEnvironment
) -> None:
    upstream.publish(*(dists := three_wheels(name)))
    for dist in dists:
        upstream.listing(dist.project).html_only = True
    assert install(installer, stack, name, empty_environment()) == versions(dists)
    assert [upstream.hits("GET", dist) for dist in dists] == [1, 1, 1]


@pytest.mark.parametrize("installer", [Pip(NEWEST_PIP), Uv()], ids=lambda installer: installer.name)
def test_an_sdist_installs(
    stack: Stack, upstream: Upstream, name: str, installer: Installer, empty_environment: MakeEnvironment
) -> None:
    upstream.publish(source := sdist(name))
    assert install(installer, stack, name, empty_environment()) == versions([source])
    assert upstream.hits("GET", source) == 1


def test_a_graph_of_sixty_wheels_comes_from_upstream_once_and_then_from_here(
    stack: Stack, upstream: Upstream, name: str, empty_environment: MakeEnvironment
) -> None:
    upstream.publish(*(dists := graph(name)))
    root = dists[0].project
    assert install(Uv(), stack, root, empty_environment()) == versions(dists)
    assert [upstream.hits("GET", dist) for dist in dists] == [1] * 60
    upstream.off()
    assert install(Pip(NEWEST_PIP), stack, root, empty_environment()) == versions(dists)


def test_an_upstream_that_lays_files_out_in_another_way_is_mapped_to_the_same_shape(
    stack: Stack, upstream: Upstream, name: str, empty_environment: MakeEnvironment
) -> None:
    upstream.publish(plain := wheel(name), path=f"/files/{name}/{wheel(name).filename}")
    assert install(Uv(), stack, name, empty_environment()) == versions([plain])
    (entry,) = stack.page(name).json["files"]
    shape = f"../../packages/{plain.sha256[:2]}/{plain.sha256[2:4]}/{plain.sha256[4:]}/{plain.filename}"
    assert entry["url"].partition("#")[0] == shape


def test_a_lock_file_made_elsewhere_installs_although_nobody_ever_asked_for_a_page(
    stack: Stack, upstream: Upstream, name: str, empty_environment: MakeEnvironment
) -> None:
    upstream.publish(*(dists := three_wheels(name)))
    project = UvProject.depending_on(name, environment=empty_environment())
    assert project.lock(upstream.url).returncode == 0
    locked = project.lock_file.read_text()
    for origin in (upstream.origin, upstream.files_origin):
        locked = locked.replace(origin, stack.org.frontend)
    project.lock_file.write_text(locked)
    before = asked_for(upstream, dists)
    outcome = project.sync_frozen(stack.org.simple)
    assert outcome.packages == versions(dists), outcome.output
    # The bot reads a project's page to decide about its file; the files come once.
    assert [upstream.hits("GET", dist.project) - before[f"/simple/{dist.project}/"] for dist in dists] == [1, 1, 1]
    assert [upstream.hits("GET", dist) for dist in dists] == [1, 1, 1]


def test_a_lock_file_made_through_the_stack_installs_with_upstream_away(
    stack: Stack, upstream: Upstream, name: str, empty_environment: MakeEnvironment
) -> None:
    upstream.publish(*(dists := three_wheels(name)))
    first = UvProject.depending_on(name, environment=empty_environment())
    assert first.lock(stack.org.simple).returncode == 0
    assert first.sync_frozen(stack.org.simple).packages == versions(dists)
    upstream.off()
    second = UvProject.depending_on(name, environment=empty_environment())
    second.lock_file.write_bytes(first.lock_file.read_bytes())
    outcome = second.sync_frozen(stack.org.simple)
    assert outcome.packages == versions(dists), outcome.output
