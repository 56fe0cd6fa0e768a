"""No statement is lost: a thousand are made while a homeserver, a bot and a database are killed one after the other.

A federation of its own. B keeps its statements in PostgreSQL, the others in SQLite.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from matrix_pypi_bot.wire.messages import encode
from tests.support.bot_world import report as stored
from tests.support.components import postgres_binaries, require
from tests.support.dists import Dist, wheel
from tests.support.federated import bot_user, room_of, serve, wait_until_attested
from tests.support.ledgers import attestations, claims, ledger_of, unsent
from tests.support.member import Member
from tests.support.organisations import NAMES, Organisations, running_organisations
from tests.support.postgres import Cluster, cluster
from tests.support.verifying import ATTESTATION
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration
PROJECT = "mx"
FILES = 1_000
AWAY_SECONDS = 3.0  # longer than anybody waits for an answer that does not come
SETTLED_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Site:
    """A federation, one of whose databases can be stopped."""

    organisations: Organisations
    cluster: Cluster
    databases: dict[str, Path | str]


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    require("PostgreSQL")
    binaries = postgres_binaries()
    assert binaries is not None
    home = tmp_path_factory.mktemp("nothing-lost") / "home"
    with cluster(binaries) as postgres, postgres.fresh_database() as url:
        with running_organisations(home, environment={"MATRIX_PYPI__ORGB__DATABASE__URL": url}) as organisations:
            files = {name: ledger_of(organisations[name]) for name in NAMES}
            yield Site(organisations, postgres, {**files, "orgb": url})


@pytest.fixture
def organisations(site: Site) -> Organisations:
    """For the report of a failed test as well."""
    return site.organisations


def report(member: Member, dists: Sequence[Dist]) -> None:
    """The organisation's frontend has stored the files, as far as its bot knows."""
    split = urlsplit(member.org.told["bot"])
    headers = {"Authorization": f"Bearer {member.org.secret('bot_token_file')}", "Content-Type": "application/json"}
    connection = HTTPConnection(split.hostname or "", split.port, timeout=60)
    for dist in dists:
        connection.request("POST", "/internal/v1/stored", encode(stored(dist)), headers)
        with connection.getresponse() as answer:
            assert answer.status == 202, answer.read()
            answer.read()
    connection.close()


def test_a_thousand_attestations_are_known_to_all_whatever_was_away_when_they_were_made(
    site: Site, organisations: Organisations
) -> None:
    a, b, c = organisations.members
    first, *dists = (wheel(PROJECT, f"{number}.0") for number in range(1, FILES + 1))
    organisations.upstream.publish(first, *dists)
    for member in (a, b, c):
        serve(member, first)
    for member in (b, c):
        wait_until_attested(member, first, a)
    room = room_of(a, first)
    quarter = len(dists) // 4 + 1
    parts = [dists[start : start + quarter] for start in range(0, len(dists), quarter)]

    report(a, parts[0])
    with b.down("homeserver"):
        report(a, parts[1])
        time.sleep(AWAY_SECONDS)
    with c.down("bot"):
        report(a, parts[2])
        time.sleep(AWAY_SECONDS)
    with site.cluster.away():
        report(a, parts[3])
        time.sleep(AWAY_SECONDS)

    def known(name: str) -> list[str]:
        return attestations(site.databases[name], PROJECT, "orga")

    wait_until(lambda: len(known("orga")) == FILES, "A signed all of it", timeout_seconds=SETTLED_SECONDS)
    signed = sorted(known("orga"))
    for name in ("orgb", "orgc"):
        wait_until(
            lambda name=name: len(known(name)) >= FILES, f"{name} knows all of it", timeout_seconds=SETTLED_SECONDS
        )
    for name, database in site.databases.items():
        assert sorted(known(name)) == signed, name
        assert sorted(claims(database, PROJECT, "orga")) == signed, name

    wait_until(lambda: unsent(site.databases["orga"]) == 0, "A said all of it", timeout_seconds=SETTLED_SECONDS)
    for member in (a, b, c):
        wait_until(
            lambda member=member: len(said_by(a, room, seen_at=member)) == FILES,
            f"the room as {member.name} has it holds all of it",
            timeout_seconds=SETTLED_SECONDS,
        )
    events = [event for event in bot_user(a).timeline(room, ATTESTATION) if event["sender"] == a.org.bot]
    assert len(events) == FILES


def said_by(member: Member, room: str, *, seen_at: Member) -> list[str]:
    """The files that the organisation's attestations in the room's current state name, as another one's homeserver has it."""
    return [
        event["content"]["hint"]["file"]
        for event in bot_user(seen_at).state(room)
        if (event["type"], event["sender"]) == (ATTESTATION, member.org.bot)
    ]
