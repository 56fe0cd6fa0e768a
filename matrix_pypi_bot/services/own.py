"""What is ours in a room: the slots that our keys speak from, and whether somebody else touched them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from matrix_pypi_bot.core.signers import Keyid
from matrix_pypi_bot.core.statements.common import keyid16
from matrix_pypi_bot.services.constitution import ATTESTER_TYPES
from matrix_pypi_bot.services.homeserver import JsonObject
from matrix_pypi_bot.wire.problems import clean_line

log = logging.getLogger(__name__)

OVERWRITTEN: Final = "own statement overwritten alarm"
REDACTED: Final = "own statement redacted alarm"


@dataclass(frozen=True, slots=True)
class Own:
    """The bot's user id, and the ids of the keys that sign for this organisation."""

    mxid: str
    keyids: Callable[[], frozenset[Keyid]]

    def slot_alarm(self, event: JsonObject) -> str | None:
        """What happened to a slot of ours, if the state event stands in one and is not as we left it."""
        slot = event.get("state_key")
        if event.get("type") not in ATTESTER_TYPES or not isinstance(slot, str):
            return None
        if slot.partition("/")[0] not in {keyid16(keyid) for keyid in self.keyids()}:
            return None
        if event.get("content") == {}:
            return REDACTED
        return OVERWRITTEN if event.get("sender") != self.mxid else None


def raise_alarm(alarm: str, room: str, event: JsonObject, **more: str) -> None:
    """One warning that a person should see."""
    fields = {name: clean_line(str(event.get(name)), 255) for name in ("event_id", "type", "state_key", "sender")}
    log.warning(alarm, extra={"room": room, **fields, **more})
