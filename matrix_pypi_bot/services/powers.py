"""Who may do what in a room, read from its current state: whom we may let attest there, and whether it shuts our server out. Pure."""

from __future__ import annotations

import fnmatch
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from matrix_pypi_bot.services.constitution import (
    ATTESTER_LEVEL,
    CREATE,
    OWNER_LEVEL,
    POWER_LEVELS,
    SERVER_ACL,
    creators_of,
)
from matrix_pypi_bot.services.homeserver import JsonObject

MEMBER: Final = "m.room.member"


def grants(state: Sequence[JsonObject], *, bot: str, users: Iterable[str]) -> JsonObject | None:
    """The content of `m.room.power_levels` by which those of `users` who are in the room may attest there.

    None when everybody may already, or when `bot` has no power to say so.
    """
    events = {(event.get("type"), event.get("state_key")): event for event in state}
    creators = creators_of(events.get((CREATE, ""), {}))
    levels = _content(events.get((POWER_LEVELS, "")))
    held = _mapping(levels.get("users"))
    default = _level(levels.get("users_default"), 0)
    needed = _level(_mapping(levels.get("events")).get(POWER_LEVELS), _level(levels.get("state_default"), OWNER_LEVEL))
    if bot not in creators and _level(held.get(bot), default) < needed:
        return None
    lacking = [
        user
        for user in users
        if user != bot
        and user not in creators
        and _content(events.get((MEMBER, user))).get("membership") == "join"
        and _level(held.get(user), default) < ATTESTER_LEVEL
    ]
    return {**levels, "users": {**held, **dict.fromkeys(lacking, ATTESTER_LEVEL)}} if lacking else None


def membership(state: Sequence[JsonObject], user: str) -> str:
    """What the room says of the user, e.g. `join`, `ban`; `""` when nothing."""
    for event in state:
        if event.get("type") == MEMBER and event.get("state_key") == user:
            return str(_content(event).get("membership", ""))
    return ""


def shuts_out(state: Sequence[JsonObject], server: str) -> bool:
    """Whether the other servers in the room must not listen to ours. Matrix specification, client-server API, m.room.server_acl."""
    content = next((_content(e) for e in state if (e.get("type"), e.get("state_key")) == (SERVER_ACL, "")), None)
    if content is None:
        return False
    host = server.rpartition(":")[0] if server.rpartition(":")[2].isdigit() else server
    if content.get("allow_ip_literals") is False and _is_ip(host):
        return True
    return _matches(content.get("deny"), host) or not _matches(content.get("allow"), host)


def _matches(patterns: Any, host: str) -> bool:
    globs = patterns if isinstance(patterns, list) else []
    # In an ACL only `*` and `?` are special.
    return any(
        isinstance(glob, str) and fnmatch.fnmatchcase(host.lower(), glob.lower().replace("[", "[[]")) for glob in globs
    )


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _content(event: JsonObject | None) -> Mapping[str, Any]:
    return _mapping(event.get("content")) if event is not None else {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _level(value: Any, default: int) -> int:
    return value if type(value) is int else default
