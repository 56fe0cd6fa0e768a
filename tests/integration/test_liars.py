"""Organisations that lie, with real homeservers: they are found out, their lies are refused, and who was right decides nothing by rank.

Each federation is the tests' own, for liars are suspended in it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.dists import Dist, wheel
from tests.support.fake_sigstore import GITHUB, FakeSigstore
from tests.support.federated import (
    LEARNT_SECONDS,
    approve,
    bot_user,
    decision,
    judged,
    lie,
    post,
    room_of,
    rule,
    serve,
    told,
    wait_until_attested,
    wait_until_judged,
    wait_until_refuted_in,
    wait_until_rule,
)
from tests.support.member import Member
from tests.support.organisations import Organisations, running_organisations
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration
SIGSTORE = FakeSigstore()
FIVE = ("orga", "orgb", "orgc", "orgd", "orge")


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Organisations]:
    """Three organisations. The tests stand in the order in which more and more of them lie: A, then B."""
    with running_organisations(tmp_path_factory.mktemp("liars") / "home") as organisations:
        yield organisations


@pytest.fixture
def organisations(federation: Organisations) -> Iterator[Organisations]:
    yield federation
    federation.mend()


@pytest.fixture
def publisher_known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Organisations]:
    """Three organisations, A and B shown another upstream than C, which trusts the Sigstore of these tests."""
    home = tmp_path_factory.mktemp("publisher") / "home"
    (home / "orgc").mkdir(parents=True)
    (home / "orgc/trusted_root.json").write_bytes(SIGSTORE.trusted_root())
    with running_organisations(home, liars=("orga", "orgb")) as organisations:
        yield organisations


@pytest.fixture
def conspiracy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Organisations]:
    """Five organisations. A and B are shown another upstream than C, D and E, and C would serve what two others hashed."""
    environment = {"MATRIX_PYPI__ORGC__POLICY__OFFLINE": "kofn"}
    home = tmp_path_factory.mktemp("conspiracy") / "home"
    with running_organisations(home, FIVE, environment, liars=("orga", "orgb")) as organisations:
        yield organisations


def test_a_liar_is_refuted_in_the_room_and_counts_no_more_at_the_others_without_any_power_level(
    organisations: Organisations,
) -> None:
    a, b, c = organisations.members
    dist, evil, before, after = wheel("mx"), wheel("mx", salt="evil"), wheel("mx-before"), wheel("mx-after")
    organisations.doors["orgc"].off()
    organisations.upstream.publish(dist, before, after)
    serve(b, dist)
    for member in (a, b):
        serve(member, before)
    room = room_of(b, dist)
    wait_until_rule(c, dist, "R18")
    wait_until_rule(c, before, "R19")
    organisations.upstream.off()
    for door in organisations.doors.values():
        door.off()

    post(a, room, lie(a, evil), heard_by=[b])
    wait_until_judged(b, dist, "pypi-digest", "UPHELD", of=a)
    wait_until_judged(c, dist, "pypi-digest", "CONTESTED", of=a)
    assert rule(c, dist) in ("R15", "R18")
    page = c.page("mx")
    assert (page.status, "matrix-pypi: R1" in page.body.decode()) == (503, True)
    assert c.file(dist).status == c.get(str(decision(c, dist)["path"])).status == 504
    assert "its key is suspended" in told(b, dist)
    wait_until_refuted_in(room, by=b, seen_at=c)
    assert b.file(dist).body == dist.content

    organisations.mend()
    wait_until_judged(c, dist, "pypi-digest", "UPHELD", of=a)
    wait_until_rule(c, dist, "R8")
    assert c.file(dist).body == dist.content
    wait_until_refuted_in(room, by=c, seen_at=b)
    for member in (b, c):
        assert "its key is suspended" in told(member, dist)
    organisations.doors["orgc"].off()
    for member in (a, b):
        serve(member, after)
    wait_until(
        lambda: "1 of 2 needed: orgb" in str(decision(c, after).get("reason")),
        "C has heard of what A and B attest now, and A is no voice",
        timeout_seconds=LEARNT_SECONDS,
    )


def test_one_key_that_says_two_things_in_two_rooms_is_refuted_by_all_who_hear_both(
    organisations: Organisations,
) -> None:
    a, b, c = organisations.members
    true = wheel("mx-two")
    organisations.upstream.publish(true)
    serve(c, true)
    one, two = (wheel("mx-two", "2.0", salt=salt) for salt in ("one", "two"))
    user, room, alias = bot_user(b), room_of(c, true), b.org.alias("mx-two")
    if user.resolve(alias) is not None:  # it made the room
        user.forget_alias(alias)
    post(b, room, lie(b, one), heard_by=[a, c])
    other = user.create_room("pypi_mx-two", [a.org.bot, c.org.bot])
    post(b, other, lie(b, two), heard_by=[a, c])
    wait_until_judged(c, one, "equivocation", "UPHELD", of=b)
    wait_until_judged(a, one, "equivocation", "UPHELD", of=b)
    wait_until_refuted_in(room, by=c, seen_at=b)
    assert c.file(true).body == true.content


def test_what_two_liars_agree_on_is_refused_at_once_and_settled_by_an_operator_or_by_one_more_who_is_honest(
    conspiracy: Organisations,
) -> None:
    a, b, c, d, e = conspiracy.members
    dist, evil = wheel("mx"), wheel("mx", salt="evil")
    conspiracy.upstream.publish(dist)
    conspiracy.lies.publish(evil)
    for honest in (c, d, e):
        conspiracy.doors[honest.name].off()
    for liar in (a, b):
        serve(liar, evil)
    # What `kofn` does not promise: two who lie are believed by whoever cannot ask upstream.
    lied = wait_until_rule(c, dist, "R19")
    path, block = str(lied["path"]), f"/ipfs/{lied['cids'][0]}?format=raw"
    assert (c.get(path).status, c.get(path).body) == (200, evil.content)
    wait_until(lambda: c.get(block).body == evil.content, "C hands on what it gave a client")

    for honest in (d, e):  # `acked` waits for all others
        wait_until_attested(honest, dist, a, b)
        wait_until_rule(honest, dist, "R18")
        assert honest.file(evil).status == 504

    for honest in (c, d, e):
        conspiracy.doors[honest.name].on()
    wait_until_rule(c, dist, "R5")
    for where in (path, block, dist.path, evil.path):
        assert c.withdrawn(where).status in (403, 404, 410), where
    for honest in (c, d, e):
        assert_refused(honest, dist, "R5")
        assert not judged(honest, dist, "pypi-digest", "UPHELD", of=a)

    approve(c, dist)
    wait_until_rule(c, dist, "R8")
    serve(c, dist)
    wait_until_attested(d, dist, c)
    assert_refused(d, dist, "R5")

    approve(e, dist)
    serve(e, dist)
    wait_until_rule(d, dist, "R8")
    serve(d, dist)
    # What C and E approved counts nowhere else and accuses nobody; what D found out convinces them, as they see it themselves.
    for honest in (d, c, e):
        for liar in (a, b):
            wait_until_judged(honest, dist, "pypi-digest", "UPHELD", of=liar)
    wait_until_refuted_in(room_of(d, dist), by=d, seen_at=c)
    for honest in (c, d, e):
        assert honest.file(dist).body == dist.content
        assert honest.get(block).status in (404, 410)


def test_what_two_liars_agree_on_is_settled_by_what_a_publisher_signed_whom_the_honest_one_knew_before(
    publisher_known: Organisations,
) -> None:
    a, b, c = publisher_known.members
    before, dist, evil = wheel("mx", "1.0"), wheel("mx", "2.0"), wheel("mx", "2.0", salt="evil")
    upstream, door = publisher_known.upstream, publisher_known.doors["orgc"]
    upstream.prove(before, SIGSTORE.provenance(GITHUB, before.filename, before.sha256))
    publisher_known.lies.publish(before, evil)  # before they hear of the project, and look
    serve(c, before)
    door.off()
    for liar in (a, b):
        serve(liar, evil)
    wait_until_attested(c, dist, a, b)
    upstream.prove(dist, SIGSTORE.provenance(GITHUB, dist.filename, dist.sha256))
    door.on()
    wait_until_rule(c, dist, "R8")
    assert c.file(dist).body == dist.content
    for liar in (a, b):
        wait_until_judged(c, dist, "pypi-digest", "UPHELD", of=liar)
        assert "its key is suspended" in told(c, dist)


def assert_refused(member: Member, dist: Dist, by: str) -> None:
    """The file is refused for what two others say."""
    wait_until_rule(member, dist, by)
    refusal = member.file(dist)
    assert (refusal.status, "orga, orgb say" in refusal.body.decode()) == (403, True)
