"""The tree of RFC 6962, checked against a definition written as the RFC writes it, and every proof with its negative twins."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_pypi_bot.core.tlog import (
    EMPTY_ROOT,
    CompactTree,
    consistency_proof,
    consistency_ranges,
    fold,
    full_subtrees,
    inclusion_proof,
    inclusion_ranges,
    leaf_hash,
    node_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)

LEAVES = [leaf_hash(number.to_bytes(2)) for number in range(70)]


def rfc_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, 2.1."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + rfc_root(leaves[:split]) + rfc_root(leaves[split:])).digest()


ROOTS = [rfc_root(LEAVES[:size]) for size in range(71)]


def test_a_tree_that_grows_has_the_root_of_the_standard_at_every_size() -> None:
    tree = CompactTree()
    roots = [tree.root()]
    for leaf in LEAVES:
        tree.append(leaf)
        roots.append(tree.root())
    assert roots == ROOTS == [root_of(LEAVES[:size]) for size in range(71)]
    assert (tree.size, CompactTree().root()) == (70, EMPTY_ROOT)


def test_growth_is_proved_between_all_sizes_and_nothing_else_is() -> None:
    pairs = [(first, second) for second in range(71) for first in range(second + 1)]
    assert len(pairs) == 2_556
    for first, second in pairs:
        proof = consistency_proof(first, LEAVES[:second])
        old, new = ROOTS[first], ROOTS[second]
        assert verify_consistency(first, second, old, new, proof)
        assert not verify_consistency(first, second, old, new, [*proof, old])
        if first > 0:
            assert not verify_consistency(first, second, old[::-1], new, proof)
        if 0 < first < second:
            assert not verify_consistency(first, second, old, new[::-1], proof)
            assert not verify_consistency(first, second, new, old, proof)
            assert not verify_consistency(first, second, old, new, proof[:-1])
            assert not verify_consistency(first, second, old, new, [])
            assert not verify_consistency(second, first, new, old, proof)
            assert not verify_consistency(first, second, old, new, [*proof[:-1], proof[-1][:-1]])


def test_every_leaf_is_proved_in_every_tree_and_no_other_is() -> None:
    for size in range(1, 71):
        for index in range(size):
            proof = inclusion_proof(index, LEAVES[:size])
            leaf, root = LEAVES[index], ROOTS[size]
            assert verify_inclusion(index, size, leaf, proof, root)
            assert not verify_inclusion(index, size, leaf[::-1], proof, root)
            assert not verify_inclusion(index, size, leaf, proof, root[::-1])
            assert not verify_inclusion(index, size, leaf, [*proof, leaf], root)
            assert size == 1 or not verify_inclusion((index + 1) % size, size, leaf, proof, root)
            assert size == 1 or not verify_inclusion(index, size, leaf, proof[:-1], root)
            assert size == 1 or not verify_inclusion(index, size, leaf, [b"", *proof[1:]], root)


@pytest.mark.parametrize("number", [-1, 4])
def test_there_is_no_proof_of_what_is_not_there(number: int) -> None:
    with pytest.raises(IndexError):
        consistency_proof(number, LEAVES[:3])
    with pytest.raises(IndexError):
        inclusion_proof(number, LEAVES[:3])
    assert not verify_inclusion(number, 3, LEAVES[0], [], ROOTS[3])
    assert not verify_consistency(number, 3, ROOTS[0], ROOTS[3], [])


@given(st.integers(-1, 80), st.integers(-1, 80), st.lists(st.binary(max_size=40) | st.sampled_from(LEAVES), max_size=8))
def test_no_proof_makes_a_verifier_stumble(first: int, second: int, proof: list[bytes]) -> None:
    assert not verify_inclusion(first, second, b"x" * 32, proof, b"y" * 32)
    assert not verify_consistency(first, second, b"x" * 32, b"y" * 32, proof)


def test_leaves_and_nodes_are_told_apart() -> None:
    assert leaf_hash(b"ab") != node_hash(b"a", b"b")


def test_the_hashes_of_full_subtrees_are_enough_for_every_root_and_every_proof() -> None:
    """The sizes of every range shrink from left to right, so that `fold` may merge them."""

    def of_stored(start: int, end: int) -> bytes:
        nodes = full_subtrees(start, end)
        assert [level for level, _ in nodes] == sorted({level for level, _ in nodes}, reverse=True)
        return fold([rfc_root(LEAVES[index << level : (index + 1) << level]) for level, index in nodes])

    for size in range(71):
        assert of_stored(0, size) == ROOTS[size]
        for first in range(size + 1):
            stored = [of_stored(start, end) for start, end in consistency_ranges(first, size)]
            assert stored == consistency_proof(first, LEAVES[:size])
        for index in range(size):
            stored = [of_stored(start, end) for start, end in inclusion_ranges(index, size)]
            assert stored == inclusion_proof(index, LEAVES[:size])
