"""Blocks of a file in the profile `unixfs-v1-2025`: checked against their CID, nodes taken apart, strictly.

Everything here comes from strangers. A block is at most 2 MiB; a node has 1 to 1,024 links, each to a raw leaf or another node, and
tells how many bytes of the file lie below each. What deviates is `BadBlock`: a file of ours has one graph.
Source: UnixFS specification (dag-pb), IPIP-499.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from matrix_pypi_bot.wire.cids import DAG_PB, RAW, UNIXFS_V1_2025, Cid, format_cid, split_cid
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.problems import Problem, ProblemCode
from matrix_pypi_bot.wire.varints import InvalidVarint, read_varint

MAX_BLOCK_BYTES: Final = 2 << 20
"""No block of ours is longer, and none that is asked for may be: Bitswap's own bound."""

LEAF_BYTES: Final = UNIXFS_V1_2025.chunk_bytes
MAX_LINKS: Final = UNIXFS_V1_2025.max_links
MAX_NODE_BYTES: Final = 128 << 10
"""A full node has 51 KiB. What is longer takes long to read and is no file's of ours."""

PROBE_CID: Final = Cid("bafkqaaa")
"""The identity CID of nothing, by which a trustless gateway is probed. The only one of its kind that is answered."""

_CID_BYTES: Final = 36
_CODECS: Final = frozenset({RAW, DAG_PB})
_RAW_PREFIX: Final = "bafkrei"  # version, codec, hash and its length, in base32
_VARINT: Final = 0
_BYTES: Final = 2
_FILE_TYPE: Final = 2
_MAX_VARINT_BYTES: Final = 9  # 63 bits: more than any file has


class BadBlock(Problem, ValueError):
    """Bytes that are not the block that their CID names, or a node that no file of ours can have."""

    code = ProblemCode.DIGEST_MISMATCH


@dataclass(frozen=True, slots=True)
class Link:
    """A block to be had: its CID, how many bytes of the file lie below it, and how many levels of nodes it stands above the leaves."""

    cid: Cid
    size: int
    level: int


def root_of(cid: Cid, size: int) -> Link:
    """The root of a file of `size` bytes. Raises BadBlock when a file of that size cannot have such a CID."""
    leaves, level = max(1, -(-size // LEAF_BYTES)), 0
    while leaves > 1:
        leaves = -(-leaves // MAX_LINKS)
        level += 1
    link = Link(cid, size, level)
    if is_leaf(cid) != (level == 0):
        raise BadBlock(f"a file of {size} bytes cannot have the CID {cid}")
    return link


def check_block(cid: Cid, data: bytes) -> None:
    """Raises BadBlock unless `data` is the block that `cid` names."""
    if len(data) > MAX_BLOCK_BYTES:
        raise BadBlock(f"a block of {len(data)} bytes is longer than {MAX_BLOCK_BYTES}")
    if hashlib.sha256(data).hexdigest() != split_cid(cid).sha256:
        raise BadBlock(f"the bytes given for the block {cid} have another hash")


def is_leaf(cid: Cid) -> bool:
    """Whether the CID names a raw leaf, not a node."""
    return cid.startswith(_RAW_PREFIX)


def children(link: Link, data: bytes) -> tuple[Link, ...]:
    """The children of a checked block; none for a leaf. Raises BadBlock.

    A leaf is exactly as long as its parent said; a node's children are cut as the profile cuts: all full but the last.
    """
    if link.level == 0:
        if len(data) != link.size:
            raise BadBlock(f"a leaf has {len(data)} bytes, not {link.size}")
        return ()
    cids, sizes = read_node(data)
    if sum(sizes) != link.size:
        raise BadBlock(f"a node holds {sum(sizes)} bytes of a file, not {link.size}")
    level = link.level - 1
    full = LEAF_BYTES * MAX_LINKS**level
    if (
        any(size != full for size in sizes[:-1])
        or sizes[-1] > full
        or any(is_leaf(cid) != (level == 0) for cid in cids)
    ):
        raise BadBlock("a node is cut in another way than the profile says")
    return tuple(Link(cid, size, level) for cid, size in zip(cids, sizes, strict=True))


def read_node(data: bytes) -> tuple[list[Cid], list[int]]:
    """The CIDs of a dag-pb node's children and how many bytes of the file lie below each. Raises BadBlock.

    Nodes of ours have their links first; others may write them last (IPIP-550), and mean the same.
    """
    if len(data) > MAX_NODE_BYTES:
        raise BadBlock(f"a node of {len(data)} bytes is longer than {MAX_NODE_BYTES}")
    links: list[Cid] = []
    unixfs: bytes | None = None
    for field, value in _fields(data):
        if field == 2 and isinstance(value, bytes) and len(links) < MAX_LINKS:
            links.append(_read_link(value))
        elif field == 1 and isinstance(value, bytes) and unixfs is None:
            unixfs = value
        else:
            raise BadBlock("a node holds something that no file needs")
    if unixfs is None or not links:
        raise BadBlock("a node has no links or is no UnixFS node")
    size, sizes = _read_unixfs(unixfs)
    if len(sizes) != len(links) or sum(sizes) != size or 0 in sizes:
        raise BadBlock("the sizes in a node do not fit its links")
    return links, sizes


def node_cid(data: bytes) -> Cid:
    """The CID of a node's bytes."""
    return format_cid(DAG_PB, Sha256(hashlib.sha256(data).hexdigest()))


def _read_link(data: bytes) -> Cid:
    cid: bytes | None = None
    for field, value in _fields(data):
        if field == 1 and isinstance(value, bytes) and cid is None:
            cid = value
        elif (field == 2 and value == b"") or (field == 3 and isinstance(value, int)):
            continue
        else:
            raise BadBlock("a link holds something that no file needs")
    if cid is None or len(cid) != _CID_BYTES or cid[0] != 1 or cid[1] not in _CODECS or cid[2:4] != b"\x12\x20":
        raise BadBlock("a link names its block in another way than by a CIDv1 of a leaf or a node with sha2-256")
    return format_cid(cid[1], Sha256(cid[4:].hex()))


def _read_unixfs(data: bytes) -> tuple[int, list[int]]:
    """(size of the part below, size below each link)."""
    kind = size = -1
    sizes: list[int] = []
    for field, value in _fields(data):
        if not isinstance(value, int):
            raise BadBlock("a node holds bytes of the file itself, or times, or modes")
        if field == 1 and kind < 0:
            kind = value
        elif field == 3 and size < 0:
            size = value
        elif field == 4:
            sizes.append(value)
        else:
            raise BadBlock("a UnixFS node holds something that no file needs")
    if kind != _FILE_TYPE or size < 0:
        raise BadBlock("a node is not that of a file")
    return size, sizes


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message, strictly: minimal varints, no groups, nothing left over. Raises BadBlock."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        field, kind = key >> 3, key & 7
        value, position = _varint(data, position)
        if kind == _VARINT:
            yield field, value
        elif kind == _BYTES and position + value <= len(data):
            yield field, data[position : position + value]
            position += value
        else:
            raise BadBlock("a block is not a protobuf message of a node")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """(number, position behind it). Raises BadBlock."""
    try:
        read = read_varint(data, position, _MAX_VARINT_BYTES)
    except InvalidVarint as error:
        raise BadBlock(f"a block is no node: {error}") from error
    if read is None:
        raise BadBlock("a number in a block is cut off")
    return read
