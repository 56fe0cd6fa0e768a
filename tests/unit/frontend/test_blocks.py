"""Files from neighbours, block by block: what is right arrives in order, whoever lies, lacks or lags costs little."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

import pytest

from index_frontend.blocks import Blocks, Neighbour, cids_of
from index_frontend.blocks import getter as getter_module
from index_frontend.blocks.file import AHEAD
from index_frontend.blocks.getter import Getter
from index_frontend.blocks.neighbour import (
    FAILURES,
    FIRST_BLAME_SECONDS,
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    MAX_LIMIT,
    STALL_SECONDS,
)
from index_frontend.dag.blocks import LEAF_BYTES, node_cid
from index_frontend.ports import SourceAway, SourceGone, SourceWrong, Wanted
from index_frontend.storage.api import ContentId, Health, NotFound, Stat, StorageBackend, Unavailable, WrongContent
from index_frontend.storage.verified import Verified
from matrix_pypi_bot.wire.cids import Block, Cid, CidBuilder, raw_cid, split_cid
from matrix_pypi_bot.wire.digests import sha256_of
from matrix_pypi_bot.wire.messages import Observed
from matrix_pypi_bot.wire.names import ProjectName

BIG = random.Random(1).randbytes(12 * LEAF_BYTES + 1_234)
SMALL = b"a wheel of one leaf"


def blocks_of(data: bytes) -> tuple[Cid, dict[Cid, bytes]]:
    """Root and all blocks."""
    made: list[Block] = []
    builder = CidBuilder(on_block=made.append)
    builder.update(data)
    root = builder.finish()
    return root, {b.cid: data[b.offset : b.offset + b.size] if b.data is None else b.data for b in made}


ROOT, BLOCKS = blocks_of(BIG)


class Mirror(StorageBackend):
    """Gives the blocks of `held`; `after` is awaited first, `lies` are sent in place of some."""

    def __init__(self, name: str, held: dict[Cid, bytes] | None = None) -> None:
        super().__init__(name)
        self.held = dict(BLOCKS if held is None else held)
        self.lies: dict[Cid, bytes] = {}
        self.fails = 0
        self.asked: list[Cid] = []
        self.at_once = self.most_at_once = 0
        self.gate: asyncio.Event | None = None

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def stat(self, content: ContentId) -> Stat | None:
        """Not asked for here."""
        raise NotImplementedError

    def read(self, content: ContentId) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Not asked for here."""
        raise NotImplementedError

    async def health(self) -> Health:
        """Well."""
        return Health(state="ok")

    async def get_block(self, cid: Cid) -> bytes:
        """See the interface."""
        self.asked.append(cid)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(0)
            if self.gate is not None:
                await self.gate.wait()
            if self.fails:
                self.fails -= 1
                raise Unavailable("answers 503", backend=self.name)
            if cid not in self.held:
                raise NotFound("does not have it", backend=self.name)
            return self.lies.get(cid, self.held[cid])
        finally:
            self.at_once -= 1


@dataclass
class Clock:
    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    blocks: Blocks
    neighbours: list[Neighbour]
    clock: Clock
    observed: list[Observed] = field(default_factory=list)


async def world(*mirrors: StorageBackend) -> World:
    clock, observed = Clock(), list[Observed]()
    neighbours = []
    for mirror in mirrors:
        checked = Verified(mirror)
        await checked.open()
        neighbours.append(Neighbour(checked, "peer", clock))

    async def report(what: Observed) -> None:
        observed.append(what)

    return World(Blocks(neighbours, report), neighbours, clock, observed)


def wanted(data: bytes = BIG, *, cids: Sequence[str] = (ROOT,), size: int | None = -1, **more: object) -> Wanted:
    fields = {"urls": (), "opened_origins": frozenset(), "project": ProjectName("mxa"), "name": "mxa-1.0.tar.gz"}
    told = {"size": len(data) if size == -1 else size, "cids": tuple(cids), "max_bytes": 1 << 30}
    return Wanted(sha256=sha256_of(data), **{**fields, **told, **more})  # type: ignore[arg-type]


async def fetched(blocks: Blocks, want: Wanted, start: int = 0) -> bytes:
    (way,) = blocks.ways(want)
    async with blocks.fetch(way, start) as body:
        assert body.size == len(BIG if want.cids else SMALL)
        return b"".join([chunk async for chunk in body.chunks()])


async def test_a_file_arrives_in_order_from_several_neighbours_side_by_side() -> None:
    one, two = Mirror("one"), Mirror("two")
    made = await world(one, two)
    assert await fetched(made.blocks, wanted()) == BIG
    assert one.asked
    assert two.asked
    assert sorted(one.asked + two.asked) == sorted(BLOCKS)


async def test_a_short_file_needs_no_attestation_its_digest_is_its_cid() -> None:
    made = await world(Mirror("one", blocks_of(SMALL)[1]))
    assert await fetched(made.blocks, wanted(SMALL, cids=())) == SMALL
    assert await fetched(made.blocks, wanted(SMALL, cids=(), size=None)) == SMALL


async def test_a_long_file_of_unknown_size_tells_it_in_its_root() -> None:
    made = await world(Mirror("one"))
    assert await fetched(made.blocks, wanted(size=None)) == BIG


@pytest.mark.parametrize("start", [1, LEAF_BYTES, 5 * LEAF_BYTES + 7, len(BIG) - 1, len(BIG)])
async def test_a_transfer_that_is_resumed_asks_only_for_what_is_missing(start: int) -> None:
    mirror = Mirror("one")
    made = await world(mirror)
    assert await fetched(made.blocks, wanted(), start) == BIG[start:]
    assert len(mirror.asked) == 1 + (13 - start // LEAF_BYTES if start < len(BIG) else 0)


@pytest.mark.parametrize(
    ("start", "stop", "leaves"),
    [
        (0, 1, 1),
        (0, LEAF_BYTES, 1),
        (LEAF_BYTES - 1, LEAF_BYTES + 1, 2),
        (3_000_000, 9_000_000, 7),
        (9, 9, 0),
        (len(BIG) - 9, 1 << 40, 1),
    ],
)
async def test_a_part_is_had_by_its_blocks_alone(start: int, stop: int, leaves: int) -> None:
    mirror = Mirror("one")
    file = await (await world(mirror)).blocks.open_any(wanted())
    assert file is not None
    assert b"".join([chunk async for chunk in file.chunks(start, stop)]) == BIG[start:stop]
    assert len(mirror.asked) == 1 + leaves


async def test_only_a_few_blocks_are_ahead_of_who_reads() -> None:
    mirror = Mirror("one")
    made = await world(mirror)
    for neighbour in made.neighbours:
        neighbour.limit = MAX_LIMIT
    file = await made.blocks.open_any(wanted())
    assert file is not None
    chunks = file.chunks()
    await anext(chunks)
    for _ in range(1_000):
        await asyncio.sleep(0)
    assert len(mirror.asked) <= 1 + AHEAD
    await chunks.aclose()
    assert mirror.at_once == 0


async def test_nobody_is_asked_for_more_at_once_than_he_delivers_well() -> None:
    mirror = Mirror("one")
    made = await world(mirror)
    await fetched(made.blocks, wanted())
    assert mirror.most_at_once <= AHEAD


# Liars, laggards, and those who have nothing -------------------------------------------------------------------------


async def test_a_wrong_block_is_never_let_out_and_its_sender_is_told_of_and_left_alone() -> None:
    good, evil = Mirror("good"), Mirror("evil")
    evil.lies = {cid: b"!" + data[1:] for cid, data in BLOCKS.items() if cid != ROOT}
    made = await world(evil, good)
    assert await fetched(made.blocks, wanted()) == BIG
    asked = len(evil.asked)
    assert {(one.source, one.file, one.sha256) for one in made.observed} == {("peer evil", "mxa-1.0.tar.gz", None)}
    assert await fetched(made.blocks, wanted()) == BIG
    assert len(evil.asked) == asked
    made.clock.now += FIRST_BLAME_SECONDS * 4**3
    assert made.neighbours[0].is_usable
    assert await fetched(made.blocks, wanted()) == BIG


async def test_when_all_lie_the_file_cannot_be_had_and_not_one_wrong_byte_is_out() -> None:
    evil = Mirror("evil")
    leaf = list(BLOCKS)[3]
    evil.lies = {leaf: bytes(LEAF_BYTES)}
    made = await world(evil)
    out = b""
    (way,) = made.blocks.ways(wanted())
    with pytest.raises(SourceAway, match="another hash"):
        async with made.blocks.fetch(way) as body:
            async for chunk in body.chunks():
                out += chunk
    assert BIG.startswith(out)
    assert made.blocks.ways(wanted()) == ()


async def test_who_does_not_have_the_root_is_not_asked_for_leaves() -> None:
    empty, full = Mirror("empty", {}), Mirror("full")
    made = await world(empty, full)
    assert await fetched(made.blocks, wanted()) == BIG
    assert empty.asked in ([], [ROOT])


async def test_a_block_that_one_neighbour_lost_comes_from_another() -> None:
    half, full = Mirror("half"), Mirror("full")
    for cid in list(BLOCKS)[:6]:
        del half.held[cid]
    made = await world(half, full)
    assert await fetched(made.blocks, wanted()) == BIG
    assert all(neighbour.is_usable for neighbour in made.neighbours)


async def test_what_nobody_has_is_gone_and_what_nobody_can_say_is_away() -> None:
    made = await world(Mirror("empty", {}), Mirror("too", {}))
    with pytest.raises(SourceGone):
        await fetched(made.blocks, wanted())
    broken = Mirror("broken")
    broken.fails = 100
    made = await world(Mirror("empty", {}), broken)
    with pytest.raises(SourceAway, match="answers 503"):
        await fetched(made.blocks, wanted())


async def test_one_failure_is_tried_again_and_several_are_a_reason_to_wait() -> None:
    mirror = Mirror("one")
    mirror.fails = 1
    made = await world(mirror)
    assert await fetched(made.blocks, wanted()) == BIG
    mirror.fails = FAILURES
    for _ in range(2):
        with pytest.raises(SourceAway):
            await made.blocks.open(wanted())
    assert made.blocks.ways(wanted()) == ()
    made.clock.now += FIRST_PAUSE_SECONDS
    assert await fetched(made.blocks, wanted()) == BIG


async def test_who_is_silent_is_overtaken() -> None:
    silent, quick = Mirror("silent"), Mirror("quick")
    silent.gate = asyncio.Event()
    made = await world(silent, quick)
    made.neighbours[1].block_seconds = 0.001  # so that the silent one, who is not known, is asked first
    async with asyncio.timeout(30):
        assert await fetched(made.blocks, wanted()) == BIG
    assert silent.asked
    assert silent.at_once == 0


async def test_who_is_known_to_be_slow_is_not_waited_for_the_longer() -> None:
    slow, quick = Mirror("slow"), Mirror("quick")
    slow.gate = asyncio.Event()
    made = await world(slow, quick)
    made.neighbours[0].block_seconds, made.neighbours[1].block_seconds = 19.0, 0.001
    made.neighbours[1].limit = 0.0  # it has enough to do just now
    getting = asyncio.create_task(Getter(made.neighbours, _nobody_told).get(ROOT))
    while not slow.asked:
        await asyncio.sleep(0)
    made.neighbours[1].limit = MAX_LIMIT
    async with asyncio.timeout(10):
        assert await getting == (BLOCKS[ROOT], made.neighbours[1])
    assert slow.at_once == 0


async def test_who_gives_roots_and_then_nothing_is_left_alone_for_longer_each_time() -> None:
    mirror = Mirror("one")
    made = await world(mirror)
    (neighbour,) = made.neighbours
    for stalled in range(1, FAILURES + 3):
        made.clock.now += LONGEST_PAUSE_SECONDS
        mirror.gate = None
        assert await neighbour.get(ROOT) == BLOCKS[ROOT]
        mirror.gate = asyncio.Event()
        waiting = neighbour.get(next(iter(BLOCKS)))
        while not mirror.at_once:
            await asyncio.sleep(0)
        made.clock.now += STALL_SECONDS
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        pause = 0.0 if stalled < FAILURES else FIRST_PAUSE_SECONDS * 2 ** (stalled - FAILURES)
        made.clock.now += pause / 2
        assert neighbour.is_usable == (not pause)
        made.clock.now += pause / 2
        assert neighbour.is_usable


async def test_who_waits_for_room_is_told_of_it_and_need_not_look_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(getter_module, "_FULL_SECONDS", 3_600.0)
    mirror = Mirror("one")
    made = await world(mirror)
    (neighbour,) = made.neighbours
    neighbour.limit = 1.0
    getter = Getter(made.neighbours, _nobody_told)
    async with asyncio.timeout(10):
        found = await asyncio.gather(*(getter.get(cid) for cid in BLOCKS))
    assert [data for data, _ in found] == list(BLOCKS.values())
    assert not neighbour.waiting


async def test_who_waits_for_room_of_a_liar_is_told_that_there_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getter_module, "_FULL_SECONDS", 3_600.0)
    mirror = Mirror("one")
    mirror.lies = dict.fromkeys(BLOCKS, b"!")
    made = await world(mirror)
    made.neighbours[0].limit = 1.0
    async with asyncio.timeout(10):
        failed = await asyncio.gather(*map(made.blocks.repair, BLOCKS))
    assert (failed, len(mirror.asked)) == ([None] * len(BLOCKS), 1)


async def _nobody_told(name: str, problem: WrongContent) -> None:
    raise AssertionError(f"{name} sends what is right")


async def test_a_cid_that_is_no_file_of_that_size_is_told_apart_from_a_lying_neighbour() -> None:
    other, other_blocks = blocks_of(BIG[: 2 * LEAF_BYTES])
    made = await world(Mirror("one", {**BLOCKS, **other_blocks}))
    with pytest.raises(SourceWrong):
        await fetched(made.blocks, wanted(cids=(other,)))
    assert made.neighbours[0].is_usable
    (told,) = made.observed
    assert (told.kind, told.cid, told.size, told.sha256) == ("cid-content", other, 2 * LEAF_BYTES, None)


async def test_a_graph_that_is_no_file_below_its_root_is_the_fault_of_who_named_its_cid() -> None:
    first, short = next(iter(BLOCKS)), raw_cid(sha256_of(b"short"))
    forged = BLOCKS[ROOT].replace(*(bytes.fromhex(split_cid(cid).sha256) for cid in (first, short)))
    root = node_cid(forged)
    made = await world(Mirror("one", {**BLOCKS, root: forged, short: b"short"}))
    with pytest.raises(SourceWrong):
        await fetched(made.blocks, wanted(cids=(root,)))
    assert made.neighbours[0].is_usable
    assert {(told.kind, told.cid, told.sha256) for told in made.observed} == {("cid-content", root, None)}


async def test_a_file_that_is_longer_than_may_be_fetched_is_not() -> None:
    made = await world(Mirror("one"))
    with pytest.raises(SourceWrong, match="more than"):
        await made.blocks.open(wanted(size=None, max_bytes=LEAF_BYTES))


async def test_a_single_block_is_had_for_a_store_that_lost_it() -> None:
    made = await world(Mirror("empty", {}), Mirror("full"))
    leaf = next(iter(BLOCKS))
    assert await made.blocks.repair(leaf) == BLOCKS[leaf]
    assert await made.blocks.repair(raw_cid(sha256_of(b"nobody has this"))) is None


# Whose CID ------------------------------------------------------------------------------------------------------------


OWN = raw_cid(sha256_of(BIG))


@pytest.mark.parametrize(
    ("want", "cids"),
    [
        (wanted(), (ROOT,)),
        (wanted(cids=()), ()),
        (wanted(cids=(), size=None), (OWN,)),
        (wanted(size=None), (ROOT,)),
        (wanted(cids=("nonsense", OWN, ROOT)), (ROOT,)),
        (wanted(cids=(raw_cid(sha256_of(b"x")),), size=None), (OWN,)),
        (wanted(size=5), (OWN,)),
        (wanted(name="mxa-1.0-py3-none-any.whl.metadata"), (OWN,)),
    ],
)
def test_a_file_is_looked_for_under_the_cids_that_it_can_have(want: Wanted, cids: tuple[Cid, ...]) -> None:
    assert cids_of(want) == cids
