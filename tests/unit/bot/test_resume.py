"""The resume guard: nothing is signed before the published head was compared, and nothing ever from an old copy of the database."""

from __future__ import annotations

from typing import Any

import pytest

from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.notes import Checkpoint, NoteKey, cosign, sign_checkpoint
from matrix_pypi_bot.core.signers import SigningKey
from matrix_pypi_bot.core.tlog import leaf_hash, root_of
from matrix_pypi_bot.ports import Store
from matrix_pypi_bot.services.resume import LogBehind, ResumeGuard
from matrix_pypi_bot.wire.messages import Override
from tests.support.bot_world import MXA, ONE, World

KEY, OTHER_KEY = SigningKey(bytes([5]) * 32), SigningKey(bytes([6]) * 32)
ORIGIN, BOT = "orga/matrix-pypi", "@pypi:org.example"
LEAVES = [leaf_hash(bytes([number])) for number in range(9)]


def head(size: int, *, key: SigningKey = KEY, origin: str = ORIGIN, root: bytes | None = None, **event: Any) -> Any:
    """The event by which a head of the log of `LEAVES` was published."""
    checkpoint = Checkpoint(origin, size, root or root_of(LEAVES[:size]))
    note = sign_checkpoint(checkpoint, key)
    note = note.with_signature(cosign(note, origin, key, Instant(1)))
    content = {"v": 1, "note": str(note)}
    return {"type": "io.matrix_pypi.head.v1", "state_key": BOT, "sender": BOT, "content": content} | event


async def guard_over(store: Store, leaves: int) -> ResumeGuard:
    async with store.transaction() as tables:
        for number in range(leaves):
            await tables.log.append(f"{number:064x}", LEAVES[number])
    return ResumeGuard(store=store, key=NoteKey(ORIGIN, KEY.public), bot_mxid=BOT)


async def test_nothing_may_be_signed_before_the_comparison_and_what_cannot_wait_may(world: World) -> None:
    guard = await guard_over(world.store, 3)
    assert not guard.is_open
    guard.check()


@pytest.mark.parametrize("published", [0, 1, 3, 6, 7])
async def test_a_head_that_the_database_covers_opens_it(world: World, published: int) -> None:
    guard = await guard_over(world.store, 7)
    assert await guard.compare([head(published)])
    assert guard.is_open


async def test_a_trust_room_without_a_head_opens_it(world: World) -> None:
    guard = await guard_over(world.store, 0)
    assert await guard.compare([{"type": "m.room.create", "state_key": "", "content": {}}])


@pytest.mark.parametrize("held", [0, 6])
async def test_an_old_copy_of_the_database_closes_it_for_good(
    world: World, held: int, caplog: pytest.LogCaptureFixture
) -> None:
    guard = await guard_over(world.store, held)
    assert not await guard.compare([head(7)])
    assert "log alarm: nothing is signed any more" in caplog.messages
    with pytest.raises(LogBehind, match="a log of 7 statements and the database holds fewer of them"):
        guard.check()
    assert not await guard.compare([])


async def test_a_copy_that_has_grown_apart_closes_it(world: World) -> None:
    guard = await guard_over(world.store, 7)
    assert not await guard.compare([head(5, root=bytes(32))])
    with pytest.raises(LogBehind, match="is not the one in the database"):
        guard.check()


async def test_a_head_that_is_closed_later_stays_closed(world: World) -> None:
    guard = await guard_over(world.store, 3)
    assert await guard.compare([head(3)])
    assert not await guard.compare([head(9)])
    assert not await guard.compare([head(3)])


@pytest.mark.parametrize(
    "event",
    [
        head(9, key=OTHER_KEY),
        head(9, origin="orgb/matrix-pypi"),
        head(9, state_key="@eve:org.example", sender="@eve:org.example"),
        head(9, content={}),
        head(9, content={"v": 1, "note": "not a note"}),
        head(9, content={"v": 1, "note": "text\n\n\u2014 name AAAAAAAA\n"}),
        head(9, content="nonsense"),
    ],
)
async def test_what_this_log_did_not_say_is_no_reason_to_fall_silent(world: World, event: Any) -> None:
    guard = await guard_over(world.store, 3)
    assert await guard.compare([event])


async def test_a_file_stored_before_the_comparison_is_accepted_now_and_attested_afterwards(world: World) -> None:
    guard = await guard_over(world.store, 0)
    world.voice._guard = guard
    await world.mirror(ONE, stored=[ONE])
    assert (await world.attestations("mxa"), len(await world.reports("mxa"))) == ([], 1)
    world.index.off()
    world.later()
    assert await world.rule(ONE) == ("R13", 200)
    world.index.on()
    world.clock.pass_seconds(6)
    assert await guard.compare([])
    await world.attester.try_again(9)
    await world.settled()
    assert (await world.attestations("mxa"), await world.reports("mxa")) == ([ONE.sha256], [])
    [evidence] = [each for each in (await world.explainer.explain(MXA)).evidence[ONE.filename] if each.statement_id]
    assert evidence.detail == "by orga, signed here, leaf 0 of the log"


async def test_with_an_old_copy_files_are_served_nothing_is_attested_and_operators_are_told(world: World) -> None:
    guard = await guard_over(world.store, 0)
    world.voice._guard = guard
    assert not await guard.compare([head(3)])
    await world.mirror(ONE, stored=[ONE])
    await world.attester.try_again(9)
    await world.settled()
    assert (await world.rule(ONE), await world.attestations("mxa")) == (("R8", 200), [])
    with pytest.raises(LogBehind):
        await world.overrides.apply(Override(action="quarantine", target="mxa", reason="looked at it"))
    assert await world.rule(ONE) == ("R8", 200)


async def test_an_operator_need_not_wait_for_the_homeserver(world: World) -> None:
    world.voice._guard = await guard_over(world.store, 0)
    await world.mirror(ONE)
    await world.overrides.apply(Override(action="quarantine", target="mxa", reason="looked at it"))
    assert await world.rule(ONE) == ("R1", 403)
