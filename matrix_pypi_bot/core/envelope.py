"""DSSE envelopes: the exact bytes that were signed, and whose signature is on them.

Nothing of a payload is parsed before its signature verified. Reading is strict, in the order of the contract's codes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NewType

from matrix_pypi_bot.core.limits import MAX_PAYLOAD_BYTES
from matrix_pypi_bot.core.rejected import Code, Rejected
from matrix_pypi_bot.core.signers import Keyid, Keys, PinnedKey, SigningKey, verifies

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"

StatementId = NewType("StatementId", str)
"""hex(sha256(payload)): independent of how the signature is encoded."""

_ENVELOPE_KEYS: Final = frozenset({"payloadType", "payload", "signatures"})
_SIGNATURE_KEYS: Final = frozenset({"keyid", "sig"})


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature of an envelope, not yet verified."""

    keyid: Keyid
    sig: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A well-formed envelope, not yet verified."""

    payload: bytes
    signatures: tuple[Signature, ...]

    @property
    def id(self) -> StatementId:
        """The id of the statement inside."""
        return StatementId(hashlib.sha256(self.payload).hexdigest())

    def to_json(self) -> dict[str, object]:
        """The envelope as it stands in events, logs and refutations."""
        return {
            "payloadType": PAYLOAD_TYPE,
            "payload": base64.b64encode(self.payload).decode(),
            "signatures": [{"keyid": s.keyid, "sig": base64.b64encode(s.sig).decode()} for s in self.signatures],
        }


def pae(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: the bytes that are signed."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def seal(payload: bytes, *keys: SigningKey) -> Envelope:
    """`payload` signed by each key, signatures sorted by keyid."""
    message = pae(payload)
    signatures = sorted((Signature(key.keyid, key.sign(message)) for key in keys), key=lambda s: s.keyid)
    return Envelope(payload, tuple(signatures))


def read_envelope(value: object, *, max_signatures: int = 1) -> Envelope:
    """The envelope that parsed JSON holds, with 1 to `max_signatures` signatures of distinct keys, sorted by keyid.

    Raises Rejected: E_ENVELOPE for its shape, E_SIZE before anything is decoded, E_ENVELOPE for base64 that is not standard,
    padded and canonical.
    """
    if not isinstance(value, Mapping) or value.keys() != _ENVELOPE_KEYS or value["payloadType"] != PAYLOAD_TYPE:
        raise Rejected(Code.ENVELOPE, "not a DSSE envelope of an in-toto statement")
    payload, signatures = value["payload"], value["signatures"]
    if not isinstance(payload, str) or not isinstance(signatures, list) or not 1 <= len(signatures) <= max_signatures:
        raise Rejected(Code.ENVELOPE, f"the payload is text, and there are 1 to {max_signatures} signatures")
    texts = [_signature_texts(signature) for signature in signatures]
    if sorted({keyid for keyid, _ in texts}) != [keyid for keyid, _ in texts]:
        raise Rejected(Code.ENVELOPE, "signatures are by distinct keys, sorted by keyid")
    if len(payload) // 4 * 3 - payload[-2:].count("=") > MAX_PAYLOAD_BYTES:
        raise Rejected(Code.SIZE, f"the payload is larger than {MAX_PAYLOAD_BYTES} bytes")
    return Envelope(_decoded(payload), tuple(Signature(Keyid(keyid), _decoded(sig)) for keyid, sig in texts))


def verify(envelope: Envelope, keys: Keys) -> PinnedKey:
    """The known key that signed an envelope of one signature.

    Raises Rejected: E_KEY_UNKNOWN before any cryptography, then E_SIG.
    """
    [signature] = envelope.signatures
    return verify_signature(signature, envelope.payload, keys)


def verify_signature(signature: Signature, payload: bytes, keys: Keys) -> PinnedKey:
    """The known key that made this signature over `payload`. Raises Rejected as `verify` does."""
    key = keys.get(signature.keyid)
    if key is None:
        raise Rejected(Code.KEY_UNKNOWN, f"no pinned organisation has the key {signature.keyid[:64]}")
    if not verifies(key.public, signature.sig, pae(payload)):
        raise Rejected(Code.SIG, f"not a signature of the key {signature.keyid[:64]}")
    return key


def _signature_texts(value: object) -> tuple[str, str]:
    if not isinstance(value, Mapping) or value.keys() != _SIGNATURE_KEYS:
        raise Rejected(Code.ENVELOPE, "a signature is {keyid, sig}")
    keyid, sig = value["keyid"], value["sig"]
    if not isinstance(keyid, str) or not isinstance(sig, str):
        raise Rejected(Code.ENVELOPE, "keyid and sig are text")
    return keyid, sig


def _decoded(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Rejected(Code.ENVELOPE, "not standard base64") from error
    if base64.b64encode(data).decode() != text:
        raise Rejected(Code.ENVELOPE, "base64 that is not canonical")
    return data
