"""Who gets the trust pages as JSON, and who as a page."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_pypi_bot.wire.trust import wants_json


@pytest.mark.parametrize(
    ("accept", "json"),
    [
        ("application/json", True),
        ("Application/JSON; q=1", True),
        ("application/json, */*;q=0.5", True),
        ("application/*", True),
        ("text/html;q=0.3, application/json;q=0.4", True),
        ("", False),
        ("*/*", False),
        ("text/html", False),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", False),
        ("application/json, text/html", False),
        ("application/json;q=0", False),
        ("application/json;q=x", False),
        ("application/json;q=nan", False),
        ("text/*, application/json;q=0.9", False),
    ],
)
def test_json_is_for_those_who_like_it_better_than_a_page(accept: str, json: bool) -> None:
    assert wants_json(accept) is json


@given(st.text(max_size=300))
def test_any_header_gets_one_or_the_other(accept: str) -> None:
    assert wants_json(accept) in (True, False)
