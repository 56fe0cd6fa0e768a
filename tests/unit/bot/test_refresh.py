"""A project's view: fresh, stale, away, gone, wrong; what is asked of upstream and what is answered meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from matrix_pypi_bot.core.policy import Denial
from matrix_pypi_bot.ports import Absent, Away, FetchedPage, Wrong
from matrix_pypi_bot.services.breaker import FAILURES
from matrix_pypi_bot.wire.names import FileName, ProjectName
from matrix_pypi_bot.wire.problems import Problem, ProblemCode
from tests.support.bot_world import (
    MXA,
    ONE,
    OTHER_ONE,
    TWO,
    Asked,
    ManualClock,
    ScriptedIndex,
    World,
)
from tests.support.dists import sdist
from tests.unit.bot.conftest import Live


async def test_a_page_is_asked_for_once_while_it_is_fresh(world: World, index: ScriptedIndex) -> None:
    index.publish(ONE)
    for _ in range(3):
        assert await world.rules("mxa") == {ONE.filename: "R8"}
    assert index.count("mxa") == 1
    world.later()
    await world.page("mxa")
    assert index.asked[1].etag is not None
    await world.page("mxa")
    assert index.count("mxa") == 2


async def test_fifty_who_ask_at_once_are_one_request(world: World, index: ScriptedIndex) -> None:
    index.publish(ONE)
    index.gate = asyncio.Event()
    asking = [asyncio.create_task(world.page("mxa")) for _ in range(50)]
    while not index.asked:
        await asyncio.sleep(0)
    index.gate.set()
    await asyncio.gather(*asking)
    assert index.count("mxa") == 1


async def test_who_asks_and_leaves_does_not_stop_the_others(world: World, index: ScriptedIndex) -> None:
    index.publish(ONE)
    index.gate = asyncio.Event()
    first, second = asyncio.create_task(world.page("mxa")), asyncio.create_task(world.page("mxa"))
    while not index.asked:
        await asyncio.sleep(0)
    first.cancel()
    index.gate.set()
    assert len((await second)["files"]) == 1


async def test_the_view_tells_how_it_stands(world: World, clock: ManualClock) -> None:
    await world.mirror(ONE)
    clock.pass_seconds(100)
    view = (await world.page("mxa"))["_view"]
    assert (view["state"], view["age_seconds"], view["fresh_seconds"]) == ("live", 100, 500)


async def test_an_unknown_project_is_not_found_and_that_is_remembered(
    world: World, index: ScriptedIndex, clock: ManualClock
) -> None:
    for _ in range(3):
        assert (await world.refused("nope")).code is ProblemCode.NOT_FOUND
    assert index.count("nope") == 1
    clock.pass_seconds(61)
    await world.refused("nope")
    assert index.count("nope") == 2


async def test_refresh_looks_past_what_is_remembered_but_not_more_than_once_in_five_seconds(
    world: World, index: ScriptedIndex, clock: ManualClock
) -> None:
    await world.refused("mxa")
    index.publish(ONE)
    assert (await world.refused("mxa", refresh=True)).code is ProblemCode.NOT_FOUND
    clock.pass_seconds(5)
    assert len((await world.page("mxa", refresh=True))["files"]) == 1
    assert index.asked[-1].no_cache
    for _ in range(3):
        await world.page("mxa", refresh=True)
    assert index.count("mxa") == 2
    clock.pass_seconds(5)
    await world.page("mxa", refresh=True)
    assert index.asked[-1] == Asked("mxa", index.asked[-1].etag, no_cache=True)
    assert index.count("mxa") == 3


async def test_a_page_seen_but_never_downloaded_leaves_nothing_to_serve_offline(
    world: World, index: ScriptedIndex
) -> None:
    await world.mirror(ONE)
    index.off()
    world.later()
    problem = await world.refused("mxa")
    assert (problem.code, "R14" in problem.detail) == (ProblemCode.UPSTREAM_AWAY, True)
    assert await world.rule(ONE) == ("R14", 503)


async def test_away_serves_what_was_accepted_and_says_so(
    world: World, index: ScriptedIndex, clock: ManualClock
) -> None:
    await world.mirror(ONE, TWO, stored=[ONE])
    index.off()
    world.later()
    page = await world.page("mxa")
    assert page["_view"]["state"] == "down"
    rules = {file["filename"]: (file["_decision"]["rule"], bool(file.get("yanked"))) for file in page["files"]}
    assert rules == {ONE.filename: ("R13", False), TWO.filename: ("R14", True)}
    clock.pass_seconds(6)
    index.on()
    assert await world.rules("mxa") == {ONE.filename: "R8", TWO.filename: "R8"}
    assert [change.withdrawn for change in await world.changes()] == [(), (TWO.filename,), ()]


async def test_a_failed_attempt_is_not_repeated_before_the_pause_is_over(world: World, index: ScriptedIndex) -> None:
    await world.mirror(ONE, stored=[ONE])
    index.off()
    world.later()
    for _ in range(3):
        page = await world.page("mxa")
    assert (index.count("mxa"), page["_view"]["fresh_seconds"]) == (2, 5)


@pytest.mark.parametrize(
    ("answer", "code"),
    [(Away("503"), ProblemCode.UPSTREAM_AWAY), (Wrong("no page"), ProblemCode.UPSTREAM_WRONG)],
    ids=["away", "wrong"],
)
async def test_without_any_page_the_failure_is_the_answer(
    world: World, index: ScriptedIndex, answer: Away | Wrong, code: ProblemCode
) -> None:
    index.everything = answer
    assert (await world.refused("mxa")).code is code


async def test_a_cold_page_may_be_tried_again_at_once_but_not_for_ever(
    world: World, index: ScriptedIndex, clock: ManualClock
) -> None:
    index.off()
    for _ in range(FAILURES + 5):
        assert (await world.refused("mxa")).code is ProblemCode.UPSTREAM_AWAY
    assert index.count("mxa") == FAILURES
    index.on()
    index.publish(ONE)
    assert (await world.refused("mxa")).code is ProblemCode.UPSTREAM_AWAY
    clock.pass_seconds(5)
    assert len((await world.page("mxa"))["files"]) == 1


async def test_while_upstream_is_left_alone_one_asker_finds_out(
    world: World, index: ScriptedIndex, clock: ManualClock
) -> None:
    index.off()
    for name in ("mxa", "mxb", "mxc", "mxd"):
        await world.refused(name)
    assert len(index.asked) == FAILURES
    clock.pass_seconds(5)
    for name in ("mxa", "mxb"):
        await world.refused(name)
    assert len(index.asked) == FAILURES + 1


async def test_a_slow_upstream_does_not_hold_up_those_who_can_have_the_last_page(
    live: Live, index: ScriptedIndex, clock: ManualClock
) -> None:
    async with live(patience_seconds=0.02) as world:
        await world.mirror(ONE)
        world.later(TWO)
        index.gate = asyncio.Event()
        page = await world.page("mxa")
        assert (len(page["files"]), page["_view"]["state"], page["_view"]["fresh_seconds"]) == (1, "live", 0)
        clock.pass_seconds(1)
        assert len((await world.page("mxa"))["files"]) == 1
        assert index.count("mxa") == 2
        index.gate.set()
        await world.settled()
        assert len((await world.page("mxa"))["files"]) == 2
        assert index.count("mxa") == 2


async def test_what_is_the_same_page_again_writes_nothing_and_keeps_the_revision(
    world: World, index: ScriptedIndex
) -> None:
    index.publish(ONE)
    revision = (await world.page("mxa"))["_view"]["revision"]
    raw = index.listings["mxa"].raw("mxa")
    for _ in range(2):
        world.later()
        index.instead["mxa"] = [FetchedPage(raw=raw, etag=None, serial=index.listings["mxa"].serial, opened_origins=())]
        view = (await world.page("mxa"))["_view"]
        assert (view["revision"], view["age_seconds"]) == (revision, 0)
    assert len(await world.changes()) == 1


async def test_a_changed_digest_is_refused_and_withdrawn(world: World) -> None:
    await world.mirror(ONE, TWO, stored=[ONE])
    world.later(OTHER_ONE)
    page = await world.page("mxa")
    entry = next(file for file in page["files"] if file["filename"] == ONE.filename)
    assert entry["_decision"]["rule"] == "R3"
    assert entry["yanked"].startswith("matrix-pypi: R3 the digest changed upstream")
    assert ONE.sha256[:12] in entry["yanked"]
    assert OTHER_ONE.sha256[:12] in entry["yanked"]
    newest = (await world.changes())[-1]
    assert (newest.withdrawn, newest.revision) == ((ONE.filename,), page["_view"]["revision"])


async def test_a_digest_that_changes_before_the_first_download_is_refused_too(world: World) -> None:
    await world.mirror(ONE)
    world.later(OTHER_ONE)
    assert await world.rule(ONE) == ("R3", 403)


async def test_after_a_changed_digest_offline_serves_what_was_accepted(world: World, index: ScriptedIndex) -> None:
    await world.mirror(ONE, stored=[ONE])
    world.later(OTHER_ONE)
    await world.page("mxa")
    index.off()
    world.later()
    [entry] = (await world.page("mxa"))["files"]
    assert (entry["_decision"]["rule"], entry["hashes"], entry["size"]) == ("R13", {"sha256": ONE.sha256}, ONE.size)
    assert "core-metadata" not in entry


async def test_a_removed_file_stays_refused_when_upstream_goes_away(world: World, index: ScriptedIndex) -> None:
    await world.mirror(ONE, TWO, stored=[ONE, TWO])
    index.remove(ONE)
    world.later()
    assert await world.rules("mxa") == {TWO.filename: "R8"}
    assert await world.rule(ONE) == ("R10", 404)
    assert (await world.changes())[-1].withdrawn == (ONE.filename,)
    index.off()
    world.later()
    assert await world.rule(ONE) == ("R10", 404)


async def test_a_removed_file_is_kept_when_the_operator_says_so(live: Live, index: ScriptedIndex) -> None:
    async with live(keep_removed=True) as world:
        await world.mirror(ONE, TWO, stored=[ONE])
        index.remove(ONE)
        index.remove(TWO)
        world.later()
        assert await world.rules("mxa") == {ONE.filename: "R9"}
        revision = (await world.page("mxa"))["_view"]["revision"]
        world.later()
        assert (await world.page("mxa"))["_view"]["revision"] == revision
    async with live(keep_removed=True) as world:
        page = await world.page("mxa")
        assert (page["_view"]["revision"], "_removed" in page) == (revision, False)
        assert page["files"][0]["hashes"] == {"sha256": ONE.sha256}
        decision = await world.answers.decision(MXA, FileName(ONE.filename), ONE.path)
        assert (decision.rule, decision.sha256, decision.path) == ("R9", ONE.sha256, ONE.path)
    async with live() as world:
        assert await world.rule(ONE) == ("R10", 404)
        assert await world.rules("mxa") == {}


async def test_a_project_counts_as_gone_only_after_a_second_answer_past_every_cache(
    world: World, index: ScriptedIndex
) -> None:
    await world.mirror(ONE, stored=[ONE])
    world.later()
    index.instead["mxa"] = [Absent()]
    assert await world.rules("mxa") == {ONE.filename: "R8"}
    assert index.asked[-1] == Asked("mxa", None, no_cache=True)
    del index.listings["mxa"]
    world.later()
    problem = await world.refused("mxa")
    assert (problem.code, "R10" in problem.detail) == (ProblemCode.NOT_FOUND, True)
    assert index.count("mxa") == 5
    assert await world.rule(ONE) == ("R10", 404)
    assert (await world.changes())[-1].withdrawn == (ONE.filename,)


async def test_gone_is_sticky_and_ends_when_upstream_shows_the_project_again(live: Live, index: ScriptedIndex) -> None:
    index.publish(ONE)
    listing = index.listings["mxa"]
    async with live() as world:
        await world.page("mxa")
        await world.store_file(ONE)
        del index.listings["mxa"]
        world.later()
        await world.refused("mxa")
        index.off()
        world.later()
        assert (await world.refused("mxa")).code is ProblemCode.NOT_FOUND
    async with live() as world:
        assert (await world.refused("mxa")).code is ProblemCode.NOT_FOUND
        assert await world.rule(ONE) == ("R10", 404)
        index.on()
        index.listings["mxa"] = listing
        world.later()
        assert await world.rules("mxa") == {ONE.filename: "R8"}


async def test_a_project_that_is_gone_keeps_its_accepted_files_when_the_operator_says_so(
    live: Live, index: ScriptedIndex
) -> None:
    async with live(keep_removed=True) as world:
        await world.mirror(ONE, TWO, stored=[ONE])
        del index.listings["mxa"]
        world.later()
        assert await world.rules("mxa") == {ONE.filename: "R9"}
        assert await world.rule(TWO) == ("R10", 404)


async def test_unreachable_in_between_is_not_gone(world: World, index: ScriptedIndex) -> None:
    await world.mirror(ONE, stored=[ONE])
    world.later()
    index.instead["mxa"] = [Absent(), Away("nobody answers")]
    assert await world.rules("mxa") == {ONE.filename: "R13"}


async def test_a_quarantined_project_lists_nothing_and_stays_so_when_upstream_goes_away(
    live: Live, index: ScriptedIndex
) -> None:
    async with live() as world:
        await world.mirror(ONE, stored=[ONE])
        index.listings["mxa"].extra = {"project-status": {"status": "quarantined", "reason": "malware"}}
        world.later()
        page = await world.page("mxa")
        assert (page["files"], page["_view"]["state"], page["project-status"]["reason"]) == (
            [],
            "quarantined",
            "malware",
        )
        assert (await world.changes())[-1].withdrawn == (ONE.filename,)
    async with live() as world:
        index.off()
        world.later()
        assert (await world.page("mxa"))["files"] == []
        assert await world.rule(ONE) == ("R2", 403)


async def test_a_page_older_than_one_seen_before_is_not_believed(live: Live, index: ScriptedIndex) -> None:
    async with live() as world:
        await world.mirror(ONE, TWO, stored=[TWO])
        del index.listings["mxa"].files[TWO.filename]
        index.listings["mxa"].serial = 1
        world.later()
        page = await world.page("mxa")
        assert page["_view"]["state"] == "down"
        assert {file["filename"]: file["_decision"]["rule"] for file in page["files"]} == {
            ONE.filename: "R14",
            TWO.filename: "R13",
        }
    async with live(upstream="pypi https://other.example/simple/") as world:
        assert await world.rules("mxa") == {ONE.filename: "R8"}


async def test_a_serial_beside_a_page_that_did_not_change_counts_too(world: World, index: ScriptedIndex) -> None:
    index.publish(ONE)
    index.listings["mxa"].serial = None
    raw = index.listings["mxa"].raw("mxa")
    states = []
    for serial in (7, 9, 8):
        index.instead["mxa"] = [FetchedPage(raw=raw, etag=None, serial=serial, opened_origins=())]
        await world.refresher.read_again(MXA)
        states.append((await world.explainer.explain(MXA)).state)
        world.later()
    assert states == ["live", "live", "down"]


@pytest.mark.parametrize(
    "raw",
    [
        b"[]",
        b"{",
        b'{"meta": {"api-version": "2.0"}, "name": "mxa", "files": []}',
        b'{"meta": {"api-version": "1.0"}, "name": "mxb", "files": []}',
        b'{"meta": {"api-version": "1.0"}, "name": "mxa", "files": [{"filename": "mxb-1.0.zip"}]}',
    ],
)
async def test_a_damaged_page_is_wrong_and_the_last_good_one_stays(
    world: World, index: ScriptedIndex, clock: ManualClock, raw: bytes
) -> None:
    damaged = FetchedPage(raw=raw, etag=None, serial=None, opened_origins=())
    index.instead["mxa"] = [damaged]
    assert (await world.refused("mxa")).code is ProblemCode.UPSTREAM_WRONG
    index.publish(ONE)
    clock.pass_seconds(6)
    await world.page("mxa")
    await world.store_file(ONE)
    world.later()
    index.instead["mxa"] = [damaged]
    assert await world.rules("mxa") == {ONE.filename: "R13"}


async def test_a_project_without_files_is_an_empty_page(world: World, index: ScriptedIndex) -> None:
    index.publish(ONE)
    index.remove(ONE)
    assert (await world.page("mxa"))["files"] == []


async def test_a_name_listed_with_two_digests_is_not_listed_and_refused(world: World, index: ScriptedIndex) -> None:
    index.publish(ONE)
    index.publish(TWO)
    index.listings["mxa"].files["again"] = dict(
        index.listings["mxa"].files[ONE.filename], hashes={"sha256": OTHER_ONE.sha256}
    )
    assert await world.rules("mxa") == {TWO.filename: "R8"}
    assert await world.rule(ONE) == ("R3", 403)


async def test_a_lock_file_needs_no_page(world: World, index: ScriptedIndex) -> None:
    index.publish(ONE)
    decision = await world.answers.decision(MXA, FileName(ONE.filename), ONE.path)
    assert (decision.rule, decision.sha256, decision.size, decision.path) == ("R8", ONE.sha256, ONE.size, ONE.path)
    assert decision.urls == (f"https://files.example{ONE.path}",)
    assert decision.core_metadata_sha256 == ONE.metadata_sha256
    assert index.count("mxa") == 1


async def test_a_file_that_is_newer_than_the_page_is_found_by_one_look_past_the_caches(
    world: World, index: ScriptedIndex, clock: ManualClock
) -> None:
    await world.mirror(ONE)
    index.publish(TWO)
    clock.pass_seconds(10)
    assert await world.rule(TWO) == ("R8", 200)
    assert index.count("mxa") == 2


async def test_a_good_file_under_an_address_that_is_not_its_own_is_not_found(
    world: World, index: ScriptedIndex, clock: ManualClock
) -> None:
    await world.mirror(ONE, TWO)
    for _ in range(3):
        clock.pass_seconds(2)
        with pytest.raises(Problem) as raised:
            await world.answers.decision(MXA, FileName(ONE.filename), TWO.path)
        assert raised.value.code is ProblemCode.NOT_FOUND
    assert index.count("mxa") == 2


async def test_a_refused_file_is_refused_under_either_address(world: World) -> None:
    await world.mirror(ONE)
    world.later(OTHER_ONE)
    for path in (ONE.path, OTHER_ONE.path):
        decision = await world.answers.decision(MXA, FileName(ONE.filename), path)
        assert (decision.rule, decision.http) == ("R3", 403)


async def test_a_file_nobody_ever_heard_of_is_not_found(world: World, index: ScriptedIndex) -> None:
    index.publish(ONE)
    with pytest.raises(Problem) as raised:
        await world.rule(sdist("mxa", "9.0"))
    assert raised.value.code is ProblemCode.NOT_FOUND


async def test_files_of_an_upstream_with_other_paths_are_addressed_by_their_digest(
    world: World, index: ScriptedIndex
) -> None:
    index.publish(ONE, url="https://files.example/some/where/" + ONE.filename)
    decision = await world.answers.decision(MXA, FileName(ONE.filename), None)
    sha256 = ONE.sha256
    assert decision.path == f"/packages/{sha256[:2]}/{sha256[2:4]}/{sha256[4:]}/{ONE.filename}"


async def test_a_restart_changes_no_revision_and_forgets_nothing(
    live: Live, index: ScriptedIndex, clock: ManualClock
) -> None:
    async with live() as world:
        await world.mirror(ONE, TWO, stored=[ONE])
        before = (await world.page("mxa"))["_view"]
    async with live() as world:
        clock.pass_seconds(1)
        after = (await world.page("mxa"))["_view"]
        assert (after["revision"], after["seq"], after["age_seconds"]) == (before["revision"], before["seq"], 1)
        assert index.count("mxa") == 1
        index.off()
        world.later()
        assert await world.rules("mxa") == {ONE.filename: "R13", TWO.filename: "R14"}
    async with live() as world:
        assert await world.rules("mxa") == {ONE.filename: "R13", TWO.filename: "R14"}


async def test_what_does_not_fit_into_memory_is_read_again_and_the_same(live: Live, index: ScriptedIndex) -> None:
    async with live(max_held_bytes=1) as world:
        index.publish(ONE)
        index.publish(TWO)
        first = await world.page("mxa")
        await world.store_file(ONE)
        assert await world.page("mxa") == first
        world.later(OTHER_ONE)
        assert await world.rules("mxa") == {ONE.filename: "R3", TWO.filename: "R8"}
        assert (await world.changes())[-1].withdrawn == (ONE.filename,)


async def test_names_that_lead_nowhere_push_out_nothing(world: World) -> None:
    await world.mirror(ONE)
    for number in range(1_100):
        await world.projects.load(ProjectName(f"nope-{number}"))
    assert world.projects.held(MXA) is not None


async def test_whether_a_project_exists_is_told_by_upstream(world: World, index: ScriptedIndex) -> None:
    index.publish(ONE)
    assert await world.refresher.exists(MXA)
    assert not await world.refresher.exists(ProjectName("nope"))
    index.off()
    with pytest.raises(Problem):
        await world.refresher.exists(ProjectName("mxc"))


async def test_one_page_that_upstream_cannot_show_closes_no_other(world: World, index: ScriptedIndex) -> None:
    index.publish(ONE)
    index.instead["mxb"] = [Away("status 503")] * (FAILURES + 2)
    for _ in range(FAILURES + 2):
        assert (await world.refused("mxb")).code is ProblemCode.UPSTREAM_AWAY
    assert index.count("mxb") == FAILURES
    assert await world.rules("mxa") == {ONE.filename: "R8"}


async def test_a_denied_project_does_not_exist_and_upstream_never_hears_its_name(
    live: Live, index: ScriptedIndex
) -> None:
    index.publish(ONE)
    async with live(denials=[Denial(project=MXA)]) as world:
        assert not await world.refresher.exists(MXA)
    assert index.asked == []


async def test_a_kept_file_that_upstream_lists_with_two_digests_is_quarantined_not_kept(
    live: Live, index: ScriptedIndex
) -> None:
    async with live(keep_removed=True) as world:
        await world.mirror(ONE, stored=[ONE])
        twin = {**index.listings["mxa"].files[ONE.filename], "hashes": {"sha256": OTHER_ONE.sha256}}
        index.listings["mxa"].files["twin"] = twin
        world.later()
        await world.page("mxa")
        assert await world.rule(ONE) == ("R3", 403)
