"""Other organisations' logs, as services see them: how they are read, and the copies that are kept of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NewType, Protocol

from matrix_pypi_bot.core.events import Checked
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.leaves import Leaf
from matrix_pypi_bot.core.notes import NoteKey
from matrix_pypi_bot.ports.outside import Absent, Away, Wrong
from matrix_pypi_bot.wire.digests import Sha256

if TYPE_CHECKING:
    from matrix_pypi_bot.ports.database import Transaction

CopyId = NewType("CopyId", int)
"""A copy of one log: of one organisation and one log key. With another key another log begins."""


@dataclass(frozen=True, slots=True)
class Peer:
    """An organisation that is pinned, and where its log answers (`""`: nobody knows).

    `configured`: the operator wrote the address himself, so it may be http or private.
    """

    org: str
    url: str = ""
    configured: bool = False


@dataclass(frozen=True, slots=True)
class Entries:
    """Lines of a page of entries, not looked at, and how many bytes they cost."""

    lines: tuple[bytes, ...]
    size_bytes: int


class LogReader(Protocol):
    """Reads what a peer serves under its log's address. Never raises for what a peer does.

    `of` names the organisation whose log is wanted: None for the peer's own, else for the peer's copy of it.
    """

    async def note(self, peer: Peer, of: str | None) -> str | Absent | Away | Wrong:
        """The newest checkpoint, not verified; Absent when the peer has none."""
        ...

    async def entries(self, peer: Peer, of: str | None, start: int, end: int) -> Entries | Away | Wrong:
        """The lines of the leaves from `start` on: one or more, and none from `end` on."""
        ...

    async def list(self, peer: Peer, sha256: Sha256) -> bytes | Absent | Away | Wrong:
        """The list of files with this digest, not looked at."""
        ...


class StatementDoor(Protocol):
    """The one door by which statements of others come in."""

    def check(self, envelope: object) -> Checked:
        """The statement in parsed JSON. Raises Rejected."""
        ...

    async def keep(self, tables: Transaction, checked: Checked, *, via: Literal["room", "log"], at_ms: int) -> bool:
        """Keeps it when the transaction ends; whether it is new."""
        ...

    def tell_of_lie(self, envelope: object) -> None:
        """A statement was turned away (F_CID_DIGEST) that convicts whoever signed it."""
        ...

    def tell(self, checked: Checked) -> None:
        """After the commit, for what was new."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyHead:
    """The newest verified head of a copy: `note` as it is given to others, when its log signed it, how many leaves were taken in."""

    size: int
    root: bytes
    note: str
    signed: Instant
    taken: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """What a log can never mend: two of its heads contradict one another. `fork`: they are of one size, so they prove it to anybody."""

    copy: CopyId
    org: str
    key: NoteKey
    fork: bool
    notes: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Waiting:
    """An envelope that is not in the ledger: not looked at yet (`outcome` ""), or what was wrong with it."""

    n: int
    envelope: bytes
    relayed: bool
    outcome: str


class PeerLogs(Protocol):
    """Copies of logs. Leaves, the tree above them and notes are insert-only, refused otherwise by the database itself.

    New leaves are *staged* until a signed head bears them, and can be dropped until then.
    """

    async def copy(self, org: str, key: NoteKey, at_ms: int) -> CopyId:
        """The copy of that log; begun when there is none."""
        ...

    async def newest_copy(self, org: str) -> CopyId | None:
        """Of the organisation's copies that have a head the one that was begun last."""
        ...

    async def head(self, copy: CopyId) -> CopyHead | None: ...

    async def put_head(self, copy: CopyId, head: CopyHead) -> None: ...

    async def heads(self) -> dict[str, CopyHead]:
        """The head of each organisation's newest copy."""
        ...

    async def end(self, copy: CopyId) -> int:
        """How many leaves are here, staged ones included."""
        ...

    async def stage(self, copy: CopyId, leaves: Sequence[Leaf], *, relayed: bool) -> None:
        """Puts leaves behind those that are here. `relayed`: somebody else than the log itself brought them."""
        ...

    async def settle(self, copy: CopyId, size: int) -> None:
        """The staged leaves below `size` are leaves for ever."""
        ...

    async def drop_staged(self, copy: CopyId) -> bool:
        """Forgets what is staged; whether any of it was relayed."""
        ...

    async def subtree(self, copy: CopyId, level: int, index: int) -> bytes:
        """As `ports.Log.subtree`, staged leaves included."""
        ...

    async def entries(self, copy: CopyId, start: int, end: int) -> list[bytes]:
        """The envelopes of leaves, in order, staged ones left out."""
        ...

    async def waiting(self, copy: CopyId, start: int, end: int, limit: int) -> list[Waiting]:
        """Envelopes of leaves from `start` to `end` (exclusive) that are not in the ledger, in order."""
        ...

    async def uncounted(
        self, copy: CopyId, outcomes: frozenset[str], limit: int, *, start: int = 0, relayed_only: bool = False
    ) -> list[Waiting]:
        """Envelopes from leaf `start` on that were looked at and came out so, in order."""
        ...

    async def kept(self, copy: CopyId, n: int) -> None:
        """The envelope of this leaf is in the ledger."""
        ...

    async def found(self, copy: CopyId, n: int, outcome: str) -> None:
        """What is wrong with the envelope of this leaf."""
        ...

    async def mend(self, copy: CopyId, n: int, envelope: bytes) -> None:
        """Another envelope of the same payload, by the log itself, in place of one that was relayed and does not count."""
        ...

    async def see(self, copy: CopyId, size: int, root: bytes, note: str, at_ms: int) -> None:
        """Keeps a signed note; the first one of a size and root stays."""
        ...

    async def notes(self, copy: CopyId, start: int, end: int) -> list[tuple[int, bytes, str]]:
        """(size, root, note) of the notes seen of sizes from `start` to `end` (exclusive)."""
        ...

    async def largest_note(self, copy: CopyId) -> int:
        """The largest size of which a note was seen; 0 for none."""
        ...

    async def break_off(self, found: Break, at_ms: int) -> bool:
        """Keeps it; whether it is the first one of its kind about the copy."""
        ...

    async def breaks(self) -> list[Break]:
        """All that were found, oldest first."""
        ...

    async def spend(self, org: str, day: int, statements: int, size_bytes: int) -> tuple[int, int]:
        """Adds to what the organisation cost on that day (days since the epoch); the sums. Older days are forgotten."""
        ...

    async def cosigned(self, witness: str, size: int, line: str, at_ms: int) -> None:
        """Keeps the newest cosignature of our own head by this witness."""
        ...

    async def cosignatures(self, size: int) -> dict[str, str]:
        """Witness to line, of our own head of that size."""
        ...
