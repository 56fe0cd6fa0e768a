"""The leaves of somebody else's log, as a page of entries brings them: one line each, hostile until its hash is in a signed tree.

A leaf is its payload. What else stands on the line, signatures above all, no tree covers: who relays a log can spoil them.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Final

import msgspec

from matrix_pypi_bot.core.envelope import StatementId, read_envelope
from matrix_pypi_bot.core.limits import MAX_LEAF_LINE_BYTES, MAX_MANIFEST_SIGNATURES
from matrix_pypi_bot.core.rejected import Rejected
from matrix_pypi_bot.core.statements.keys import Manifest
from matrix_pypi_bot.core.tlog import leaf_hash
from matrix_pypi_bot.wire.digests import sha256_of

_MANIFEST: Final = Manifest.type().encode()


class NotALeaf(ValueError):
    """A line from which no payload can be read: no tree can be computed over it."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One leaf: the id of its statement, its hash in the tree, and the envelope (DSSE JSON on one line) to check later.

    `may_be_manifest`: it is worth a look before anything vouches for the tree, because a manifest proves itself.
    """

    statement_id: StatementId
    hash: bytes
    envelope: bytes
    may_be_manifest: bool


class _Line(msgspec.Struct, frozen=True):
    payload: str


_decode = msgspec.json.Decoder(_Line).decode


def read_leaf(line: bytes) -> Leaf:
    """The leaf on a line of a page of entries. Raises NotALeaf, whatever the line is.

    What is no envelope is a leaf all the same if it has a payload; of such a line only that is kept.
    """
    if len(line) > MAX_LEAF_LINE_BYTES:
        raise NotALeaf(f"a line of {len(line)} bytes")
    try:
        told = _decode(line).payload
        payload = base64.b64decode(told, validate=True)
    except (msgspec.MsgspecError, RecursionError, UnicodeError, binascii.Error, ValueError) as error:
        raise NotALeaf("not JSON with a payload in base64") from error
    envelope = _envelope(line) or _json({"payload": base64.b64encode(payload).decode()})
    return Leaf(StatementId(sha256_of(payload)), leaf_hash(payload), envelope, _MANIFEST in payload)


def parsed(envelope: bytes) -> object:
    """The JSON of a leaf's envelope."""
    value: object = json.loads(envelope)
    return value


def _envelope(line: bytes) -> bytes | None:
    """The line in the one form in which envelopes are kept; None when it is none."""
    try:
        return _json(read_envelope(json.loads(line), max_signatures=MAX_MANIFEST_SIGNATURES).to_json())
    except (Rejected, ValueError, RecursionError):
        return None


def _json(value: dict[str, object]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
