"""Our trustless gateway against the points of its specification, and against the promise that nothing refused leaves."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from index_frontend.dag.blocks import LEAF_BYTES, PROBE_CID
from index_frontend.dag.car import CarReader, car_header
from index_frontend.handlers.ipfs import CARS_OF_THEM
from index_frontend.storage.filestore import open_filestore
from matrix_pypi_bot.wire.cids import Block, Cid, CidBuilder, raw_cid
from matrix_pypi_bot.wire.digests import Sha256, sha256_of
from matrix_pypi_bot.wire.messages import Decision
from matrix_pypi_bot.wire.names import FileName, ProjectName
from tests.conformance.files.expected import KEPT, SMALL, warm
from tests.support.dists import Dist, wheel
from tests.support.file_side import MAX_AT_ONCE, FileSide, serve_decision
from tests.support.http_client import transfer
from tests.support.problems import problem
from tests.support.upstream import Upstream
from tests.support.waiting import wait_until

RAW, CAR = "application/vnd.ipld.raw", "application/vnd.ipld.car"
BIG = wheel("mxg", payload_bytes=3_500_000)
SMALL_CID = raw_cid(Sha256(SMALL.sha256))
ABSENT = raw_cid(sha256_of(b"nobody has this"))


def graph(content: bytes) -> tuple[Cid, bytes, list[Cid]]:
    """Root, its node, and its leaves in order."""
    blocks: list[Block] = []
    builder = CidBuilder(on_block=blocks.append)
    builder.update(content)
    root = builder.finish()
    (node,) = [block.data for block in blocks if block.data is not None]
    return root, node, [block.cid for block in blocks if block.data is None]


BIG_CID, BIG_NODE, BIG_LEAVES = graph(BIG.content)


def car(body: bytes) -> list[Cid]:
    """The CIDs of a whole CAR, every block checked."""
    reader = CarReader(max_bytes=64 << 20)
    cids = [cid for cid, _ in reader.feed(body)]
    reader.finish()
    return cids


@pytest.fixture
def held(side: FileSide, upstream: Upstream) -> FileSide:
    """A side that holds SMALL and BIG, which clients asked for and the bot was told of; upstream is gone."""
    side.publish(BIG)
    for dist in (SMALL, BIG):
        warm(side, dist)
    wait_until(lambda: len(side.oracle.stored) == 2, "the bot was told")
    for dist in (SMALL, BIG):
        wait_until(lambda d=dist: side.run(side.blocks.askers_of(Sha256(d.sha256))), "that is noted")
    upstream.off()
    return side


def test_a_leaf_is_answered_as_the_specification_says(held: FileSide) -> None:
    reply = held.ipfs(f"{SMALL_CID}?format=raw", Accept=RAW)
    del reply.headers["date"]
    assert (reply.status, reply.body, reply.headers) == (
        200,
        SMALL.content,
        {
            "content-type": RAW,
            "content-length": str(SMALL.size),
            "content-disposition": f'attachment; filename="{SMALL_CID}.bin"',
            "etag": f'"{SMALL_CID}.raw"',
            "cache-control": KEPT,
            "vary": "Accept",
            "accept-ranges": "none",
            "x-content-type-options": "nosniff",
            "x-ipfs-path": f"/ipfs/{SMALL_CID}",
            "x-ipfs-roots": SMALL_CID,
            "server": "matrix-pypi",
        },
    )


def test_every_block_of_a_large_file_can_be_had_by_its_cid(held: FileSide) -> None:
    assert held.ipfs(f"{BIG_CID}?format=raw").body == BIG_NODE
    parts = [held.ipfs(f"{leaf}?format=raw").body for leaf in BIG_LEAVES]
    assert [len(part) for part in parts[:-1]] == [LEAF_BYTES] * 3
    assert b"".join(parts) == BIG.content


@pytest.mark.parametrize("ask", [f"{BIG_CID}?format=raw", f"{BIG_LEAVES[0]}?format=raw", f"{BIG_CID}?format=car"])
def test_head_is_get_without_a_body(held: FileSide, ask: str) -> None:
    get, head = held.ipfs(ask), held.ipfs(ask, "HEAD")
    for reply in (get, head):
        del reply.headers["date"]
    assert (head.status, head.headers, head.body) == (200, get.headers, b"")
    assert int(get.headers["content-length"]) == len(get.body)


def test_a_car_has_the_blocks_depth_first_and_says_so(held: FileSide) -> None:
    reply = held.ipfs(f"{BIG_CID}?format=car")
    assert (reply.status, reply.content_type) == (200, f"{CAR}; version=1; order=dfs; dups=n")
    assert reply.headers["content-disposition"] == f'attachment; filename="{BIG_CID}.car"'
    assert reply.body.startswith(car_header(BIG_CID))
    assert car(reply.body) == [BIG_CID, *BIG_LEAVES]


@pytest.mark.parametrize(
    ("query", "leaves"),
    [
        ("dag-scope=all", BIG_LEAVES),
        ("dag-scope=entity", BIG_LEAVES),
        ("dag-scope=block", []),
        ("entity-bytes=0:*", BIG_LEAVES),
        ("entity-bytes=0:0", BIG_LEAVES[:1]),
        (f"entity-bytes={LEAF_BYTES - 1}:{LEAF_BYTES}", BIG_LEAVES[:2]),
        (f"entity-bytes={LEAF_BYTES}:{2 * LEAF_BYTES - 1}", BIG_LEAVES[1:2]),
        ("entity-bytes=-1:*", BIG_LEAVES[-1:]),
        ("entity-bytes=-99999999:-1", BIG_LEAVES),
        (f"entity-bytes=1:-{BIG.size - 10}", BIG_LEAVES[:1]),
        ("entity-bytes=5:99999999", BIG_LEAVES),
        ("entity-bytes=9:8", []),
        ("dag-scope=block&entity-bytes=0:*", []),
    ],
)
def test_a_part_of_a_file_comes_with_the_blocks_it_needs_and_no_others(
    held: FileSide, query: str, leaves: list[Cid]
) -> None:
    assert car(held.ipfs(f"{BIG_CID}?format=car&{query}").body) == [BIG_CID, *leaves]


def test_a_file_is_put_together_from_the_cars_of_its_parts(held: FileSide) -> None:
    found: dict[Cid, bytes] = {}
    for start in range(0, BIG.size, LEAF_BYTES):
        reply = held.ipfs(f"{BIG_CID}?format=car&dag-scope=entity&entity-bytes={start}:{start + LEAF_BYTES - 1}")
        assert reply.headers["content-length"] == str(len(reply.body))
        found.update(CarReader(max_bytes=64 << 20).feed(reply.body))
    assert found.pop(BIG_CID) == BIG_NODE
    assert b"".join(found[cid] for cid in BIG_LEAVES) == BIG.content


def test_no_part_of_a_file_that_is_gone_is_given_whatever_was_given_before(held: FileSide) -> None:
    part = f"{BIG_CID}?format=car&entity-bytes=0:0"
    assert held.ipfs(part).status == 200

    async def gone() -> None:
        async with open_filestore(held.folder) as store:
            assert await store.evict(Sha256(BIG.sha256))

    held.run(gone())
    assert held.ipfs(part).status == 404


def test_a_car_of_a_single_leaf_is_that_leaf(held: FileSide) -> None:
    assert car(held.ipfs(f"{SMALL_CID}?format=car&entity-bytes=3:4").body) == [SMALL_CID]


@pytest.mark.parametrize("query", ["entity-bytes=9999999:*", "entity-bytes=abc", "entity-bytes=1", "dag-scope=dag"])
def test_a_part_that_cannot_be_is_a_bad_request(held: FileSide, query: str) -> None:
    reply = held.ipfs(f"{BIG_CID}?format=car&{query}")
    assert reply.status == 400
    assert problem(reply)


def test_equal_blocks_are_sent_once_or_each_time_as_the_client_wants_it(side: FileSide) -> None:
    content = bytes(4 * LEAF_BYTES)
    zeroes = Dist(project="mxz", version="1.0", filename="mxz-1.0.tar.gz", content=content)
    side.publish(zeroes)
    warm(side, zeroes)
    root, _, leaves = graph(content)
    wait_until(lambda: side.run(side.blocks.askers_of(Sha256(zeroes.sha256))), "the bot was told")
    assert car(side.ipfs(f"{root}?format=car").body) == [root, leaves[0]]
    assert car(side.ipfs(f"{root}?format=car&car-dups=y").body) == [root, *leaves]
    reply = side.ipfs(f"{root}", Accept=f"{CAR};dups=y")
    assert (reply.content_type, car(reply.body)) == (f"{CAR}; version=1; order=dfs; dups=y", [root, *leaves])


@pytest.mark.parametrize(
    ("query", "accept", "content_type"),
    [
        ("", RAW, RAW),
        ("", CAR, f"{CAR}; version=1; order=dfs; dups=n"),
        ("", f"{CAR}; version=1; order=dfs; dups=y", f"{CAR}; version=1; order=dfs; dups=y"),
        ("", f"{CAR};order=foo, {CAR};order=dfs;dups=y;q=0.5", f"{CAR}; version=1; order=dfs; dups=y"),
        ("", f"{CAR};q=0.3, {RAW};q=0.9, */*", RAW),
        ("?format=raw", "*/*", RAW),
        ("?format=raw", CAR, RAW),
        ("?format=car", f"{RAW}, {CAR};dups=y;q=0.1", f"{CAR}; version=1; order=dfs; dups=y"),
        ("?format=car&car-dups=n&car-order=unk&car-version=1", f"{CAR};dups=y", f"{CAR}; version=1; order=dfs; dups=n"),
        ("?filename=x.bin&download=true&format=raw", RAW, RAW),
    ],
)
def test_the_format_is_chosen_by_the_url_first_and_then_by_accept(
    held: FileSide, query: str, accept: str, content_type: str
) -> None:
    reply = held.ipfs(f"{BIG_CID}{query}", "HEAD", Accept=accept)
    assert (reply.status, reply.content_type) == (200, content_type)
    preferred = accept.startswith(content_type.partition(";")[0])
    assert ("content-location" in reply.headers) == ("format" not in query or (accept != "*/*" and not preferred))


@pytest.mark.parametrize(
    ("query", "accept", "status"),
    [
        ("", "", 400),
        ("", "*/*", 406),
        ("", "text/html", 406),
        ("?format=tar", RAW, 406),
        ("?format=ipns-record", RAW, 406),
        ("?format=car&car-version=2", RAW, 406),
        ("?format=car&car-order=foo", RAW, 406),
        ("", f"{CAR};version=2", 406),
        ("?" + "&".join(["a=b"] * 99), RAW, 400),
    ],
)
def test_other_formats_are_not_spoken_here(held: FileSide, query: str, accept: str, status: int) -> None:
    reply = held.ipfs(f"{BIG_CID}{query}", **({"Accept": accept} if accept else {}))
    assert reply.status == status
    assert problem(reply)


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        ("", 400),
        ("QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH", 400),
        ("bafkqablumvzxi", 400),
        (f"{SMALL_CID.upper()}", 400),
        (f"{SMALL_CID}/setup.py", 404),
        (ABSENT, 404),
    ],
)
def test_what_is_no_cid_of_ours_is_not_looked_for(held: FileSide, rest: str, status: int) -> None:
    for ask in ("format=raw", "format=car"):
        assert held.ipfs(f"{rest}?{ask}").status == status
        assert held.ipfs(f"{rest}?{ask}", "HEAD").status == status


def test_who_wants_only_what_is_here_is_told_so(held: FileSide) -> None:
    assert held.ipfs(f"{ABSENT}?format=raw", "HEAD", Cache_Control="only-if-cached").status == 412
    assert held.ipfs(f"{BIG_CID}?format=raw", "HEAD", Cache_Control="only-if-cached").status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_probe_finds_a_trustless_gateway(side: FileSide, method: str) -> None:
    raw = side.ipfs(f"{PROBE_CID}?format=raw", method)
    assert (raw.status, raw.body, raw.content_type) == (200, b"", RAW)
    reply = side.ipfs(f"{PROBE_CID}?format=car", method)
    assert (reply.status, reply.body) == (200, car_header(PROBE_CID) if method == "GET" else b"")


@pytest.mark.parametrize("query", ["format=raw", "format=car", "format=car&entity-bytes=0:9"])
def test_who_has_it_already_is_told_so(held: FileSide, query: str) -> None:
    tag = held.ipfs(f"{BIG_CID}?{query}", "HEAD").headers["etag"]
    reply = held.ipfs(f"{BIG_CID}?{query}", If_None_Match=f'"other", W/{tag}')
    assert (reply.status, reply.body, reply.headers["etag"]) == (304, b"", tag)
    assert held.ipfs(f"{BIG_CID}?format=car&dag-scope=block", If_None_Match=tag).status == 200


def test_no_script_is_given_to_a_browser(held: FileSide) -> None:
    assert held.ipfs(f"{SMALL_CID}?format=raw", Service_Worker="script").status == 400


# What may leave ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["refuse", "quarantine"])
def test_no_block_of_a_refused_file_leaves(held: FileSide, upstream: Upstream, action: str) -> None:
    refused = {"action": action, "http": 403, "rule": "R3", "reason": "matrix-pypi: R3 the digest changed"}
    held.oracle.say(serve_decision(upstream, BIG, **refused))
    for cid in (BIG_CID, *BIG_LEAVES):
        for ask in ("format=raw", "format=car"):
            reply = held.ipfs(f"{cid}?{ask}")
            assert (reply.status, reply.headers["x-matrix-pypi-rule"]) == (410, "R3")
            assert problem(reply) == "matrix-pypi: R3 the digest changed"
    assert held.ipfs(f"{SMALL_CID}?format=raw").status == 200


def test_a_file_of_which_other_bytes_are_served_now_has_no_blocks_here(held: FileSide, upstream: Upstream) -> None:
    held.oracle.say(serve_decision(upstream, BIG, sha256="ab" * 32))
    assert held.ipfs(f"{BIG_CID}?format=raw").status == 410


def test_a_file_that_cannot_be_judged_now_is_not_served_now(held: FileSide, upstream: Upstream) -> None:
    held.oracle.say(serve_decision(upstream, BIG, action="unavailable", http=503, rule="R14"))
    reply = held.ipfs(f"{BIG_CID}?format=raw")
    assert (reply.status, "retry-after" in reply.headers) == (504, True)


def test_a_block_that_is_also_in_a_file_that_may_leave_leaves(held: FileSide, upstream: Upstream) -> None:
    twin = Dist(project="mxt", version="1.0", filename="mxt-1.0.tar.gz", content=BIG.content)
    upstream.on()
    held.publish(twin)
    warm(held, twin)
    wait_until(lambda: len(held.run(held.blocks.askers_of(Sha256(BIG.sha256)))) == 2, "the bot was told of both")
    held.oracle.say(serve_decision(upstream, BIG, action="refuse", http=403, rule="R3"))
    assert held.ipfs(f"{BIG_LEAVES[0]}?format=raw").status == 200
    held.oracle.say(serve_decision(upstream, twin, action="refuse", http=403, rule="R3"))
    assert held.ipfs(f"{BIG_LEAVES[0]}?format=raw").status == 410


def test_a_file_that_the_bot_was_not_told_of_has_no_blocks_here(side: FileSide) -> None:
    side.oracle.is_away = True
    warm(side, SMALL)
    assert side.ipfs(f"{SMALL_CID}?format=raw").status == 404
    assert side.ipfs(f"{SMALL_CID}?format=raw", Cache_Control="only-if-cached").status == 412


def test_a_car_is_cut_when_its_file_is_withdrawn_on_the_way(side: FileSide, upstream: Upstream) -> None:
    large = wheel("mxw", payload_bytes=48 << 20)
    side.publish(large)
    warm(side, large)
    wait_until(lambda: side.run(side.blocks.askers_of(Sha256(large.sha256))), "the bot was told")
    root, _, _ = graph(large.content)
    with transfer(f"{side.gateway}/ipfs/{root}?format=car") as answer:
        answer.read(1 << 20)
        side.oracle.say(serve_decision(upstream, large, action="refuse", http=403, rule="R3"))
        came = 1 << 20
        try:
            while chunk := answer.read1(1 << 20):
                came += len(chunk)
        except ConnectionError:
            pass
        assert came < 40 << 20


def test_beyond_a_number_of_cars_at_once_clients_are_told_to_come_back_and_blocks_are_still_served(
    side: FileSide,
) -> None:
    large = wheel("mxw", payload_bytes=24 << 20)
    side.publish(large)
    warm(side, large)
    wait_until(lambda: side.run(side.blocks.askers_of(Sha256(large.sha256))), "the bot was told")
    car, block = (f"{graph(large.content)[0]}?format={form}" for form in ("car", "raw"))
    with ExitStack() as slow:
        for _ in range(MAX_AT_ONCE // CARS_OF_THEM):
            slow.enter_context(transfer(f"{side.gateway}/ipfs/{car}"))
        busy = wait_until(lambda: found if (found := side.ipfs(car)).status == 429 else None, "no more cars are begun")
        assert busy.headers["retry-after"] == "1"
        assert side.ipfs(block).status == 200
    wait_until(lambda: side.ipfs(car).status == 200, "who left made room")


def test_beyond_a_number_of_answers_at_once_clients_are_told_to_come_back(
    side: FileSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    dist = wheel("mxv", payload_bytes=100)
    side.publish(dist)
    warm(side, dist)
    wait_until(lambda: side.run(side.blocks.askers_of(Sha256(dist.sha256))), "the bot was told")
    block, answers, waiting = f"{raw_cid(Sha256(dist.sha256))}?format=raw", threading.Event(), []
    standing_of = side.oracle.standing_of

    async def slowly(project: ProjectName, file: FileName) -> Decision:
        waiting.append(file)
        await asyncio.to_thread(answers.wait)
        return await standing_of(project, file)

    monkeypatch.setattr(type(side.oracle), "standing_of", lambda _, project, file: slowly(project, file))
    with ThreadPoolExecutor(MAX_AT_ONCE) as clients:
        replies = [clients.submit(side.ipfs, block) for _ in range(MAX_AT_ONCE)]
        try:
            wait_until(lambda: len(waiting) == MAX_AT_ONCE, "all are being answered")
            assert side.ipfs(block).status == 429
        finally:
            answers.set()
        assert [reply.result().status for reply in replies] == [200] * MAX_AT_ONCE
    assert side.ipfs(block).status == 200
