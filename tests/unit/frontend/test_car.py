"""CARs: what we write is what we read, and what strangers write is read strictly or not at all."""

from __future__ import annotations

import itertools
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index_frontend.dag.blocks import MAX_BLOCK_BYTES, PROBE_CID
from index_frontend.dag.car import (
    MAX_HEADER_BYTES,
    BadCar,
    CarReader,
    car_header,
    car_section,
    car_section_bytes,
)
from matrix_pypi_bot.wire.cids import Cid, format_cid, raw_cid
from matrix_pypi_bot.wire.digests import sha256_of

A, B = b"a block", bytes(range(256)) * 900
CID_A, CID_B = raw_cid(sha256_of(A)), format_cid(0x70, sha256_of(B))
CAR = car_header(CID_A) + car_section(CID_A, A) + car_section(CID_B, B)
PLENTY = 16 << 20


def read(*chunks: bytes, max_bytes: int = PLENTY) -> tuple[tuple[Cid, ...] | None, list[tuple[Cid, bytes]]]:
    """The roots and blocks of a whole CAR. Raises BadCar."""
    reader = CarReader(max_bytes=max_bytes)
    blocks = [block for chunk in chunks for block in reader.feed(chunk)]
    reader.finish()
    return reader.roots, blocks


def test_a_header_is_written_as_other_software_writes_it() -> None:
    # The header of one root as the CARv1 specification shows it: 58 bytes of DAG-CBOR.
    root = raw_cid(sha256_of(b""))
    binary = "01551220" + "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert car_header(root).hex() == "3a" + "a265726f6f747381d82a582500" + binary + "6776657273696f6e01"


def test_the_probe_has_a_car_of_its_own() -> None:
    assert car_header(PROBE_CID).hex() == "19" + "a265726f6f747381d82a450001550000" + "6776657273696f6e01"


@given(cuts=st.lists(st.integers(0, len(CAR)), max_size=8).map(sorted))
def test_however_it_is_cut_into_chunks_the_same_blocks_come_out(cuts: list[int]) -> None:
    edges = [0, *cuts, len(CAR)]
    chunks = [CAR[start:stop] for start, stop in itertools.pairwise(edges)]
    assert read(*chunks) == ((CID_A,), [(CID_A, A), (CID_B, B)])


def test_one_byte_at_a_time_is_enough() -> None:
    small = car_header(CID_A) + car_section(CID_A, A)
    assert read(*(small[i : i + 1] for i in range(len(small)))) == ((CID_A,), [(CID_A, A)])


@pytest.mark.parametrize("count", [0, 1, 23, 24, 255, 256, 1_500])
def test_a_header_may_have_no_root_or_many(count: int) -> None:
    assert read(car_header(*[CID_A] * count)) == ((CID_A,) * count, [])


@pytest.mark.parametrize("size", [0, 1, 91, 92, MAX_BLOCK_BYTES])
def test_the_length_of_a_section_is_known_before_it_is_written(size: int) -> None:
    data = bytes(size)
    assert car_section_bytes(size) == len(car_section(raw_cid(sha256_of(data)), data))


def test_a_block_that_is_not_what_it_is_called_is_refused() -> None:
    with pytest.raises(BadCar, match="another hash"):
        read(car_header(CID_A), car_section(CID_A, A + b"!"))


def test_a_block_or_header_that_is_too_long_is_refused_before_it_has_come() -> None:
    reader = CarReader(max_bytes=PLENTY)
    reader.feed(car_header(CID_A))
    with pytest.raises(BadCar, match="bytes, which is not between"):
        reader.feed(car_section(CID_A, bytes(MAX_BLOCK_BYTES + 1))[:4])
    with pytest.raises(BadCar, match=str(MAX_HEADER_BYTES)):
        CarReader(max_bytes=PLENTY).feed(b"\x81\x80\x04")


@pytest.mark.parametrize(
    "cid",
    [
        b"\x01\x55\x00\x00" + bytes(32),  # identity: content instead of a name
        b"\x12\x20" + bytes(34),  # CIDv0
        b"\x01\x71\x12\x20" + bytes(32),  # dag-cbor
        b"\x01\x55\x13\x20" + bytes(32),  # sha2-512
    ],
)
def test_other_kinds_of_cids_are_refused(cid: bytes) -> None:
    with pytest.raises(BadCar):
        read(car_header(CID_A), bytes((len(cid),)) + cid)
    with pytest.raises(BadCar):
        read(car_header(CID_A).replace(bytes.fromhex("01551220" + sha256_of(A)), cid))


@pytest.mark.parametrize("car", [b"", CAR[:-1], CAR[:30], car_header(CID_A)[:-1], CAR + b"\x80"])
def test_a_car_that_is_cut_off_is_no_car(car: bytes) -> None:
    with pytest.raises(BadCar, match="cut off"):
        read(car)


@pytest.mark.parametrize(
    "car",
    [
        b"\x00",
        CAR + b"\x00" * 40,
        b"\xba\x00" + CAR[1:],
        b"\x80\x80\x80\x80\x01",
        b"\x3a" + CAR[1:].replace(b"version\x01", b"version\x02"),
        car_header(CID_A).replace(b"\x81\xd8", b"\x82\xd8"),
        car_header(CID_A).replace(b"\x81\xd8", b"\x80\xd8"),
        b"<!doctype html><p>502",
    ],
)
def test_what_is_written_in_another_way_than_the_one_is_refused(car: bytes) -> None:
    with pytest.raises(BadCar):
        read(car)


def test_a_car_that_is_longer_than_allowed_is_refused() -> None:
    assert read(CAR, max_bytes=len(CAR))[1]
    with pytest.raises(BadCar, match="longer than"):
        read(CAR, max_bytes=len(CAR) - 1)


def test_after_something_bad_nothing_is_taken_any_more() -> None:
    reader = CarReader(max_bytes=PLENTY)
    with pytest.raises(BadCar):
        reader.feed(b"\x00")
    with pytest.raises(BadCar, match="before"):
        reader.feed(CAR)
    with pytest.raises(BadCar):
        reader.finish()


@settings(max_examples=300)
@given(position=st.integers(0, 200), byte=st.integers(0, 255))
def test_one_changed_byte_never_brings_out_another_block(position: int, byte: int) -> None:
    car = bytearray(car_header(CID_A) + car_section(CID_A, A))
    car[position % len(car)] = byte
    with suppress(BadCar):
        assert read(bytes(car))[1] == [(CID_A, A)]


@given(noise=st.binary(max_size=300))
def test_noise_is_refused_and_raises_nothing_else(noise: bytes) -> None:
    with pytest.raises(BadCar):
        read(noise)
    with suppress(BadCar):
        read(car_header(CID_A) + noise)
