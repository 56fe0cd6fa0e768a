"""The bot is told of every file that clients got, once, sooner or later."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tests.conformance.files.expected import SMALL, etag, stored, warm
from tests.support.file_side import FileSide
from tests.support.http_client import at_once
from tests.support.upstream import Upstream
from tests.support.waiting import wait_until


def test_the_bot_is_told_once_of_a_file_that_clients_got(side: FileSide) -> None:
    warm(side, SMALL)
    at_once(5, lambda: side.get(SMALL).status)
    side.get(SMALL, suffix=".metadata")
    wait_until(lambda: side.oracle.stored, "the bot is told")
    assert side.oracle.stored == [stored(SMALL, "upstream")]


def test_a_file_that_was_here_before_it_was_asked_for_is_reported_when_it_is(
    upstream: Upstream, side: FileSide
) -> None:
    warm(side, SMALL)
    wait_until(lambda: side.oracle.stored, "the bot is told")
    alias = dataclasses.replace(SMALL, project="mxq", filename="mxq-1.0-py3-none-any.whl")
    side.publish(alias)
    assert side.get(alias).body == SMALL.content
    wait_until(lambda: len(side.oracle.stored) == 2, "the bot is told of the other name")
    assert side.oracle.stored == [stored(SMALL, "upstream"), stored(alias, "cache")]


def test_a_report_waits_for_the_bot_and_outlives_the_process(upstream: Upstream, tmp_path: Path) -> None:
    with FileSide(upstream, tmp_path) as side:
        side.oracle.is_away = True
        side.publish(SMALL)
        warm(side, SMALL)
        wait_until(lambda: side.run(side.store.unreported()), "the report is noted")
    with FileSide(upstream, tmp_path) as side:
        wait_until(lambda: side.oracle.stored, "the bot is told")
        assert side.oracle.stored == [stored(SMALL, "upstream")]
        wait_until(lambda: not side.run(side.store.unreported()), "the report is ticked off")


def test_head_and_304_are_no_reason_for_a_report(side: FileSide) -> None:
    side.get(SMALL, "HEAD")
    side.get(SMALL, If_None_Match=etag(SMALL))
    assert side.run(side.store.unreported()) == []
    assert side.oracle.stored == []
