"""The organisation's transparency log: checkpoints signed when there is something new, told in the trust room, and pages of leaves.

A checkpoint, the promise that its size never has another root, and the mail that tells it are one database transaction: a crash leaves
all of them or nothing, and what was never durable was never shown to anybody.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Final

from matrix_pypi_bot.core.events import head_post
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.notes import (
    Checkpoint,
    InvalidNote,
    NoteKey,
    NoteSignature,
    cosign,
    cosigned_at,
    is_signed_by,
    parse_note,
    sign_checkpoint,
)
from matrix_pypi_bot.core.signers import SigningKey
from matrix_pypi_bot.ports import TRUST_ROOM, Clock, HeadRow, Postman, Store, Transaction
from matrix_pypi_bot.services.resume import LogBehind, ResumeGuard, root_at
from matrix_pypi_bot.wire.problems import Problem

log = logging.getLogger(__name__)

NEW_LEAVES: Final = 256  # so many are not left without a checkpoint, however young the last one is
RENEW_SECONDS: Final = 3_600  # a head whose time is old looks as if news were held back
LOOK_SECONDS: Final = 5.0
MAX_ENTRIES: Final = 1_000
MAX_ANSWER_BYTES: Final = 4 << 20
MAX_COSIGNATURES: Final = 32  # a note holds 64 lines at most, two of them our own
_READ_AT_ONCE: Final = 100  # the database is held for so many


class Page:
    """Entries from `start` to `end` on their way into one answer; full after the first at 4 MiB."""

    def __init__(self, start: int, end: int) -> None:
        self.entries: list[bytes] = []
        self._start = start
        self._end = end
        self._bytes = 0

    @property
    def wants_more(self) -> bool:
        """Whether there is something to read."""
        return self._start < self._end

    def next_range(self) -> tuple[int, int]:
        """What is read next, in one transaction."""
        return self._start, min(self._end, self._start + _READ_AT_ONCE)

    def take(self, batch: list[bytes]) -> None:
        """Puts in what was read, as far as it fits."""
        for entry in batch:
            self._bytes += len(entry) + 1
            if self.entries and self._bytes > MAX_ANSWER_BYTES:
                self._end = self._start
                return
            self.entries.append(entry)
        self._start += _READ_AT_ONCE


class LogKeeper:
    """Signs checkpoints, and reads what they cover. `head` is the newest one, None before the first. Have `run()` run."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        guard: ResumeGuard,
        postman: Postman,
        origin: str,
        key: SigningKey,
        bot_mxid: str,
        checkpoint_seconds: float,
    ) -> None:
        self.head: HeadRow | None = None
        self._cosignatures: dict[str, tuple[int, NoteSignature]] = {}
        self._store = store
        self._clock = clock
        self._guard = guard
        self._postman = postman
        self._origin = origin
        self._key = key
        self._bot = bot_mxid
        self._checkpoint_ms = int(checkpoint_seconds * 1_000)
        self._look_seconds = min(LOOK_SECONDS, checkpoint_seconds)

    async def start(self) -> None:
        """What was promised before is known, and what is stored is looked at. Raises StoreAway."""
        async with self._store.transaction() as tables:
            self.head = await tables.log.head()
            if self.head is not None:
                for witness, line in (await tables.peer_logs.cosignatures(self.head.size)).items():
                    [signature] = parse_note(f"text\n\n{line}").signatures
                    self._cosignatures[witness] = (self.head.size, signature)
            try:
                await _check_kept(tables, self.head)
            except LogBehind as problem:
                self._guard.close(problem)

    async def run(self) -> None:
        """Signs whenever it is time, until cancelled."""
        while True:
            try:
                await self.sign_if_due()
            except Problem as problem:
                log.warning("checkpoint must wait", extra={"reason": problem.detail})
            await asyncio.sleep(self._look_seconds)

    async def sign_if_due(self) -> bool:
        """Whether a note was signed. Raises StoreAway."""
        if not self._guard.is_open:
            return False
        try:
            async with self._store.transaction() as tables:
                size, held, now_ms = await tables.log.size(), await tables.log.head(), self._clock.now_ms()
                if not self._is_due(size, held, now_ms):
                    return False
                await _check_kept(tables, held)
                await self._sign(tables, size, now_ms)
                self.head = await tables.log.head()
        except LogBehind as problem:
            self._guard.close(problem)
            return False
        log.info("checkpoint signed", extra={"size": size, "new": size - (held.size if held else 0)})
        self._postman.poke()
        return True

    async def entries(self, start: int, end: int) -> list[bytes]:
        """The envelopes of the leaves from `start` to `end` (exclusive) that the newest checkpoint covers.

        At most 1,000 and, but for the first one, 4 MiB of them. Raises StoreAway.
        """
        covered = self.head.size if self.head is not None else 0
        page = Page(start, min(end, covered, start + MAX_ENTRIES))
        while page.wants_more:
            async with self._store.transaction() as tables:
                page.take(await tables.log.entries(*page.next_range()))
        return page.entries

    @property
    def note(self) -> str | None:
        """The newest note with the cosignatures that others gave it; None before the first."""
        if self.head is None:
            return None
        note = parse_note(self.head.note)
        for size, line in self._cosignatures.values():
            if size == self.head.size:
                note = note.with_signature(line)
        return str(note)

    async def take_cosignature(self, text: str, witness: NoteKey) -> bool:
        """Keeps the line by which `witness` cosigned our newest head, if the note in `text` is that and has one. Raises StoreAway."""
        try:
            told = parse_note(text)
        except InvalidNote:
            return False
        head = self.head
        if head is None or told.text != parse_note(head.note).text or cosigned_at(told, witness) is None:
            return False
        line = next(s for s in told.signatures if (s.name, s.key_hash) == (witness.name, witness.witness_hash()))
        if self._cosignatures.get(witness.name) == (head.size, line):
            return False
        if len(self._cosignatures) >= MAX_COSIGNATURES and witness.name not in self._cosignatures:
            return False
        async with self._store.transaction() as tables:
            await tables.peer_logs.cosigned(witness.name, head.size, line.line(), self._clock.now_ms())
        self._cosignatures[witness.name] = (head.size, line)
        return True

    def _is_due(self, size: int, held: HeadRow | None, now_ms: int) -> bool:
        """Ages outside of their bounds are due too: a clock that was set back must not silence the log."""
        if held is None:
            return size > 0
        new = size - held.size
        if new >= NEW_LEAVES or (new > 0 and not 0 <= now_ms - held.promised_ms < self._checkpoint_ms):
            return True
        if not 0 <= now_ms - held.signed_ms < RENEW_SECONDS * 1_000:
            return True
        return not is_signed_by(parse_note(held.note), NoteKey(self._origin, self._key.public))

    async def _sign(self, tables: Transaction, size: int, now_ms: int) -> None:
        root = await root_at(tables.log, size)
        if await tables.log.promise(size, root, now_ms) != root:
            raise LogBehind(f"another root was promised for the first {size} statements than they have now")
        note = sign_checkpoint(Checkpoint(self._origin, size, root), self._key)
        note = note.with_signature(cosign(note, self._origin, self._key, Instant.of_ms(now_ms)))
        await tables.log.put_head(size, str(note), now_ms)
        post = head_post(str(note))
        content = json.dumps(post.content, sort_keys=True, separators=(",", ":")).encode()
        await tables.mail.send(TRUST_ROOM, post.type, self._bot, content, now_ms)


async def _check_kept(tables: Transaction, head: HeadRow | None) -> None:
    """Raises LogBehind when the leaves are not those that were promised."""
    if head is None:
        return
    size = await tables.log.size()
    if size < head.size or await root_at(tables.log, head.size) != head.root:
        raise LogBehind(f"the database does not hold the log of {head.size} statements for which it holds a checkpoint")
