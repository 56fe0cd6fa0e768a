"""Digests: one spelling."""

from __future__ import annotations

import hashlib

import pytest

from matrix_pypi_bot.wire.digests import InvalidDigest, parse_sha256, sha256_of, sha256_of_chunks


def test_a_digest_is_64_lower_case_hex_digits() -> None:
    told = hashlib.sha256(b"hello").hexdigest()
    assert parse_sha256(told) == sha256_of(b"hello") == sha256_of_chunks([b"he", b"", b"llo"]) == told


@pytest.mark.parametrize("text", ["", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "a" * 64 + "\n", "\u0661" * 64])
def test_nothing_else_is_one(text: str) -> None:
    with pytest.raises(InvalidDigest) as caught:
        parse_sha256(text)
    assert caught.value.detail.isascii()
