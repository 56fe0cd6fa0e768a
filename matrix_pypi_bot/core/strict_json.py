"""JSON with one reading only: what two parsers could read differently is refused.

Statements are parsed after their signature was verified, so this is not the first line of defence; it keeps a signer
from saying two things with one signature.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from matrix_pypi_bot.core.limits import MAX_INTEGER, MAX_JSON_DEPTH
from matrix_pypi_bot.core.rejected import Code, Rejected

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | float | bool | None"
"""Any JSON value. What `parse_strict` returns holds dicts and lists and no floats."""

_MAX_DIGITS: Final = len(str(MAX_INTEGER))
_TOKENS: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[{]|[\]}]', re.DOTALL)


def parse_strict(data: bytes) -> Json:
    """The value that `data` holds.

    Raises Rejected(E_JSON) for: not UTF-8, not JSON, a key twice in one object, a float or NaN, an integer of 2^53 or more,
    more than 32 containers inside one another, a lone surrogate.
    """
    if deeper_than(data, MAX_JSON_DEPTH):
        raise Rejected(Code.JSON, f"more than {MAX_JSON_DEPTH} containers deep")
    try:
        value: Json = json.loads(
            data.decode(),
            object_pairs_hook=_object,
            parse_float=_no_float,
            parse_int=_integer,
            parse_constant=_no_float,
        )
        if b"\\u" in data:  # only an escape can smuggle in a lone surrogate, which no UTF-8 can hold
            canonical(value)
    except ValueError as error:
        raise Rejected(Code.JSON, str(error)) from error
    return value


def canonical(value: object) -> bytes:
    """`value` as sorted, compact UTF-8 JSON, the form in which statements are signed.

    Raises ValueError or TypeError for what is no JSON, holds a float or an integer of 2^53 or more, or cannot be encoded.
    """
    _check_signable(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def deeper_than(data: bytes, limit: int) -> bool:
    """Whether JSON text nests more than `limit` containers. Linear, needs no stack; text that is no JSON gets some answer."""
    if data.count(b"[") + data.count(b"{") <= limit:
        return False
    depth = 0
    for token in _TOKENS.finditer(data):
        first = data[token.start()]
        depth += (first in b"[{") - (first in b"]}")
        if depth > limit:
            return True
    return False


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return found


def _no_float(text: str) -> Json:
    raise ValueError(f"{text[:20]} is no integer")


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS + 1 or abs(number := int(text)) > MAX_INTEGER:
        raise ValueError("an integer is too large")
    return number


def _check_signable(value: object) -> None:
    if isinstance(value, float) or (isinstance(value, int) and abs(value) > MAX_INTEGER):
        raise TypeError("numbers are integers below 2^53")
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("an object's keys are strings")
        for inner in value.values():
            _check_signable(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_signable(inner)
