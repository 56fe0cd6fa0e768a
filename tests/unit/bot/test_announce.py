"""Announcements: our own is signed when it must be, the others' tell where their gateways are as long as they hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from matrix_pypi_bot.core.claims import claims_of
from matrix_pypi_bot.core.events import Checked, check_envelope, check_event, sign_statement
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.keyring import PinnedOrg
from matrix_pypi_bot.core.signers import MIRROR, WATCHER, PinnedKey, SigningKey
from matrix_pypi_bot.core.statements.announcement import Announcement, KuboPeer, LogAddress
from matrix_pypi_bot.core.statements.common import SignedBy
from matrix_pypi_bot.services.announce import (
    MAX_GATEWAYS,
    RENEW_SECONDS,
    VALID_SECONDS,
    Addresses,
    Peers,
    addresses_of,
    ensure_announcement,
)
from matrix_pypi_bot.services.intake import ledger_row
from matrix_pypi_bot.services.origins import origin_of_url
from matrix_pypi_bot.services.resume import LogBehind, ResumeGuard
from matrix_pypi_bot.services.signing import Voice
from matrix_pypi_bot.wire.digests import sha256_of
from matrix_pypi_bot.wire.messages import PeerTold
from tests.support.bot_world import KEY, KEYS, MXA, ONE, ORG, START_MS, ManualClock, World
from tests.support.statements import Organisation
from tests.unit.bot.conftest import Live

BOT, ORIGIN = "@pypi:org.example", "orga/matrix-pypi"
WHERE = Addresses(gateway="https://mirror.example", log="https://mirror.example/log/v1")
ORGB, ORGC = Organisation("orgb"), Organisation("orgc")
DAY = 86_400


async def ensure(world: World, addresses: Addresses = WHERE, **other: Any) -> Announcement:
    arguments = {"store": world.store, "clock": world.clock, "voice": world.voice, **other}
    return await ensure_announcement(**arguments, addresses=addresses, bot_mxid=BOT, log_origin=ORIGIN)


def pinned(org: Organisation, *, gateway: str = "") -> PinnedOrg:
    return PinnedOrg(
        name=org.name, roots=(org.key.public,), threshold=1, roles=frozenset({MIRROR, WATCHER}), gateway=gateway
    )


def announced(
    org: Organisation,
    gateway: str | None,
    *,
    seq: int = 1,
    issued: int = 0,
    days: int = 30,
    key: SigningKey | None = None,
) -> Checked:
    """The organisation's word, issued so many seconds after the start and good for so many days from then."""
    key, at = key or org.key, Instant(START_MS // 1000 + issued)
    said = Announcement(
        user=f"@pypi:{org.name}.example",
        gateway=gateway,
        log=LogAddress(url="https://log.example/log/v1", origin=f"{org.name}/matrix-pypi"),
        kubo=None,
        profile="unixfs-v1-2025",
        expires=Instant(at + days * DAY),
        signer=SignedBy(org=org.name, key=key.keyid),
        seq=seq,
        prev=None if seq == 1 else "0" * 64,
        issued=at,
    )
    envelope = sign_statement({org.name: sha256_of(org.name.encode())}, said, key)
    known = {key.keyid: PinnedKey(public=key.public, org=org.name, roles=frozenset({MIRROR}))}
    return check_envelope(envelope.to_json(), known, Announcement)


async def keep(world: World, *announcements: Checked) -> None:
    async with world.store.transaction() as tables:
        for checked in announcements:
            now_ms, key = world.clock.now_ms(), checked.key
            claims = claims_of(checked.statement, org=key.org, keyid=key.keyid, received_ms=now_ms)
            await tables.ledger.keep(ledger_row(checked, via="room", at_ms=now_ms), list(claims))


# Our own --------------------------------------------------------------------------------------------------------------


async def test_where_we_are_is_signed_logged_and_queued_for_our_slot_of_the_trust_room(world: World) -> None:
    said = await ensure(
        world, replace(WHERE, kubo=KuboPeer(peer="12D3KooWExample", addrs=("/ip4/192.0.2.1/tcp/4001",)))
    )
    assert (said.user, said.gateway, said.log.origin, said.seq) == (BOT, WHERE.gateway, ORIGIN, 1)
    assert said.expires == Instant.of_ms(world.clock.now_ms()) + VALID_SECONDS
    [mail] = await world.mail()
    assert (mail["room"], mail["type"], mail["state_key"]) == ("trust", "io.matrix_pypi.announcement.v1", BOT)
    event = {"type": mail["type"], "state_key": BOT, "sender": BOT, "content": mail["content"]}
    checked = check_event(event, None, KEYS)
    assert checked.statement.predicate == said
    async with world.store.transaction() as tables:
        assert await tables.log.leaves(0, 9) == [checked.statement.id]


async def test_what_will_do_is_not_signed_again(world: World, clock: ManualClock) -> None:
    first = await ensure(world)
    clock.pass_seconds(VALID_SECONDS - RENEW_SECONDS - 1)
    assert await ensure(world) == first


async def test_it_is_renewed_in_time_and_when_something_changes(world: World, clock: ManualClock) -> None:
    first = await ensure(world)
    clock.pass_seconds(VALID_SECONDS - RENEW_SECONDS)
    second = await ensure(world)
    moved = await ensure(world, replace(WHERE, gateway=None))
    assert [said.seq for said in (first, second, moved)] == [1, 2, 3]
    assert moved.gateway is None
    assert await ensure(world, replace(WHERE, gateway=None)) == moved


async def test_another_mirror_key_says_it_anew(world: World) -> None:
    await ensure(world)
    said = await ensure(world, voice=Voice(ORG, SigningKey(bytes([3]) * 32)))
    assert (said.seq, said.signer.key == KEY.keyid) == (1, False)


async def test_nothing_is_announced_while_nothing_may_be_signed(world: World) -> None:
    guard = ResumeGuard(store=world.store, key=None, bot_mxid=BOT)  # type: ignore[arg-type]
    guard.close(LogBehind("an old copy"))
    with pytest.raises(LogBehind):
        await ensure(world, voice=Voice(ORG, KEY, guard=guard))
    assert await world.mail() == []


@pytest.mark.parametrize(
    ("told", "addresses"),
    [
        ((None, None, None, ()), None),
        (
            ("https://m.example/", None, None, ()),
            Addresses(gateway="https://m.example", log="https://m.example/log/v1"),
        ),
        ((None, "https://l.example/v1/", None, ()), Addresses(gateway=None, log="https://l.example/v1")),
        (
            ("https://m.example", "https://l.example/v1", "peer", ("/dns4/x",)),
            Addresses(
                gateway="https://m.example",
                log="https://l.example/v1",
                kubo=KuboPeer(peer="peer", addrs=("/dns4/x",)),
            ),
        ),
    ],
)
def test_the_settings_say_what_is_announced(told: tuple[Any, ...], addresses: Addresses | None) -> None:
    assert addresses_of(*told) == addresses


# The others' ----------------------------------------------------------------------------------------------------------


def peers_of(world: World, *orgs: PinnedOrg, revoked: Sequence[str] = ()) -> Peers:
    return Peers(store=world.store, clock=world.clock, pinned=orgs, counts=lambda row: row.keyid not in revoked)


async def test_gateways_are_those_that_pinned_organisations_announced_who_attested_first(world: World) -> None:
    stranger = Organisation("stranger")
    await keep(
        world,
        announced(ORGB, "https://b.example"),
        announced(ORGC, "https://c.example/mirror/"),
        announced(stranger, "https://s.example"),
    )
    peers = peers_of(world, pinned(ORGB), pinned(ORGC))
    await peers.start()
    assert peers.gateways() == ("https://b.example", "https://c.example/mirror")
    assert peers.gateways({"orgc", "orga"}) == ("https://c.example/mirror", "https://b.example")
    assert (peers.origins, peers.are_pinned) == ((), True)


async def test_the_last_word_of_an_organisation_counts_in_whatever_order_it_came(world: World) -> None:
    await keep(world, announced(ORGB, "https://new.example", seq=3, issued=9), announced(ORGB, "https://old.example"))
    peers = peers_of(world, pinned(ORGB))
    await peers.start()
    assert peers.gateways() == ("https://new.example",)
    peers.tell(announced(ORGB, "https://old.example", seq=2, issued=5))
    assert peers.gateways() == ("https://new.example",)
    peers.tell(announced(ORGB, None, seq=4, issued=10))
    assert peers.gateways() == ()


async def test_another_key_of_the_organisation_speaks_for_it_until_it_is_revoked(world: World) -> None:
    other, revoked = SigningKey(bytes([9]) * 32), list[str]()
    peers = peers_of(world, pinned(ORGB), revoked=revoked)
    peers.tell(announced(ORGB, "https://one.example", seq=7))
    peers.tell(announced(ORGB, "https://two.example", issued=5, key=other))
    assert peers.gateways() == ("https://two.example",)
    revoked.append(other.keyid)
    assert peers.gateways() == ("https://one.example",)


async def test_what_has_expired_is_no_address_any_more(world: World, clock: ManualClock) -> None:
    peers = peers_of(world, pinned(ORGB))
    peers.tell(announced(ORGB, "https://b.example", days=2))
    clock.pass_seconds(2 * DAY - 1)
    assert peers.gateways() == ("https://b.example",)
    clock.pass_seconds(1)
    assert peers.gateways() == ()


async def test_what_the_operator_wrote_is_asked_in_place_of_what_is_announced_and_alone_is_opened(
    world: World,
) -> None:
    peers = peers_of(world, pinned(ORGB, gateway="http://127.0.0.1:8081/"), pinned(ORGC))
    assert peers.gateways() == ("http://127.0.0.1:8081",)
    for org in (ORGB, ORGC):
        peers.tell(announced(org, "http://127.0.0.1:9"))
    assert peers.gateways() == ("http://127.0.0.1:8081", "http://127.0.0.1:9")
    assert peers.origins == ("http://127.0.0.1:8081",)
    assert peers.told() == (
        PeerTold(org="orgb", gateway="http://127.0.0.1:8081", configured=True, announced_until="2026-01-31T00:00:00Z"),
        PeerTold(org="orgc", gateway="http://127.0.0.1:9", configured=False, announced_until="2026-01-31T00:00:00Z"),
    )


async def test_no_more_gateways_are_told_than_anybody_would_ask(world: World) -> None:
    many = [Organisation(f"org{number:02}") for number in range(2 * MAX_GATEWAYS)]
    peers = peers_of(world, *map(pinned, many))
    for org in many:
        peers.tell(announced(org, f"https://{org.name}.example"))
    assert len(peers.gateways()) == MAX_GATEWAYS
    assert peers.gateways({many[-1].name})[0] == f"https://{many[-1].name}.example"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://b.example",
        "b.example",
        "https://user@b.example",
        "https://b.example?x",
        "https://b.example/\n",
        "https://",
    ],
)
async def test_what_is_no_address_is_passed_over(world: World, url: str) -> None:
    peers = peers_of(world, pinned(ORGB))
    peers.tell(announced(ORGB, url))
    assert peers.gateways() == ()
    assert peers.told()[0].gateway is None


async def test_statements_of_other_kinds_tell_no_address(world: World) -> None:
    peers = peers_of(world, pinned(ORGB))
    peers.tell(ORGB.attest("mxa-1.0.tar.gz"))
    assert peers.gateways() == ()


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://b.example", "https://b.example:443"),
        ("http://B.example:8080/x/y", "http://b.example:8080"),
        ("https://[::1]:8443/", "https://[::1]:8443"),
        ("https://b.example:0", None),
        ("https://b\\example", None),
        ("javascript:alert(1)", None),
        ("", None),
    ],
)
def test_the_origin_of_an_address_is_its_scheme_host_and_port(url: str, origin: str | None) -> None:
    assert origin_of_url(url) == origin


# In answers -----------------------------------------------------------------------------------------------------------


async def test_a_decision_tells_the_gateways_and_a_page_only_that_there_are_some(live: Live) -> None:
    async with live(pinned=[pinned(ORGB), pinned(ORGC, gateway="http://127.0.0.1:8081")]) as world:
        await keep(world, announced(ORGB, "https://b.example"))
        await world.peers.start()
        await keep(world, ORGC.attest(ONE.filename, sha256=ONE.sha256))
        await world.mirror(ONE)
        assert (await world.page("mxa"))["_view"]["has_peers"] is True
        decision = await world.answers.decision(MXA, ONE.filename, None)  # type: ignore[arg-type]
        assert (decision.peers, decision.peer_origins, decision.has_peers) == (
            ("http://127.0.0.1:8081", "https://b.example"),
            ("http://127.0.0.1:8081",),
            True,
        )


async def test_with_nobody_pinned_there_are_no_peers(world: World) -> None:
    await world.mirror(ONE)
    assert (await world.page("mxa"))["_view"]["has_peers"] is False
    decision = await world.answers.decision(MXA, ONE.filename, None)  # type: ignore[arg-type]
    assert (decision.peers, decision.has_peers) == ((), False)
