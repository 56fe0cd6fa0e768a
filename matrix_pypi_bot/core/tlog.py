"""Transparency logs: the Merkle tree of RFC 6962, its proofs and their verification.

Hashes are 32 raw bytes. Proofs are in RFC order. Verifiers are total: whatever they are given, the answer is True or False.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf; for our logs `data` is a statement's payload."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class CompactTree:
    """A tree that grows leaf by leaf and keeps only the roots of its full subtrees, at most 64 hashes."""

    def __init__(self, hashes: Iterable[bytes] = ()) -> None:
        self.size = 0
        self._peaks: list[bytes] = []  # of full subtrees, the largest first
        for leaf in hashes:
            self.append(leaf)

    @classmethod
    def grown(cls, size: int, peaks: Sequence[bytes]) -> CompactTree:
        """The tree of `size` leaves whose full subtrees have these hashes, the largest first (`full_subtrees`)."""
        tree = cls()
        tree.size, tree._peaks = size, list(peaks)
        return tree

    def append(self, leaf: bytes) -> None:
        """Adds a leaf by its hash."""
        size, merged = self.size, leaf
        while size & 1:
            merged = node_hash(self._peaks.pop(), merged)
            size >>= 1
        self._peaks.append(merged)
        self.size += 1

    def root(self) -> bytes:
        """The root over all leaves so far; of an empty tree the hash of nothing."""
        return fold(self._peaks)


def fold(hashes: Sequence[bytes]) -> bytes:
    """The root over neighbouring full subtrees, given from left to right, each smaller than the one before."""
    if not hashes:
        return EMPTY_ROOT
    *rest, merged = hashes
    for left in reversed(rest):
        merged = node_hash(left, merged)
    return merged


def full_subtrees(start: int, end: int) -> list[tuple[int, int]]:
    """What `fold` needs for the leaves from `start` to `end` (exclusive), as (level, index).

    A full subtree of level L and index i is over the 2^L leaves from i * 2^L on; its hash never changes when the tree grows.
    `start` is where a subtree of the standard begins: 0, or the left edge of one of a proof's ranges.
    """
    found: list[tuple[int, int]] = []
    while start < end:
        level = (end - start).bit_length() - 1
        found.append((level, start >> level))
        start += 1 << level
    return found


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes."""
    return CompactTree(leaves).root()


def inclusion_proof(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """That leaf `index` (0 <= index < len) is in the tree of `leaves`. Raises IndexError for another index."""
    return [root_of(leaves[start:end]) for start, end in inclusion_ranges(index, len(leaves))]


def consistency_proof(first: int, leaves: Sequence[bytes]) -> list[bytes]:
    """That the tree of the first `first` leaves (0 <= first <= len) grew into the tree of all.

    Empty for 0 and for all of them. Raises IndexError for another number.
    """
    return [root_of(leaves[start:end]) for start, end in consistency_ranges(first, len(leaves))]


def inclusion_ranges(index: int, size: int) -> list[tuple[int, int]]:
    """The leaves (start, end exclusive) under each hash of the inclusion proof. Raises IndexError."""
    if not 0 <= index < size:
        raise IndexError(index)
    start, end = 0, size
    ranges: list[tuple[int, int]] = []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    return ranges[::-1]


def consistency_ranges(first: int, size: int) -> list[tuple[int, int]]:
    """The leaves (start, end exclusive) under each hash of the consistency proof. Raises IndexError."""
    if not 0 <= first <= size:
        raise IndexError(first)
    if first in (0, size):
        return []
    start, end = 0, size
    ranges: list[tuple[int, int]] = []
    while first != end:
        middle = start + _split(end - start)
        if first <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    if start:  # the first tree is not exactly the subtree that is left, so that the verifier does not know its root
        ranges.append((start, end))
    return ranges[::-1]


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether `proof` shows the leaf with hash `leaf` at `index` of the tree of `size` leaves (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size or not _are_hashes(proof):
        return False
    node, last, merged = index, size - 1, leaf
    for sibling in proof:
        if not last:
            return False
        if node & 1 or node == last:
            merged = node_hash(sibling, merged)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            merged = node_hash(merged, sibling)
        node, last = node >> 1, last >> 1
    return not last and merged == root


def verify_consistency(first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether `proof` shows that the tree of `first` leaves grew into that of `second` (RFC 9162, 2.1.4.2)."""
    if not 0 <= first <= second or not _are_hashes(proof):
        return False
    if first in (0, second):
        return not proof and first_root == (second_root if first else EMPTY_ROOT)
    path = list(proof) if first & (first - 1) else [first_root, *proof]  # a full tree is its own first node
    if not path:
        return False
    node, last = first - 1, second - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if not last:
            return False
        if node & 1 or node == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        node, last = node >> 1, last >> 1
    return not last and old == first_root and new == second_root


def _are_hashes(proof: Sequence[bytes]) -> bool:
    """Anything but 32 bytes could move the border between two siblings."""
    return all(len(part) == HASH_BYTES for part in proof)


def _split(size: int) -> int:
    """The largest power of two below `size` (> 1)."""
    return 1 << (size - 1).bit_length() - 1
