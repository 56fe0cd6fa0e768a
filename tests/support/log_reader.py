"""A log read and checked with nothing of this project: notes by C2SP's signed-note, the tree by RFC 6962, keys from the trust room."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.support.matrix import MatrixUser
from tests.support.member import Org
from tests.support.stack import Stack
from tests.support.verifying import KEYS, public_key, verified

HEAD = "io.matrix_pypi.head.v1"


@dataclass(frozen=True, slots=True)
class Head:
    """A checkpoint whose two signatures were good; `time` is what the log's cosignature says."""

    origin: str
    size: int
    root: bytes
    time: int


def log_key(reader: MatrixUser, org: Org) -> str:
    """The key of the organisation's log, in hex, as its manifest in the trust room says."""
    manifest = reader.wait_for_content(reader.join(f"#pypi-trust:{org.server_name}"), KEYS, org.bot)
    predicate = verified(manifest, public_key(org.secret("root_key_file")))["predicate"]
    assert predicate["log"] == {"origin": f"{org.name}/matrix-pypi"}
    (key,) = [key["key"] for key in predicate["keys"] if "log" in key["roles"]]
    return str(key)


def checked_head(note: str, key: str) -> Head:
    """What the note says. Raises unless this key signed it, as the log and as a witness of it."""
    text, _, lines = note.rpartition("\n\n")
    text += "\n"
    origin, size, root = text.splitlines()
    public = bytes.fromhex(key)
    signatures = {}
    for line in lines.splitlines():
        dash, name, encoded = line.split(" ")
        assert (dash, name) == ("\u2014", origin)
        blob = base64.b64decode(encoded)
        signatures[blob[:4]] = blob[4:]
    plain, timed = (hashlib.sha256(f"{origin}\n".encode() + kind + public).digest()[:4] for kind in (b"\x01", b"\x04"))
    Ed25519PublicKey.from_public_bytes(public).verify(signatures.pop(plain), text.encode())
    cosignature = signatures.pop(timed)
    (time,) = struct.unpack(">Q", cosignature[:8])
    message = f"cosignature/v1\ntime {time}\n{text}".encode()
    Ed25519PublicKey.from_public_bytes(public).verify(cosignature[8:], message)
    assert not signatures
    return Head(origin, int(size), base64.b64decode(root), time)


def root_of(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, 2.1, over leaf data."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + root_of(leaves[:split]) + root_of(leaves[split:])).digest()


def newest_head(stack: Stack, key: str) -> Head | None:
    """The head that the frontend passes on; None before the first."""
    reply = stack.get("/log/v1/checkpoint")
    return checked_head(reply.body.decode(), key) if reply.status == 200 else None


def leaves(stack: Stack, size: int) -> list[bytes]:
    """The data of the first `size` leaves, page by page."""
    found: list[bytes] = []
    while len(found) < size:
        page = stack.get(f"/log/v1/entries?from={len(found)}&to={size}").body.splitlines()
        assert page
        found += [base64.b64decode(json.loads(line)["payload"]) for line in page]
    return found


def statements(data: list[bytes]) -> list[dict[str, Any]]:
    """What the leaves say."""
    return [json.loads(leaf) for leaf in data]
