"""Signed notes of C2SP: a log's checkpoints, and the cosignatures of those who saw them.

A note is text that ends in a newline, an empty line, then one line for each signature: `— <name> <base64 of key hash and
signature>`. A checkpoint's text is origin, size and root. Whoever signs as `ed25519` (the log) signs the text; a witness signs
the text and the time (`cosignature/v1`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from matrix_pypi_bot.core.instants import LAST_SECOND, Instant
from matrix_pypi_bot.core.limits import MAX_LOG_SIZE, MAX_NOTE_BYTES, MAX_NOTE_SIGNATURES, MAX_TEXT_CHARACTERS
from matrix_pypi_bot.core.signers import SigningKey, verifies

_ED25519: Final = b"\x01"
_COSIGNATURE: Final = b"\x04"
_HASH_BYTES: Final = 4
_TIME_BYTES: Final = 8
_NAME: Final = re.compile(r"[!-*,-~]+", re.ASCII)  # printable, no space, no plus sign
_SIZE: Final = re.compile(r"0|[1-9][0-9]*", re.ASCII)


class InvalidNote(ValueError):
    """A text that is no note, or a note that is no checkpoint."""


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line: `key_hash` are the 4 bytes that tell which key of `name`, `blob` what the key's algorithm made."""

    name: str
    key_hash: bytes
    blob: bytes

    def line(self) -> str:
        """The line as it stands in a note."""
        return f"\u2014 {self.name} {base64.b64encode(self.key_hash + self.blob).decode()}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A note, its signatures not verified."""

    text: str
    signatures: tuple[NoteSignature, ...]

    def __str__(self) -> str:
        return self.text + "\n" + "".join(signature.line() for signature in self.signatures)

    def with_signature(self, signature: NoteSignature) -> Note:
        """The note with one signature more; one by the same key is replaced."""
        others = tuple(s for s in self.signatures if (s.name, s.key_hash) != (signature.name, signature.key_hash))
        return Note(self.text, (*others, signature))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's head: `size` leaves under `root` (32 bytes), of the log named `origin`."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The text that is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A key that signs notes, by the name that its lines carry."""

    name: str
    public: bytes

    def log_hash(self) -> bytes:
        """The key hash under which it signs as a log."""
        return _key_hash(self, _ED25519)

    def witness_hash(self) -> bytes:
        """The key hash under which it cosigns."""
        return _key_hash(self, _COSIGNATURE)


def parse_note(text: str) -> Note:
    """The note that `text` writes. Raises InvalidNote."""
    if len(text) > MAX_NOTE_BYTES or any((c < " " and c != "\n") or "\ud800" <= c <= "\udfff" for c in text):
        raise InvalidNote("too large, or characters that no note holds")
    body, blank, lines = text.rpartition("\n\n")
    if not body or not blank or not lines.endswith("\n"):
        raise InvalidNote("a note is text, an empty line, and signature lines")
    signatures = [_parse_line(line) for line in lines[:-1].split("\n")]
    if len(signatures) > MAX_NOTE_SIGNATURES:
        raise InvalidNote(f"more than {MAX_NOTE_SIGNATURES} signatures")
    return Note(body + "\n", tuple(signatures))


def parse_checkpoint(text: str) -> Checkpoint:
    """The checkpoint in a note's text; extension lines are allowed and ignored. Raises InvalidNote."""
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] or not all(lines[:-1]):
        raise InvalidNote("a checkpoint has the lines origin, size and root")
    origin, size, root = lines[:3]
    if len(origin) > MAX_TEXT_CHARACTERS or not _SIZE.fullmatch(size) or len(size) > len(str(MAX_LOG_SIZE)):
        raise InvalidNote("the origin or the size is not one")
    if int(size) > MAX_LOG_SIZE:
        raise InvalidNote("the size is too large")
    decoded = _decoded(root)
    if len(decoded) != hashlib.sha256().digest_size:
        raise InvalidNote("the root is not 32 bytes")
    return Checkpoint(origin, int(size), decoded)


def sign_checkpoint(checkpoint: Checkpoint, key: SigningKey) -> Note:
    """The log's own note; the key's name is the log's origin."""
    text = checkpoint.text()
    key_hash = NoteKey(checkpoint.origin, key.public).log_hash()
    return Note(text, (NoteSignature(checkpoint.origin, key_hash, key.sign(text.encode())),))


def cosign(note: Note, name: str, key: SigningKey, at: Instant) -> NoteSignature:
    """The line by which the witness `name` says that it saw the note at that time and that it follows what it saw before."""
    time = int(at).to_bytes(_TIME_BYTES)
    blob = time + key.sign(_cosigned(note.text, time))
    return NoteSignature(name, NoteKey(name, key.public).witness_hash(), blob)


def is_signed_by(note: Note, key: NoteKey) -> bool:
    """Whether the note has a good signature of this log key. A bad one under its name and hash makes it False."""
    return bool(_good_blobs(note, key, key.log_hash(), lambda blob: (note.text.encode(), blob)))


def cosigned_at(note: Note, key: NoteKey) -> Instant | None:
    """When this witness cosigned the note; None when it did not, or when a signature under its name is bad."""
    cosigned = _good_blobs(note, key, key.witness_hash(), lambda blob: (_cosigned(note.text, blob), blob[_TIME_BYTES:]))
    time = max((int.from_bytes(blob[:_TIME_BYTES]) for blob in cosigned), default=None)
    return Instant(time) if time is not None and time <= LAST_SECOND else None


def _good_blobs(
    note: Note, key: NoteKey, key_hash: bytes, split: Callable[[bytes], tuple[bytes, bytes]]
) -> Sequence[bytes]:
    """The blobs of the key's lines, none as soon as one is bad. `split` gives what a blob says is signed, and the signature."""
    blobs = [line.blob for line in note.signatures if (line.name, line.key_hash) == (key.name, key_hash)]
    return blobs if all(verifies(key.public, blob, signed) for signed, blob in map(split, blobs)) else ()


def _cosigned(text: str, blob: bytes) -> bytes:
    """What a witness signs: the note's text and the time, which stands at the beginning of the line's blob."""
    return f"cosignature/v1\ntime {int.from_bytes(blob[:_TIME_BYTES])}\n{text}".encode()


def _key_hash(key: NoteKey, algorithm: bytes) -> bytes:
    return hashlib.sha256(key.name.encode() + b"\n" + algorithm + key.public).digest()[:_HASH_BYTES]


def _parse_line(line: str) -> NoteSignature:
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    data = _decoded(encoded)
    if dash != "\u2014" or not _NAME.fullmatch(name) or len(data) <= _HASH_BYTES:
        raise InvalidNote("not a signature line")
    return NoteSignature(name, data[:_HASH_BYTES], data[_HASH_BYTES:])


def _decoded(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidNote("not base64") from error
    if base64.b64encode(data).decode() != text:
        raise InvalidNote("base64 that is not canonical")
    return data
