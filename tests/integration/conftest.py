"""One stack and one upstream for all of these tests: each test brings projects of its own, so they do not see one another."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.support.installers import Environment
from tests.support.matrix import MatrixUser
from tests.support.organisations import PATIENCE, Organisations, running_organisations
from tests.support.stack import Stack
from tests.support.upstream import Upstream

_numbers = count(1)

# Two workers, so that what holds for one process is tested over two.
ENVIRONMENT = {"MATRIX_PYPI__WORKERS": "2", **PATIENCE}


@pytest.fixture(scope="session")
def running_upstream() -> Iterator[Upstream]:
    """The upstream behind the shared stack."""
    with Upstream() as upstream:
        yield upstream


@pytest.fixture(scope="session")
def running_stack(running_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The shared stack: one organisation on SQLite, as `make run` starts it but for `ENVIRONMENT`."""
    home = tmp_path_factory.mktemp("stack") / "home"
    with Stack(home, "--upstream", running_upstream.url, environment=ENVIRONMENT) as stack:
        yield stack


@pytest.fixture
def upstream(running_upstream: Upstream) -> Iterator[Upstream]:
    """The upstream, well at the start and mended after the test."""
    yield running_upstream
    running_upstream.mend()


@pytest.fixture
def stack(running_stack: Stack, upstream: Upstream) -> Stack:
    """The shared stack, ready. Asking for it asks for the upstream too, so that it is mended afterwards."""
    running_stack.wait_until_ready()
    return running_stack


@pytest.fixture(scope="session")
def alice(running_stack: Stack) -> MatrixUser:
    """A Matrix user who has nothing to do with the mirror."""
    return running_stack.matrix_user("alice")


@pytest.fixture(scope="session")
def running_three_orgs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Organisations]:
    """The shared federation: three organisations that pin one another, each with a door of its own to one upstream."""
    with running_organisations(tmp_path_factory.mktemp("three") / "home") as organisations:
        yield organisations


@pytest.fixture
def three_orgs(running_three_orgs: Organisations) -> Iterator[Organisations]:
    """The shared federation, ready, and mended after the test."""
    for member in running_three_orgs.members:
        member.wait_until_ready()
    yield running_three_orgs
    running_three_orgs.mend()


@pytest.fixture
def name() -> str:
    """The name of a project that no other test uses."""
    return f"mx{next(_numbers)}"


@pytest.fixture
def empty_environment(tmp_path: Path) -> Callable[[], Environment]:
    """Makes an environment with nothing in it, a new one at each call."""
    numbers = count(1)
    return lambda: Environment.empty(tmp_path / f"environment-{next(numbers)}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what the stack logged last."""
    report = yield
    used = getattr(item, "funcargs", {})
    several = next((given for given in used.values() if isinstance(given, Organisations)), None)
    stack = used.get("stack") if several is None else several.stack
    if report.failed and isinstance(stack, Stack):
        report.sections.append(("the stack's logs", stack.logs()))
    return report
