"""A transaction's body, taken apart: the events that can be kept, and how many could not."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

# Whatever passes can be stored by every database: no control characters, no lone surrogates, a length of at most 255 bytes.
_EVENT_ID: Final = re.compile(r"\$[\x21-\x7e]{1,254}", re.ASCII)
_ROOM_ID: Final = re.compile(r"![\x21-\x7e]{1,254}", re.ASCII)


class NotATransaction(Exception):
    """The body as a whole is not one; `errcode` as Matrix names it."""

    def __init__(self, errcode: str, message: str) -> None:
        super().__init__(message)
        self.errcode = errcode


@dataclass(frozen=True, slots=True)
class Delivery:
    """(event id, room id, raw JSON in ASCII) of each event in order, and the number of those without an id, a room or a shape."""

    events: list[tuple[str, str, bytes]]
    malformed: int


def take_apart(body: bytes) -> Delivery:
    """The events of a transaction. Raises NotATransaction; one bad event never costs the others."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NotATransaction("M_NOT_JSON", "the body is not JSON") from error
    events = told.get("events") if isinstance(told, dict) else None
    if not isinstance(events, list):
        raise NotATransaction("M_BAD_JSON", "the body has no list of events")
    kept = [triple for event in events if (triple := storable(event)) is not None]
    return Delivery(kept, len(events) - len(kept))


def storable(event: Any) -> tuple[str, str, bytes] | None:
    """(event id, room id, raw JSON) of a parsed event; None when it is no event."""
    if not isinstance(event, dict):
        return None
    event_id, room_id = event.get("event_id"), event.get("room_id")
    if not isinstance(event_id, str) or not _EVENT_ID.fullmatch(event_id):
        return None
    if not is_room_id(room_id):
        return None
    try:
        return event_id, room_id, json.dumps(event, separators=(",", ":")).encode()
    except RecursionError:
        return None


def is_room_id(told: Any) -> TypeGuard[str]:
    """Whether it can be the id of a room."""
    return isinstance(told, str) and _ROOM_ID.fullmatch(told) is not None
