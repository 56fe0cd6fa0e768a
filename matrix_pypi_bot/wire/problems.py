"""What can be wrong, once: the code, its HTTP status and title, and the one line a person reads.

Both processes answer with RFC 9457 `application/problem+json`; pip shows the HTTP reason phrase of a refused file and uv the
`detail`, so the same line goes into both.
"""

from __future__ import annotations

import enum
import re
from typing import Final

import msgspec

MAX_LINE_CHARACTERS: Final = 300  # a reason phrase must leave room in a client's 8,190-byte header line
PROBLEM_TYPE: Final = "application/problem+json"  # exactly: uv compares without parameters

_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]+")


class ProblemCode(enum.Enum):
    """(name in answers, HTTP status, title). The only place where a status is chosen for a failure."""

    INVALID_NAME = ("invalid-name", 404, "No such name")
    NOT_FOUND = ("not-found", 404, "Not found")
    REFUSED = ("refused", 403, "Refused")
    NOT_ACCEPTABLE = ("not-acceptable", 406, "Not acceptable")
    METHOD_NOT_ALLOWED = ("method-not-allowed", 405, "Method not allowed")
    RANGE_NOT_SATISFIABLE = ("range-not-satisfiable", 416, "Range not satisfiable")
    BAD_REQUEST = ("bad-request", 400, "Bad request")
    NOT_HELD = ("not-held", 412, "Not held here")
    TOO_MANY = ("too-many", 429, "Too many requests")
    MISDIRECTED = ("misdirected", 421, "Misdirected request")
    UNAUTHORISED = ("unauthorised", 401, "Unauthorised")
    UPSTREAM_WRONG = ("upstream-wrong", 502, "The upstream answered wrongly")
    UPSTREAM_AWAY = ("upstream-away", 503, "The upstream cannot be reached")
    FILE_UNAVAILABLE = ("file-unavailable", 504, "The file cannot be had now")
    ORACLE_AWAY = ("oracle-away", 503, "The bot cannot be reached")
    DIGEST_MISMATCH = ("digest-mismatch", 403, "Wrong bytes")
    STORAGE = ("storage", 500, "Storage failed")
    CONFIGURATION = ("configuration", 500, "Configuration is wrong")
    INTERNAL = ("internal", 500, "Internal error")

    def __init__(self, label: str, status: int, title: str) -> None:
        self.label = label
        self.status = status
        self.title = title


class Problem(Exception):
    """Something that went wrong and what to do about it; the root of every exception of ours that leaves its module.

    `detail` says what was expected, what was found and where it came from; `hint` is the next command to type.
    """

    code: ProblemCode = ProblemCode.INTERNAL

    def __init__(self, detail: str, *, hint: str = "", code: ProblemCode | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        if code is not None:
            self.code = code


class ProblemBody(msgspec.Struct, frozen=True):
    """The RFC 9457 body: `{"type", "title", "status", "detail"}`."""

    title: str
    status: int
    detail: str
    type: str = "about:blank"


def clean_line(text: str, limit: int = MAX_LINE_CHARACTERS) -> str:
    """`text` as one printable ASCII line of at most `limit` characters.

    Text from outside reaches reason phrases, headers, logs and terminals; control, bidirectional and non-ASCII characters
    must not travel with it.
    """
    line = " ".join(_UNPRINTABLE.sub(" ", text).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def problem_body(status: int, title: str, detail: str) -> bytes:
    """The encoded problem document, e.g. `{"title":"Refused","status":403,"detail":"matrix-pypi: R3 ...","type":"about:blank"}`."""
    return msgspec.json.encode(ProblemBody(title=clean_line(title), status=status, detail=clean_line(detail)))
