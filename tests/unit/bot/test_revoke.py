"""The end of a key: told in a new manifest, never taken back, and never that of a key that signs now."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.notes import NoteKey
from matrix_pypi_bot.core.signers import SigningKey
from matrix_pypi_bot.core.statements.keys import Manifest
from matrix_pypi_bot.services.answers import Answers
from matrix_pypi_bot.services.keys import Organisation, ensure_manifest, held_manifest
from matrix_pypi_bot.services.resume import LogBehind, ResumeGuard
from matrix_pypi_bot.services.revoke import KeyDesk
from matrix_pypi_bot.services.signing import Voice
from matrix_pypi_bot.wire.messages import Decision, DelegationTold, KeyDelegation, KeyRevocation, KeysTold
from matrix_pypi_bot.wire.names import FileName
from matrix_pypi_bot.wire.problems import Problem, ProblemCode
from tests.support.bot_world import MXA, ONE, START_MS, ManualClock, World
from tests.support.keyrings import own_keyring

ROOT, MIRROR, LOG, NEW_MIRROR, NEW_LOG = (SigningKey(bytes([number]) * 32) for number in (2, 1, 5, 3, 6))
ORGA = Organisation("orga", root=ROOT, mirror=MIRROR, log=LOG)
ROTATED = dataclasses.replace(ORGA, mirror=NEW_MIRROR)
BOT = "@pypi:org.example"
HOUR = 3_600
NOW = Instant.of_ms(START_MS)


def desk_of(world: World, organisation: Organisation = ROTATED, heard: list[Manifest] | None = None) -> KeyDesk:
    """The desk of a bot whose organisation signs with these keys."""
    guard = ResumeGuard(store=world.store, key=NoteKey(ORGA.log_origin, LOG.public), bot_mxid=BOT)
    return KeyDesk(
        store=world.store,
        clock=world.clock,
        organisation=organisation,
        guard=guard,
        postman=world.postman,
        bot_mxid=BOT,
        on_manifest=([] if heard is None else heard).append,
    )


@pytest.fixture
async def rotated(world: World) -> World:
    """A bot whose mirror key was replaced."""
    for organisation in (ORGA, ROTATED):
        await ensure_manifest(world.store, world.clock, organisation, bot_mxid=BOT)
    return world


def revoked(told: KeysTold) -> dict[str, tuple[str | None, str | None, str | None]]:
    """The ends by key id."""
    return {key.keyid: (key.revoked, key.reason, key.compromised_since) for key in told.keys if key.revoked is not None}


async def test_the_keys_are_told_with_their_roles(rotated: World) -> None:
    told = await desk_of(rotated).keys()
    assert (told.org, told.version, told.roots) == ("orga", 2, (ROOT.public.hex(),))
    assert [(key.keyid, key.roles) for key in told.keys] == [
        (MIRROR.keyid, ("mirror", "watcher")),
        (LOG.keyid, ("log", "witness")),
        (NEW_MIRROR.keyid, ("mirror", "watcher")),
    ]
    assert revoked(told) == {}


async def test_without_a_manifest_there_is_nothing_to_tell(world: World) -> None:
    with pytest.raises(Problem) as raised:
        await desk_of(world).keys()
    assert raised.value.code is ProblemCode.NOT_FOUND


@pytest.mark.parametrize("name", [MIRROR.keyid, MIRROR.public.hex(), f" ED25519:{MIRROR.public.hex().upper()} "])
async def test_a_former_key_ends_by_its_id_or_itself(rotated: World, name: str) -> None:
    heard: list[Manifest] = []
    told = await desk_of(rotated, heard=heard).revoke(KeyRevocation(key=name, reason="laptop\nsold"))
    assert (told.version, revoked(told)) == (3, {MIRROR.keyid: (str(NOW), "laptop sold", None)})
    assert heard == [await held_manifest(rotated.store, ROTATED)]
    assert [mail["type"] for mail in await rotated.mail()] == ["io.matrix_pypi.keys.v1"]
    async with rotated.store.transaction() as tables:
        assert await tables.log.size() == 3


async def test_what_was_received_before_the_compromise_still_counts_and_nothing_later(
    rotated: World, clock: ManualClock
) -> None:
    clock.pass_seconds(2 * HOUR)
    since = Instant(NOW + HOUR)
    heard: list[Manifest] = []
    revocation = KeyRevocation(key=MIRROR.keyid, reason="stolen", compromised_since=str(since))
    await desk_of(rotated, heard=heard).revoke(revocation)
    ring, now = own_keyring(ROTATED, heard[0]), Instant.of_ms(clock.now_ms())
    assert ring.counts(MIRROR.keyid, received=Instant(since - 1), now=now)
    assert not ring.counts(MIRROR.keyid, received=since, now=now)
    assert ring.counts(NEW_MIRROR.keyid, received=now, now=now)


async def test_an_end_can_be_moved_back_and_never_forward(rotated: World, clock: ManualClock) -> None:
    desk, ends = desk_of(rotated), [NOW + 5 * HOUR, NOW + 3 * HOUR]
    clock.pass_seconds(9 * HOUR)

    def end(since: int | None) -> KeyRevocation:
        moment = None if since is None else str(Instant(since))
        return KeyRevocation(key=MIRROR.keyid, reason="stolen", compromised_since=moment)

    await desk.revoke(end(None))
    clock.pass_seconds(HOUR)
    for since in (None, NOW + 10 * HOUR, NOW + 9 * HOUR):
        with pytest.raises(Problem, match="revoked already"):
            await desk.revoke(end(since))
    for since in ends:
        told = await desk.revoke(end(since))
        assert revoked(told)[MIRROR.keyid][2] == str(Instant(since))
        with pytest.raises(Problem, match="revoked already"):
            await desk.revoke(end(since))


@pytest.mark.parametrize(
    ("told", "code", "detail"),
    [
        ({"key": NEW_MIRROR.keyid}, ProblemCode.BAD_REQUEST, "signs now"),
        ({"key": LOG.public.hex()}, ProblemCode.BAD_REQUEST, "signs now"),
        ({"key": ROOT.keyid}, ProblemCode.NOT_FOUND, "lists no key"),
        ({"key": ""}, ProblemCode.NOT_FOUND, "lists no key"),
        ({"key": "\u202e\n"}, ProblemCode.NOT_FOUND, "lists no key"),
        ({"reason": " \n"}, ProblemCode.BAD_REQUEST, "needs a reason"),
        ({"compromised_since": "yesterday"}, ProblemCode.BAD_REQUEST, "YYYY-MM-DD"),
        ({"compromised_since": "2026-02-30T00:00:00Z"}, ProblemCode.BAD_REQUEST, "compromised_since"),
        ({"compromised_since": str(Instant(NOW + 1))}, ProblemCode.BAD_REQUEST, "in the future"),
    ],
)
async def test_what_cannot_be_meant_changes_nothing(
    rotated: World, told: dict[str, Any], code: ProblemCode, detail: str
) -> None:
    desk = desk_of(rotated)
    with pytest.raises(Problem, match=detail) as raised:
        await desk.revoke(KeyRevocation(**({"key": MIRROR.keyid, "reason": "stolen"} | told)))
    assert (raised.value.code, (await desk.keys()).version) == (code, 2)


async def test_a_revoked_key_signs_no_more_when_its_file_comes_back(rotated: World) -> None:
    await desk_of(rotated).revoke(KeyRevocation(key=MIRROR.keyid, reason="stolen"))
    with pytest.raises(Problem, match="the mirror key was revoked"):
        await held_manifest(rotated.store, ORGA)
    with pytest.raises(Problem, match="the mirror key was revoked"):
        await ensure_manifest(rotated.store, rotated.clock, ORGA, bot_mxid=BOT)


async def test_with_an_old_copy_of_the_database_no_key_can_be_ended(rotated: World) -> None:
    desk = desk_of(rotated)
    desk.guard.close(LogBehind("an old copy"))
    with pytest.raises(LogBehind):
        await desk.revoke(KeyRevocation(key=MIRROR.keyid, reason="stolen"))


async def test_another_log_key_ends_the_one_before(rotated: World) -> None:
    changed = dataclasses.replace(ROTATED, log=NEW_LOG)
    manifest = await ensure_manifest(rotated.store, rotated.clock, changed, bot_mxid=BOT)
    ends = {key.key: key.revoked and key.revoked.at for key in manifest.keys if "log" in key.roles}
    assert ends == {LOG.public.hex(): NOW, NEW_LOG.public.hex(): None}


async def test_what_a_former_key_attested_stays_attested_unless_somebody_else_may_have_signed_it(
    rotated: World, clock: ManualClock
) -> None:
    heard: list[Manifest] = []

    async def attested_by() -> tuple[str, ...]:
        return (await answer()).attested_by

    async def answer() -> Decision:
        ring, now = own_keyring(ROTATED, heard[-1] if heard else await held_manifest(rotated.store, ROTATED)), clock.ms
        answers = Answers(
            projects=rotated.projects,
            refresher=rotated.refresher,
            clock=clock,
            voice=Voice("orga", NEW_MIRROR),
            stands=lambda claim: ring.counts(
                claim.keyid, received=Instant.of_ms(claim.received_ms), now=Instant.of_ms(now)
            ),
        )
        return await answers.decision(MXA, FileName(ONE.filename), None)

    rotated.index.publish(ONE, size=None)
    await rotated.page("mxa")
    await rotated.store_file(ONE)
    assert await attested_by() == ("orga",)
    assert (await answer()).size == ONE.size
    clock.pass_seconds(60)
    desk = desk_of(rotated, heard=heard)
    await desk.revoke(KeyRevocation(key=MIRROR.keyid, reason="replaced"))
    assert await attested_by() == ("orga",)
    await desk.revoke(KeyRevocation(key=MIRROR.keyid, reason="stolen", compromised_since=str(NOW)))
    assert await attested_by() == ()
    assert (await answer()).size is None


# ---- delegations ----------------------------------------------------------------------------------------------------

MAINTAINER = SigningKey(bytes([9]) * 32)


def order(key: SigningKey = MAINTAINER, *, delegated: bool = True, project: str = "mxa") -> KeyDelegation:
    return KeyDelegation(project=project, key=f"ed25519:{key.public.hex()}", delegated=delegated)


async def test_a_maintainers_key_is_delegated_by_a_manifest_that_everybody_can_read(rotated: World) -> None:
    heard: list[Manifest] = []
    told = await desk_of(rotated, heard=heard).delegate(order())
    assert told.delegations == (DelegationTold(project="mxa", key=MAINTAINER.public.hex()),)
    assert (told.version, len(heard), rotated.postman.pokes) == (3, 1, 1)
    assert {key.keyid for key in told.keys} == {MIRROR.keyid, LOG.keyid, NEW_MIRROR.keyid}
    ring = own_keyring(ROTATED, heard[0])
    assert (ring.keys[MAINTAINER.keyid].org, ring.keys[MAINTAINER.keyid].projects) == ("maint", frozenset({"mxa"}))
    again = await desk_of(rotated).delegate(order())
    assert again.delegations == told.delegations
    assert (await held_manifest(rotated.store, ROTATED)) is not None


async def test_a_delegation_ends_and_outlives_other_changes_of_keys(rotated: World) -> None:
    desk = desk_of(rotated)
    await desk.delegate(order())
    await desk.delegate(order(project="mxb"))
    kept = await desk.revoke(KeyRevocation(key=MIRROR.keyid, reason="x"))
    ended = await desk.delegate(order(delegated=False))
    assert [[one.project for one in told.delegations] for told in (kept, ended)] == [["mxa", "mxb"], ["mxb"]]


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (order(delegated=False), ProblemCode.NOT_FOUND),
        (order(LOG), ProblemCode.BAD_REQUEST),
        (order(ROOT), ProblemCode.BAD_REQUEST),
        (order(project="../x"), ProblemCode.BAD_REQUEST),
        (KeyDelegation(project="mxa", key="ed25519:xyz", delegated=True), ProblemCode.BAD_REQUEST),
    ],
)
async def test_what_cannot_be_delegated_changes_nothing(
    rotated: World, wrong: KeyDelegation, code: ProblemCode
) -> None:
    desk = desk_of(rotated)
    with pytest.raises(Problem) as caught:
        await desk.delegate(wrong)
    assert (caught.value.code, (await desk.keys()).version) == (code, 2)


async def test_a_manifest_holds_only_so_many_delegations(rotated: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matrix_pypi_bot.services.revoke.MAX_DELEGATIONS", 1)
    await desk_of(rotated).delegate(order())
    with pytest.raises(Problem, match="holds 1"):
        await desk_of(rotated).delegate(order(project="mxb"))
