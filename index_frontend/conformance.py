"""`matrix-pypi-index conformance`: the frontend's pure rules, answered as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeGuard

from index_frontend.pages.negotiate import NotAcceptable, negotiate
from index_frontend.ranges import answer_range

_MAX_SIZE: Final = 1 << 62


def run(lines: Iterable[str]) -> Iterator[str]:
    """An answer for each line, in the same order. Whatever a line holds, it gets an answer; an empty one is passed over."""
    for line in lines:
        if line.strip():
            yield json.dumps(_answer(line))


def _answer(line: str) -> dict[str, Any]:
    try:
        question = json.loads(line)
    except (ValueError, RecursionError):
        return {"error": "not JSON"}
    op = question.get("op") if isinstance(question, dict) else None
    answer = _OPS.get(op) if isinstance(op, str) else None
    return answer(question) if answer is not None else {"error": "unknown op"}


def _negotiate(question: dict[str, Any]) -> dict[str, Any]:
    accept, format_ = question.get("accept"), question.get("format")
    if not isinstance(accept, str | None) or not isinstance(format_, str | None):
        return {"error": "accept and format are strings or null"}
    try:
        return {"content_type": negotiate(accept, format_)}
    except NotAcceptable as problem:
        return {"error": problem.code.status}


def _range(question: dict[str, Any]) -> dict[str, Any]:
    header, size = question.get("header"), question.get("size")
    if not isinstance(header, str | None) or not _is_size(size):
        return {"error": "header is a string or null, size a number of bytes"}
    answer = answer_range(header, size)
    return {"status": answer.status, "start": answer.start, "end": answer.end}


def _is_size(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_SIZE


_OPS: Final[dict[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {"negotiate": _negotiate, "range": _range}
