"""Heads of other organisations' logs: whose they are, when they were signed, and what two of them prove.

A head counts with both lines of its log's key: the one over the text, and the cosignature that holds the time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.limits import MAX_HEAD_BYTES
from matrix_pypi_bot.core.notes import (
    Checkpoint,
    InvalidNote,
    Note,
    NoteKey,
    cosigned_at,
    is_signed_by,
    parse_checkpoint,
    parse_note,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedHead:
    """A head that a log key signed at `at`. `note` bears that key's lines alone: what others wrote on it is not kept."""

    key: NoteKey
    checkpoint: Checkpoint
    at: Instant
    note: Note

    @property
    def size(self) -> int:
        """How many leaves it is over."""
        return self.checkpoint.size

    @property
    def root(self) -> bytes:
        """The root over them."""
        return self.checkpoint.root


@dataclass(frozen=True, slots=True)
class Fork:
    """Two heads of one log key and one size with different roots: proof against whoever holds the key (class F3)."""

    org: str
    key: NoteKey
    notes: tuple[str, str]


def read_head_of(text: str, keys: Iterable[NoteKey]) -> SignedHead | None:
    """The head in `text` if one of these log keys signed it, with its time; None for whatever else `text` is."""
    try:
        note = parse_note(text)
        checkpoint = parse_checkpoint(note.text)
    except InvalidNote:
        return None
    for key in keys:
        if key.name != checkpoint.origin or not is_signed_by(note, key):
            continue
        at = cosigned_at(note, key)
        if at is not None:
            hashes = (key.log_hash(), key.witness_hash())
            own = tuple(line for line in note.signatures if line.name == key.name and line.key_hash in hashes)
            bare = Note(note.text, own)
            if len(str(bare).encode()) <= MAX_HEAD_BYTES:
                return SignedHead(key=key, checkpoint=checkpoint, at=at, note=bare)
    return None
