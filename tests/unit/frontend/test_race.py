"""Two sources, one with a head start: the first that opens wins, the other is given up, and nothing is left running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from index_frontend.fill import Race
from index_frontend.fill import race as module
from index_frontend.ports import SourceAway, SourceGone, Wanted
from matrix_pypi_bot.wire.cids import raw_cid
from matrix_pypi_bot.wire.digests import sha256_of
from matrix_pypi_bot.wire.names import ProjectName
from matrix_pypi_bot.wire.problems import Problem

BODY = b"the body"
CID = raw_cid(sha256_of(BODY))
LONG_SECONDS = 60.0
WANTED = Wanted(
    sha256=sha256_of(BODY),
    size=len(BODY),
    urls=("https://a.example/x", "https://b.example/x"),
    opened_origins=frozenset(),
    project=ProjectName("mxa"),
    name="mxa-1.0.tar.gz",
    max_bytes=1 << 20,
    cids=(CID,),
)


@dataclass
class Runner:
    """A source that opens when `go` is set, or fails with `problem` then."""

    name: str
    by_cid: bool
    go: asyncio.Event = field(default_factory=asyncio.Event)
    problem: Problem | None = None
    began: list[tuple[Wanted, int]] = field(default_factory=list)
    under_way: int = 0
    is_silent: bool = False

    def ways(self, wanted: Wanted) -> tuple[Wanted, ...]:
        if self.by_cid:
            return tuple(_with(wanted, urls=(), cids=(cid,)) for cid in wanted.cids)
        return tuple(_with(wanted, urls=(url,)) for url in wanted.urls)

    @asynccontextmanager
    async def fetch(self, wanted: Wanted, start: int = 0) -> AsyncIterator[Body]:
        self.began.append((wanted, start))
        self.under_way += 1
        try:
            await self.go.wait()
            if self.problem is not None:
                raise self.problem
            yield Body(self.name, is_silent=self.is_silent)
        finally:
            self.under_way -= 1


@dataclass
class Body:
    sender: str
    size: int | None = len(BODY)
    is_silent: bool = False

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        yield BODY[:1] if self.is_silent else BODY
        if self.is_silent:
            await asyncio.Event().wait()


def _with(wanted: Wanted, **changes: object) -> Wanted:
    return replace(wanted, **changes)  # type: ignore[arg-type]


def runners(*, ahead: bool = True, behind: bool = True) -> tuple[Runner, Runner]:
    """`peer` and `upstream`; those that are True open at once."""
    peer, upstream = Runner("peer", by_cid=True), Runner("upstream", by_cid=False)
    for runner, ready in ((peer, ahead), (upstream, behind)):
        if ready:
            runner.go.set()
    return peer, upstream


async def winner(race: Race, start: int = 0) -> str:
    async with race.fetch(race.ways(WANTED)[0], start) as body:
        assert b"".join([chunk async for chunk in body.chunks()]) == BODY
        return body.sender


async def test_a_source_that_opens_within_its_head_start_runs_alone() -> None:
    peer, upstream = runners()
    assert await winner(Race(peer, upstream, LONG_SECONDS), 7) == "peer"
    assert peer.began == [(_with(WANTED, urls=()), 7)]
    assert (upstream.began, peer.under_way) == ([], 0)


async def test_when_the_head_start_is_over_the_other_runs_too_and_the_slow_one_is_given_up() -> None:
    peer, upstream = runners(ahead=False)
    assert await winner(Race(peer, upstream, 0.0), 7) == "upstream"
    assert upstream.began == [(_with(WANTED, urls=WANTED.urls[:1], cids=()), 7)]
    assert (peer.under_way, upstream.under_way) == (0, 0)


async def test_a_source_that_fails_within_its_head_start_ends_it() -> None:
    peer, upstream = runners()
    peer.problem = SourceGone("no peer has it")
    assert await winner(Race(peer, upstream, LONG_SECONDS)) == "upstream"


async def test_the_preferred_one_may_still_win_after_its_head_start() -> None:
    peer, upstream = runners(ahead=False, behind=False)
    racing = asyncio.create_task(winner(Race(peer, upstream, 0.0)))
    while not upstream.began:
        await asyncio.sleep(0)
    peer.go.set()
    assert await racing == "peer"
    assert upstream.under_way == 0


@pytest.mark.parametrize("first", [0, 1])
async def test_when_both_fail_the_one_behind_says_why(first: int) -> None:
    pair = runners(ahead=False, behind=False)
    pair[0].problem, pair[1].problem = SourceGone("no peer has it"), SourceAway("refused")
    racing = asyncio.create_task(winner(Race(*pair, 0.0)))
    while not pair[1].began:
        await asyncio.sleep(0)
    pair[first].go.set()
    await asyncio.sleep(0)
    pair[1 - first].go.set()
    with pytest.raises(SourceAway, match="refused"):
        await racing


async def test_whoever_leaves_a_race_leaves_nothing_running() -> None:
    peer, upstream = runners(ahead=False, behind=False)
    racing = asyncio.create_task(winner(Race(peer, upstream, 0.0)))
    while not upstream.began:
        await asyncio.sleep(0)
    racing.cancel()
    await asyncio.gather(racing, return_exceptions=True)
    assert (peer.under_way, upstream.under_way) == (0, 0)


async def test_after_a_race_every_other_way_is_gone_before_those_that_ran() -> None:
    race = Race(*runners(), LONG_SECONDS)
    by_address = [_with(WANTED, urls=(url,), cids=()) for url in WANTED.urls]
    assert race.ways(WANTED) == (
        _with(WANTED, urls=WANTED.urls[:1]),
        by_address[1],
        by_address[0],
        _with(WANTED, urls=()),
    )
    for way in race.ways(WANTED)[1:]:
        async with race.fetch(way) as body:
            assert body.sender == ("peer" if way.cids else "upstream")


async def test_without_a_cid_or_without_an_address_there_is_no_race() -> None:
    race = Race(*runners(), LONG_SECONDS)
    assert race.ways(_with(WANTED, urls=())) == (_with(WANTED, urls=()),)
    unknown = _with(WANTED, cids=())
    assert race.ways(unknown) == tuple(_with(unknown, urls=(url,)) for url in WANTED.urls)


async def test_a_preferred_one_that_wins_and_then_sends_nothing_is_left_for_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.01)
    peer, upstream = runners()
    peer.is_silent = True
    came = b""
    race = Race(peer, upstream, LONG_SECONDS)
    with pytest.raises(SourceAway, match="sends nothing"):
        async with race.fetch(race.ways(WANTED)[0]) as body:
            async for chunk in body.chunks():
                came += chunk
    assert (came, peer.under_way, upstream.began) == (BODY[:1], 0, [])


async def test_who_is_asked_alone_may_take_his_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.0)
    peer, upstream = runners()
    race = Race(peer, upstream, LONG_SECONDS)
    async with race.fetch(race.ways(WANTED)[-1]) as body:
        assert b"".join([chunk async for chunk in body.chunks()]) == BODY
