"""The gate: whatever comes, and in whatever pieces, a complete wrong file never goes out."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index_frontend.digest_gate import TAIL_BYTES, DigestGate, DigestMismatch, Tally, Verified, releasable
from matrix_pypi_bot.wire.digests import sha256_of

TAIL = 16
GENUINE = bytes(range(100))
BODIES = st.binary(max_size=120)


def gate_for(body: bytes, *, size_told: bool = True, max_bytes: int = 1000) -> DigestGate:
    return DigestGate(
        Tally(sha256_of(body), size=len(body) if size_told else None, max_bytes=max_bytes, tail_bytes=TAIL)
    )


def cut(body: bytes, places: list[int]) -> list[bytes]:
    """`body` in pieces, cut at `places`; some pieces may be empty."""
    edges = [0, *sorted(min(place, len(body)) for place in places), len(body)]
    return [body[a:b] for a, b in itertools.pairwise(edges)]


def let_out(gate: DigestGate, chunks: list[bytes]) -> tuple[bytes, bool]:
    """What went out, and whether the gate found the whole right."""
    out = b""
    try:
        for chunk in chunks:
            out += gate.feed(chunk)
        out += gate.finish()
    except DigestMismatch:
        return out, False
    return out, True


@given(BODIES, st.lists(st.integers(0, 120), max_size=12), st.booleans())
def test_the_right_body_comes_out_whole_whatever_its_pieces(body: bytes, places: list[int], size_told: bool) -> None:
    assert let_out(gate_for(body, size_told=size_told), cut(body, places)) == (body, True)


@given(BODIES, BODIES, st.lists(st.integers(0, 120), max_size=12), st.booleans())
def test_of_another_body_at_most_its_beginning_without_the_tail_comes_out(
    right: bytes, sent: bytes, places: list[int], size_told: bool
) -> None:
    out, whole = let_out(gate_for(right, size_told=size_told), cut(sent, places))
    if whole:
        assert sent == right
    else:
        assert sent.startswith(out)
        assert len(out) <= max(0, len(right if size_told else sent) - TAIL)


@given(st.lists(st.binary(max_size=40), max_size=12), st.booleans())
def test_before_the_end_the_tail_is_always_inside(chunks: list[bytes], size_told: bool) -> None:
    body = b"".join(chunks)
    gate, out = gate_for(body, size_told=size_told), b""
    for chunk in chunks:
        out += gate.feed(chunk)
        assert out == body[: len(out)]
        assert len(out) <= max(0, len(body) - TAIL)


def test_nothing_of_a_file_that_is_shorter_than_the_tail_goes_out_before_it_is_verified() -> None:
    gate = gate_for(GENUINE[:TAIL])
    assert [gate.feed(GENUINE[: TAIL - 1]), gate.feed(GENUINE[TAIL - 1 : TAIL])] == [b"", b""]
    assert gate.finish() == GENUINE[:TAIL]


def test_a_body_whose_size_is_known_is_held_back_only_at_its_end() -> None:
    assert gate_for(GENUINE).feed(GENUINE[:40]) == GENUINE[:40]
    assert gate_for(GENUINE, size_told=False).feed(GENUINE[:40]) == GENUINE[: 40 - TAIL]


def test_a_body_that_is_too_long_is_cut_at_the_first_byte_too_many() -> None:
    gate = gate_for(GENUINE)
    assert gate.feed(GENUINE) == GENUINE[:-TAIL]
    with pytest.raises(DigestMismatch) as caught:
        gate.feed(b"!")
    assert (caught.value.size, caught.value.actual) == (len(GENUINE) + 1, None)


def test_a_body_that_nobody_told_the_size_of_is_cut_at_the_bound() -> None:
    gate = gate_for(GENUINE, size_told=False, max_bytes=50)
    with pytest.raises(DigestMismatch, match="50 bytes are the most"):
        gate.feed(GENUINE)


def test_a_body_that_ends_early_is_told_apart_from_a_wrong_one() -> None:
    short, wrong = gate_for(GENUINE), gate_for(GENUINE)
    short.feed(GENUINE[:-1])
    wrong.feed(GENUINE[:-1] + b"!")
    with pytest.raises(DigestMismatch, match="ends after 99 of 100 bytes"):
        short.finish()
    with pytest.raises(DigestMismatch, match="expected sha256") as caught:
        wrong.finish()
    assert caught.value.actual == sha256_of(GENUINE[:-1] + b"!")


def test_the_proof_names_what_was_hashed() -> None:
    tally = Tally(sha256_of(GENUINE), size=None, max_bytes=1000)
    tally.update(memoryview(GENUINE))
    assert tally.finish() == Verified(sha256_of(GENUINE), 100)
    assert tally.released == 100


@given(st.integers(0, 300_000), st.none() | st.integers(0, 300_000))
def test_the_last_64_kib_of_what_there_is_never_count_as_releasable(count: int, total: int | None) -> None:
    released = releasable(count, total)
    assert 0 <= released <= count
    assert released <= max(0, (count if total is None else total) - TAIL_BYTES)
