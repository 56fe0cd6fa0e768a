"""Our own log at other organisations: their cosignatures of its head, and, for a database from an old backup, the leaves that it lacks.

What a peer gives back is taken only if our own log key signed the head that it stands under: nobody can add to our log, and nobody can
have us forget. While leaves are missing nothing is signed (`ResumeGuard`), so none can take their place.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from msgspec import UNSET

from matrix_pypi_bot.core.events import Checked
from matrix_pypi_bot.core.keyring import Keyring
from matrix_pypi_bot.core.leaves import Leaf, NotALeaf, parsed, read_leaf
from matrix_pypi_bot.core.notes import Checkpoint, InvalidNote, NoteKey, is_signed_by, parse_checkpoint, parse_note
from matrix_pypi_bot.core.rejected import Rejected
from matrix_pypi_bot.core.signers import Keys
from matrix_pypi_bot.core.statements.attestation import Attestation
from matrix_pypi_bot.core.statements.common import Chained
from matrix_pypi_bot.core.statements.keys import Manifest
from matrix_pypi_bot.core.statements.override import Override
from matrix_pypi_bot.core.tlog import CompactTree, full_subtrees
from matrix_pypi_bot.ports import Accepted, Clock, Entries, LogReader, OverrideRow, Peer, Store, Transaction
from matrix_pypi_bot.services.intake import check_any
from matrix_pypi_bot.services.log import LogKeeper
from matrix_pypi_bot.services.resume import ResumeGuard
from matrix_pypi_bot.services.signing import keep_own
from matrix_pypi_bot.wire.names import FileName, ProjectName
from matrix_pypi_bot.wire.problems import clean_line

log = logging.getLogger(__name__)

PAGE: Final = 1_000
_KEPT_AT_ONCE: Final = 50


class OwnCopies:
    """Asks peers for their copies of the log of `org`, whose heads `key` signs.

    `own_keys()` are the keys that sign in our name; `on_restored(statement)` hears of every statement that came back, after the commit.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        reader: LogReader,
        guard: ResumeGuard,
        keeper: LogKeeper,
        org: str,
        key: NoteKey,
        own_keys: Callable[[], Keys],
        on_restored: Callable[[Checked], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._reader = reader
        self._guard = guard
        self._keeper = keeper
        self._org = org
        self._key = key
        self._own_keys = own_keys
        self._on_restored = on_restored

    async def look(self, peer: Peer, keyring: Keyring) -> None:
        """Compares the peer's copy with our log; takes its cosignature, or what we lack. Raises StoreAway."""
        text = await self._reader.note(peer, self._org)
        head = self._signed(text) if isinstance(text, str) else None
        if head is None or not isinstance(text, str):
            return
        if await self._guard.show(head):
            for witness in keyring.witness_keys_of(peer.org):
                if await self._keeper.take_cosignature(text, witness):
                    log.info("own head cosigned", extra={"by": peer.org, "size": head.size})
        elif not self._guard.is_broken and await self._restore(peer, head):
            await self._guard.settle()

    def _signed(self, text: str) -> Checkpoint | None:
        try:
            note = parse_note(text)
            head = parse_checkpoint(note.text)
        except InvalidNote:
            return None
        return head if head.origin == self._key.name and is_signed_by(note, self._key) else None

    async def _restore(self, peer: Peer, head: Checkpoint) -> bool:
        """Puts the missing leaves of `head` back; whether all are there. What was put back is a true part of our log in any case.

        The pages are read twice, because they need not fit into memory: first their hashes, until they are known to bear the head.
        """
        async with self._store.transaction() as tables:
            start = await tables.log.size()
            tree = CompactTree.grown(
                start, [await tables.log.subtree(level, index) for level, index in full_subtrees(0, start)]
            )
        hashes: list[bytes] = []
        while start + len(hashes) < head.size:
            leaves = await self._page(peer, start + len(hashes), head.size)
            if not leaves:
                return False
            for leaf in leaves:
                hashes.append(leaf.hash)
                tree.append(leaf.hash)
        if tree.root() != head.root:
            log.warning(
                "a peer's copy of our log is not what we signed alarm", extra={"peer": peer.org, "size": head.size}
            )
            return False
        done = 0
        while done < len(hashes):
            leaves = await self._page(peer, start + done, head.size)
            if not leaves or [leaf.hash for leaf in leaves] != hashes[done : done + len(leaves)]:
                return False
            while leaves:
                kept = await self._put_back(start + done, leaves[:_KEPT_AT_ONCE])
                if not kept:
                    return False
                done += kept
                leaves = leaves[kept:]
        log.warning("missing leaves of our log were put back", extra={"peer": peer.org, "leaves": len(hashes)})
        return True

    async def _page(self, peer: Peer, start: int, end: int) -> list[Leaf]:
        answer = await self._reader.entries(peer, self._org, start, min(end, start + PAGE))
        leaves: list[Leaf] = []
        for line in answer.lines if isinstance(answer, Entries) else ():
            try:
                leaves.append(read_leaf(line))
            except NotALeaf:
                break
            if len(leaves) % _KEPT_AT_ONCE == 0:
                await asyncio.sleep(0)
        return leaves

    async def _put_back(self, n: int, leaves: list[Leaf]) -> int:
        """How many of the leaves from `n` on were put back; fewer when a manifest is among them, whose keys may have signed the rest.

        0 when the first of them cannot be: the peer's copy of its envelope is spoiled, or something else stands in its place.
        """
        restored: list[Checked] = []
        async with self._store.transaction() as tables:
            if await tables.log.size() != n:
                return 0
            for leaf in leaves:
                try:
                    checked = check_any(parsed(leaf.envelope), self._own_keys())
                except Rejected as rejected:
                    what = {"leaf": n + len(restored), "reason": clean_line(str(rejected))}
                    log.warning("leaf of our log cannot be put back", extra=what)
                    break
                await put_back(tables, checked, org=self._org, now_ms=self._clock.now_ms())
                restored.append(checked)
                if isinstance(checked.statement.predicate, Manifest):
                    break
        for checked in restored:
            self._on_restored(checked)
        return len(restored)


async def put_back(tables: Transaction, checked: Checked, *, org: str, now_ms: int) -> None:
    """Keeps a statement of our own that the database had lost, its leaf, and what else its signing wrote down."""
    statement, predicate = checked.statement, checked.statement.predicate
    subject = statement.subject
    file: FileName | None = None
    seq: int | None = None
    issued_ms = now_ms
    if isinstance(predicate, Chained):
        seq, issued_ms = predicate.seq, int(predicate.issued) * 1_000
    if isinstance(predicate, Manifest):
        seq, issued_ms = predicate.version, int(predicate.issued) * 1_000
    if isinstance(predicate, Attestation):
        file = FileName(subject.name)
        serial = predicate.source.serial
        await tables.ledger.sign_once(checked.key.keyid, file, subject.sha256)
        await tables.ledger.accept(
            Accepted(
                project=ProjectName(predicate.project),
                file=file,
                sha256=subject.sha256,
                size=predicate.size,
                at_ms=issued_ms,
                by="served",
                serial=None if serial is UNSET else serial,
            )
        )
    if isinstance(predicate, Override):
        file = FileName(predicate.file) if predicate.file is not None else None
        await tables.ledger.override(
            OverrideRow(
                statement_id=statement.id,
                project=ProjectName(predicate.project),
                file=file,
                action=predicate.action,
                sha256=subject.sha256 if predicate.action == "approve" else None,
                reason=predicate.reason,
                at_ms=issued_ms,
            )
        )
    await keep_own(tables, checked, org=org, file=file, seq=seq, now_ms=issued_ms)
