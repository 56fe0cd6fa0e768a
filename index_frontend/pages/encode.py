"""How a finished page travels: gzip and zstd, and the strong ETags that tell the forms apart."""

from __future__ import annotations

import gzip
import hashlib
from typing import Final

import zstandard

from index_frontend.pages.negotiate import GZIP, HTML, IDENTITY, JSON, TEXT, ZSTD, Coding, MediaType

GZIP_LEVEL: Final = 6
ZSTD_LEVEL: Final = 6

_MARKS: Final = {JSON: "j", HTML: "h", TEXT: "t"}


def compress(body: bytes, coding: Coding) -> bytes:
    """`body` in `coding`; the same bytes for the same body, so that its ETag may be strong."""
    if coding == GZIP:
        return gzip.compress(body, GZIP_LEVEL, mtime=0)
    if coding == ZSTD:
        return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(body)
    return body


def fingerprint(body: bytes) -> str:
    """32 hex digits that stand for `body`."""
    return hashlib.blake2b(body, digest_size=16).hexdigest()


def etag(fingerprint: str, media: MediaType, coding: Coding) -> str:
    """The strong entity tag of one form of a page, quotes included, e.g. `"<32 hex>-j-gzip"`.

    The two HTML types have one body but are two representations, and so are the codings: a cache must never answer one with another.
    """
    return f'"{fingerprint}-{_MARKS[media]}{"" if coding == IDENTITY else "-" + coding}"'
