"""Statements read back from Matrix and checked by securesystemslib, which knows nothing of this project."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.dsse import Envelope
from securesystemslib.signer import Key, SSlibKey  # type: ignore[attr-defined]  # exported, though not in __all__

from tests.support.matrix import MatrixUser
from tests.support.member import Org

ATTESTATION = "io.matrix_pypi.attestation.v1"
KEYS = "io.matrix_pypi.keys.v1"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"


def keyid(public: str) -> str:
    """The id of a public key given in hex: the sha256 of its 32 bytes."""
    return hashlib.sha256(bytes.fromhex(public)).hexdigest()


def public_key(seed: str) -> str:
    """The public key, in hex, of an Ed25519 seed in hex."""
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed)).public_key().public_bytes_raw().hex()


def verified(content: dict[str, Any], *publics: str) -> dict[str, Any]:
    """The statement in the content of an event. Raises unless each of the `publics` signed it, and nobody else."""
    assert content["v"] == 1
    assert content["dsse"]["payloadType"] == PAYLOAD_TYPE
    envelope = Envelope.from_dict(copy.deepcopy(content["dsse"]))  # it decodes in place
    keys: list[Key] = [SSlibKey(keyid(public), "ed25519", "ed25519", {"public": public}) for public in publics]
    assert set(envelope.verify(keys, len(keys))) == set(envelope.signatures) == {keyid(public) for public in publics}
    statement: dict[str, Any] = json.loads(envelope.payload)
    assert statement["_type"] == STATEMENT_TYPE
    return statement


def mirror_key(reader: MatrixUser, org: Org) -> str:
    """The organisation's mirror key, in hex, as its manifest in the trust room says; the manifest is checked with the root key."""
    trust_room = reader.join(f"#pypi-trust:{org.server_name}")
    manifest = reader.wait_for_content(trust_room, KEYS, org.bot)
    statement = verified(manifest, public_key(org.secret("root_key_file")))
    assert statement["predicateType"] == "urn:matrix-pypi:keys:v1"
    (mirror,) = [key["key"] for key in statement["predicate"]["keys"] if "mirror" in key["roles"]]
    return str(mirror)


def raw_cid(content: bytes) -> str:
    """The CID of content that fits one block: CIDv1, raw, sha2-256, base32."""
    multihash = bytes([0x01, 0x55, 0x12, 0x20]) + hashlib.sha256(content).digest()
    return "b" + base64.b32encode(multihash).decode().lower().rstrip("=")
