"""Parts of files as the trustless gateway spells them, and the blocks they need."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from index_frontend.dag.scope import BadScope, EntityBytes, within
from matrix_pypi_bot.wire.cids import raw_cid
from matrix_pypi_bot.wire.digests import sha256_of

SIZES = st.integers(0, 50)
EDGES = st.integers(-60, 60)


@given(size=SIZES, first=EDGES, last=st.none() | EDGES)
def test_a_part_is_the_bytes_that_lie_between_both_ends(size: int, first: int, last: int | None) -> None:
    ask = EntityBytes.parse(f"{first}:{'*' if last is None else last}")
    begin = max(0, first + size) if first < 0 else first
    end = size - 1 if last is None else last + size if last < 0 else last
    if begin >= size and begin > 0:
        with pytest.raises(BadScope):
            ask.span(size)
    else:
        assert list(range(*ask.span(size))) == [at for at in range(size) if begin <= at <= end]
    assert EntityBytes.parse(str(ask)) == ask


@given(text=st.text(max_size=40))
def test_what_is_spelled_otherwise_is_refused(text: str) -> None:
    try:
        ask = EntityBytes.parse(text)
    except BadScope:
        return
    assert text.isascii()
    assert text.count(":") == 1
    assert EntityBytes.parse(str(ask)) == ask


@given(sizes=st.lists(st.integers(1, 9), max_size=9), offset=st.integers(0, 9), first=SIZES, count=SIZES)
def test_the_children_that_a_part_needs_are_those_that_hold_a_byte_of_it(
    sizes: list[int], offset: int, first: int, count: int
) -> None:
    assume(count or not sizes)
    cids = [raw_cid(sha256_of(bytes((number,)))) for number in range(len(sizes))]
    found = list(within(cids, sizes, offset, (first, first + count)))
    starts = [offset + sum(sizes[:number]) for number in range(len(sizes))]
    assert found == [
        (cid, size, start)
        for cid, size, start in zip(cids, sizes, starts, strict=True)
        if set(range(start, start + size)) & set(range(first, first + count))
    ]
