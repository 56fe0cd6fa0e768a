"""Three organisations with real homeservers: what two verified installs at a third, and the third says why when it does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.dists import wheel
from tests.support.federated import LEARNT_SECONDS, rule, serve, told
from tests.support.installers import NEWEST_PIP, Environment, Pip
from tests.support.organisations import Organisations
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

MakeEnvironment = Callable[[], Environment]


def test_what_two_verified_installs_at_a_third_that_never_saw_upstream(
    three_orgs: Organisations, name: str, empty_environment: MakeEnvironment
) -> None:
    dist = wheel(name, payload_bytes=3_000_000)
    three_orgs.doors["orgc"].off()
    three_orgs.upstream.publish(dist)
    serve(three_orgs["orga"], dist)
    serve(three_orgs["orgb"], dist)
    three_orgs.upstream.off()
    wait_until(lambda: rule(three_orgs["orgc"], dist) == "R19", "C may serve it", timeout_seconds=LEARNT_SECONDS)
    outcome = Pip(NEWEST_PIP).install(three_orgs["orgc"].org.simple, name, environment=empty_environment())
    assert outcome.returncode == 0, outcome.output
    assert outcome.packages == {name: dist.version}
    assert "by orgc" not in told(three_orgs["orgc"], dist)


def test_what_one_alone_verified_does_not_install_and_the_refusal_says_who_is_missing(
    three_orgs: Organisations, name: str
) -> None:
    dist = wheel(name)
    three_orgs.doors["orgb"].off()
    three_orgs.doors["orgc"].off()
    three_orgs.upstream.publish(dist)
    serve(three_orgs["orga"], dist)
    wait_until(lambda: rule(three_orgs["orgc"], dist) == "R18", "C has heard of it", timeout_seconds=LEARNT_SECONDS)
    page = three_orgs["orgc"].page(name)
    assert (page.status, "1 of 2 needed: orga" in page.body.decode()) == (503, True)
    three_orgs.mend()
    wait_until(lambda: rule(three_orgs["orgc"], dist) == "R8", "C verified it itself", timeout_seconds=LEARNT_SECONDS)
