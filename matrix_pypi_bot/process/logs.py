"""Structured logs on standard error: a fixed event name and fields, as a line for people or as JSON for machines.

`log.info("attestation accepted", extra={"project": project, "signers": 3})` becomes
`2026-11-22T13:00:00.120Z INFO  services.ingest: attestation accepted  project=flask signers=3`. All text passes `clean_line`:
it may come from outside. Fields whose name says that they are secret are never written.
"""

from __future__ import annotations

import datetime
import json
import logging
import re
import sys
from typing import Any, Final, Literal, TextIO

from matrix_pypi_bot.process.settings import Section
from matrix_pypi_bot.wire.problems import Problem, clean_line

Level = Literal["debug", "info", "warning", "error"]

MAX_MESSAGE_CHARACTERS: Final = 2_000
HIDDEN: Final = "(hidden)"

_OURS: Final = ("matrix_pypi_bot.", "index_frontend.")
_SECRET: Final = re.compile(r"token|secret|password|seed|authori[sz]ation|cookie", re.IGNORECASE)
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# Chatty below WARNING, and about requests that carry access tokens in their address.
_QUIET: Final = ("aiohttp.access", "aiosqlite", "asyncio", "mau.http", "urllib3")


class LoggingSettings(Section, frozen=True, kw_only=True):
    """How much is logged, and how. `format` is `console` (a line for people) or `json` (one object a line)."""

    level: Level = "info"
    format: Literal["console", "json"] = "console"


def configure(settings: LoggingSettings, stream: TextIO | None = None) -> None:
    """Send everything that is logged in this process to `stream` (standard error). Safe to call again."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.format == "json" else ConsoleFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    logging.captureWarnings(capture=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


class ConsoleFormatter(logging.Formatter):
    """One line: time, level, where, event, `name=value` for each field; a traceback follows indented."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, in printable ASCII."""
        fields = "".join(f" {name}={_quoted(value)}" for name, value in _fields(record).items())
        line = (
            f"{_when(record)} {record.levelname:<7} {_where(record)}: {_event(record)}{' ' if fields else ''}{fields}"
        )
        return "\n".join([line, *(f"    {row}" for row in _traceback(record))])


class JsonFormatter(logging.Formatter):
    """One object: `at`, `level`, `logger`, `event`, the fields, and `traceback` as a list of lines."""

    def format(self, record: logging.LogRecord) -> str:
        """The object on one line. Fields cannot take the place of the fixed keys."""
        entry: dict[str, Any] = dict(_fields(record))
        entry.update(at=_when(record), level=record.levelname.lower(), logger=_where(record), event=_event(record))
        if traceback := _traceback(record):
            entry["traceback"] = traceback
        return json.dumps(
            entry, separators=(",", ":"), default=lambda value: clean_line(str(value), MAX_MESSAGE_CHARACTERS)
        )


def _event(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
    except (TypeError, ValueError):  # wrong arguments must not cost the message
        text = str(record.msg)
    return clean_line(text, MAX_MESSAGE_CHARACTERS)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in vars(record).items():
        if name not in _STANDARD and not name.startswith("_"):
            found[clean_line(name, 60)] = HIDDEN if _SECRET.search(name) else _value(value)
    if record.exc_info and isinstance(problem := record.exc_info[1], Problem) and problem.hint:
        found["hint"] = clean_line(problem.hint)
    return found


def _value(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [_value(item) for item in list(value)[:50]]
    return clean_line(str(value), MAX_MESSAGE_CHARACTERS)


def _quoted(value: object) -> str:
    text = str(value)
    return text if re.fullmatch(r"[^\s\"=]+", text) else json.dumps(text)


def _where(record: logging.LogRecord) -> str:
    for package in _OURS:
        if record.name.startswith(package):
            return record.name.removeprefix(package)
    return record.name


def _when(record: logging.LogRecord) -> str:
    moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _traceback(record: logging.LogRecord) -> list[str]:
    """The traceback's lines; for a Problem only its own sentence, since its place in the code tells an operator nothing."""
    if not record.exc_info or record.exc_info[1] is None:
        return []
    if isinstance(problem := record.exc_info[1], Problem):
        return [clean_line(problem.detail, MAX_MESSAGE_CHARACTERS)]
    rows = logging.Formatter().formatException(record.exc_info).splitlines()
    return [" " * (len(row) - len(row.lstrip())) + clean_line(row, MAX_MESSAGE_CHARACTERS) for row in rows]
