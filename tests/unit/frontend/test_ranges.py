"""Ranges of a body, as RFC 9110 section 14 has them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index_frontend.ranges import RangeAnswer, answer_range, open_start, range_counts

WHOLE = RangeAnswer(200)
NONE_OF_IT = RangeAnswer(416)
ETAG = '"sha256-0123"'


def told_by_the_rfc(header: str, size: int) -> RangeAnswer:
    """A second reading of the grammar: `bytes=first-[last]` or `bytes=-suffix`, nothing else counts."""
    match = re.fullmatch(r"bytes=(?:([0-9]+)-([0-9]*)|-([0-9]+))", header, re.IGNORECASE | re.ASCII)
    if match is None:
        return WHOLE
    first, last, suffix = match.groups()
    if suffix is not None:
        if int(suffix) == 0:
            return NONE_OF_IT
        return RangeAnswer(206, max(0, size - int(suffix)), size - 1) if size else WHOLE
    if last and int(last) < int(first):
        return WHOLE
    if int(first) >= size:
        return NONE_OF_IT
    return RangeAnswer(206, int(first), min(int(last), size - 1) if last else size - 1)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-99", RangeAnswer(206, 0, 99)),
        ("bytes=-50", RangeAnswer(206, 950, 999)),
        ("bytes=700-", RangeAnswer(206, 700, 999)),
        ("bytes=0-999999999999", RangeAnswer(206, 0, 999)),
        ("bytes=0-0", RangeAnswer(206, 0, 0)),
        ("bytes=999-", RangeAnswer(206, 999, 999)),
        ("bytes=-5000", RangeAnswer(206, 0, 999)),
        ("Bytes=0-9", RangeAnswer(206, 0, 9)),
    ],
)
def test_a_single_range_is_answered_with_exactly_that_part(header: str, expected: RangeAnswer) -> None:
    assert answer_range(header, 1000) == expected


@pytest.mark.parametrize("header", ["bytes=99999-", "bytes=1000-", "bytes=-0", "bytes=-000", "bytes=1000-1001"])
def test_a_range_past_the_end_and_an_empty_one_cannot_be_satisfied(header: str) -> None:
    assert answer_range(header, 1000) == NONE_OF_IT


@pytest.mark.parametrize(
    "header",
    [
        *("lines=1-2", "bytes=abc", "bytes=9-3", "bytes", "bytes=", "bytes=-", "=0-1", "", "bytes=0--0", "bytes=--5"),
        *("bytes=1-2-3", "bytes=0x1-2", "bytes=+1-2", "bytes=1_0-20", "bytes=٣-٤"),
        *("bytes=0-" + "9" * 8000, "bytes=" + "9" * 8000 + "-"),
    ],
)  # fmt: skip
def test_what_is_not_one_range_of_bytes_is_ignored(header: str) -> None:
    assert answer_range(header, 1000) == WHOLE


@pytest.mark.parametrize(
    "header", ["bytes=0-1,5-6", "bytes=0-,0-", "bytes=" + ",".join(["0-9"] * 800), "bytes=5000-,6000-"]
)
def test_several_ranges_are_answered_with_the_whole(header: str) -> None:
    assert answer_range(header, 1000) == WHOLE


def test_no_range_is_the_whole() -> None:
    assert answer_range(None, 1000) == WHOLE


@pytest.mark.parametrize(
    ("header", "expected"), [("bytes=0-", NONE_OF_IT), ("bytes=-1", WHOLE), ("bytes=-0", NONE_OF_IT)]
)
def test_of_an_empty_body_there_is_no_part(header: str, expected: RangeAnswer) -> None:
    assert answer_range(header, 0) == expected


NUMBERS = st.integers(0, 2000).map(str) | st.just("")
HEADERS = st.builds("bytes={}-{}".format, NUMBERS, NUMBERS) | st.text("bytes=-0123456789, ", max_size=20)


@given(HEADERS, st.integers(0, 1500))
def test_every_header_is_read_as_the_rfc_reads_it_or_gets_the_whole(header: str, size: int) -> None:
    answer = answer_range(header, size)
    # A header with blanks may be read or ignored: RFC 9110 leaves lists and blanks to the recipient.
    assert answer == told_by_the_rfc(header.replace(" ", ""), size) or (" " in header and answer == WHOLE)


@given(st.text(max_size=60), st.integers(0, 1 << 40))
def test_any_text_at_all_gets_an_answer_inside_the_body(header: str, size: int) -> None:
    answer = answer_range(header, size)
    if answer.status == 206:
        assert answer.start is not None
        assert answer.end is not None
        assert 0 <= answer.start <= answer.end < size


@pytest.mark.parametrize(
    ("header", "start"),
    [
        ("bytes=7-", 7),
        ("bytes=0-", 0),
        ("bytes=7-8", None),
        ("bytes=-7", None),
        (None, None),
        ("x=7-", None),
        ("bytes=1-,2-", None),
    ],
)
def test_only_a_range_without_an_end_is_open(header: str | None, start: int | None) -> None:
    assert open_start(header) == start


@pytest.mark.parametrize(
    ("if_range", "counts"),
    [
        (None, True),
        (ETAG, True),
        (f" {ETAG} ", True),
        (f"W/{ETAG}", False),
        ('"sha256-4567"', False),
        ("sha256-0123", False),
        ("Wed, 21 Oct 2026 07:28:00 GMT", False),
        ("", False),
        (f'{ETAG}, "other"', False),
    ],
)
def test_a_range_counts_only_for_the_body_that_if_range_names(if_range: str | None, counts: bool) -> None:
    assert range_counts(if_range, ETAG) is counts
