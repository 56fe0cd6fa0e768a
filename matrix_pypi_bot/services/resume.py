"""The resume guard: a database from an old backup must not speak as if it were the newest.

What the organisation published last stands in its trust room. Until that was compared with the log in the database, nothing is
signed that could contradict it; when the database is behind it, or beside it, nothing is signed and no mail leaves until a person
has looked. Without the guard a restored backup would look like a forked log, and would be judged as one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from matrix_pypi_bot.core.events import HEAD_EVENT_TYPE, read_head
from matrix_pypi_bot.core.notes import Checkpoint, InvalidNote, NoteKey, is_signed_by, parse_checkpoint, parse_note
from matrix_pypi_bot.core.rejected import Rejected
from matrix_pypi_bot.core.tlog import fold, full_subtrees
from matrix_pypi_bot.ports import Log, Store
from matrix_pypi_bot.services.homeserver import JsonObject
from matrix_pypi_bot.wire.problems import Problem, ProblemCode, clean_line

log = logging.getLogger(__name__)

_HINT: Final = "restore the newest copy of the database; docs/operating.md says what to do when there is none"


class LogBehind(Problem):
    """What was published goes beyond, or against, the log in the database: nothing is signed."""

    code = ProblemCode.STORAGE

    def __init__(self, detail: str) -> None:
        super().__init__(detail, hint=_HINT)


class ResumeGuard:
    """`is_open` once the published head was compared and the database holds all of it. Closed for good by what contradicts it."""

    def __init__(self, *, store: Store, key: NoteKey, bot_mxid: str) -> None:
        self._store = store
        self._key = key
        self._bot = bot_mxid
        self._compared = False
        self._broken: LogBehind | None = None

    @property
    def is_open(self) -> bool:
        """Whether anything may be signed."""
        return self._compared and self._broken is None

    def check(self) -> None:
        """Raises LogBehind when it is known that nothing may be signed. What cannot wait for the comparison asks only this."""
        if self._broken is not None:
            raise self._broken

    def close(self, problem: LogBehind) -> None:
        """Nothing is signed in this life any more."""
        if self._broken is None:
            log.error("log alarm: nothing is signed any more", extra={"reason": problem.detail, "hint": problem.hint})
            self._broken = problem

    async def compare(self, trust_room: Sequence[JsonObject]) -> bool:
        """Compares the head in the trust room's current state with the database; whether anything may be signed. Raises StoreAway.

        A head by another key is no word of this log: that is how an organisation begins a new one.
        """
        published = self._published(trust_room)
        if published is not None:
            try:
                await self._compare(published)
            except LogBehind as problem:
                self.close(problem)
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

    async def _compare(self, published: Checkpoint) -> None:
        async with self._store.transaction() as tables:
            size = await tables.log.size()
            if published.size > size:
                raise LogBehind(
                    f"this organisation published a log of {published.size} statements and the database holds {size} of them: "
                    "it is an old copy, or another bot signs with this key"
                )
            if await root_at(tables.log, published.size) != published.root:
                raise LogBehind(
                    f"the log of {published.size} statements that this organisation published is not the one in the database: "
                    "two copies of it have grown apart, or another bot signs with this key"
                )


async def root_at(tree: Log, size: int) -> bytes:
    """The root over the first `size` leaves."""
    return fold([await tree.subtree(level, index) for level, index in full_subtrees(0, size)])
