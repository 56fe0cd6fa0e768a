"""METADATA out of a wheel: the exact bytes, or nothing for whatever is not plainly a wheel with one of it."""

from __future__ import annotations

import io
import struct
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index_frontend.fill.wheel_metadata import MAX_DIRECTORY_BYTES, metadata_of
from tests.support.dists import wheel

MAX_BYTES = 10_000
WHEEL = wheel("mxa")
NAME = "mxa-1.0.dist-info/METADATA"


def packed(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()


def found(content: bytes) -> bytes | None:
    return metadata_of(io.BytesIO(content), MAX_BYTES)


def with_flag(content: bytes, flag: int) -> bytes:
    """The archive with a flag set in every entry of its directory and before every member."""
    changed = bytearray(content)
    for magic, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        at = changed.find(magic)
        while at >= 0:
            changed[at + offset] |= flag
            at = changed.find(magic, at + 4)
    return bytes(changed)


def test_the_metadata_of_a_wheel_is_its_exact_bytes() -> None:
    assert found(WHEEL.content) == WHEEL.metadata


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_stored_and_deflated_members_are_read(method: int) -> None:
    assert found(packed((NAME, b"Name: mxa\r\n\xff"), method=method)) == b"Name: mxa\r\n\xff"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a zip",
        WHEEL.content[:-1],
        WHEEL.content[: len(WHEEL.content) // 2],
        packed(("mxa/__init__.py", b"")),
        packed((NAME, b"one"), ("other.dist-info/METADATA", b"two")),
        packed(("deep/mxa.dist-info/METADATA", b"")),
        packed((NAME, b"x"), method=zipfile.ZIP_BZIP2),
        packed((NAME, b"x"), method=zipfile.ZIP_LZMA),
        packed((NAME, bytes(MAX_BYTES + 1))),
        with_flag(packed((NAME, b"secret")), 0x1),
    ],
    ids=["empty", "text", "cut", "half", "none", "two", "deep", "bzip2", "lzma", "long", "encrypted"],
)  # fmt: skip
def test_what_is_not_plainly_a_wheel_with_one_metadata_gives_nothing(content: bytes) -> None:
    assert found(content) is None


def test_a_member_that_is_longer_than_it_says_is_not_inflated() -> None:
    bomb = bytearray(packed((NAME, bytes(100 * MAX_BYTES))))
    at = bomb.find(b"PK\x01\x02")
    struct.pack_into("<L", bomb, at + 24, 5)  # the uncompressed size in the directory
    data = found(bytes(bomb))
    assert data is None or len(data) <= MAX_BYTES


def test_a_member_with_a_wrong_checksum_gives_nothing() -> None:
    broken = bytearray(packed((NAME, b"Name: mxa"), method=zipfile.ZIP_STORED))
    at = broken.find(b"Name: mxa")
    broken[at] ^= 1
    assert found(bytes(broken)) is None


def test_a_directory_that_is_too_long_is_not_read() -> None:
    claims = bytearray(WHEEL.content)
    struct.pack_into("<L", claims, len(claims) - 10, MAX_DIRECTORY_BYTES + 1)
    assert found(bytes(claims)) is None


def test_a_zip64_archive_is_not_read() -> None:
    end = WHEEL.content.rfind(b"PK\x05\x06")
    locator = b"PK\x06\x07" + bytes(16)
    assert found(WHEEL.content[:end] + locator + WHEEL.content[end:]) is None


@given(st.binary(max_size=200), st.integers(0, len(WHEEL.content)))
def test_damage_anywhere_gives_nothing_or_bytes_within_the_bound(noise: bytes, at: int) -> None:
    data = found(WHEEL.content[:at] + noise + WHEEL.content[at + len(noise) :])
    assert data is None or len(data) <= MAX_BYTES
