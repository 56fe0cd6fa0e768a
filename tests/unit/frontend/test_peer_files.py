"""METADATA out of a wheel that only others have: by the few leaves that it lies in, and only if it is the one wanted."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from index_frontend.blocks import needs_cid
from index_frontend.dag.blocks import LEAF_BYTES
from index_frontend.fill import PeerFiles
from index_frontend.ports import SourceGone, Wanted
from matrix_pypi_bot.wire.cids import raw_cid
from matrix_pypi_bot.wire.digests import Sha256, sha256_of
from matrix_pypi_bot.wire.names import ProjectName
from tests.support.dists import wheel
from tests.unit.frontend.test_blocks import Mirror, blocks_of, world

WHEEL = wheel("mxa", payload_bytes=6 * LEAF_BYTES)
ROOT, BLOCKS = blocks_of(WHEEL.content)
METADATA = WHEEL.metadata or b""
WANTED = Wanted(
    sha256=sha256_of(METADATA),
    size=None,
    urls=(),
    opened_origins=frozenset(),
    project=ProjectName("mxa"),
    name=f"{WHEEL.filename}.metadata",
    max_bytes=1 << 20,
    wheel=Sha256(WHEEL.sha256),
    cids=(ROOT,),
)


async def read(files: PeerFiles, wanted: Wanted, start: int = 0) -> bytes:
    (way,) = files.ways(wanted)
    async with files.fetch(way, start) as body:
        assert (body.sender, body.size) == ("peer", len(METADATA))
        return b"".join([chunk async for chunk in body.chunks()])


async def test_metadata_costs_the_end_of_a_wheel_not_all_of_it() -> None:
    mirror = Mirror("one", BLOCKS)
    made = await world(mirror)
    files = PeerFiles(made.blocks, max_file_bytes=1 << 30)
    assert await read(files, WANTED) == METADATA
    assert await read(files, WANTED, 10) == METADATA[10:]
    assert len(set(mirror.asked)) <= 4


@pytest.mark.parametrize("content", [WHEEL.content[:-30], random.Random(3).randbytes(3 * LEAF_BYTES)])
async def test_what_is_no_wheel_with_that_metadata_has_none(content: bytes) -> None:
    root, blocks = blocks_of(content)
    made = await world(Mirror("one", blocks))
    files = PeerFiles(made.blocks, max_file_bytes=1 << 30)
    wanted = replace(WANTED, wheel=sha256_of(content), cids=(root,))
    with pytest.raises(SourceGone, match="cannot be taken"):
        await read(files, wanted)


async def test_metadata_other_than_the_one_wanted_is_not_given() -> None:
    made = await world(Mirror("one", BLOCKS))
    files = PeerFiles(made.blocks, max_file_bytes=1 << 30)
    with pytest.raises(SourceGone):
        await read(files, replace(WANTED, sha256=sha256_of(b"other")))


@pytest.mark.parametrize("cids", [(), (ROOT,)], ids=["no CID of the wheel", "its CID"])
async def test_metadata_that_a_peer_has_by_itself_is_one_block(cids: tuple[str, ...]) -> None:
    alone = raw_cid(sha256_of(METADATA))
    mirror = Mirror("one", {**BLOCKS, alone: METADATA})
    made = await world(mirror)
    files = PeerFiles(made.blocks, max_file_bytes=1 << 30)
    assert await read(files, replace(WANTED, cids=cids)) == METADATA
    assert mirror.asked == [alone]


async def test_without_a_cid_of_its_wheel_a_peer_has_metadata_by_itself_or_not() -> None:
    mirror = Mirror("one", BLOCKS)
    made = await world(mirror)
    files = PeerFiles(made.blocks, max_file_bytes=1 << 30)
    with pytest.raises(SourceGone, match="no peer has"):
        await read(files, replace(WANTED, cids=()))
    assert mirror.asked == [raw_cid(sha256_of(METADATA))]
    assert files.ways(replace(WANTED, wheel=None)) == ()


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ({}, False),
        ({"cids": ()}, True),
        ({"cids": (), "name": WHEEL.filename}, True),
        ({"cids": (), "name": WHEEL.filename, "size": LEAF_BYTES}, False),
        ({"cids": (), "name": WHEEL.filename, "size": LEAF_BYTES + 1}, True),
    ],
)
def test_the_bot_is_asked_for_cids_where_the_digest_does_not_tell_them(
    changes: dict[str, object], *, needed: bool
) -> None:
    assert needs_cid(replace(WANTED, **changes)) is needed  # type: ignore[arg-type]
