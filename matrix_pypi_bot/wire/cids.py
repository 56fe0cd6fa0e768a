"""IPFS content identifiers: reading and writing them, and computing the CID of a file while it streams past.

A file has one CID in each profile of IPIP-499. Ours is `unixfs-v1-2025`: 1 MiB raw leaves under a balanced tree of at most
1,024 links a node, so a file of up to 1 MiB has the CID that its sha256 alone tells (`raw_cid`). Only CIDv1 in lower-case
base32 with sha2-256 is accepted from outside; identity hashes, which carry content instead of naming it, are refused.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, NewType

from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.problems import Problem, ProblemCode
from matrix_pypi_bot.wire.varints import write_varint

Cid = NewType("Cid", str)
"""A CIDv1 (base32, sha2-256, raw or dag-pb). Only a builder with a version 0 profile mints others. Minted by this module."""

RAW: Final = 0x55
DAG_PB: Final = 0x70

_SHA2_256: Final = b"\x12\x20"  # multihash: the function's code, the digest's length
_CODECS: Final = {b"\x01\x55" + _SHA2_256: RAW, b"\x01\x70" + _SHA2_256: DAG_PB}
_CID_CHARACTERS: Final = 59  # "b" and 36 bytes in base32
_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE32: Final = frozenset("abcdefghijklmnopqrstuvwxyz234567")


class InvalidCid(Problem, ValueError):
    """A text that is not a CID of the one kind that is accepted."""

    code = ProblemCode.BAD_REQUEST


@dataclass(frozen=True, slots=True)
class CidParts:
    """What a CID says: `codec` is RAW or DAG_PB, `sha256` the digest of the block it names."""

    codec: int
    sha256: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How a file is cut and put together (IPIP-499). Two profiles give two CIDs for one file."""

    name: str
    version: Literal[0, 1]
    chunk_bytes: int
    max_links: int
    raw_leaves: bool


UNIXFS_V1_2025: Final = Profile(
    name="unixfs-v1-2025", version=1, chunk_bytes=1_048_576, max_links=1_024, raw_leaves=True
)
UNIXFS_V0_2015: Final = Profile(name="unixfs-v0-2015", version=0, chunk_bytes=262_144, max_links=174, raw_leaves=False)
KUBO_V1_DEFAULT: Final = Profile(name="v1-256k", version=1, chunk_bytes=262_144, max_links=174, raw_leaves=True)
"""What Kubo computes for `cid-version=1` without a profile. Not a profile of IPIP-499; here to be told apart."""
TEST_CID_V1: Final = Profile(name="v1-1m-174", version=1, chunk_bytes=1_048_576, max_links=174, raw_leaves=True)
"""Kubo's old `test-cid-v1`: equals `unixfs-v1-2025` up to 174 MiB and differs above. Here to be told apart."""

PROFILES: Final = {p.name: p for p in (UNIXFS_V1_2025, UNIXFS_V0_2015, KUBO_V1_DEFAULT, TEST_CID_V1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One block of a file's graph. `offset` and `size` are the part of the file below it.

    `data` is the block's bytes; None for a raw leaf, whose bytes are that part of the file itself.
    """

    cid: Cid
    offset: int
    size: int
    data: bytes | None


def parse_cid(text: str) -> Cid:
    """`text` as a CID. Raises InvalidCid for other versions, encodings, codecs and hash functions."""
    split_cid(text)
    return Cid(text)


@lru_cache(maxsize=4_096)
def split_cid(text: str) -> CidParts:
    """The codec and digest that a CIDv1 names. Raises InvalidCid.

    Remembered: on its way a block's CID is read four times, and a client asks for a file's leaves one after the other.
    """
    if len(text) == _CID_CHARACTERS and text[0] == "b" and _BASE32.issuperset(text[1:]):
        data = base64.b32decode(text[1:].upper() + "======")
        codec = _CODECS.get(data[:4])
        if codec is not None and _base32(data) == text:  # two spare bits at the end must be zero
            return CidParts(codec, Sha256(data[4:].hex()))
    raise InvalidCid(f"{text[:80]!a} is not a CIDv1 in base32 with codec raw or dag-pb and sha2-256")


def format_cid(codec: int, sha256: Sha256) -> Cid:
    """The CIDv1 of a block: `codec` is RAW or DAG_PB."""
    return Cid(_base32(bytes((1, codec)) + _SHA2_256 + bytes.fromhex(sha256)))


def raw_cid(sha256: Sha256) -> Cid:
    """The CID of a block of these bytes; in `unixfs-v1-2025` also that of a whole file of at most 1 MiB."""
    return format_cid(RAW, sha256)


@dataclass(frozen=True, slots=True)
class _Link:
    """A child: its binary CID, the size of all blocks from it down, and how much of the file it holds."""

    cid: bytes
    blocks_bytes: int
    file_bytes: int


class CidBuilder:
    """Computes a file's CID in one pass: feed it with `update`, ask with `finish`, once.

    Memory: at most `max_links` links for each level of the tree, and nothing of the file (one chunk where leaves are not raw).
    `on_block` is told of every block as soon as it is complete, children before parents. Hashing large buffers drops the
    GIL, so a builder in a thread of its own costs the event loop nothing.
    """

    def __init__(self, profile: Profile = UNIXFS_V1_2025, on_block: Callable[[Block], None] | None = None) -> None:
        self.profile = profile
        self.size = 0
        self._on_block = on_block
        self._levels: list[list[_Link]] = [[]]  # leaves first; never more than a node's links on a level
        self._chunk_bytes = 0
        self._hash = hashlib.sha256()
        self._chunk = bytearray()

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Takes the next part of the file, of any length."""
        view = memoryview(data).cast("B")
        while view:
            part = view[: self.profile.chunk_bytes - self._chunk_bytes]
            if self.profile.raw_leaves:
                self._hash.update(part)
            else:
                self._chunk += part
            self._chunk_bytes += len(part)
            self.size += len(part)
            if self._chunk_bytes == self.profile.chunk_bytes:
                self._end_leaf()
            view = view[len(part) :]

    def finish(self) -> Cid:
        """The CID of everything fed so far; the builder is spent then. An empty file is one empty leaf."""
        if self._chunk_bytes or not self.size:
            self._end_leaf()
        height = 0
        while height + 1 < len(self._levels) or len(self._levels[height]) > 1:
            if self._levels[height]:
                self._end_node(height)
            height += 1
        return self._text(self._levels[height][0].cid)

    def _end_leaf(self) -> None:
        if self.profile.raw_leaves:
            cid, blocks_bytes, data = _binary(RAW, self._hash.digest()), self._chunk_bytes, None
            self._hash = hashlib.sha256()
        else:
            data = _node([], _unixfs(bytes(self._chunk), self._chunk_bytes, []))
            cid, blocks_bytes = self._node_cid(data), len(data)
            self._chunk = bytearray()
        self._add(0, _Link(cid, blocks_bytes, self._chunk_bytes), data)
        self._chunk_bytes = 0

    def _end_node(self, height: int) -> None:
        links = self._levels[height]
        self._levels[height] = []
        file_bytes = sum(link.file_bytes for link in links)
        data = _node(links, _unixfs(b"", file_bytes, [link.file_bytes for link in links]))
        blocks_bytes = len(data) + sum(link.blocks_bytes for link in links)
        self._add(height + 1, _Link(self._node_cid(data), blocks_bytes, file_bytes), data)

    def _add(self, height: int, link: _Link, data: bytes | None) -> None:
        if self._on_block is not None:
            offset = self.size - link.file_bytes  # a block is complete when the file so far ends where its part ends
            self._on_block(Block(cid=self._text(link.cid), offset=offset, size=link.file_bytes, data=data))
        if height == len(self._levels):
            self._levels.append([])
        self._levels[height].append(link)
        if len(self._levels[height]) == self.profile.max_links:
            self._end_node(height)

    def _node_cid(self, data: bytes) -> bytes:
        digest = hashlib.sha256(data).digest()
        return _binary(DAG_PB, digest) if self.profile.version == 1 else _SHA2_256 + digest

    def _text(self, cid: bytes) -> Cid:
        return Cid(_base32(cid) if cid[0] == 1 else _base58(cid))


def _binary(codec: int, digest: bytes) -> bytes:
    return bytes((1, codec)) + _SHA2_256 + digest


def _base32(data: bytes) -> str:
    return "b" + base64.b32encode(data).decode().rstrip("=").lower()


def _base58(data: bytes) -> str:
    """base58btc of a multihash, which never begins with a zero byte."""
    number, text = int.from_bytes(data), ""
    while number:
        number, digit = divmod(number, 58)
        text = _BASE58[digit] + text
    return text


def _unixfs(data: bytes, file_bytes: int, block_sizes: list[int]) -> bytes:
    """The UnixFS message of a file: type 2, its data if any, its size, and the size of the part below each link."""
    content = b"\x12" + write_varint(len(data)) + data if data else b""
    return (
        b"\x08\x02"
        + content
        + b"\x18"
        + write_varint(file_bytes)
        + b"".join(b"\x20" + write_varint(n) for n in block_sizes)
    )


def _node(links: list[_Link], unixfs: bytes) -> bytes:
    """A dag-pb node: links first, then the data, as both profiles demand. Names are empty but present."""
    out = bytearray()
    for link in links:
        body = b"\x0a" + write_varint(len(link.cid)) + link.cid + b"\x12\x00\x18" + write_varint(link.blocks_bytes)
        out += b"\x12" + write_varint(len(body)) + body
    return bytes(out + b"\x0a" + write_varint(len(unixfs)) + unixfs)
