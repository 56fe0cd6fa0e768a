"""Small HTTP questions to processes on this machine: are you ready, which room is that. Loopback only, bounded, no library."""

from __future__ import annotations

import http.client
import json
from typing import Final
from urllib.parse import quote

PROBE_SECONDS: Final = 2.0
MAX_BYTES: Final = 1 << 20


def answer(host: str, port: int, path: str, *, token: str = "") -> tuple[int, bytes]:
    """The status and the body of `GET path`; (0, b"") when nobody answers in time."""
    connection = http.client.HTTPConnection(host, port, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        reply = connection.getresponse()
        return reply.status, reply.read(MAX_BYTES)
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def is_ready(host: str, port: int, path: str) -> bool:
    """Whether `GET path` is answered by 200."""
    return answer(host, port, path)[0] == http.client.OK


def room_of_alias(host: str, port: int, alias: str, *, token: str) -> str | None:
    """The id of the room that has `alias`, asked of the homeserver's client API; None while there is none."""
    status, body = answer(host, port, f"/_matrix/client/v3/directory/room/{quote(alias, safe='')}", token=token)
    if status != http.client.OK:
        return None
    try:
        room = json.loads(body)["room_id"]
    except (ValueError, LookupError, TypeError):
        return None
    return room if isinstance(room, str) else None
