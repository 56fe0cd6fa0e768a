"""Statements as plain JSON, signed without the code under test, so that a test can break any part of one."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from typing import Any

from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.signers import Keys, PinnedKey, SigningKey

ORGA = SigningKey(b"\x01" * 32)
ORGB = SigningKey(b"\x02" * 32)
ORGC = SigningKey(b"\x03" * 32)
MAINT = SigningKey(b"\x05" * 32)
EVIL = SigningKey(b"\x09" * 32)
ROOTA = SigningKey(b"\x11" * 32)
ROOTA2 = SigningKey(b"\x12" * 32)
ROOTB = SigningKey(b"\x21" * 32)

WHEEL = "rfc8785-0.1.2-py3-none-any.whl"
PROJECT = "rfc8785"
GENUINE = "c4e92e9ecc828bef2aa7dba1de8ac983511f7532a0df11c770d39099a25cf201"
FALSE = "bf0d6d3f14b00453cb97ecac5518862b111129bdad240982948257fb1cc6100c"
RAW_CID = "bafkreige5exj5tecrpxsvj63uhpivsmdkepxkmva34i4o4gtscm2exhsae"
NOW = Instant.parse("2026-11-22T13:00:00Z")

KEYS: Keys = {
    key.keyid: PinnedKey(public=key.public, org=org, roles=frozenset(roles), projects=frozenset(projects))
    for key, org, roles, projects in (
        (ORGA, "orga", ("mirror", "watcher"), ()),
        (ORGB, "orgb", ("mirror",), ()),
        (ORGC, "orgc", ("watcher",), ()),
        (MAINT, "maint", ("maintainer",), (PROJECT,)),
        (ROOTA, "orga", ("root",), ()),
    )
}

Json = dict[str, Any]


def name_digest(name: str) -> str:
    """The digest of a subject that has no content of its own."""
    return hashlib.sha256(name.encode()).hexdigest()


def statement(kind: str, name: str, sha256: str, predicate: Json) -> Json:
    """A statement about one subject."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": f"urn:matrix-pypi:{kind}:v1",
        "subject": [{"name": name, "digest": {"sha256": sha256}}],
        "predicate": predicate,
    }


def chain(key: SigningKey = ORGA, org: str = "orga") -> Json:
    """The fields that statements of a chain share."""
    return {"signer": {"org": org, "key": key.keyid}, "seq": 1, "prev": None, "issued": str(NOW)}


def attestation(key: SigningKey = ORGA, org: str = "orga", *, sha256: str = GENUINE, **changes: object) -> Json:
    """An attestation of the one wheel; `changes` replace fields of its predicate, None included."""
    predicate = {
        **chain(key, org),
        "project": PROJECT,
        "version": "0.1.2",
        "size": 9172,
        "source": {"kind": "pypi", "method": "bytes", "index": "pypi"},
        "expires": None,
        **changes,
    }
    return statement("attestation", WHEEL, sha256, predicate)


def manifest(org: str = "orga", *, roots: tuple[SigningKey, ...] = (ROOTA,), **changes: object) -> Json:
    """Version 1 of an organisation's manifest, with ORGA's key as its mirror and log."""
    predicate = {
        "org": org,
        "version": 1,
        "issued": str(NOW),
        "expires": str(Instant(NOW + 86_400 * 90)),
        "roots": [{"key": root.public.hex(), "scheme": "ed25519"} for root in roots],
        "threshold": 1,
        "keys": [listed_key(ORGA)],
        "log": {"origin": f"{org}/matrix-pypi"},
        "delegations": [],
        **changes,
    }
    return statement("keys", org, name_digest(org), predicate)


def listed_key(key: SigningKey, *roles: str, revoked: Json | None = None) -> Json:
    """An online key as a manifest lists it."""
    told = list(roles) or ["mirror", "watcher", "log"]
    return {"key": key.public.hex(), "scheme": "ed25519", "roles": told, "added": str(NOW), "revoked": revoked}


def refutation(fault: str, subject: tuple[str, str], evidence: Json, **changes: object) -> Json:
    """An accusation of ORGA by ORGB about the one wheel."""
    predicate = {
        "class": fault,
        "project": PROJECT,
        "file": WHEEL,
        "accused": ORGA.keyid,
        "observed": str(NOW),
        "reporter": {"org": "orgb", "key": ORGB.keyid},
        "evidence": evidence,
        **changes,
    }
    return statement("refutation", *subject, predicate)


def payload_of(value: Json) -> bytes:
    """The statement's bytes, written by the standard library."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def envelope_of(value: Json | bytes, *keys: SigningKey) -> Json:
    """The DSSE envelope of a statement or of any payload; by ORGA when no key is given."""
    payload = value if isinstance(value, bytes) else payload_of(value)
    kind = b"application/vnd.in-toto+json"
    signed = b"DSSEv1 " + b" ".join((str(len(kind)).encode(), kind, str(len(payload)).encode(), payload))
    signatures = [
        {"keyid": key.keyid, "sig": base64.b64encode(key.sign(signed)).decode()}
        for key in sorted(keys or (ORGA,), key=lambda key: key.keyid)
    ]
    return {
        "payloadType": kind.decode(),
        "payload": base64.b64encode(payload).decode(),
        "signatures": signatures,
    }


def event_of(envelope: Json, *, kind: str = "attestation", state_key: str | None = None, **more: object) -> Json:
    """A Matrix event that carries the envelope; by default an attestation in ORGA's own slot."""
    return copy.deepcopy(
        {
            "type": f"io.matrix_pypi.{kind}.v1",
            "state_key": f"{ORGA.keyid[:16]}/{WHEEL}" if state_key is None else state_key,
            "sender": "@pypi:orga.example",
            "event_id": "$1",
            "content": {"v": 1, "dsse": envelope},
            **more,
        }
    )


def id_of(value: Json) -> str:
    """The id of a statement."""
    return hashlib.sha256(payload_of(value)).hexdigest()
