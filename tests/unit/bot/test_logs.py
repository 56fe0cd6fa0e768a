"""Log lines: an event name and fields, nothing secret, nothing that a terminal would act on."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Literal

import pytest

from matrix_pypi_bot.process import logs
from matrix_pypi_bot.process.logs import LoggingSettings
from matrix_pypi_bot.wire.problems import Problem


class Log:
    """What was logged since it was configured."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    def configure(self, format: Literal["console", "json"] = "console", level: logs.Level = "info") -> None:
        logs.configure(LoggingSettings(format=format, level=level), self.stream)

    @property
    def lines(self) -> list[str]:
        """Console lines without their time."""
        return [line.partition("Z ")[2] or line for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def log() -> Iterator[Log]:
    """The root logger is afterwards as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield Log()
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(capture=False)


OURS = logging.getLogger("matrix_pypi_bot.services.ingest")


def test_a_line_has_level_place_event_and_fields(log: Log) -> None:
    log.configure()
    OURS.info("attestation accepted", extra={"project": "flask", "signers": 3, "reason": "two words", "org": None})
    logging.getLogger("synapse").warning("odd %s", "thing")
    assert log.lines == [
        'INFO    services.ingest: attestation accepted  project=flask signers=3 reason="two words" org=None',
        "WARNING synapse: odd thing",
    ]
    assert log.stream.getvalue()[:2] == "20"


def test_json_has_the_same_as_one_object(log: Log) -> None:
    log.configure("json")
    OURS.info("accepted", extra={"project": "flask", "signers": 3, "files": ["a", "b"], "event": "not the event"})
    entry = json.loads(log.stream.getvalue())
    assert entry.pop("at").endswith("Z")
    assert entry == {
        "level": "info", "logger": "services.ingest", "event": "accepted", "project": "flask", "signers": 3, "files": ["a", "b"],
    }  # fmt: skip


def test_secrets_are_never_written(log: Log) -> None:
    log.configure()
    fields = ("as_token", "password", "root_seed", "Authorization", "registration_secret", "cookie")
    OURS.info("told", extra=dict.fromkeys(fields, "hunter2"))
    assert ("hunter2" in log.stream.getvalue(), log.stream.getvalue().count("=(hidden)")) == (False, 6)


def test_text_from_outside_is_one_printable_line(log: Log) -> None:
    log.configure()
    OURS.info("name \x1b[31m\u202e%s", "evil\nINFO forged", extra={"file": "a\r\nb\x00", "\x1bkey": "x"})
    assert log.lines == ['INFO    services.ingest: name [31m evil INFO forged  file="a b" key=x']


def test_a_problem_is_its_sentence_and_its_hint_and_any_other_error_its_traceback(log: Log) -> None:
    log.configure()
    for error in (Problem("the disk\nis full", hint="make room"), ValueError("bad\nvalue")):
        try:
            raise error
        except Exception:
            OURS.exception("failed")
    lines = log.lines
    assert lines[:2] == ['ERROR   services.ingest: failed  hint="make room"', "    the disk is full"]
    assert (lines[2], lines[3].strip()) == ("ERROR   services.ingest: failed", "Traceback (most recent call last):")
    assert "ValueError: bad" in log.stream.getvalue()


def test_a_traceback_in_json_is_a_list_of_lines(log: Log) -> None:
    log.configure("json")
    try:
        raise ValueError("bad")
    except ValueError:
        OURS.exception("failed")
    assert json.loads(log.stream.getvalue())["traceback"][-1] == "ValueError: bad"


def test_wrong_arguments_do_not_cost_the_message(log: Log) -> None:
    log.configure()
    OURS.info("%d files", "three")
    assert log.lines == ["INFO    services.ingest: %d files"]


def test_what_is_below_the_level_is_not_written(log: Log) -> None:
    log.configure(level="warning")
    OURS.info("no")
    logging.getLogger("aiohttp.access").info("GET /?access_token=x")
    OURS.warning("yes")
    assert log.lines == ["WARNING services.ingest: yes"]


def test_configuring_again_does_not_write_twice(log: Log) -> None:
    log.configure()
    log.configure()
    OURS.info("once")
    assert len(log.lines) == 1
