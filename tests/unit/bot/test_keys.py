"""The key manifest: signed once, kept, logged and queued; signed anew when it must be."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from matrix_pypi_bot.core.events import check_event
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.keyring import root_keys, take_manifest
from matrix_pypi_bot.core.notes import NoteKey
from matrix_pypi_bot.core.rejected import Rejected
from matrix_pypi_bot.core.signers import SigningKey
from matrix_pypi_bot.core.statements.keys import Manifest
from matrix_pypi_bot.process.secret_files import put_away_seeds
from matrix_pypi_bot.services.keys import (
    RENEW_SECONDS,
    VALID_SECONDS,
    Organisation,
    ensure_manifest,
    held_manifest,
)
from tests.support.bot_world import ManualClock, World
from tests.support.keyrings import own_keyring

ROOT, MIRROR = SigningKey(bytes([2]) * 32), SigningKey(bytes([1]) * 32)
OTHER_ROOT, OTHER_MIRROR = SigningKey(bytes([4]) * 32), SigningKey(bytes([3]) * 32)
LOG, OTHER_LOG = SigningKey(bytes([5]) * 32), SigningKey(bytes([6]) * 32)
ORGA = Organisation("orga", root=ROOT, mirror=MIRROR, log=LOG)
BOT = "@pypi:org.example"


async def test_the_first_manifest_names_the_mirror_key_and_goes_to_the_trust_room(
    world: World, clock: ManualClock
) -> None:
    manifest = await ensure_manifest(world.store, clock, ORGA, bot_mxid=BOT)
    assert (manifest.version, manifest.org, manifest.log.origin) == (1, "orga", "orga/matrix-pypi")
    assert [(key.key, key.roles) for key in manifest.keys] == [
        (MIRROR.public.hex(), ("mirror", "watcher")),
        (LOG.public.hex(), ("log", "witness")),
    ]
    [mail] = await world.mail()
    assert (mail["room"], mail["type"], mail["state_key"]) == ("trust", "io.matrix_pypi.keys.v1", BOT)
    event = {"type": mail["type"], "state_key": BOT, "sender": BOT, "content": mail["content"]}
    checked = check_event(event, None, root_keys(ORGA.pinned, None))
    assert checked.statement.predicate == manifest
    async with world.store.transaction() as tables:
        assert await tables.log.leaves(0, 9) == [checked.statement.id]
        row = await tables.ledger.envelope(checked.statement.id)
        assert row is not None
        assert json.loads(row.envelope) == mail["content"]["dsse"]


async def test_its_keys_are_known_and_count(world: World, clock: ManualClock) -> None:
    ring = own_keyring(ORGA, await ensure_manifest(world.store, clock, ORGA, bot_mxid=BOT))
    now = Instant.of_ms(clock.now_ms())
    assert ring.counts(MIRROR.keyid, received=now, now=now)
    assert ring.keys.keys() == {ROOT.keyid, MIRROR.keyid, LOG.keyid}
    assert ring.log_keys() == (NoteKey("orga/matrix-pypi", LOG.public),)


async def test_a_manifest_that_will_do_is_not_signed_again(world: World, clock: ManualClock) -> None:
    first = await ensure_manifest(world.store, clock, ORGA, bot_mxid=BOT)
    clock.pass_seconds(VALID_SECONDS - RENEW_SECONDS - 1)
    assert await ensure_manifest(world.store, clock, ORGA, bot_mxid=BOT) == first


async def test_a_manifest_is_renewed_in_time(world: World, clock: ManualClock) -> None:
    await ensure_manifest(world.store, clock, ORGA, bot_mxid=BOT)
    clock.pass_seconds(VALID_SECONDS - RENEW_SECONDS)
    manifest = await ensure_manifest(world.store, clock, ORGA, bot_mxid=BOT)
    assert manifest.version == 2
    assert manifest.expires == Instant.of_ms(clock.now_ms()) + VALID_SECONDS
    [mail] = await world.mail()
    assert len(mail) == 4


async def test_another_mirror_key_is_added_and_the_old_one_stays_known(world: World, clock: ManualClock) -> None:
    await ensure_manifest(world.store, clock, ORGA, bot_mxid=BOT)
    changed = dataclasses.replace(ORGA, mirror=OTHER_MIRROR)
    manifest = await ensure_manifest(world.store, clock, changed, bot_mxid=BOT)
    assert [key.key for key in manifest.keys] == [key.public.hex() for key in (MIRROR, LOG, OTHER_MIRROR)]
    assert manifest.version == 2


async def test_another_log_key_is_added_too(world: World, clock: ManualClock) -> None:
    await ensure_manifest(world.store, clock, ORGA, bot_mxid=BOT)
    manifest = await ensure_manifest(world.store, clock, dataclasses.replace(ORGA, log=OTHER_LOG), bot_mxid=BOT)
    assert (manifest.version, manifest.keys[-1].key, manifest.keys[-1].roles) == (
        2,
        OTHER_LOG.public.hex(),
        ("log", "witness"),
    )


async def test_the_manifest_that_is_held_is_known_before_anything_may_be_signed(
    world: World, clock: ManualClock
) -> None:
    assert await held_manifest(world.store, ORGA) is None
    assert own_keyring(ORGA, None).keys.keys() == {ROOT.keyid}
    manifest = await ensure_manifest(world.store, clock, ORGA, bot_mxid=BOT)
    clock.pass_seconds(VALID_SECONDS)
    assert await held_manifest(world.store, ORGA) == manifest


async def test_another_root_key_never_goes_back_in_versions(world: World, clock: ManualClock) -> None:
    await ensure_manifest(world.store, clock, ORGA, bot_mxid=BOT)
    changed = dataclasses.replace(ORGA, root=OTHER_ROOT)
    manifest = await ensure_manifest(world.store, clock, changed, bot_mxid=BOT)
    assert (manifest.version, [root.key for root in manifest.roots]) == (2, [OTHER_ROOT.public.hex()])


async def test_a_crash_while_signing_leaves_nothing(
    world: World, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matrix_pypi_bot.adapters.database.mail import MailTables

    async def fail(self: Any, *arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(MailTables, "send", fail)
    with pytest.raises(ZeroDivisionError):
        await ensure_manifest(world.store, clock, ORGA, bot_mxid=BOT)
    monkeypatch.undo()
    assert (await ensure_manifest(world.store, clock, ORGA, bot_mxid=BOT)).version == 1


# ---- another root ---------------------------------------------------------------------------------------------------

NEW_ROOT = SigningKey(bytes([8]) * 32)
ROTATED = dataclasses.replace(ORGA, root=NEW_ROOT, former_roots=(ROOT,))


async def manifests(world: World) -> list[object]:
    async with world.store.transaction() as tables:
        return [json.loads(row.envelope) for row in await tables.ledger.manifests("orga")]


async def test_a_manifest_with_another_root_is_signed_by_the_old_and_the_new(world: World, clock: ManualClock) -> None:
    await ensure_manifest(world.store, clock, ORGA, bot_mxid=BOT)
    changed = await ensure_manifest(world.store, clock, ROTATED, bot_mxid=BOT)
    again = await ensure_manifest(world.store, clock, ROTATED, bot_mxid=BOT)
    first, second = await manifests(world)
    now = Instant.of_ms(clock.now_ms())
    assert ([root.key for root in changed.roots], changed.version, again) == ([NEW_ROOT.public.hex()], 2, changed)
    held = take_manifest(ORGA.pinned, None, first, now=now).statement.predicate
    assert isinstance(held, Manifest)
    for pinned, before in ((ORGA.pinned, held), (ROTATED.pinned, None)):
        assert take_manifest(pinned, before, second, now=now).statement.predicate == changed


async def test_when_the_old_root_is_gone_the_organisation_goes_on_by_the_new_one(
    world: World, clock: ManualClock
) -> None:
    for organisation in (ORGA, ROTATED, dataclasses.replace(ROTATED, former_roots=())):
        last = await ensure_manifest(world.store, clock, organisation, bot_mxid=BOT)
    assert last.version == 2
    clock.pass_seconds(VALID_SECONDS - RENEW_SECONDS + 1)
    renewed = await ensure_manifest(world.store, clock, dataclasses.replace(ROTATED, former_roots=()), bot_mxid=BOT)
    third = (await manifests(world))[-1]
    now = Instant.of_ms(clock.now_ms())
    assert take_manifest(ORGA.pinned, last, third, now=now).statement.predicate == renewed


async def test_who_has_only_the_new_root_begins_anew_and_is_not_taken_by_who_pinned_the_old(
    world: World, clock: ManualClock
) -> None:
    first = await ensure_manifest(world.store, clock, ORGA, bot_mxid=BOT)
    await ensure_manifest(world.store, clock, dataclasses.replace(ROTATED, former_roots=()), bot_mxid=BOT)
    second = (await manifests(world))[-1]
    with pytest.raises(Rejected):
        take_manifest(ORGA.pinned, first, second, now=Instant.of_ms(clock.now_ms()))


def test_former_keys_are_found_beside_the_key_by_their_names(tmp_path: Path) -> None:
    file = tmp_path / "root_key"
    for name, seed in ((f"root_key.{'a' * 16}", "01"), ("root_key.bak", "x"), (f"mirror_key.{'b' * 16}", "02")):
        (tmp_path / name).write_text(seed * 32)
    assert put_away_seeds(file) == [bytes([1]) * 32]
    assert put_away_seeds(tmp_path / "nowhere" / "root_key") == []
