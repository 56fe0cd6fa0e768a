"""poetry locks and installs through the stack, again with the upstream away, and prints why a file is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.dists import sdist, wheel
from tests.support.installers import Environment
from tests.support.poetry import PoetryProject
from tests.support.stack import Stack
from tests.support.upstream import Upstream

pytestmark = pytest.mark.integration
MakeEnvironment = Callable[[], Environment]


def test_poetry_locks_and_installs_and_installs_the_lock_file_again_with_upstream_away(
    stack: Stack, upstream: Upstream, name: str, empty_environment: MakeEnvironment
) -> None:
    dists = [wheel(name, requires=[f"{name}-b>=1"]), wheel(f"{name}-b", requires=[f"{name}-c"]), sdist(f"{name}-c")]
    upstream.publish(*dists)
    first = PoetryProject.of(stack.org.simple, environment=empty_environment())
    added = first.run("add", name)
    assert added.packages == {dist.project: dist.version for dist in dists}, added.output
    assert all(f"sha256:{dist.sha256}" in first.lock_file.read_text() for dist in dists)
    assert [upstream.hits("GET", dist) for dist in dists] == [1, 1, 1]

    upstream.off()
    second = PoetryProject.of(stack.org.simple, environment=empty_environment())
    for file in ("pyproject.toml", "poetry.lock"):
        (second.environment.folder / file).write_bytes((first.environment.folder / file).read_bytes())
    installed = second.run("install")
    assert installed.packages == added.packages, installed.output


def test_poetry_prints_why_a_file_is_refused(
    stack: Stack, upstream: Upstream, name: str, empty_environment: MakeEnvironment
) -> None:
    upstream.publish(dist := wheel(name))
    upstream.corrupt(dist)
    outcome = PoetryProject.of(stack.org.simple, environment=empty_environment()).run("add", name)
    assert (outcome.returncode, outcome.packages) == (1, {})
    assert f"{dist.filename}: upstream sent other bytes than the index names" in outcome.one_line
