"""How pages travel: packed so that they unpack, tagged so that no form passes for another."""

from __future__ import annotations

import gzip
import re

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from index_frontend.pages.encode import compress, etag, fingerprint
from index_frontend.pages.negotiate import GZIP, HTML, IDENTITY, JSON, TEXT, ZSTD


@given(st.binary(max_size=2000))
def test_what_is_packed_unpacks_to_the_same(body: bytes) -> None:
    assert gzip.decompress(compress(body, GZIP)) == body
    assert zstandard.ZstdDecompressor().decompress(compress(body, ZSTD)) == body
    assert compress(body, IDENTITY) == body


@pytest.mark.parametrize("coding", [GZIP, ZSTD])
def test_packing_gives_the_same_bytes_each_time(coding: str) -> None:
    body = b"page " * 1000
    assert compress(body, coding) == compress(body, coding)  # type: ignore[arg-type]


def test_every_form_of_every_body_has_an_etag_of_its_own() -> None:
    forms = [(media, coding) for media in (JSON, HTML, TEXT) for coding in (IDENTITY, GZIP, ZSTD)]
    tags = {etag(fingerprint(body), *form) for body in (b"a", b"b") for form in forms}
    assert len(tags) == 2 * len(forms)
    assert all(re.fullmatch(r'"[\x21\x23-\x7e]+"', tag) for tag in tags)  # strong, as RFC 9110 spells them
