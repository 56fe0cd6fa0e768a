"""Strict JSON: one reading, or none."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_pypi_bot.core.limits import MAX_INTEGER, MAX_JSON_DEPTH
from matrix_pypi_bot.core.rejected import Code, Rejected
from matrix_pypi_bot.core.strict_json import canonical, deeper_than, parse_strict

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_signed_is_read_back_the_same(value: object) -> None:
    assert parse_strict(canonical(value)) == value
    assert parse_strict(json.dumps(value, indent=1).encode()) == value


@given(st.binary())
def test_any_bytes_have_one_reading_or_none(data: bytes) -> None:
    try:
        assert parse_strict(data) == json.loads(data)
    except Rejected as error:
        assert error.code is Code.JSON


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"a":1,"a":1}',
        b'[{"a":{"b":1,"b":2}}]',
        b"1.0",
        b"1e3",
        b"NaN",
        b"-Infinity",
        b"9007199254740992",
        b"-9007199254740992",
        b"1" * 10_000,
        b'"\xff"',
        b'"\x01"',
        b'"\\ud800"',
        b'{"\\udc00":1}',
        b"\xef\xbb\xbf{}",
        b"[1] 2",
        b"'a'",
        b"[" * (MAX_JSON_DEPTH + 1) + b"]" * (MAX_JSON_DEPTH + 1),
        b"[" * 16_000,
    ],
)
def test_a_text_with_two_readings_has_none(data: bytes) -> None:
    with pytest.raises(Rejected) as caught:
        parse_strict(data)
    assert caught.value.code is Code.JSON


def test_what_is_allowed_is_allowed_to_its_edge() -> None:
    assert parse_strict(b"[9007199254740991,-9007199254740991]") == [MAX_INTEGER, -MAX_INTEGER]
    assert parse_strict(b'"\\ud83d\\ude00\\u0000"') == "\U0001f600\0"
    deep = b"[" * MAX_JSON_DEPTH + b"]" * MAX_JSON_DEPTH
    assert canonical(parse_strict(deep)) == deep


def test_brackets_inside_text_nest_nothing() -> None:
    assert parse_strict(b'["' + b"[{" * 100 + b'\\"[["]') == ["[{" * 100 + '"[[']
    assert not deeper_than(b"[],{}," * 100, 2)


@pytest.mark.parametrize("data", [b'"' + b'\\"' * 8_000, b'"a' * 8_000, b"\\" * 16_000 + b"[" * 40])
def test_hostile_text_is_measured_in_one_pass(data: bytes) -> None:
    started = time.process_time()
    deeper_than(data + b"[" * 40, MAX_JSON_DEPTH)
    assert time.process_time() - started < 0.05


@pytest.mark.parametrize("value", [1.5, {1: 2}, [float("nan")], {"a": (2**53,)}, "\ud800", {"a": object()}])
def test_what_no_reader_would_accept_is_not_signed(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        canonical(value)


def test_the_signed_form_is_sorted_compact_and_utf8() -> None:
    assert canonical({"b": [True, None], "a": "é"}) == '{"a":"é","b":[true,null]}'.encode()
