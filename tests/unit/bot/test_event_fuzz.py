"""Mutated events and re-signed mutated statements: one code or OK, never an exception, and OK only where a second opinion agrees."""

from __future__ import annotations

import base64
import copy
import json
import random
from typing import Any

import pytest

from matrix_pypi_bot.core.events import check_event
from matrix_pypi_bot.core.rejected import Rejected
from matrix_pypi_bot.wire.names import ProjectName
from tests.support import event_oracle
from tests.support.plain_statements import (
    FALSE,
    GENUINE,
    KEYS,
    MAINT,
    ORGA,
    PROJECT,
    RAW_CID,
    WHEEL,
    Json,
    attestation,
    envelope_of,
    event_of,
)

QUICK, FULL = 3_000, 100_000
SEED = 20_261_122

JUNK: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**53 - 1, 2**53, 10**30, 1.0, 0.5, 9172, 9173, 3),
    *(
        "",
        "x",
        "\0",
        "é",
        "\u202e",
        "\ud800",
        "a" * 300,
        "2026-02-30T00:00:00Z",
        "2026-11-22T13:00:01Z",
        "pypi",
        "build",
    ),
    *(GENUINE, FALSE, GENUINE.upper(), RAW_CID, "bafybeigmix7t42i6jacydtquhet7srwvgpizfg7gjbq7627d35mjomtu64", WHEEL),
    *([], {}, [[]], {"a": 1}, [1, 2], {"sha256": FALSE}, ["ok"], {"org": "orga", "key": ORGA.keyid}),
]
NAMES = [
    "cid",
    "ext",
    "hint",
    "prev",
    "expires",
    "coreMetadata",
    "serial",
    "uploadTime",
    "extra",
    "v",
    "sender",
    "unsigned",
]


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value below, containers too."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [path for key in keys for path in ((*here, key), *paths(value[key], (*here, key)))]


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def mutated(value: Any, chance: random.Random) -> Any:
    """`value` with one thing changed somewhere."""
    value = copy.deepcopy(value)
    everywhere = paths(value)
    if not everywhere:
        return chance.choice(JUNK)
    *way, last = chance.choice(everywhere)
    parent = at(value, tuple(way))
    old = parent[last]
    match chance.randrange(7):
        case 0:
            del parent[last]
        case 1 if isinstance(old, str) and old:
            place = chance.randrange(len(old))
            parent[last] = (
                old[:place] + chance.choice(["", "A", "a", "0", "=", "\n", old[place] * 2, "é"]) + old[place + 1 :]
            )
        case 2 if isinstance(old, int):
            parent[last] = chance.choice([old + 1, float(old), str(old), bool(old)])
        case 3:
            parent[last] = copy.deepcopy(at(value, chance.choice(everywhere)))
        case 4 if isinstance(parent, list):
            parent.append(copy.deepcopy(old))
        case 5 if isinstance(parent, dict):
            parent[chance.choice(NAMES)] = chance.choice(JUNK)
        case 6:
            parent[last] = [old]
        case _:
            parent[last] = chance.choice(JUNK)
    return value


def mutated_bytes(payload: bytes, chance: random.Random) -> bytes:
    """A payload with one thing changed that only bytes can show."""
    place = chance.randrange(len(payload) + 1)
    match chance.randrange(5):
        case 0:
            return payload[:place] + bytes([chance.randrange(256)]) + payload[place + 1 :]
        case 1:
            return payload.replace(b'"seq":1', b'"seq":1,"seq":1')
        case 2:
            return payload.replace(b",", b", ").replace(b":", b" :\n")
        case 3:
            return payload.replace(b'"seq":1', b'"seq":' + chance.choice([b"1e0", b"NaN", b"01", b"-0", b"9" * 5_000]))
        case _:
            deep = chance.choice([1, 27, 28, 29, 30, 31, 40, 9_000])
            return payload.replace(b'"seq"', b'"ext":{"x":' + b"[" * deep + b"]" * deep + b'},"seq"')


BASES: list[Json] = [
    attestation(cid=RAW_CID, ext={"yanked": False}),
    attestation(),
    attestation(source={"kind": "build", "method": "index", "serial": 3, "uploadTime": "2024-03-01T00:00:00.123Z"}),
]
HINT = {"file": WHEEL, "org": "orga", "sha256": GENUINE, "size": 9172}


def one_event(chance: random.Random) -> Any:
    """An event with one to three mutations, in the event itself or in a statement that is signed again."""
    statement = chance.choice(BASES)
    signer, org = chance.choice([(ORGA, "orga"), (ORGA, "orga"), (MAINT, "maint")])
    statement = statement | {"predicate": statement["predicate"] | {"signer": {"org": org, "key": signer.keyid}}}
    payload = json.dumps(statement, separators=(",", ":")).encode()
    where = chance.randrange(5)
    if where in (0, 1):
        for _ in range(chance.choice([1, 1, 2])):
            statement = mutated(statement, chance)
        payload = json.dumps(statement, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")
    elif where == 2:
        payload = mutated_bytes(payload, chance)
    event: Any = event_of(envelope_of(payload, signer), state_key=f"{signer.keyid[:16]}/{WHEEL}")
    if chance.random() < 0.3:
        event["content"]["hint"] = HINT | {"org": org}
    if where in (3, 4):
        for _ in range(chance.choice([1, 1, 2, 3])):
            event = mutated(event, chance)
    return event


def fuzz(count: int) -> tuple[int, set[str]]:
    """How many events counted, and every code that was met. Fails where the two opinions differ."""
    chance, counted, codes = random.Random(SEED), 0, set[str]()
    room = ProjectName(PROJECT)
    for number in range(count):
        event = one_event(chance)
        try:
            checked = check_event(event, room, KEYS)
        except Rejected as error:
            codes.add(error.code)
            if number % 8 == 0:
                assert not event_oracle.accepts(event, PROJECT, KEYS), (number, error.code, event)
        else:
            counted += 1
            assert event_oracle.accepts(event, PROJECT, KEYS), (number, event)
            assert checked.statement.id == event_oracle.id_told(event)
    return counted, codes


@pytest.mark.parametrize("count", [QUICK, pytest.param(FULL, marks=pytest.mark.integration)])
def test_a_mutated_event_counts_only_where_a_second_opinion_agrees(count: int) -> None:
    counted, codes = fuzz(count)
    assert counted > count // 50
    assert len(codes) >= 15


def test_the_second_opinion_accepts_what_is_good() -> None:
    event = event_of(envelope_of(BASES[0]), unsigned={"age": 1})
    event["content"]["hint"] = HINT
    assert event_oracle.accepts(event, PROJECT, KEYS)
    assert base64.b64decode(event["content"]["dsse"]["payload"])
