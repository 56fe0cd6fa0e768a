"""Three organisations with real homeservers, one of which lies: each test has a federation of its own, in which it is suspended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import ENVIRONMENT
from tests.support.dists import wheel
from tests.support.federated import LEARNT_SECONDS, lie, post, refutations, room_of, rule, serve, told
from tests.support.organisations import Organisations, running_organisations
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def liars(tmp_path: Path) -> Iterator[Organisations]:
    """A federation of its own."""
    environment = {key: value for key, value in ENVIRONMENT.items() if key != "MATRIX_PYPI__WORKERS"}
    with running_organisations(tmp_path / "home", environment=environment) as organisations:
        yield organisations


def test_a_liar_is_refuted_in_the_room_and_has_no_weight_at_the_others_without_any_power_level(
    liars: Organisations,
) -> None:
    dist, evil = wheel("mx"), wheel("mx", salt="evil")
    liars.doors["orgc"].off()
    liars.upstream.publish(dist)
    serve(liars["orgb"], dist)
    room = room_of(liars["orgb"], dist)
    wait_until(lambda: rule(liars["orgc"], dist) == "R18", "C has heard of it", timeout_seconds=LEARNT_SECONDS)
    liars.upstream.off()
    post(liars["orga"], room, lie(liars["orga"], evil))
    wait_until(
        lambda: "pypi-digest: UPHELD" in told(liars["orgb"], dist), "B refutes A", timeout_seconds=LEARNT_SECONDS
    )
    wait_until(
        lambda: "pypi-digest: CONTESTED" in told(liars["orgc"], dist), "C hears B", timeout_seconds=LEARNT_SECONDS
    )
    assert rule(liars["orgc"], dist) in ("R15", "R18")
    assert liars["orgc"].page("mx").status == 503
    wait_until(lambda: refutations(liars["orgc"], room), "the refutation stands in the room")
    liars.mend()
    wait_until(
        lambda: "pypi-digest: UPHELD" in told(liars["orgc"], dist), "C judges A too", timeout_seconds=LEARNT_SECONDS
    )
    wait_until(lambda: rule(liars["orgc"], dist) == "R8", "C serves the truth", timeout_seconds=LEARNT_SECONDS)
    assert liars["orgc"].file(dist).body == dist.content
