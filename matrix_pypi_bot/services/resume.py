"""The resume guard: a database from an old backup must not speak as if it were the newest.

What the organisation published last stands in its trust room, and at the peers that copy its log. Until that was compared with the log
in the database, nothing is signed that could contradict it. When the database is behind it, nothing is signed and no mail leaves until
the missing leaves are back (`own_copies`); when it is beside it, until a person has looked. Without the guard a restored backup would
look like a forked log, and would be judged as one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, Protocol

from matrix_pypi_bot.core.events import HEAD_EVENT_TYPE, read_head
from matrix_pypi_bot.core.notes import Checkpoint, InvalidNote, NoteKey, is_signed_by, parse_checkpoint, parse_note
from matrix_pypi_bot.core.rejected import Rejected
from matrix_pypi_bot.core.tlog import fold, full_subtrees
from matrix_pypi_bot.ports import Store, Transaction
from matrix_pypi_bot.services.homeserver import JsonObject
from matrix_pypi_bot.wire.problems import Problem, ProblemCode, clean_line

log = logging.getLogger(__name__)

_HINT: Final = (
    "peers that copy the log give the missing part back; without any restore the newest database, see docs/operating.md"
)


class LogBehind(Problem):
    """What was published goes beyond, or against, the log in the database: nothing is signed."""

    code = ProblemCode.STORAGE

    def __init__(self, detail: str) -> None:
        super().__init__(detail, hint=_HINT)


class ResumeGuard:
    """`is_open` once the published head was compared, the peers were asked, and the database holds all of what they show.

    Closed for good by what contradicts the database, and by what goes beyond it until that is there again (`missing`).
    `asks_peers`: somebody will call `peers_were_asked`.
    """

    def __init__(self, *, store: Store, key: NoteKey, bot_mxid: str, asks_peers: bool = False) -> None:
        self.missing: Checkpoint | None = None
        self._store = store
        self._key = key
        self._bot = bot_mxid
        self._compared = False
        self._peers_asked = not asks_peers
        self._broken: LogBehind | None = None

    @property
    def is_open(self) -> bool:
        """Whether anything may be signed."""
        return self._compared and self._peers_asked and self._broken is None and self.missing is None

    @property
    def is_broken(self) -> bool:
        """Whether it is closed for good: nothing that a peer has helps."""
        return self._broken is not None

    def check(self) -> None:
        """Raises LogBehind when it is known that nothing may be signed. What cannot wait for the comparison asks only this."""
        if self._broken is not None:
            raise self._broken
        if self.missing is not None:
            raise _behind(self.missing)

    def close(self, problem: LogBehind) -> None:
        """Nothing is signed in this life any more."""
        if self._broken is None:
            log.error("log alarm: nothing is signed any more", extra={"reason": problem.detail, "hint": problem.hint})
            self._broken = problem

    def peers_were_asked(self) -> None:
        """Every peer was asked for its copy of our log, whether it answered or not."""
        self._peers_asked = True

    async def show(self, head: Checkpoint) -> bool:
        """Compares a head that our log key signed, wherever it was found; whether the database holds all of it. Raises StoreAway."""
        async with self._store.transaction() as tables:
            size, held = await tables.log.size(), await self._holds(tables, head)
        if held is False:
            self.close(_beside(head))
        if held is None and (self.missing is None or self.missing.size < head.size):
            problem = _behind(head)
            what = {"reason": problem.detail, "held": size, "hint": problem.hint}
            log.error("log alarm: nothing is signed any more", extra=what)
            self.missing = head
        return held is True

    async def settle(self) -> bool:
        """Looks whether what was missing is here; whether anything may be signed. Raises StoreAway."""
        if self.missing is not None and await self.show(self.missing):
            log.warning("the log is whole again", extra={"size": self.missing.size})
            self.missing = None
        return self.is_open

    async def compare(self, trust_room: Sequence[JsonObject]) -> bool:
        """Compares the head in the trust room's current state with the database; whether anything may be signed. Raises StoreAway.

        A head by another key is no word of this log: that is how an organisation begins a new one.
        """
        published = self._published(trust_room)
        if published is not None:
            await self.show(published)
        self._compared = True
        return self.is_open

    def _published(self, trust_room: Sequence[JsonObject]) -> Checkpoint | None:
        for event in trust_room:
            if event.get("type") != HEAD_EVENT_TYPE or event.get("state_key") != self._bot:
                continue
            try:
                note = parse_note(read_head(event))
                checkpoint = parse_checkpoint(note.text)
            except (Rejected, InvalidNote) as error:
                log.warning("published head cannot be read alarm", extra={"reason": clean_line(str(error))})
                return None
            if is_signed_by(note, self._key) and checkpoint.origin == self._key.name:
                return checkpoint
            log.warning("published head is signed by another key", extra={"size": checkpoint.size})
        return None

    async def _holds(self, tables: Transaction, head: Checkpoint) -> bool | None:
        """Whether the log in the database is, or grew from, the one of that head; None when it is too short to tell."""
        if head.size > await tables.log.size():
            return None
        return await root_at(tables.log, head.size) == head.root


def _behind(head: Checkpoint) -> LogBehind:
    return LogBehind(
        f"this organisation published a log of {head.size} statements and the database holds fewer of them: "
        "it is an old copy, or another bot signs with this key"
    )


def _beside(head: Checkpoint) -> LogBehind:
    return LogBehind(
        f"the log of {head.size} statements that this organisation published is not the one in the database: "
        "two copies of it have grown apart, or another bot signs with this key"
    )


class Subtrees(Protocol):
    """A tree that keeps its full subtrees; `ports.Log` is one."""

    async def subtree(self, level: int, index: int) -> bytes:
        """See `ports.Log.subtree`."""
        ...


async def root_at(tree: Subtrees, size: int) -> bytes:
    """The root over the first `size` leaves."""
    return fold([await tree.subtree(level, index) for level, index in full_subtrees(0, size)])
