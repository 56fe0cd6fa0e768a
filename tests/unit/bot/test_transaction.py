"""A transaction's body, whatever is in it: what can be kept is kept, the rest is counted, and the whole is refused only as a whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_pypi_bot.adapters.matrix.transaction import Delivery, NotATransaction, take_apart

GOOD = {"event_id": "$a", "room_id": "!r:hs.example", "type": "m.x", "content": {"body": "\u202e\ud800\x00ß"}}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_events_come_out_in_order_with_everything_that_was_in_them() -> None:
    second = {**GOOD, "event_id": "$b"}
    delivery = take_apart(json.dumps({"events": [GOOD, second], "ephemeral": [1]}).encode())
    assert [(event_id, room_id, json.loads(raw)) for event_id, room_id, raw in delivery.events] == [
        ("$a", "!r:hs.example", GOOD),
        ("$b", "!r:hs.example", second),
    ]
    assert all(raw.isascii() for _, _, raw in delivery.events)


@pytest.mark.parametrize(
    "bad",
    [
        None,
        [],
        {},
        {**GOOD, "event_id": None},
        {**GOOD, "event_id": "a"},
        {**GOOD, "event_id": "$"},
        {**GOOD, "event_id": "$a\x00"},
        {**GOOD, "event_id": "$a\n"},
        {**GOOD, "event_id": "$\ud800"},
        {**GOOD, "event_id": "$" + "a" * 255},
        {**GOOD, "room_id": ["!r"]},
        {**GOOD, "room_id": "!\u0665"},
    ],
)
def test_one_bad_event_costs_no_other(bad: Any) -> None:
    delivery = take_apart(json.dumps({"events": [bad, GOOD, bad]}).encode())
    assert ([event_id for event_id, _, _ in delivery.events], delivery.malformed) == (["$a"], 2)


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        (b"", "M_NOT_JSON"),
        (b"{", "M_NOT_JSON"),
        (b"\xff\xfe", "M_NOT_JSON"),
        (b"[" * 100_000, "M_NOT_JSON"),
        (b'{"events":[' + b"9" * 10_000 + b"]}", "M_NOT_JSON"),
        (b"null", "M_BAD_JSON"),
        (b"{}", "M_BAD_JSON"),
        (b'{"events":{}}', "M_BAD_JSON"),
    ],
)
def test_what_is_no_transaction_is_refused_by_its_name(body: bytes, errcode: str) -> None:
    with pytest.raises(NotATransaction) as refused:
        take_apart(body)
    assert refused.value.errcode == errcode


@given(st.lists(JSON, max_size=6))
def test_no_list_of_events_makes_it_fail(events: list[Any]) -> None:
    body = json.dumps({"events": [*events, GOOD]}).encode()
    delivery = take_apart(body)
    assert isinstance(delivery, Delivery)
    assert len(delivery.events) + delivery.malformed == len(events) + 1
    assert delivery.events[-1][0] == "$a"
