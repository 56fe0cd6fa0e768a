"""A second opinion on attestation events: JSON Schemas and securesystemslib, sharing no code with what it judges."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from datetime import datetime
from typing import Any

from jsonschema import Draft202012Validator, validators
from packaging.utils import parse_sdist_filename, parse_wheel_filename
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import Key, SSlibKey  # type: ignore[attr-defined]  # exported, though not in __all__

from matrix_pypi_bot.core.signers import Keys

HEX = {"type": "string", "pattern": r"^[0-9a-f]{64}(?!\n)$"}
TIME = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ(?!\n)$"}
TEXT = {"type": "string", "minLength": 1, "maxLength": 255}


def closed(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """An object of which every key is known."""
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
        "additionalProperties": False,
    }


Strict = validators.extend(  # JSON Schema takes 1.0 for an integer
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int),
)

EVENT = Strict(
    {
        "type": "object",
        "required": ["type", "state_key", "content"],
        "properties": {
            "type": {"const": "io.matrix_pypi.attestation.v1"},
            "state_key": {"type": "string"},
            "content": closed(
                {
                    "v": {"type": "integer", "const": 1},
                    "dsse": closed(
                        {
                            "payloadType": {"const": "application/vnd.in-toto+json"},
                            "payload": {"type": "string"},
                            "signatures": {
                                "type": "array",
                                "minItems": 1,
                                "maxItems": 1,
                                "items": closed({"keyid": {"type": "string"}, "sig": {"type": "string"}}),
                            },
                        }
                    ),
                },
                hint=closed(
                    {
                        "file": {"type": "string"},
                        "org": {"type": "string"},
                        "sha256": {"type": "string"},
                        "size": {"type": "integer"},
                    }
                ),
            ),
        },
    }
)

STATEMENT = Strict(
    closed(
        {
            "_type": {"const": "https://in-toto.io/Statement/v1"},
            "predicateType": {"const": "urn:matrix-pypi:attestation:v1"},
            "subject": {
                "type": "array",
                "minItems": 1,
                "maxItems": 1,
                "items": closed({"name": {"type": "string"}, "digest": closed({"sha256": HEX})}),
            },
            "predicate": closed(
                {
                    "project": {"type": "string"},
                    "version": {"type": "string"},
                    "size": {"type": "integer", "minimum": 1, "maximum": 5 * 2**30},
                    "source": closed(
                        {"kind": {"enum": ["pypi", "build"]}, "method": {"enum": ["bytes", "index"]}},
                        index=TEXT,
                        serial={"type": "integer", "minimum": 0},
                        uploadTime={
                            "type": "string",
                            "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z(?!\n)$",
                        },
                    ),
                    "signer": closed({"org": TEXT, "key": HEX}),
                    "seq": {"type": "integer", "minimum": 1},
                    "prev": {"anyOf": [HEX, {"type": "null"}]},
                    "issued": TIME,
                    "expires": {"anyOf": [TIME, {"type": "null"}]},
                },
                cid={"type": "string", "pattern": r"^b[a-z2-7]{58}(?!\n)$"},
                coreMetadata=closed({"sha256": HEX}),
                ext={"type": "object"},
            ),
        }
    )
)


class _Refused(Exception):
    """The event does not count."""


def accepts(event: Any, room: str | None, keys: Keys) -> bool:
    """Whether an attestation event counts in the room of that project."""
    try:
        _accept(event, room, keys)
    except _Refused:
        return False
    return True


def _must(holds: bool) -> None:
    if not holds:
        raise _Refused


def _accept(event: Any, room: str | None, keys: Keys) -> None:
    _must(EVENT.is_valid(event))
    dsse = event["content"]["dsse"]
    keyid = dsse["signatures"][0]["keyid"]
    _must(keyid in keys)
    payload = _verified(dsse, keyid, keys[keyid].public)
    statement = _parsed(payload)
    _must(STATEMENT.is_valid(statement) and _exact(statement) and _depth(statement) <= 32)
    subject, predicate = statement["subject"][0], statement["predicate"]
    for moment in (predicate["issued"], predicate["expires"]):
        if moment is not None:
            _existing(moment)
    name, sha256 = subject["name"], subject["digest"]["sha256"]
    _must(_told_by(name) == (predicate["project"], predicate["version"]))
    key = keys[keyid]
    _must((predicate["signer"]["org"], predicate["signer"]["key"]) == (key.org, keyid))
    mirrors, maintains = "mirror" in key.roles, "maintainer" in key.roles
    _must((mirrors and not key.projects) or ((mirrors or maintains) and predicate["project"] in key.projects))
    if "cid" in predicate:
        _must(_cid_fits(predicate["cid"], sha256))
    told = {"file": name, "org": key.org, "sha256": sha256, "size": predicate["size"]}
    _must(event["content"].get("hint", told) == told)
    _must(room == predicate["project"] and event["state_key"] == f"{keyid[:16]}/{name}")


def _verified(dsse: Any, keyid: str, public: bytes) -> bytes:
    theirs: list[Key] = [SSlibKey(keyid, "ed25519", "ed25519", {"public": public.hex()})]
    try:
        for text in (dsse["payload"], dsse["signatures"][0]["sig"]):
            _must(base64.b64encode(base64.b64decode(text.encode("ascii"), validate=True)).decode() == text)
        envelope = Envelope.from_dict(dsse)
        envelope.verify(theirs, 1)
    except (VerificationError, binascii.Error, UnicodeError) as error:
        raise _Refused from error
    _must(len(envelope.payload) <= 16 * 1024)
    return bytes(envelope.payload)


def _parsed(payload: bytes) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _must(len({name for name, _ in pairs}) == len(pairs))
        return dict(pairs)

    try:
        statement = json.loads(payload.decode("utf-8"), object_pairs_hook=unique)
        json.dumps(statement, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise _Refused from error
    return statement


def _exact(value: Any) -> bool:
    """No number that some reader would round."""
    if isinstance(value, dict):
        return all(map(_exact, value.values()))
    if isinstance(value, list):
        return all(map(_exact, value))
    return not isinstance(value, float) and not (isinstance(value, int) and abs(value) >= 2**53)


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


def _existing(moment: str) -> None:
    try:
        datetime.strptime(moment, "%Y-%m-%dT%H:%M:%SZ")  # noqa: DTZ007  # only whether there is such a day
    except ValueError as error:
        raise _Refused from error


def _told_by(name: str) -> tuple[str, str]:
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._+!-")
    _must(set(name) <= allowed and name[:1].isalnum() and ".." not in name and len(name) <= 238)
    _must(name.endswith((".whl", ".tar.gz", ".zip")))
    try:
        project, version = parse_wheel_filename(name)[:2] if name.endswith(".whl") else parse_sdist_filename(name)
    except ValueError as error:
        raise _Refused from error
    _must(not project.startswith("-") and not project.endswith("-"))
    return project, str(version)


def _cid_fits(cid: str, sha256: str) -> bool:
    data = base64.b32decode(cid[1:].upper() + "=" * 6)
    if "b" + base64.b32encode(data).decode().lower().rstrip("=") != cid:
        return False
    raw = data[:4] == bytes.fromhex("01551220")
    return (raw and data[4:] == bytes.fromhex(sha256)) or data[:4] == bytes.fromhex("01701220")


def id_told(event: Any) -> str:
    """The id that an accepted event's statement has."""
    return hashlib.sha256(base64.b64decode(event["content"]["dsse"]["payload"])).hexdigest()
