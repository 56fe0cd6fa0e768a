"""Blocks from strangers: what is ours is taken apart, everything else is refused."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index_frontend.dag.blocks import (
    LEAF_BYTES,
    MAX_BLOCK_BYTES,
    BadBlock,
    Link,
    check_block,
    children,
    node_cid,
    read_node,
    root_of,
)
from matrix_pypi_bot.wire.cids import UNIXFS_V0_2015, Block, Cid, CidBuilder, Profile, raw_cid
from matrix_pypi_bot.wire.digests import sha256_of

NARROW = Profile(name="narrow", version=1, chunk_bytes=LEAF_BYTES, max_links=174, raw_leaves=True)
ONE = raw_cid(sha256_of(b"a"))


@functools.cache
def blocks_of(size: int, **profile: Profile) -> tuple[Cid, dict[Cid, Block]]:
    """The CID and every block of a file of `size` zeroes; equal leaves are one block."""
    blocks: dict[Cid, Block] = {}
    builder = CidBuilder(**profile, on_block=lambda block: blocks.__setitem__(block.cid, block))
    for start in range(0, size, LEAF_BYTES):
        builder.update(bytes(min(LEAF_BYTES, size - start)))
    return builder.finish(), blocks


def bytes_below(link: Link, blocks: dict[Cid, Block]) -> int:
    """How many bytes of the file the leaves below a block hold, every block checked."""
    data = blocks[link.cid].data
    if data is None:
        assert children(link, bytes(link.size)) == ()
        return link.size
    check_block(link.cid, data)
    return sum(bytes_below(child, blocks) for child in children(link, data))


@pytest.mark.parametrize("size", [0, 1, LEAF_BYTES, LEAF_BYTES + 1, 3_500_000, 1024 * LEAF_BYTES + 1])
def test_the_blocks_of_a_file_lead_from_its_cid_to_every_byte_of_it(size: int) -> None:
    cid, blocks = blocks_of(size)
    assert bytes_below(root_of(cid, size), blocks) == size


def test_a_block_with_other_bytes_than_its_cid_names_is_refused() -> None:
    check_block(ONE, b"a")
    for data in (b"b", b"", b"aa"):
        with pytest.raises(BadBlock, match="another hash"):
            check_block(ONE, data)


def test_a_block_that_is_too_long_is_refused_whatever_its_hash() -> None:
    data = bytes(MAX_BLOCK_BYTES + 1)
    with pytest.raises(BadBlock, match="longer than"):
        check_block(raw_cid(sha256_of(data)), data)


def test_a_leaf_of_another_length_than_its_parent_says_is_refused() -> None:
    with pytest.raises(BadBlock, match="1 bytes, not 2"):
        children(Link(ONE, 2, 0), b"a")


@pytest.mark.parametrize("size", [LEAF_BYTES + 1, 175 * LEAF_BYTES])
def test_a_root_is_no_root_of_a_file_of_another_size(size: int) -> None:
    cid, blocks = blocks_of(size)
    data = blocks[cid].data
    assert data is not None
    for other in (size - 1, size + 1, size + LEAF_BYTES):
        with pytest.raises(BadBlock):
            children(root_of(cid, other), data)


def test_a_small_file_has_no_node_for_its_root_and_a_large_one_no_leaf() -> None:
    node, _ = blocks_of(LEAF_BYTES + 1)
    for cid, size in ((node, LEAF_BYTES), (ONE, LEAF_BYTES + 1)):
        with pytest.raises(BadBlock, match="cannot have the CID"):
            root_of(cid, size)


def test_a_file_cut_by_another_profile_is_refused_although_its_blocks_are_sound() -> None:
    size = 175 * LEAF_BYTES
    cid, blocks = blocks_of(size, profile=NARROW)
    data = blocks[cid].data
    assert data is not None
    check_block(cid, data)
    with pytest.raises(BadBlock, match="cut in another way"):
        children(root_of(cid, size), data)


def test_a_node_that_holds_bytes_of_the_file_itself_is_refused() -> None:
    builder_blocks: list[Block] = []
    builder = CidBuilder(UNIXFS_V0_2015, on_block=builder_blocks.append)
    builder.update(b"a")
    builder.finish()
    data = builder_blocks[0].data
    assert data is not None
    with pytest.raises(BadBlock):
        read_node(data)


def test_a_node_with_its_data_before_its_links_means_the_same() -> None:
    cid, blocks = blocks_of(LEAF_BYTES + 1)
    data = blocks[cid].data
    assert data is not None
    links_end = data.index(b"\x0a", 2 * (1 + 1 + 36 + 2 + 2))  # rough: the UnixFS message is the last field
    while read_or_none(data[links_end:] + data[:links_end]) is None:
        links_end = data.index(b"\x0a", links_end + 1)
    assert read_node(data[links_end:] + data[:links_end]) == read_node(data)


def read_or_none(data: bytes) -> object:
    try:
        return read_node(data)
    except BadBlock:
        return None


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_whatever_a_stranger_sends_for_a_node_is_read_or_refused(data: bytes) -> None:
    read_or_none(data)


@settings(max_examples=300)
@given(position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_node_with_one_byte_changed_is_refused_or_leads_elsewhere(position: int, flip: int) -> None:
    size = 3 * LEAF_BYTES
    cid, blocks = blocks_of(size)
    data = blocks[cid].data
    assert data is not None
    changed = bytearray(data)
    changed[position % len(data)] ^= flip
    assert node_cid(bytes(changed)) != cid
    try:
        links = children(Link(cid, size, 1), bytes(changed))
    except BadBlock:
        return
    assert sum(link.size for link in links) == size


def test_a_node_that_is_longer_than_a_full_one_can_be_is_not_even_read() -> None:
    cid, blocks = blocks_of(1024 * LEAF_BYTES)
    full = blocks[cid].data
    assert full is not None
    assert len(read_node(full)[0]) == 1024
    padding = b"\x18\x00" * 100_000  # a size of a link, again and again
    with pytest.raises(BadBlock, match="longer"):
        read_node(full + padding)
