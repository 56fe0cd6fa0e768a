"""The frontend's conformance ops: every line gets an answer, whatever it holds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index_frontend.conformance import run
from index_frontend.pages.negotiate import JSON, TEXT

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def answer(question: Any) -> Any:
    (line,) = run([json.dumps(question)])
    return json.loads(line)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ({"op": "negotiate", "accept": JSON, "format": None}, {"content_type": JSON}),
        ({"op": "negotiate", "accept": None, "format": None}, {"content_type": TEXT}),
        ({"op": "negotiate"}, {"content_type": TEXT}),
        ({"op": "negotiate", "accept": "application/json"}, {"error": 406}),
        ({"op": "negotiate", "accept": TEXT, "format": JSON}, {"content_type": JSON}),
        ({"op": "negotiate", "accept": JSON, "format": "yaml"}, {"error": 406}),
        ({"op": "negotiate", "accept": 5}, {"error": "accept and format are strings or null"}),
        ({"op": "range", "header": "bytes=0-99", "size": 1000}, {"status": 206, "start": 0, "end": 99}),
        ({"op": "range", "header": "bytes=-50", "size": 1000}, {"status": 206, "start": 950, "end": 999}),
        ({"op": "range", "header": "bytes=9999-", "size": 1000}, {"status": 416, "start": None, "end": None}),
        ({"op": "range", "header": "lines=1-2", "size": 1000}, {"status": 200, "start": None, "end": None}),
        ({"op": "range", "header": None, "size": 0}, {"status": 200, "start": None, "end": None}),
        (
            {"op": "range", "header": None, "size": -1},
            {"error": "header is a string or null, size a number of bytes"},
        ),
        (
            {"op": "range", "header": None, "size": True},
            {"error": "header is a string or null, size a number of bytes"},
        ),
        ({"op": "decide"}, {"error": "unknown op"}),
        ({"op": ["range"]}, {"error": "unknown op"}),
        ([], {"error": "unknown op"}),
    ],
)
def test_each_question_has_its_answer(question: object, expected: object) -> None:
    assert answer(question) == expected


def test_answers_come_in_the_order_of_the_lines() -> None:
    lines = ["nonsense\n", "\n", '{"op": "range", "header": null, "size": 1}\n', "[" * 100_000]
    assert [json.loads(line).get("error", "none") for line in run(lines)] == ["not JSON", "none", "not JSON"]


@given(st.dictionaries(st.sampled_from(["op", "accept", "format", "header", "size"]), json_values))
def test_no_question_stops_the_answers(question: dict[str, Any]) -> None:
    for op in ("negotiate", "range"):
        assert isinstance(answer(question | {"op": op}), dict)
