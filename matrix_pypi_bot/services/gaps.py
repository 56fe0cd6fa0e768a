"""When a room has to be read again: an outage of some server leaves no other trace than that somebody is heard of again.

After an outage a homeserver gets the newest event of each room, and the state that stands behind it; of what lies between it delivers
little. So the first event of a server in a room, after we or that server may have been away, has the room read once more.
"""

from __future__ import annotations

from typing import Final

QUIET_SECONDS: Final = 300.0  # after so long without a word of a server in a room, it may have been away
LATE_SECONDS: Final = 20.0  # an event so old when it comes was kept back somewhere
AGAIN_SECONDS: Final = 60.0  # a sender who only says that it is late causes no more than one reading in this time


class Gaps:
    """Remembers when each server was last heard of in each room. Times are the event loop's, in seconds."""

    def __init__(self) -> None:
        self._heard: dict[tuple[str, str], float] = {}
        self._read: dict[tuple[str, str], float] = {}

    def reset(self) -> None:
        """We may have missed something in every room."""
        self._heard.clear()
        self._read.clear()

    def heard(self, room: str, server: str, *, now: float, late_seconds: float) -> bool:
        """A server spoke in a room; whether the room is to be read because of it. Ask with `""` for servers that nobody pinned."""
        last, self._heard[room, server] = self._heard.get((room, server)), now
        quiet = last is None or now - last > QUIET_SECONDS
        late = late_seconds > LATE_SECONDS and now - self._read.get((room, server), float("-inf")) > AGAIN_SECONDS
        if quiet or late:
            self._read[room, server] = now
        return quiet or late
