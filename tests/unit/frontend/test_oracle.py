"""The bot's word and how long it holds: what is answered without asking, what changes do to it, what happens when the bot is away."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from index_frontend.oracle import BotAway, BotBroken, BotOracle, Patience
from index_frontend.oracle.stream import FIRST_PAUSE_SECONDS
from index_frontend.oracle.word import IDLE_SECONDS
from matrix_pypi_bot.wire.messages import STREAM_SILENCE_SECONDS, Change, Decision, Observed, Stored
from matrix_pypi_bot.wire.names import FilePath, ProjectName, parse_file_path
from matrix_pypi_bot.wire.problems import Problem, ProblemCode
from tests.support.bot_pages import file_entry
from tests.support.scripted_bot import ScriptedBot, until

MXA = ProjectName("mxa")
ENTRY = file_entry("mxa-1.0-py3-none-any.whl", **{"core-metadata": {"sha256": "cd" * 32}})
OTHER = file_entry("mxa-2.0-py3-none-any.whl")
WHEEL = parse_file_path(ENTRY["_path"])
SECOND = parse_file_path(OTHER["_path"])
MAX_STALE_SECONDS = 300.0


@dataclass(slots=True)
class Clock:
    """Time as the test says."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True)
class World:
    """An oracle beside a bot that says what the test says."""

    bot: ScriptedBot
    clock: Clock
    oracle: BotOracle

    async def beat(self, seq: int = 1) -> None:
        """The change stream speaks."""
        self.bot.say(Change(seq=seq, heartbeat=True))
        await self.heard()

    async def change(self, seq: int, revision: str, withdrawn: tuple[str, ...] = (), project: str = "mxa") -> None:
        """The change stream tells of a change."""
        self.bot.say(Change(seq=seq, project=project, revision=revision, withdrawn=withdrawn))
        await self.heard()

    async def heard(self) -> None:
        """Everything that was said has been heard."""
        await until(self.bot._lines.empty)
        await asyncio.sleep(0)

    async def go_away(self) -> None:
        """The bot dies: its stream breaks and nothing is answered."""
        self.bot.down = True
        self.bot.break_stream()
        await until(lambda: not self.oracle.pulse.is_live)

    def decided(self, of: FilePath, **more: object) -> Decision:
        """The decision on a file that is not on any page."""
        text = f"/packages/{of.address[:2]}/{of.address[2:4]}/{of.address[4:]}/{of.file}"
        fields = {"action": "serve", "http": 200, "rule": "R8", "project": "mxa", "file": of.file, "path": text}
        decision = Decision(**{**fields, "sha256": "ab" * 32, "seq": self.bot.seq, **more})  # type: ignore[arg-type]
        self.bot.decisions[of.file] = decision
        return decision


def world_of(serve_when_down: bool = False) -> World:
    bot, clock = ScriptedBot(), Clock()
    patience = Patience(short_seconds=0.02, long_seconds=0.05, step_seconds=0.005)
    oracle = BotOracle(
        bot,
        max_stale_seconds=MAX_STALE_SECONDS,
        serve_when_down=serve_when_down,
        patience=patience,
        clock=clock,
    )
    return World(bot, clock, oracle)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A world whose change stream speaks."""
    made = world_of()
    follow = asyncio.create_task(made.oracle.follow())
    await made.beat()
    yield made
    follow.cancel()
    await asyncio.gather(follow, return_exceptions=True)
    await made.oracle.close()


# Pages ---------------------------------------------------------------------------------------------------------------


async def test_a_fresh_page_is_asked_for_once(world: World) -> None:
    world.bot.publish("mxa", [ENTRY], revision="r1")
    first, second = await world.oracle.page(MXA), await world.oracle.page(MXA)
    assert (first.hit, first.stale, first.remaining_seconds) == (False, False, 60.0)
    assert second == dataclasses.replace(first, hit=True)
    assert world.bot.asked == [("page", "mxa")]


async def test_concurrent_misses_ask_once(world: World) -> None:
    world.bot.publish("mxa", revision="r1")
    pages = await asyncio.gather(*(world.oracle.page(MXA) for _ in range(50)))
    assert {page.document.view.revision for page in pages} == {"r1"}
    assert world.bot.asked == [("page", "mxa")]


async def test_a_page_past_its_freshness_is_asked_about_and_renewed(world: World) -> None:
    world.bot.publish("mxa", revision="r1")
    await world.oracle.page(MXA)
    world.clock.now += 61
    await world.beat()
    assert (await world.oracle.page(MXA)).hit is False
    assert ((await world.oracle.page(MXA)).hit, (await world.oracle.page(MXA)).remaining_seconds) == (True, 60.0)
    assert len(world.bot.asked) == 2


async def test_that_others_are_pinned_is_known_from_the_next_answer_about_the_same_page(world: World) -> None:
    world.bot.publish("mxa", [ENTRY], revision="r1")
    await world.oracle.page(MXA)
    assert not (await world.oracle.standing(WHEEL)).has_peers
    world.bot.has_peers = True
    world.clock.now += 61
    await world.beat()
    await world.oracle.page(MXA)
    assert (await world.oracle.standing(WHEEL)).has_peers


async def test_a_file_without_an_address_upstream_has_none(world: World) -> None:
    world.bot.publish("mxa", [{**ENTRY, "_url": ""}, OTHER], revision="r1")
    await world.oracle.page(MXA)
    assert (await world.oracle.standing(WHEEL)).urls == ()
    assert (await world.oracle.standing(SECOND)).urls == (OTHER["_url"],)


async def test_a_page_for_which_upstream_was_not_asked_is_a_hit_even_if_the_bot_was(world: World) -> None:
    world.bot.publish("mxa", revision="r1")
    world.bot.age_seconds = 3.0
    assert (await world.oracle.page(MXA)).hit


async def test_a_page_whose_upstream_is_down_is_stale(world: World) -> None:
    world.bot.publish("mxa", revision="r1")
    world.bot.state = "down"
    assert [(await world.oracle.page(MXA)).stale for _ in range(2)] == [True, True]


async def test_a_change_takes_the_page_out_of_use(world: World) -> None:
    world.bot.publish("mxa", revision="r1")
    await world.oracle.page(MXA)
    world.bot.seq = 5
    world.bot.publish("mxa", [ENTRY], revision="r2")
    await world.change(5, "r2")
    page = await world.oracle.page(MXA)
    assert (page.hit, page.document.view.revision) == (False, "r2")


async def test_a_change_to_the_revision_that_is_held_costs_nothing(world: World) -> None:
    world.bot.publish("mxa", revision="r1")
    await world.oracle.page(MXA)
    await world.change(5, "r1")
    assert (await world.oracle.page(MXA)).hit


async def test_a_change_of_another_project_costs_nothing(world: World) -> None:
    world.bot.publish("mxa", revision="r1")
    await world.oracle.page(MXA)
    await world.change(5, "r9", project="mxb")
    assert (await world.oracle.page(MXA)).hit


async def test_an_answer_that_a_change_overtook_is_asked_for_again(world: World) -> None:
    world.bot.publish("mxa", revision="r1")
    world.bot.gate.clear()
    asking = asyncio.create_task(world.oracle.page(MXA))
    await until(lambda: world.bot.asked)
    world.bot.seq = 5
    world.bot.publish("mxa", revision="r2")
    await world.change(5, "r2")
    world.bot.gate.set()
    page = await asking
    assert (page.document.view.revision, world.bot.asked) == ("r2", [("page", "mxa")] * 2)
    assert (await world.oracle.page(MXA)).hit


async def test_a_page_that_changes_faster_than_it_is_read_is_served_but_not_kept(world: World) -> None:
    world.bot.publish("mxa", revision="r1")
    world.bot.seq = 1
    await world.change(7, "r7")
    world.bot.seq = 1  # a bot that answers from before its own change
    page = await world.oracle.page(MXA)
    assert (page.document.view.revision, page.remaining_seconds) == ("r1", 0.0)
    assert (await world.oracle.page(MXA)).hit is False


async def test_a_later_answer_is_not_replaced_by_an_earlier_one(world: World) -> None:
    world.bot.publish("mxa", revision="r1")
    world.bot.gate.clear()
    early = asyncio.create_task(world.oracle.page(MXA))
    await until(lambda: len(world.bot.asked) == 1)
    world.bot.seq = 5
    world.bot.publish("mxa", revision="r2")
    late = asyncio.create_task(world.oracle.page(MXA, refresh=True))
    await until(lambda: len(world.bot.asked) == 2)
    world.bot.gate.set()
    await asyncio.gather(early, late)
    assert (await world.oracle.page(MXA)).document.view.revision == "r2"


async def test_after_a_reset_nothing_held_is_used(world: World) -> None:
    world.bot.publish("mxa", [ENTRY], revision="r1")
    await world.oracle.page(MXA)
    world.bot.say(Change(reset=True))
    await world.beat(1)
    assert (await world.oracle.page(MXA)).hit is False


async def test_an_answer_of_the_life_before_a_reset_is_not_kept(world: World) -> None:
    world.bot.seq = 500
    world.bot.publish("mxa", revision="r1")
    world.bot.gate.clear()
    asking = asyncio.create_task(world.oracle.page(MXA))
    await until(lambda: world.bot.asked)
    world.bot.say(Change(reset=True))
    await world.beat(1)
    world.bot.seq = 1
    world.bot.publish("mxa", revision="r2")
    world.bot.gate.set()
    assert (await asking).document.view.revision == "r2"


async def test_what_was_fetched_before_the_stream_spoke_is_asked_about_again() -> None:
    world = world_of()
    world.bot.publish("mxa", revision="r1")
    assert [(await world.oracle.page(MXA)).hit for _ in range(2)] == [False, False]
    follow = asyncio.create_task(world.oracle.follow())
    await world.beat()
    assert [(await world.oracle.page(MXA)).hit for _ in range(2)] == [False, True]
    follow.cancel()


async def test_a_refresh_asks_the_bot_to_look_and_at_most_every_five_seconds(world: World) -> None:
    world.bot.publish("mxa", revision="r1")
    await world.oracle.page(MXA)
    pages = await asyncio.gather(*(world.oracle.page(MXA, refresh=True) for _ in range(50)))
    assert [page.hit for page in pages] == [False] * 50
    assert (await world.oracle.page(MXA, refresh=True)).hit
    world.clock.now += 5
    assert (await world.oracle.page(MXA, refresh=True)).hit is False
    assert world.bot.asked == [("page", "mxa"), ("page", "mxa", "refresh"), ("page", "mxa", "refresh")]


async def test_an_unknown_project_is_asked_for_once_in_a_while(world: World) -> None:
    for _ in range(3):
        with pytest.raises(Problem, match="no project mxa") as absent:
            await world.oracle.page(MXA)
        assert absent.value.code is ProblemCode.NOT_FOUND
    assert len(world.bot.asked) == 1
    with pytest.raises(Problem):
        await world.oracle.page(MXA, refresh=True)
    assert len(world.bot.asked) == 2
    world.clock.now += 11
    await world.beat()
    with pytest.raises(Problem):
        await world.oracle.page(MXA)
    assert len(world.bot.asked) == 3


async def test_a_project_that_appears_is_found_at_once(world: World) -> None:
    with pytest.raises(Problem):
        await world.oracle.page(MXA)
    world.bot.publish("mxa", revision="r1")
    await world.change(5, "r1")
    assert (await world.oracle.page(MXA)).document.name == "mxa"


@pytest.mark.parametrize("code", [ProblemCode.NOT_FOUND, ProblemCode.REFUSED, ProblemCode.UPSTREAM_AWAY])
async def test_the_bot_s_refusal_counts_more_than_the_page_it_gave_before(world: World, code: ProblemCode) -> None:
    world.bot.publish("mxa", [ENTRY], revision="r1")
    await world.oracle.page(MXA)
    world.bot.pages["mxa"] = Problem("matrix-pypi: R1 denied", code=code)
    world.clock.now += 61
    await world.beat()
    with pytest.raises(Problem, match="R1 denied") as refused:
        await world.oracle.page(MXA)
    assert refused.value.code is code


async def test_a_page_that_is_none_is_the_bot_s_failure(world: World) -> None:
    world.bot.pages["mxa"] = b'{"name": 5}'
    with pytest.raises(BotBroken, match="is none"):
        await world.oracle.page(MXA)


# The bot away --------------------------------------------------------------------------------------------------------


async def test_what_is_held_goes_on_being_served_as_stale_until_it_is_too_old(world: World) -> None:
    world.bot.publish("mxa", [ENTRY], revision="r1")
    await world.oracle.page(MXA)
    await world.go_away()
    world.clock.now += MAX_STALE_SECONDS - 1
    page = await world.oracle.page(MXA)
    assert (page.stale, page.remaining_seconds, page.document.view.revision) == (True, 0.0, "r1")
    assert (await world.oracle.standing(WHEEL)).serves
    world.clock.now += 2
    with pytest.raises(BotAway) as away:
        await world.oracle.page(MXA)
    assert away.value.code.status == 503
    with pytest.raises(Problem) as unavailable:
        await world.oracle.standing(WHEEL)
    assert unavailable.value.code.status == 504


async def test_by_configuration_what_was_decided_before_is_served_for_ever_and_nothing_new() -> None:
    world = world_of(serve_when_down=True)
    follow = asyncio.create_task(world.oracle.follow())
    await world.beat()
    world.bot.publish("mxa", [ENTRY], revision="r1")
    await world.oracle.page(MXA)
    await world.go_away()
    world.clock.now += 10 * MAX_STALE_SECONDS
    assert (await world.oracle.page(MXA)).stale
    assert (await world.oracle.standing(WHEEL)).serves
    with pytest.raises(BotAway):
        await world.oracle.page(ProjectName("mxb"))
    with pytest.raises(Problem):
        await world.oracle.standing(SECOND)
    follow.cancel()


async def test_a_page_that_changed_before_the_bot_died_is_still_better_than_none(world: World) -> None:
    world.bot.publish("mxa", [ENTRY, OTHER], revision="r1")
    await world.oracle.page(MXA)
    await world.change(5, "r2", withdrawn=(WHEEL.file,))
    await world.go_away()
    assert (await world.oracle.page(MXA)).stale
    assert (await world.oracle.standing(SECOND)).serves
    with pytest.raises(Problem) as withdrawn:
        await world.oracle.standing(WHEEL)
    assert withdrawn.value.code.status == 504


async def test_a_bot_that_hangs_is_waited_for_shortly_and_then_not_at_all(world: World) -> None:
    world.bot.publish("mxa", revision="r1")
    await world.oracle.page(MXA)
    world.bot.gate.clear()
    world.clock.now += STREAM_SILENCE_SECONDS + 1
    ticking = asyncio.create_task(_tick(world.clock))
    assert (await world.oracle.page(MXA)).stale
    ticking.cancel()
    assert world.oracle.pulse.is_away
    before = world.clock.now
    assert (await world.oracle.page(MXA)).stale
    assert world.clock.now == before


async def test_a_slow_answer_is_kept_for_the_next_who_asks(world: World) -> None:
    world.bot.publish("mxa", revision="r1")
    world.bot.gate.clear()
    ticking = asyncio.create_task(_tick(world.clock))
    with pytest.raises(BotAway):
        await world.oracle.page(MXA)
    ticking.cancel()
    world.bot.gate.set()
    await world.beat()
    assert (await world.oracle.page(MXA)).document.view.revision == "r1"
    assert world.bot.asked == [("page", "mxa")]


async def _tick(clock: Clock) -> None:
    while True:
        await asyncio.sleep(0.001)
        clock.now += 0.005


async def test_the_stream_is_resumed_where_it_broke_and_nothing_is_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.bot.publish("mxa", revision="r1")
    await world.oracle.page(MXA)
    await world.beat(41)
    world.bot.break_stream()
    await until(lambda: not world.oracle.pulse.is_live)
    async with asyncio.timeout(20 * FIRST_PAUSE_SECONDS):
        while len(world.bot.connections) < 2:
            await asyncio.sleep(FIRST_PAUSE_SECONDS / 10)
    await world.beat(41)
    assert world.bot.connections == [None, 41]
    assert (await world.oracle.page(MXA)).hit


# Files ---------------------------------------------------------------------------------------------------------------


async def test_a_file_of_a_held_page_is_decided_without_asking(world: World) -> None:
    world.bot.publish("mxa", [ENTRY], revision="r1")
    await world.oracle.page(MXA)
    asked = list(world.bot.asked)
    assert await world.oracle.standing(WHEEL) == Decision(
        action="serve+attest",
        http=200,
        rule="R8",
        project="mxa",
        file=WHEEL.file,
        path=ENTRY["_path"],
        sha256=ENTRY["hashes"]["sha256"],
        size=ENTRY["size"],
        core_metadata_sha256="cd" * 32,
        urls=(ENTRY["_url"],),
        seq=1,
    )
    metadata = dataclasses.replace(WHEEL, metadata=True)
    assert await world.oracle.standing(metadata) == await world.oracle.standing(WHEEL)
    assert world.bot.asked == asked


async def test_a_refusal_is_an_answer(world: World) -> None:
    refusal = {"action": "refuse", "http": 403, "rule": "R3", "reason": "matrix-pypi: R3 the digest changed upstream"}
    world.bot.publish("mxa", [ENTRY | {"_decision": refusal}], revision="r1")
    await world.oracle.page(MXA)
    standing = await world.oracle.standing(WHEEL)
    assert (standing.serves, standing.http, standing.reason) == (False, 403, refusal["reason"])


async def test_a_file_in_use_tells_the_bot_so_when_its_page_is_past_its_freshness(world: World) -> None:
    world.bot.publish("mxa", [ENTRY], revision="r1")
    await world.oracle.page(MXA)
    world.clock.now += 61
    await world.beat()
    assert (await world.oracle.standing(WHEEL)).serves
    await until(lambda: world.bot.asked == [("page", "mxa")] * 2)


async def test_of_a_project_that_nobody_asked_about_for_long_the_bots_answer_is_waited_for(world: World) -> None:
    world.bot.publish("mxa", [ENTRY], revision="r1")
    await world.oracle.page(MXA)
    refusal = {"action": "refuse", "http": 403, "rule": "R2", "reason": "matrix-pypi: R2 quarantined"}
    world.bot.publish("mxa", [ENTRY | {"_decision": refusal}], revision="r2")
    world.clock.now += 60 + IDLE_SECONDS - 1
    await world.beat()
    assert (await world.oracle.standing(WHEEL)).serves, "in use: the bot itself looks after it"
    await until(lambda: world.bot.asked == [("page", "mxa")] * 2)
    world.bot.publish("mxa", [ENTRY], revision="r3")
    await world.oracle.page(MXA, refresh=True)
    world.bot.publish("mxa", [ENTRY | {"_decision": refusal}], revision="r4")
    world.clock.now += 60 + IDLE_SECONDS
    await world.beat()
    assert (await world.oracle.standing(WHEEL)).rule == "R2"


async def test_a_file_without_a_page_is_decided_once_for_all_who_ask(world: World) -> None:
    decision = world.decided(WHEEL)
    assert await asyncio.gather(*(world.oracle.standing(WHEEL) for _ in range(50))) == [decision] * 50
    assert await world.oracle.standing(WHEEL) == decision
    assert world.bot.asked == [("decide", "mxa", WHEEL.file)]
    world.clock.now += 31
    await world.beat()
    await world.oracle.standing(WHEEL)
    assert len(world.bot.asked) == 2


async def test_a_withdrawn_file_is_asked_about_at_once(world: World) -> None:
    world.bot.publish("mxa", [ENTRY], revision="r1")
    await world.oracle.page(MXA)
    assert (await world.oracle.standing(WHEEL)).serves
    refusal = {"action": "refuse", "http": 403, "rule": "R6", "reason": "matrix-pypi: R6 refuted"}
    world.bot.seq = 5
    world.bot.publish("mxa", [ENTRY | {"_decision": refusal}], revision="r2")
    await world.change(5, "r2", withdrawn=(WHEEL.file,))
    assert (await world.oracle.standing(WHEEL)).reason == "matrix-pypi: R6 refuted"


@pytest.mark.parametrize("listed", [False, True], ids=["alone", "on a page"])
async def test_an_answer_that_a_withdrawal_overtook_serves_nobody(world: World, listed: bool) -> None:
    world.decided(WHEEL)
    if listed:
        world.bot.publish("mxa", [ENTRY], revision="r1")
        await world.oracle.page(MXA)
        await world.change(3, "r2")
        world.bot.publish("mxa", [ENTRY], revision="r2")
    before = len(world.bot.asked)
    world.bot.gate.clear()
    early = asyncio.create_task(world.oracle.standing(WHEEL))
    await until(lambda: len(world.bot.asked) > before)
    await world.change(5, "r3", withdrawn=(WHEEL.file,))
    refusal = {"action": "refuse", "http": 403, "rule": "R6", "reason": "matrix-pypi: R6 refuted"}
    world.decided(WHEEL, **refusal)
    world.bot.publish("mxa", [ENTRY | {"_decision": refusal}] if listed else [], revision="r3")
    late = asyncio.create_task(world.oracle.standing(WHEEL))
    world.bot.gate.set()
    assert [decision.serves for decision in await asyncio.gather(early, late)] == [False, False]


async def test_a_change_ends_a_decision_that_was_asked_for_alone(world: World) -> None:
    world.decided(WHEEL)
    assert (await world.oracle.standing(WHEEL)).serves
    await world.change(5, "r2", withdrawn=(WHEEL.file,))
    world.decided(WHEEL, action="refuse", http=403)
    assert not (await world.oracle.standing(WHEEL)).serves


async def test_a_decision_alone_outlives_the_bot_unless_it_was_withdrawn(world: World) -> None:
    world.decided(WHEEL)
    world.decided(SECOND)
    await world.oracle.standing(WHEEL)
    await world.oracle.standing(SECOND)
    await world.change(5, "r2", withdrawn=(SECOND.file,))
    await world.go_away()
    world.clock.now += MAX_STALE_SECONDS - 1
    assert (await world.oracle.standing(WHEEL)).serves
    with pytest.raises(Problem):
        await world.oracle.standing(SECOND)


async def test_a_path_that_no_page_names_is_asked_for_once_in_a_while(world: World) -> None:
    for _ in range(3):
        with pytest.raises(Problem, match="no page names") as absent:
            await world.oracle.standing(WHEEL)
        assert absent.value.code is ProblemCode.NOT_FOUND
    assert world.bot.asked == [("decide", "mxa", WHEEL.file)]


@pytest.mark.parametrize(
    ("name", "projects"),
    [
        ("mx_a-1.0-py3-none-any.whl", ["mx-a"]),
        ("mx_a-1.0.tar.gz", ["mx-a"]),
        ("a-b-1.0-py2.7.egg", ["a-b"]),
        ("a-2-1.0.win32.exe", ["a", "a-2"]),
        ("a-b.zip", ["a"]),
    ],
)
async def test_those_projects_are_asked_about_that_a_file_of_this_name_may_belong_to(
    world: World, name: str, projects: list[str]
) -> None:
    with pytest.raises(Problem, match="no page names"):
        await world.oracle.standing(parse_file_path(file_entry(name)["_path"]))
    assert [asked[1] for asked in world.bot.asked] == projects


async def test_a_good_file_under_an_address_that_is_not_its_own_is_not_there(world: World) -> None:
    world.decided(WHEEL, path=OTHER["_path"])
    with pytest.raises(Problem, match="no page names"):
        await world.oracle.standing(WHEEL)


@pytest.mark.parametrize(("code", "status"), [(ProblemCode.UPSTREAM_AWAY, 504), (ProblemCode.UPSTREAM_WRONG, 502)])
async def test_a_file_that_cannot_be_decided_now_is_no_503(world: World, code: ProblemCode, status: int) -> None:
    world.bot.decisions[WHEEL.file] = Problem("upstream is away", code=code)
    with pytest.raises(Problem, match="upstream is away") as unavailable:
        await world.oracle.standing(WHEEL)
    assert unavailable.value.code.status == status


# Reports and names ---------------------------------------------------------------------------------------------------


async def test_a_report_is_kept_by_the_caller_until_the_bot_has_it(world: World) -> None:
    report = Stored(project="mxa", file=WHEEL.file, sha256="ab" * 32, size=1, cid="bafk", source="upstream")
    world.bot.down = True
    assert await world.oracle.report_stored(report) is False
    world.bot.down = False
    assert await world.oracle.report_stored(report) is True
    assert world.bot.stored_reports == [report]


async def test_wrong_bytes_are_reported_as_far_as_that_goes(world: World) -> None:
    report = Observed(
        project="mxa", file=WHEEL.file, expected_sha256="ab" * 32, sha256=None, size=1, source="upstream", reason="cut"
    )
    world.bot.down = True
    await world.oracle.report_observed(report)
    world.bot.down = False
    await world.oracle.report_observed(report)
    assert world.bot.observed_reports == [report]


async def test_the_names_of_all_projects_come_from_the_bot(world: World) -> None:
    world.bot.names = ["mxa", "mxb"]
    async with world.oracle.projects(None) as names:
        assert [name async for batch in names.batches for name in batch] == ["mxa", "mxb"]
    async with world.oracle.projects(names.revision) as again:
        assert again.unchanged


# By name -------------------------------------------------------------------------------------------------------------


async def test_a_file_on_a_held_page_is_known_by_its_name_without_asking(world: World) -> None:
    world.bot.publish("mxa", [ENTRY], revision="r1")
    await world.oracle.page(MXA)
    assert await world.oracle.standing_of(MXA, WHEEL.file) == await world.oracle.standing(WHEEL)
    assert world.bot.asked == [("page", "mxa")]


async def test_a_file_without_its_page_is_asked_about_by_its_name_once(world: World) -> None:
    decided = world.decided(WHEEL)
    assert [await world.oracle.standing_of(MXA, WHEEL.file) for _ in range(3)] == [decided] * 3
    assert world.bot.asked == [("decide", "mxa", WHEEL.file)]


async def test_a_file_known_by_its_name_is_asked_about_again_as_soon_as_it_is_withdrawn(world: World) -> None:
    world.decided(WHEEL)
    await world.oracle.standing_of(MXA, WHEEL.file)
    refused = world.decided(WHEEL, action="refuse", http=403, rule="R3", seq=2)
    await world.change(2, "r2", withdrawn=(WHEEL.file,))
    assert await world.oracle.standing_of(MXA, WHEEL.file) == refused


async def test_a_name_that_no_page_has_is_refused(world: World) -> None:
    for _ in range(2):
        with pytest.raises(Problem) as caught:
            await world.oracle.standing_of(MXA, WHEEL.file)
        assert caught.value.code is ProblemCode.NOT_FOUND
    assert world.bot.asked == [("decide", "mxa", WHEEL.file)]


async def test_while_the_bot_is_away_a_name_stands_as_it_did_unless_withdrawn(world: World) -> None:
    decided = world.decided(WHEEL)
    await world.oracle.standing_of(MXA, WHEEL.file)
    await world.go_away()
    assert await world.oracle.standing_of(MXA, WHEEL.file) == decided
    with pytest.raises(Problem) as caught:
        await world.oracle.standing_of(MXA, SECOND.file)
    assert caught.value.code is ProblemCode.FILE_UNAVAILABLE


async def test_whereabouts_are_asked_of_the_bot_even_when_the_page_is_held(world: World) -> None:
    world.bot.publish("mxa", [ENTRY], revision="r1")
    await world.oracle.page(MXA)
    decided = world.decided(WHEEL, cids=("bafkqaaa",))
    assert [await world.oracle.whereabouts(MXA, WHEEL.file) for _ in range(2)] == [decided] * 2
    assert world.bot.asked == [("page", "mxa"), ("decide", "mxa", WHEEL.file)]


# What a page leaves to the bot ------------------------------------------------------------------------------------------

ASKS = {"_decision": {"action": "serve+attest", "http": 200, "rule": "R8", "reason": "", "ask": True}}
UNSEEN = file_entry("mxa-1.0-py3-none-any.whl", **ASKS)


async def test_a_file_that_the_page_leaves_to_the_bot_is_asked_about_once(world: World) -> None:
    world.bot.publish("mxa", [UNSEEN, OTHER], revision="r1")
    decision = world.decided(WHEEL)
    await world.oracle.page(MXA)
    assert [await world.oracle.standing(WHEEL) for _ in range(3)] == [decision] * 3
    assert (await world.oracle.standing(SECOND)).rule == "R8"
    assert world.bot.asked == [("page", "mxa"), ("decide", "mxa", WHEEL.file)]


async def test_what_the_bot_then_says_counts_and_not_the_page(world: World) -> None:
    world.bot.publish("mxa", [UNSEEN], revision="r1")
    refused = world.decided(WHEEL, action="quarantine", http=403, rule="R4")
    await world.oracle.page(MXA)
    assert await world.oracle.standing(WHEEL) == refused
    assert await world.oracle.standing_of(MXA, WHEEL.file) == refused


async def test_once_the_page_knows_it_is_believed_again(world: World) -> None:
    world.bot.publish("mxa", [UNSEEN], revision="r1")
    world.decided(WHEEL)
    await world.oracle.page(MXA)
    await world.oracle.standing(WHEEL)
    world.bot.seq = 5
    world.bot.publish("mxa", [ENTRY], revision="r2")
    await world.change(5, "r2")
    world.clock.now += 31
    await world.beat()
    await world.oracle.page(MXA)
    asked = len(world.bot.asked)
    assert (await world.oracle.standing(WHEEL)).core_metadata_sha256 == "cd" * 32
    assert len(world.bot.asked) == asked


async def test_an_outdated_page_is_asked_for_before_the_file_is(world: World) -> None:
    world.bot.publish("mxa", [UNSEEN], revision="r1")
    await world.oracle.page(MXA)
    world.bot.seq = 5
    world.bot.publish("mxa", [ENTRY], revision="r2")
    await world.change(5, "r2")
    assert (await world.oracle.standing(WHEEL)).core_metadata_sha256 == "cd" * 32
    assert world.bot.asked == [("page", "mxa")] * 2


async def test_without_the_bot_a_file_that_was_never_asked_about_is_not_served(world: World) -> None:
    world.bot.publish("mxa", [UNSEEN, OTHER], revision="r1")
    await world.oracle.page(MXA)
    await world.go_away()
    assert (await world.oracle.standing(SECOND)).rule == "R8"
    with pytest.raises(Problem) as away:
        await world.oracle.standing(WHEEL)
    assert away.value.code is ProblemCode.FILE_UNAVAILABLE


async def test_without_the_bot_a_file_that_was_asked_about_is_served_on(world: World) -> None:
    world.bot.publish("mxa", [UNSEEN], revision="r1")
    decision = world.decided(WHEEL)
    await world.oracle.page(MXA)
    await world.oracle.standing(WHEEL)
    await world.go_away()
    assert await world.oracle.standing(WHEEL) == decision
