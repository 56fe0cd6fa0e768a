"""Copies of other organisations' logs: every leaf in its order, under heads that their log keys signed. No network here.

A leaf is staged when it arrives, and a leaf for ever once a signed head bears it; only then it is taken in (`taking`). Every step is
one database transaction: a crash repeats a step or does not, and loses none.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from matrix_pypi_bot.core.heads import Fork, SignedHead, read_head_of
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.keyring import witness_name
from matrix_pypi_bot.core.leaves import Leaf
from matrix_pypi_bot.core.notes import NoteKey, cosign
from matrix_pypi_bot.core.signers import SigningKey
from matrix_pypi_bot.ports import Break, Clock, CopyHead, CopyId, PeerLogs, Store
from matrix_pypi_bot.services.resume import root_at

log = logging.getLogger(__name__)

_STAGED_AT_ONCE: Final = 250  # the database is held for so many


class Weight(enum.Enum):
    """What a note is to the copy that we have."""

    UNSIGNED = "no head by a key that the organisation's manifest lists for its log"
    COVERED = "no larger than what is verified here, and it agrees"
    LARGER = "there are leaves to get"
    BROKEN = "it contradicts another head of the same log, or one did before"


@dataclass(frozen=True, slots=True)
class Weighed:
    """A note that was weighed. `head` and `copy` are there unless it is UNSIGNED."""

    weight: Weight
    head: SignedHead | None = None
    copy: CopyId | None = None


class Copies:
    """`heads` tells when each organisation's newest verified head was signed; `broken` whose log contradicts itself, and how.

    `on_fork(fork)` hears of proofs, at the start again of all that are known: who acts on it does so once. `may_sign()` tells
    whether heads may be cosigned now.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        org: str,
        key: SigningKey,
        may_sign: Callable[[], bool],
        on_fork: Callable[[Fork], None] = lambda fork: None,
    ) -> None:
        self.heads: dict[str, Instant] = {}  # the same object for ever: others look into it
        self.broken: dict[str, str] = {}
        self._store = store
        self._clock = clock
        self._witness = witness_name(org)
        self._key = key
        self._may_sign = may_sign
        self._on_fork = on_fork
        self._breaks: dict[CopyId, Break] = {}

    async def start(self, keys: Callable[[str], Sequence[NoteKey]]) -> None:
        """What was known before is known again; `keys(org)` are its log keys now. Raises StoreAway."""
        async with self._store.transaction() as tables:
            heads, breaks = await tables.peer_logs.heads(), await tables.peer_logs.breaks()
        self.heads.update({org: head.signed for org, head in heads.items()})
        for found in breaks:
            self._learn(found, keys(found.org))

    async def weigh(self, org: str, text: str, keys: Sequence[NoteKey]) -> Weighed:
        """What a note is, by whomever it was brought. Kept when it is signed; a fork is told of. Raises StoreAway."""
        head = read_head_of(text, keys)
        if head is None:
            return Weighed(Weight.UNSIGNED)
        now_ms = self._clock.now_ms()
        found, signed = None, None
        async with self._store.transaction() as tables:
            logs = tables.peer_logs
            copy = await logs.copy(org, head.key, now_ms)
            others = await logs.notes(copy, head.size, head.size + 1)
            await logs.see(copy, head.size, head.root, str(head.note), now_ms)
            held = await logs.head(copy)
            other = next((note for _, root, note in others if root != head.root), None)
            if other is not None:
                found = Break(copy=copy, org=org, key=head.key, fork=True, notes=(other, str(head.note)))
            elif held is not None and head.size <= held.size and await _root(logs, copy, head.size) != head.root:
                found = Break(copy=copy, org=org, key=head.key, fork=False, notes=(held.note, str(head.note)))
            elif held is not None and head.size == held.size and self._may_count(head) > held.signed:
                signed = await self._put_head(logs, copy, head, taken=held.taken)  # only its time is news
            if found is not None:
                await logs.break_off(found, now_ms)
        if signed is not None:
            self.heads[org] = signed
        if found is not None:
            self._learn(found, keys)
        self._look_at(org, keys)
        if copy in self._breaks:
            return Weighed(Weight.BROKEN, head, copy)
        larger = held is None or head.size > held.size
        return Weighed(Weight.LARGER if larger else Weight.COVERED, head, copy)

    async def end(self, copy: CopyId) -> int:
        """How many leaves are here, staged ones included. Raises StoreAway."""
        async with self._store.transaction() as tables:
            return await tables.peer_logs.end(copy)

    async def stage(self, copy: CopyId, leaves: Sequence[Leaf], *, relayed: bool) -> None:
        """Puts leaves behind those that are here. Raises StoreAway."""
        for start in range(0, len(leaves), _STAGED_AT_ONCE):
            async with self._store.transaction() as tables:
                await tables.peer_logs.stage(copy, leaves[start : start + _STAGED_AT_ONCE], relayed=relayed)

    async def settle(self, org: str, copy: CopyId, head: SignedHead) -> bool:
        """Whether the leaves that are here bear the head; then they are leaves for ever, and it is the newest one.

        Call it when all leaves below the head's size are here. Those that do not bear it are forgotten. Raises StoreAway.
        """
        found, signed = None, None
        async with self._store.transaction() as tables:
            logs = tables.peer_logs
            if await _root(logs, copy, head.size) != head.root:
                await logs.drop_staged(copy)
                return False
            held = await logs.head(copy)
            for size, root, note in await logs.notes(copy, held.size + 1 if held else 1, head.size):
                if await _root(logs, copy, size) != root:  # of two sizes: no proof for others, but one for us
                    found = Break(copy=copy, org=org, key=head.key, fork=False, notes=(note, str(head.note)))
                    await logs.break_off(found, self._clock.now_ms())
                    break
            else:
                await logs.settle(copy, head.size)
                signed = await self._put_head(logs, copy, head, taken=held.taken if held else 0)
        if found is not None:
            self._learn(found, [head.key])
        if signed is None:
            return False
        self.heads[org] = signed
        log.info("log of another organisation verified", extra={"org": org, "size": head.size})
        return True

    async def is_behind(self, copy: CopyId) -> bool:
        """Whether somebody showed a signed head that is larger than what is verified here. Raises StoreAway."""
        async with self._store.transaction() as tables:
            head = await tables.peer_logs.head(copy)
            return await tables.peer_logs.largest_note(copy) > (head.size if head is not None else 0)

    def is_broken(self, copy: CopyId) -> bool:
        """Whether heads of this log contradict one another."""
        return copy in self._breaks

    def _may_count(self, head: SignedHead) -> Instant:
        """When the head was signed; a time that has not come would keep a log alive without a word of it."""
        return min(head.at, Instant.of_ms(self._clock.now_ms()))

    async def _put_head(self, logs: PeerLogs, copy: CopyId, head: SignedHead, *, taken: int) -> Instant:
        note, signed = head.note, self._may_count(head)
        if self._may_sign():
            note = note.with_signature(cosign(note, self._witness, self._key, Instant.of_ms(self._clock.now_ms())))
        await logs.put_head(copy, CopyHead(size=head.size, root=head.root, note=str(note), signed=signed, taken=taken))
        return signed

    def _learn(self, found: Break, keys: Sequence[NoteKey]) -> None:
        is_news = found.copy not in self._breaks
        if is_news or found.fork:
            self._breaks[found.copy] = found
        self._look_at(found.org, keys)
        if is_news:
            log.error(
                "log of another organisation contradicts itself alarm",
                extra={"org": found.org, "reason": self.broken.get(found.org, "a log that it has ended")},
            )
        if found.fork:
            self._on_fork(Fork(found.org, found.key, found.notes))

    def _look_at(self, org: str, keys: Sequence[NoteKey]) -> None:
        """A log that its organisation has ended says nothing about the one it has now; a fork of it stays a proof."""
        current = [found for found in self._breaks.values() if found.org == org and found.key in keys]
        self.broken.pop(org, None)
        if current:
            fork = any(found.fork for found in current)
            self.broken[org] = "two heads of one size" if fork else "a head that does not grow into another one"


async def _root(logs: PeerLogs, copy: CopyId, size: int) -> bytes:
    return await root_at(_Tree(logs, copy), size)


@dataclass(frozen=True, slots=True)
class _Tree:
    """A copy's tree, as `root_at` reads it."""

    logs: PeerLogs
    copy: CopyId

    async def subtree(self, level: int, index: int) -> bytes:
        return await self.logs.subtree(self.copy, level, index)
