"""Operators' decisions: signed, logged, in force at once, and ended by a release."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest

from matrix_pypi_bot.core.events import check_envelope
from matrix_pypi_bot.core.policy import Denial
from matrix_pypi_bot.wire.digests import sha256_of
from matrix_pypi_bot.wire.messages import Override, OverrideDone
from matrix_pypi_bot.wire.names import FileName, ProjectName
from matrix_pypi_bot.wire.problems import Problem, ProblemCode
from tests.support.bot_world import (
    KEYS,
    MXA,
    ONE,
    OTHER_ONE,
    TWO,
    Asked,
    ManualClock,
    ScriptedIndex,
    World,
)
from tests.support.dists import wheel
from tests.unit.bot.conftest import Live


async def say(
    world: World, action: Literal["approve", "quarantine", "release"], target: str, **told: Any
) -> OverrideDone:
    """An operator's decision."""
    return await world.overrides.apply(Override(action=action, target=target, reason="looked at it", **told))


async def test_a_quarantined_file_is_refused_at_once_and_released_again(world: World) -> None:
    await world.mirror(ONE, TWO)
    done = await say(world, "quarantine", ONE.filename)
    decision = done.decisions[ONE.filename]
    assert (done.scope, done.project, done.file, list(done.decisions)) == ("file", "mxa", ONE.filename, [ONE.filename])
    assert (decision.rule, decision.reason) == (
        "R1",
        "matrix-pypi: R1 denied by policy (quarantined by an operator: looked at it)",
    )
    assert await world.rules("mxa") == {ONE.filename: "R1", TWO.filename: "R8"}
    assert (await world.changes())[-1].withdrawn == (ONE.filename,)
    done = await say(world, "release", ONE.filename)
    assert done.decisions[ONE.filename].rule == "R8"
    assert await world.rules("mxa") == {ONE.filename: "R8", TWO.filename: "R8"}


async def test_a_decision_is_a_signed_statement_in_the_log_and_no_mail(world: World, index: ScriptedIndex) -> None:
    await world.mirror(ONE)
    done = await say(world, "quarantine", ONE.filename)
    async with world.store.transaction() as tables:
        row = await tables.ledger.envelope(done.statement_id)
        assert row is not None
        assert await tables.log.leaves(0, 9) == [done.statement_id]
    checked = check_envelope(json.loads(row.envelope), KEYS)
    predicate: Any = checked.statement.predicate
    assert checked.statement.subject.sha256 == sha256_of(ONE.filename.encode())
    assert (predicate.action, predicate.scope, predicate.file, predicate.reason, predicate.index) == (
        "quarantine",
        "file",
        ONE.filename,
        "looked at it",
        "pypi",
    )
    assert await world.mail() == []


async def test_a_quarantined_project_has_no_page_and_upstream_is_not_asked(world: World, index: ScriptedIndex) -> None:
    await world.mirror(ONE)
    done = await say(world, "quarantine", "MxA")
    assert (done.scope, done.file, [one.rule for one in done.decisions.values()]) == ("project", None, ["R1"])
    world.later()
    problem = await world.refused("mxa")
    assert (problem.code, "looked at it" in problem.detail) == (ProblemCode.REFUSED, True)
    assert await world.rule(ONE) == ("R1", 403)
    assert index.count("mxa") == 1
    await say(world, "release", "mxa")
    assert await world.rules("mxa") == {ONE.filename: "R8"}


async def test_a_project_can_be_quarantined_before_anybody_asked_for_it(live: Live, index: ScriptedIndex) -> None:
    index.publish(ONE)
    async with live() as world:
        assert (await say(world, "quarantine", "mxa")).decisions == {}
        assert (await world.refused("mxa")).code is ProblemCode.REFUSED
    async with live() as world:
        assert (await world.refused("mxa")).code is ProblemCode.REFUSED
        assert index.asked == []


async def test_a_release_is_the_exit_from_a_serial_that_no_honest_page_will_ever_reach(
    live: Live, index: ScriptedIndex, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    index.publish(ONE)
    honest = index.listings["mxa"].serial
    index.listings["mxa"].serial = 2**53 - 1
    async with live() as world:
        await world.page("mxa")
        await world.store_file(ONE)
        index.listings["mxa"].serial = honest
        world.later(TWO)
        assert await world.rules("mxa") == {ONE.filename: "R13"}
        [told] = [vars(record)["reason"] for record in caplog.records if "alarm" in record.message]
        assert told.endswith(
            f"serial 3 after {2**53 - 1} (is the higher one wrong, `matrix-pypi release mxa` forgets it)"
        )
        await say(world, "quarantine", TWO.filename)
        await say(world, "release", TWO.filename)
        clock.pass_seconds(6)
        assert await world.rules("mxa") == {ONE.filename: "R13"}
        await say(world, "release", "mxa")
        clock.pass_seconds(6)
        assert await world.rules("mxa") == {ONE.filename: "R8", TWO.filename: "R8"}
    async with live() as world:
        assert await world.rules("mxa") == {ONE.filename: "R8", TWO.filename: "R8"}


async def test_after_a_release_the_first_page_is_where_serials_are_guarded_from_again(
    live: Live, index: ScriptedIndex, clock: ManualClock
) -> None:
    async with live() as world:
        await world.mirror(ONE)
        clock.pass_seconds(1)
        await say(world, "release", "mxa")
    async with live() as world:
        world.later()
        await world.page("mxa")
        assert index.asked[-1] == Asked("mxa", None, no_cache=False)
        index.listings["mxa"].serial = 1
        world.later()
        assert (await world.refused("mxa")).code is ProblemCode.UPSTREAM_AWAY
        assert index.asked[-1].etag is not None
    async with live() as world:
        world.later()
        assert (await world.refused("mxa")).code is ProblemCode.UPSTREAM_AWAY


async def test_an_approved_digest_is_the_exit_from_a_changed_one(live: Live, index: ScriptedIndex) -> None:
    async with live() as world:
        await world.mirror(ONE, stored=[ONE])
        world.later(OTHER_ONE)
        assert await world.rules("mxa") == {ONE.filename: "R3"}
        done = await say(world, "approve", ONE.filename)
        assert done.decisions[ONE.filename].rule == "R8"
        await world.store_file(OTHER_ONE)
        assert await world.attestations("mxa") == [ONE.sha256]
    async with live() as world:
        assert await world.rules("mxa") == {ONE.filename: "R8"}
        index.off()
        world.later()
        [entry] = (await world.page("mxa"))["files"]
        assert (entry["_decision"]["rule"], entry["hashes"]["sha256"]) == ("R13", OTHER_ONE.sha256)


async def test_a_release_ends_an_approval(world: World) -> None:
    await world.mirror(ONE, stored=[ONE])
    world.later(OTHER_ONE)
    await world.page("mxa")
    await say(world, "approve", ONE.filename)
    assert await world.rules("mxa") == {ONE.filename: "R8"}
    await say(world, "release", ONE.filename)
    assert await world.rules("mxa") == {ONE.filename: "R3"}


async def test_an_approved_digest_is_served_offline_although_it_was_never_stored(
    world: World, index: ScriptedIndex
) -> None:
    await world.mirror(ONE)
    await say(world, "approve", ONE.filename, sha256=ONE.sha256)
    index.off()
    world.later()
    assert await world.rules("mxa") == {ONE.filename: "R13"}


async def test_approving_another_digest_than_upstream_names_refuses_upstreams(world: World) -> None:
    await world.mirror(ONE)
    await say(world, "approve", ONE.filename, sha256=OTHER_ONE.sha256)
    assert await world.rules("mxa") == {ONE.filename: "R3"}


@pytest.mark.parametrize(
    ("action", "target", "told"),
    [
        ("approve", "mxa", {}),
        ("approve", "mxa-9.0-py3-none-any.whl", {}),
        ("approve", ONE.filename, {"sha256": "nothing"}),
        ("quarantine", ONE.filename, {"sha256": "0" * 64}),
        ("quarantine", "../etc/passwd", {}),
        ("quarantine", "", {}),
        ("quarantine", "noversion.whl", {}),
    ],
    ids=str,
)
async def test_what_cannot_be_meant_is_refused_and_leaves_nothing(
    world: World, action: Any, target: str, told: dict[str, Any]
) -> None:
    await world.mirror(ONE)
    with pytest.raises(Problem) as raised:
        await say(world, action, target, **told)
    assert 400 <= raised.value.code.status < 500
    async with world.store.transaction() as tables:
        assert await tables.ledger.overrides(MXA) == []
        assert await tables.log.leaves(0, 9) == []


async def test_a_reason_is_one_clean_line_and_there_is_one(world: World) -> None:
    with pytest.raises(Problem):
        await world.overrides.apply(Override(action="quarantine", target="mxa", reason=" \u202e \x00 "))
    await world.overrides.apply(Override(action="quarantine", target="mxa", reason="a\r\nX-Evil: \u202e1"))
    async with world.store.transaction() as tables:
        [row] = await tables.ledger.overrides(MXA)
    assert row.reason == "a X-Evil: 1"


async def test_an_old_ambiguous_name_means_the_project_that_has_it(world: World, index: ScriptedIndex) -> None:
    egg = wheel("mx-a", "1.0")
    name = "mx-a-1.0-py3.11.egg"
    index.publish(egg, filename=name)
    await world.page("mx-a")
    assert (await say(world, "quarantine", name)).project == "mx-a"


async def test_policy_denies_files_digests_and_projects(live: Live, index: ScriptedIndex) -> None:
    mxb = wheel("mxb")
    denials = [
        Denial(project=MXA, file=FileName(ONE.filename), reason="known bad"),
        Denial(sha256=sha256_of(mxb.content), reason="malware"),
        Denial(project=ProjectName("mxc"), reason="typosquat"),
    ]
    for dist in (ONE, TWO, mxb):
        index.publish(dist)
    async with live(denials=denials) as world:
        assert await world.rules("mxa") == {ONE.filename: "R1", TWO.filename: "R8"}
        assert await world.rules("mxb") == {mxb.filename: "R1"}
        [entry] = (await world.page("mxb"))["files"]
        assert entry["yanked"] == "matrix-pypi: R1 denied by policy (malware)"
        problem = await world.refused("mxc")
        assert (problem.code, "typosquat" in problem.detail) == (ProblemCode.REFUSED, True)
        assert await world.rule(wheel("mxc")) == ("R1", 403)
        assert index.count("mxc") == 0


async def test_everything_that_was_known_is_explained(world: World) -> None:
    await world.mirror(ONE, stored=[ONE])
    world.later(OTHER_ONE)
    await world.page("mxa")
    done = await say(world, "quarantine", ONE.filename)
    explanation = await world.explainer.explain(MXA, FileName(ONE.filename))
    assert (explanation.state, explanation.serial, explanation.room) == ("live", 3, None)
    assert explanation.files[ONE.filename].rule == "R1"
    told = [(one.kind, one.sha256) for one in explanation.evidence[ONE.filename]]
    assert told == [
        ("upstream", OTHER_ONE.sha256),
        ("first-seen", ONE.sha256),
        ("ledger", ONE.sha256),
        ("override", None),
        ("policy", None),
        ("attestation", ONE.sha256),
    ]
    assert explanation.evidence[ONE.filename][3].statement_id == done.statement_id
    assert list((await world.explainer.explain(MXA)).files) == [ONE.filename]


async def test_removed_files_are_explained_with_their_project(world: World, index: ScriptedIndex) -> None:
    await world.mirror(ONE, TWO, stored=[ONE])
    index.remove(ONE)
    world.later()
    await world.page("mxa")
    files = (await world.explainer.explain(MXA)).files
    assert {name: decision.rule for name, decision in files.items()} == {ONE.filename: "R10", TWO.filename: "R8"}


async def test_of_what_nobody_heard_nothing_is_explained(world: World, index: ScriptedIndex) -> None:
    for arguments in ((MXA,), (MXA, FileName(ONE.filename))):
        with pytest.raises(Problem) as raised:
            await world.explainer.explain(*arguments)
        assert raised.value.code is ProblemCode.NOT_FOUND
    assert index.asked == []
