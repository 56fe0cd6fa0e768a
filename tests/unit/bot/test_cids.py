"""CIDs: what is accepted, and that a file's CID does not depend on how the file arrives."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_pypi_bot.wire.cids import (
    DAG_PB,
    PROFILES,
    RAW,
    UNIXFS_V1_2025,
    Block,
    CidBuilder,
    CidParts,
    InvalidCid,
    Profile,
    format_cid,
    parse_cid,
    raw_cid,
    split_cid,
)
from matrix_pypi_bot.wire.digests import Sha256, parse_sha256, sha256_of

GOOD = "bafkreige5exj5tecrpxsvj63uhpivsmdkepxkmva34i4o4gtscm2exhsae"
SMALL = Profile(name="small", version=1, chunk_bytes=16, max_links=3, raw_leaves=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "b",
        GOOD[:-1],
        GOOD + "a",
        GOOD.upper(),
        GOOD + "\n",
        GOOD[:-1] + "f",  # spare bits that are not zero: another spelling of the same CID
        GOOD[:-1] + "1",
        "z" + GOOD[1:],
        "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG",
        "bafkqaiaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",  # identity: carries content instead of naming it
        "bafkqaaa",
        "\u0131" * 59,
    ],
)
def test_a_cid_has_one_form(text: str) -> None:
    with pytest.raises(InvalidCid):
        parse_cid(text)


@given(st.binary(min_size=32, max_size=32), st.sampled_from([RAW, DAG_PB]))
def test_a_cid_names_a_codec_and_a_digest(digest: bytes, codec: int) -> None:
    sha256 = sha256_of(digest)
    cid = format_cid(codec, sha256)
    assert (parse_cid(cid), split_cid(cid)) == (cid, CidParts(codec, sha256))


def built(profile: Profile, data: bytes, step: int) -> tuple[str, list[Block]]:
    blocks: list[Block] = []
    builder = CidBuilder(profile, blocks.append)
    for start in range(0, len(data), step):
        builder.update(memoryview(data)[start : start + step])
    return builder.finish(), blocks


@pytest.mark.parametrize("profile", [*PROFILES.values(), SMALL], ids=lambda profile: profile.name)
def test_the_cid_does_not_depend_on_how_the_file_arrives(profile: Profile) -> None:
    data = random.Random(1).randbytes(3 * profile.chunk_bytes + 5)
    whole, blocks = built(profile, data, len(data))
    assert built(profile, data, profile.chunk_bytes // 3 + 1) == (whole, blocks)
    builder = CidBuilder(profile)
    builder.update(bytearray(data))
    assert (builder.finish(), builder.size) == (whole, len(data))


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 48, 49, 143, 144, 145, 432, 433, 1_000])
def test_blocks_come_children_first_and_hash_to_their_cids(size: int) -> None:
    data = random.Random(size).randbytes(size)
    cid, blocks = built(SMALL, data, 7)
    held: dict[str, bytes] = {}
    for block in blocks:
        content = data[block.offset : block.offset + block.size] if block.data is None else block.data
        codec = RAW if block.data is None else DAG_PB
        assert block.cid == format_cid(codec, sha256_of(content))
        held[block.cid] = content
    assert cid == blocks[-1].cid
    assert (blocks[-1].offset, blocks[-1].size) == (0, size)
    assert unfolded(held, cid) == data
    leaves = [block for block in blocks if block.data is None]
    assert [block.offset for block in leaves] == list(range(0, size, 16)) or size == 0


def unfolded(held: dict[str, bytes], cid: str) -> bytes:
    """The file below a CID, read by a protobuf reader of the test's own; nodes have at most 3 links."""
    content = held[cid]
    if split_cid(cid).codec == RAW:
        return content
    links = [value for number, value in fields(content) if number == 2]
    assert 1 <= len(links) <= SMALL.max_links
    hashes = [next(value for number, value in fields(link) if number == 1) for link in links]
    assert all(link[:4] == b"\x01\x55\x12\x20" or link[:4] == b"\x01\x70\x12\x20" for link in hashes)
    return b"".join(unfolded(held, format_cid(link[1], sha256_hex(link[4:]))) for link in hashes)


def sha256_hex(digest: bytes) -> Sha256:
    return parse_sha256(digest.hex())


def fields(message: bytes) -> list[tuple[int, bytes]]:
    """Length-delimited fields of a protobuf message; numbers are skipped."""
    found, at = [], 0
    while at < len(message):
        tag, at = varint(message, at)
        value, at = varint(message, at)
        if tag & 7 == 2:
            found.append((tag >> 3, message[at : at + value]))
            at += value
    return found


def varint(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        number |= (message[at] & 0x7F) << shift
        if message[at] < 0x80:
            return number, at + 1
        at, shift = at + 1, shift + 7


def test_a_small_file_has_the_cid_that_its_digest_tells() -> None:
    data = b"hello\n"
    cid, blocks = built(UNIXFS_V1_2025, data, 2)
    assert cid == raw_cid(sha256_of(data)) == "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am"
    assert blocks == [Block(cid=raw_cid(sha256_of(data)), offset=0, size=6, data=None)]
    assert hashlib.sha256(data).hexdigest() == split_cid(cid).sha256
