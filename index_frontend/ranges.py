"""Which part of a body a request asks for: single byte ranges of RFC 9110, and whether `If-Range` lets them count.

A server may ignore `Range`; it must never answer with another part than the one asked for. So everything that is not one plain,
satisfiable range of bytes is answered with the whole body, several ranges too: nobody gets a multipart answer to blow up.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from werkzeug.http import parse_range_header

_EMPTY_SUFFIX: Final = re.compile(r"[ \t]*bytes[ \t]*=[ \t]*-0+[ \t]*", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class RangeAnswer:
    """The status of an answer and, for 206, its first and last byte as `Content-Range` counts them: `end` is inclusive."""

    status: Literal[200, 206, 416]
    start: int | None = None
    end: int | None = None


WHOLE: Final = RangeAnswer(200)
UNSATISFIABLE: Final = RangeAnswer(416)


def answer_range(header: str | None, size: int) -> RangeAnswer:
    """How a `Range` header is answered for a body of `size` bytes; None and everything that is not understood get the whole."""
    if header is None:
        return WHOLE
    if _EMPTY_SUFFIX.fullmatch(header):
        return UNSATISFIABLE
    span = _single(header)
    if span is None:
        return WHOLE
    start, stop = span
    if start < 0:  # the last `-start` bytes; those of an empty body cannot be written as a Content-Range
        return RangeAnswer(206, max(0, size + start), size - 1) if size else WHOLE
    if start >= size:
        return UNSATISFIABLE
    return RangeAnswer(206, start, (size if stop is None else min(stop, size)) - 1)


def open_start(header: str | None) -> int | None:
    """N of a single `bytes=N-`, which may be answered before the end of the body is known to be right; None for all others."""
    span = _single(header) if header is not None else None
    return span[0] if span is not None and span[0] >= 0 and span[1] is None else None


def range_counts(if_range: str | None, etag: str) -> bool:
    """Whether a `Range` counts beside this `If-Range`: only if it names `etag` (`"…"`, strong) itself.

    Weak tags never match (RFC 9110 §13.1.5), and neither do dates: no `Last-Modified` is ever sent.
    """
    return if_range is None or if_range.strip(" \t") == etag


def _single(header: str) -> tuple[int, int | None] | None:
    """(start, exclusive stop or None) of a header with one range of bytes; start is negative for a suffix."""
    if header.count("-") != 1 or "," in header:
        return None
    parsed = parse_range_header(header)
    if parsed is None or parsed.units != "bytes":
        return None
    start, stop = parsed.ranges[0]
    return start, stop
