"""Our rooms as they are made, and how a room's current state is compared with that. Pure.

A constitution is the part of a room's state that decides who may do what: room version, creators, power levels, join rule, who may
read, and the absence of everything that could shut somebody out. Names and topics are no part of it, and neither is who has been
given the level of an attester: it is given to organisations that are pinned later, and gives power over nobody.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from matrix_pypi_bot.ports import PROJECT_ROOM, SPACE_ROOM, TRUST_ROOM
from matrix_pypi_bot.services.homeserver import JsonObject
from matrix_pypi_bot.wire.names import InvalidName, parse_project, room_alias
from matrix_pypi_bot.wire.problems import Problem

ROOM_VERSION: Final = "12"  # state resolution that cannot be reset, and a creator whom no power level binds
LETTER_ROOM: Final = f"{SPACE_ROOM}:"  # key of the Space's shelf for projects of one first letter: `space:f`

ATTESTER_LEVEL: Final = 25
MODERATOR_LEVEL: Final = 50
OWNER_LEVEL: Final = 100
ATTESTER_TYPES: Final = ("io.matrix_pypi.attestation.v1", "io.matrix_pypi.index.v1", "io.matrix_pypi.withdrawal.v1")
OWNER_TYPES: Final = ("io.matrix_pypi.announcement.v1", "io.matrix_pypi.head.v1", "io.matrix_pypi.keys.v1")

CREATE: Final = "m.room.create"
POWER_LEVELS: Final = "m.room.power_levels"
JOIN_RULES: Final = "m.room.join_rules"
HISTORY: Final = "m.room.history_visibility"
SERVER_ACL: Final = "m.room.server_acl"
# Each of them can take the room from somebody: their presence alone is a deviation.
FORBIDDEN: Final = (
    "m.room.encryption", "m.room.policy", SERVER_ACL, "m.room.tombstone", "org.matrix.msc4284.policy",
)  # fmt: skip
WATCHED: Final = frozenset({CREATE, POWER_LEVELS, JOIN_RULES, HISTORY, *FORBIDDEN})
"""The types of state events after which a constitution may be another one."""

# What holds where `m.room.power_levels` says nothing: Matrix specification, client-server API, m.room.power_levels.
_DEFAULT_LEVELS: Final = {
    "ban": 50, "events_default": 0, "invite": 0, "kick": 50, "redact": 50, "state_default": 50, "users_default": 0,
}  # fmt: skip
_PUBLIC: Final = {"join_rule": "public"}
_WORLD_READABLE: Final = {"history_visibility": "world_readable"}


class NoSuchRoom(Problem):
    """A key that no room can ever have: unknown, or of a project whose alias would be longer than Matrix allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A room that may not exist yet: its alias, the body of createRoom, its constitution, and the room that lists it.

    `essentials` are (type, content) of the state events with the empty key that make the constitution what it is.
    """

    key: str
    alias: str
    request: JsonObject
    essentials: tuple[tuple[str, JsonObject], ...]
    constitution: JsonObject
    listed_in: str | None


def plan_room(key: str, *, server: str, bot: str, others: Iterable[str] = ()) -> Plan:
    """The plan of the room with this key (`trust`, `space`, `space:<letter>`, `project:<name>`), created by the user `bot`.

    A project's room belongs to the users `others` as well: nobody can ever take their power there. Raises NoSuchRoom.
    """
    alias, name, topic, listed_in = _description(key, server)
    space = key == SPACE_ROOM or key.startswith(LETTER_ROOM)
    levels = _power_levels(key)
    creation: JsonObject = {"m.federate": True} | ({"type": "m.space"} if space else {})
    if key.startswith(PROJECT_ROOM) and (owners := sorted(set(others) - {bot})):
        creation["additional_creators"] = owners
    request: JsonObject = {
        "room_version": ROOM_VERSION,
        "preset": "public_chat",
        "visibility": "private",  # published afterwards: only then do we hear of a refusal
        "room_alias_name": alias[1:].removesuffix(f":{server}"),
        "name": name,
        "topic": topic,
        "creation_content": creation,
        "power_level_content_override": levels,
        "initial_state": [{"type": HISTORY, "state_key": "", "content": _WORLD_READABLE}],
    }
    essentials = ((POWER_LEVELS, levels), (JOIN_RULES, _PUBLIC), (HISTORY, _WORLD_READABLE))
    made = [(CREATE, {"room_version": ROOM_VERSION, **creation}), *essentials]
    return Plan(
        key=key,
        alias=alias,
        request=request,
        essentials=essentials,
        constitution=read_constitution(
            {"type": type, "state_key": "", "sender": bot, "content": content} for type, content in made
        ),
        listed_in=listed_in,
    )


def read_constitution(state: Iterable[JsonObject]) -> JsonObject:
    """The constitution in a room's current state (raw events): plain, total over everything a room can hold, ready to be compared."""
    events = {str(event.get("type")): event for event in state if event.get("state_key") == ""}
    created = _content(events, CREATE)
    return {
        "version": created.get("room_version", "1"),
        "creators": creators_of(events.get(CREATE, {})),
        "type": created.get("type"),
        "federate": created.get("m.federate", True),
        "levels": _levels(_content(events, POWER_LEVELS)),
        "join": _content(events, JOIN_RULES),
        "history": _content(events, HISTORY),
        "present": [type for type in FORBIDDEN if type in events],
    }


def creators_of(event: JsonObject) -> list[str]:
    """The users whom no power level binds: who sent this event, `m.room.create`, and whom it names."""
    content = event.get("content")
    added = content.get("additional_creators", ()) if isinstance(content, dict) else ()
    return sorted({str(event.get("sender")), *map(str, added if isinstance(added, list) else ())})


def lacking(plan: Plan, state: Iterable[JsonObject]) -> list[tuple[str, JsonObject]]:
    """The plan's essentials that a room's current state does not hold."""
    events = {str(event.get("type")): event for event in state if event.get("state_key") == ""}
    return [
        (type, content)
        for type, content in plan.essentials
        if (
            _levels(content) != _levels(_content(events, type))
            if type == POWER_LEVELS
            else content != _content(events, type)
        )
    ]


def constitution_hash(constitution: JsonObject) -> str:
    """The sha256 of a constitution, as hex digits."""
    text = json.dumps(constitution, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def deviations(expected: JsonObject, actual: JsonObject) -> tuple[str, ...]:
    """The names of the parts that differ, e.g. `("levels", "present")`."""
    return tuple(sorted(part for part in expected | actual if expected.get(part) != actual.get(part)))


def _description(key: str, server: str) -> tuple[str, str, str, str | None]:
    """(alias, name, topic, key of the room that lists it)."""
    if key == TRUST_ROOM:
        return (
            f"#pypi-trust:{server}",
            f"Matrix-PyPI trust: {server}",
            "Whose keys speak for this organisation, where its log stands, where its mirror is. Written by its bot alone.",
            SPACE_ROOM,
        )
    if key == SPACE_ROOM:
        return (
            f"#pypi:{server}",
            f"Matrix-PyPI: {server}",
            "Python packages that were attested here, by first letter.",
            None,
        )
    if key.startswith(LETTER_ROOM) and len(letter := key.removeprefix(LETTER_ROOM)) == 1 and letter.isalnum():
        return (
            f"#pypi-letter-{letter}:{server}",
            f"Python packages: {letter}",
            f"Packages that begin with {letter}.",
            SPACE_ROOM,
        )
    if key.startswith(PROJECT_ROOM):
        try:
            project = parse_project(key.removeprefix(PROJECT_ROOM))
            alias = room_alias(project, server)
        except InvalidName as error:
            raise NoSuchRoom(f"no room for {key!r}: {error.detail}") from error
        topic = f"What organisations attest about the files of the Python package {project}. Anyone may accuse; signatures decide."
        return alias, project, topic, f"{LETTER_ROOM}{project[0]}"
    raise NoSuchRoom(f"there is no room with the key {key!r}")


def _power_levels(key: str) -> JsonObject:
    events = dict.fromkeys(ATTESTER_TYPES, ATTESTER_LEVEL) if key.startswith(PROJECT_ROOM) else {}
    if key == TRUST_ROOM:
        events = dict.fromkeys(OWNER_TYPES, OWNER_LEVEL)
    return {
        "users": {},  # room version 12: its creator stands above all levels and must not be in here
        "users_default": 0,
        "events": events,
        "events_default": 0,  # anyone may accuse
        "state_default": OWNER_LEVEL,
        "ban": MODERATOR_LEVEL,
        "kick": MODERATOR_LEVEL,
        "invite": MODERATOR_LEVEL,
        "redact": MODERATOR_LEVEL,
    }


def _content(events: dict[str, JsonObject], type: str) -> JsonObject:
    content = events.get(type, {}).get("content")
    return content if isinstance(content, dict) else {}


def _levels(content: JsonObject) -> JsonObject:
    levels: dict[str, Any] = {name: content.get(name, default) for name, default in _DEFAULT_LEVELS.items()}
    users = content.get("users", {})
    if isinstance(users, dict):
        users = {
            user: level for user, level in users.items() if type(level) is not int or not 0 <= level <= ATTESTER_LEVEL
        }
    return levels | {"events": content.get("events", {}), "users": users}
