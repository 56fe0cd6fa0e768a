"""Which form a client gets: what real clients send, what the RFC allows, what nobody should send."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index_frontend.pages.negotiate import (
    GZIP,
    HTML,
    IDENTITY,
    JSON,
    TEXT,
    ZSTD,
    NotAcceptable,
    choose_coding,
    negotiate,
)

PIP = f"{JSON}, {HTML}; q=0.1, text/html; q=0.01"
UV = f"{JSON}, {HTML};q=0.2, text/html;q=0.01"
POETRY = f"{JSON}, */*;q=0.1"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (PIP, JSON),
        (UV, JSON),
        (POETRY, JSON),
        (BROWSER, TEXT),
        (None, TEXT),
        ("", TEXT),
        (" ", TEXT),
        (",", TEXT),
        ("*/*", TEXT),
        ("*/*;q=0.1", TEXT),
        (JSON, JSON),
        (HTML, HTML),
        (TEXT, TEXT),
        ("TEXT/HTML", TEXT),
        ("text/*", TEXT),
        ("application/*", JSON),
        ("application/*, */*", JSON),
        (f"{JSON}, {TEXT}", JSON),
        (f"{TEXT}, {JSON}", JSON),
        (f"{HTML}, {TEXT}", HTML),
        (f"{HTML}, application/*", HTML),
        (f"{JSON};q=0.1, {TEXT};q=0.9", TEXT),
        (f"{JSON};q=0, */*;q=0.1", TEXT),
        (f"{JSON};q=0, application/*", HTML),
        (f"text/html;charset=utf-8;q=0.5, {JSON};q=0.1", TEXT),
        ('text/html; charset="UTF-8"', TEXT),
        ("application/vnd.pypi.simple.latest+json", JSON),
        ("application/vnd.pypi.simple.latest+html", HTML),
        ("application/vnd.pypi.simple.latest+json, */*;q=0.5", JSON),
        ("q=abc", TEXT),
        (";;;,,", TEXT),
        (f"{JSON};q=abc", TEXT),
        (f"{JSON};q=2", TEXT),
    ],
)
def test_the_client_gets_what_it_likes_best(accept: str | None, chosen: str) -> None:
    assert negotiate(accept) == chosen


@pytest.mark.parametrize(
    "accept",
    [
        "application/json",
        "application/vnd.pypi.simple.v2+json",
        "image/png, */*;q=0",
        f"{JSON};q=0",
        "text/html;level=1",
    ],
)
def test_a_client_that_takes_none_of_ours_is_told_which_there_are(accept: str) -> None:
    with pytest.raises(NotAcceptable) as refused:
        negotiate(accept)
    assert JSON in refused.value.detail
    assert refused.value.code.status == 406


@pytest.mark.parametrize(
    ("spelled", "chosen"),
    [
        (JSON, JSON),
        (HTML, HTML),
        (TEXT, TEXT),
        (JSON.replace("+", " "), JSON),
        ("application/vnd.pypi.simple.latest+json", JSON),
        ("", TEXT),
    ],
)
def test_a_format_wins_over_accept(spelled: str, chosen: str) -> None:
    assert negotiate(TEXT, spelled) == chosen


@pytest.mark.parametrize("spelled", ["yaml", "application/json", "*/*", "<script>\x00\n"])
def test_a_format_that_is_not_ours_is_refused_whatever_accept_says(spelled: str) -> None:
    with pytest.raises(NotAcceptable) as refused:
        negotiate("*/*", spelled)
    assert refused.value.detail.isprintable()


@pytest.mark.parametrize(
    "accept",
    [
        ", ".join(f"a/b{number};q=0.5" for number in range(2000)),
        "a/b;" * 2000,
        ";" * 8000,
        'a/b;c="' + '\\"' * 4000,
        "a/b;q=0.5;" + "x;" * 3990 + "\x01",
        "x/" + "y" * 8000,
    ],
)
def test_an_accept_header_made_to_be_slow_is_not(accept: str) -> None:
    begun = time.process_time()  # of this process alone: others may be busy
    with contextlib.suppress(NotAcceptable):
        assert negotiate(accept) == TEXT
    assert time.process_time() - begun < 0.5  # 50 ms


@given(st.text(max_size=200), st.none() | st.text(max_size=60))
def test_whatever_is_sent_there_is_a_form_or_a_406(accept: str, spelled: str | None) -> None:
    try:
        assert negotiate(accept, spelled) in (JSON, HTML, TEXT)
    except NotAcceptable as refused:
        assert refused.detail.isprintable()


@pytest.mark.parametrize(
    ("accept_encoding", "chosen"),
    [
        (None, IDENTITY),
        ("", IDENTITY),
        ("gzip, deflate", GZIP),
        ("gzip, deflate, zstd", ZSTD),
        ("zstd,gzip,deflate", ZSTD),
        ("GZIP", GZIP),
        ("gzip;q=0.5, zstd;q=0.1", GZIP),
        ("gzip;q=0", IDENTITY),
        ("gzip;q=0.5, identity", IDENTITY),
        ("gzip;q=0.5, identity;q=0.5", GZIP),
        ("identity", IDENTITY),
        ("identity;q=0, *;q=0", IDENTITY),
        ("*", IDENTITY),
        ("br", IDENTITY),
        ("gzip;;q", IDENTITY),
    ],
)
def test_a_page_is_packed_only_in_ways_that_the_client_names(accept_encoding: str | None, chosen: str) -> None:
    assert choose_coding(accept_encoding) == chosen


@given(st.text(max_size=200))
def test_whatever_encodings_are_sent_there_is_one_of_ours(accept_encoding: str) -> None:
    assert choose_coding(accept_encoding) in (IDENTITY, GZIP, ZSTD)
