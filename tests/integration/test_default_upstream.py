"""Against the default upstream itself: what a newcomer types first."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.installers import INSTALLERS, NEWEST_PIP, Environment, Pip, Uv
from tests.support.stack import Stack
from tests.support.verifying import ATTESTATION, mirror_key, verified

pytestmark = [pytest.mark.integration, pytest.mark.internet]
MakeEnvironment = Callable[[], Environment]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("default") / "home") as stack:
        yield stack


@pytest.mark.parametrize("installer", INSTALLERS, ids=lambda installer: installer.name)
def test_flask_installs_with_every_installer(
    stack: Stack, empty_environment: MakeEnvironment, installer: Pip | Uv
) -> None:
    outcome = installer.install(stack.org.simple, "flask", environment=empty_environment())
    assert {"flask", "werkzeug", "jinja2"} <= {name.lower() for name in outcome.packages}, outcome.output


def test_httpx_with_http2_and_pandas_install_with_uv(stack: Stack, empty_environment: MakeEnvironment) -> None:
    outcome = Uv().install(stack.org.simple, "httpx[http2]", "pandas", environment=empty_environment())
    assert {"httpx", "h2", "pandas", "numpy"} <= set(outcome.packages), outcome.output


def test_what_was_installed_is_attested(stack: Stack, empty_environment: MakeEnvironment) -> None:
    outcome = Pip(NEWEST_PIP).install(stack.org.simple, "itsdangerous", environment=empty_environment())
    version = outcome.packages["itsdangerous"]
    reader = stack.matrix_user("newcomer")
    room = reader.join(stack.org.alias("itsdangerous"))
    reader.wait_for_state(room, lambda state: any(event["type"] == ATTESTATION for event in state))
    (content,) = reader.state_of(room, ATTESTATION).values()
    predicate = verified(content, mirror_key(reader, stack.org))["predicate"]
    assert (predicate["project"], predicate["version"]) == ("itsdangerous", version)
