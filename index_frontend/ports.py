"""What the frontend's parts promise one another. Handlers and fills are written against these, never against an adapter."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from index_frontend.digest_gate import DigestMismatch, Verified
from index_frontend.serve_plan import Wanted
from matrix_pypi_bot.wire.cids import Cid
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import Decision, Observed, ProjectDocument, Stored
from matrix_pypi_bot.wire.names import FileName, FilePath, ProjectName
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

__all__ = [
    "BlockPlace", "BlockStore", "ContentStore", "Damaged", "DigestMismatch", "Held", "Oracle", "Page", "Part",
    "Source", "SourceAway", "SourceBody", "SourceGone", "SourceWrong", "StorageBroken", "StorageFull",
    "StorageProblem", "Verified", "Wanted", "Writer",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A finished project document as the bot sent it, and how it stands now.

    `raw` is the undecoded body (with `_view`, `_decision`, `_path`, `_url`); `stale` that the last attempt to refresh it failed or that
    the bot is away; `remaining_seconds` how long it may still be called fresh; `hit` that upstream was not asked for this answer.
    """

    document: ProjectDocument
    raw: bytes
    stale: bool
    remaining_seconds: float
    hit: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectNames:
    """The names of all projects that the bot knows, in runs of any length, in order.

    `unchanged` (then there are no runs) when the list still is the one of the revision that was asked about; `revision` None when
    the bot does not tell one.
    """

    revision: str | None
    unchanged: bool
    batches: AsyncIterator[list[str]]


class Oracle(Protocol):
    """The bot's word, and how long it holds."""

    def glance(self, project: ProjectName) -> Page | None:
        """The project's page when it is held, current and fresh, so that nobody need be asked; None when `page` must be."""
        ...

    async def page(self, project: ProjectName, *, refresh: bool = False) -> Page:
        """The project's page. A held, fresh page costs no I/O; concurrent misses ask the bot once.

        `refresh` (a client's `Cache-Control: no-cache`) asks the bot to revalidate upstream, at most once per project per 5 s.
        Raises Problem: 404 unknown project, 403 refused project, 502 upstream wrong, 503 upstream or bot away.
        """
        ...

    async def standing(self, path: FilePath) -> Decision:
        """The decision on the file at `path`, without I/O when a valid page that names it is held.

        Raises Problem: 404 when no page names that path (after one refresh by the bot), 504 when the bot is away and nothing
        valid is held. A refusal is not a Problem: it is the Decision itself.
        """
        ...

    async def standing_of(self, project: ProjectName, file: FileName) -> Decision:
        """The same of a file by its name, for those who have its bytes and know no path. Raises as `standing`."""
        ...

    async def whereabouts(self, project: ProjectName, file: FileName) -> Decision:
        """The same with what pages leave out: the CIDs that were attested. Asks the bot, at most once in 30 s. Raises as `standing`."""
        ...

    def projects(self, revision: str | None) -> AbstractAsyncContextManager[ProjectNames]:
        """The projects known here, streamed from the bot; `revision` is what the asker has. Raises Problem, also while it is read."""
        ...

    async def report_stored(self, stored: Stored) -> bool:
        """True when the bot has the report in its database; False when it cannot be reached now (the caller keeps it)."""
        ...

    async def report_observed(self, observed: Observed) -> None:
        """Tells the bot of wrong bytes; best effort, never raises for an absent bot."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A complete, verified file in the store.

    `path` is None where a store keeps no file of its own; `modified_ns` and `changed_ns` (which nobody can set) are the file's times
    when it was verified: another one, or another size, and it is not taken for verified any more.
    """

    sha256: Sha256
    size: int
    cid: Cid
    path: Path | None = None
    modified_ns: int = 0
    changed_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPlace:
    """Where a block lies: in the file `sha256`, `size` bytes from `offset` on; for a node, which lies beside it, `offset` is None."""

    cid: Cid
    sha256: Sha256
    size: int
    offset: int | None


class StorageProblem(Problem):
    """The store cannot do it. Clients are served all the same, from upstream directly."""

    code = ProblemCode.STORAGE


class StorageFull(StorageProblem):
    """No room: the disk or a quota is full."""


class StorageBroken(StorageProblem):
    """The disk or the folder refuses: permissions, a read-only mount, I/O errors."""


class Damaged(StorageProblem):
    """A held file is not what was stored: gone, of another size, or touched since. `ContentStore.recheck` settles it."""


class Part(Protocol):
    """The growing bytes of a transfer, open for reading until closed; also after the transfer was committed or thrown away."""

    @property
    def total(self) -> int | None:
        """Length of the whole, once its writer has told it."""
        ...

    def length(self) -> int:
        """Bytes there so far. Never shrinks."""
        ...

    def is_gone(self) -> bool:
        """Whether it was thrown away unfinished."""
        ...

    def became(self, held: Held) -> bool:
        """Whether these very bytes are the file that is held now."""
        ...

    async def read(self, start: int, count: int) -> bytes:
        """At most `count` bytes from `start`; fewer only at the end of what is there."""
        ...

    def close(self) -> None:
        """Reads no more. Idempotent."""
        ...


class Writer(Protocol):
    """One object on its way into the store. No other process writes it meanwhile; nobody finds it before `commit` has begun.

    Leaving the block of `ContentStore.writer` without `commit` throws it away.
    """

    size: int

    def part(self) -> Part:
        """The bytes written since the last `restart`, for reading; the caller closes it."""
        ...

    async def expect(self, total: int) -> None:
        """Tells other processes how long the whole will be."""
        ...

    async def write(self, data: bytes) -> None:
        """Appends; readers of the part can see the bytes when it returns. Raises StorageFull or StorageBroken."""
        ...

    async def restart(self) -> None:
        """Throws away what was written, and begins anew with another part."""
        ...

    async def commit(self, verified: Verified, whole: bytes | bytearray | None = None) -> Held:
        """Durable and visible: fsynced, its CID known, renamed into place, its row written. `whole` is the body if none was written.

        Raises DigestMismatch when `verified` is about other bytes, StorageFull or StorageBroken; then nothing is kept.
        """
        ...


class ContentStore(Protocol):
    """Complete files by sha256. Whatever happens in between, a file that is found here was verified and is whole."""

    def held(self, sha256: Sha256) -> Held | None:
        """The file, when this process knows it. No I/O."""
        ...

    async def find(self, sha256: Sha256) -> Held | None:
        """The file, whichever process stored it. No I/O when this one knows it; one stat when nobody has it."""
        ...

    def open(self, held: Held) -> BinaryIO:
        """The file, open for reading, as it was when verified. Raises Damaged when it is not, or is gone."""
        ...

    def used(self, sha256: Sha256) -> None:
        """A client is given the file from elsewhere, from memory: what is used stays longest. No I/O. `open` is a use, too."""
        ...

    async def recheck(self, sha256: Sha256) -> Held | None:
        """The file, if hashing it anew finds it right; else it is removed, and None."""
        ...

    def writer(self, sha256: Sha256) -> AbstractAsyncContextManager[Writer | Held | None]:
        """A place to write it to; the file itself, if it is here after all; or None while another process writes it.

        Raises StorageFull or StorageBroken.
        """
        ...

    def follow(self, sha256: Sha256) -> Part | None:
        """What another process has written of it so far; the caller closes it. None when there is nothing yet, or no more."""
        ...

    async def note_wrong(self, sha256: Sha256) -> None:
        """Remembers for a minute, for all processes, that a transfer of this object turned out wrong. Best effort."""
        ...

    async def was_wrong(self, sha256: Sha256) -> bool:
        """Whether a transfer of it turned out wrong within the last minute."""
        ...

    async def note_wanted(self, project: str, file: str, sha256: Sha256) -> None:
        """Remembers that a fetch begins because a client asked for this file, until `note_asked` or `forget_wanted`."""
        ...

    async def forget_wanted(self, project: str, file: str, sha256: Sha256) -> None:
        """The fetch came to nothing."""
        ...

    async def wanted(self, limit: int = 500) -> list[tuple[str, str, Sha256]]:
        """(project, file, sha256) of fetches that are under way, or whose process died before it could note their end."""
        ...

    async def note_asked(self, stored: Stored) -> bool:
        """Remembers, durably, that a client was given this file, until `reported`. False when that had been noted before."""
        ...

    async def unreported(self, limit: int = 500) -> list[Stored]:
        """What the bot has not been told yet, oldest first."""
        ...

    async def reported(self, stored: Stored) -> None:
        """The bot has it in its database."""
        ...


class BlockStore(Protocol):
    """Files as IPFS content: every leaf and node of every held file, by CID. Nothing is fetched for anybody."""

    async def places_of(self, cid: Cid) -> tuple[BlockPlace, ...]:
        """Where the block lies, in some of the files that have it (at most 16); empty when none is held."""
        ...

    async def read_block(self, place: BlockPlace) -> bytes:
        """The block's bytes. Raises Damaged when the file is not what was stored."""
        ...

    async def open_leaf(self, place: BlockPlace) -> BinaryIO | None:
        """The file in which the leaf lies from `place.offset` on, as it was when verified: to be sent without being read here.

        None when there is no such file: the block is a node, or the store keeps its files in another way. Raises Damaged.
        """
        ...

    async def askers_of(self, sha256: Sha256) -> tuple[tuple[str, str], ...]:
        """(project, file) of every file with these bytes that a client was given and that the bot has been told of."""
        ...


class SourceGone(Problem):
    """The source says that it does not have the object: 404 or 410."""

    code = ProblemCode.FILE_UNAVAILABLE


class SourceAway(Problem):
    """The source cannot be asked now, or broke off: refused, timed out, 5xx, 429."""

    code = ProblemCode.FILE_UNAVAILABLE


class SourceWrong(Problem):
    """The source answered with something that cannot be the object, or may not be asked."""

    code = ProblemCode.UPSTREAM_WRONG


class Source(Protocol):
    """Somewhere bytes come from. They are nobody's word until hashed."""

    name: str

    def ways(self, wanted: Wanted) -> tuple[Wanted, ...]:
        """What to `fetch`, one after the other until one is right: `wanted` once for each of its addresses; empty when it has none."""
        ...

    def fetch(self, wanted: Wanted, start: int = 0) -> AbstractAsyncContextManager[SourceBody]:
        """The body from byte `start` on; `wanted` is one of `ways`. Raises SourceGone, SourceAway or SourceWrong."""
        ...


class SourceBody(Protocol):
    """An open transfer."""

    @property
    def size(self) -> int | None:
        """The whole object's length as the source declares it, None when it does not."""
        ...

    @property
    def sender(self) -> str:
        """Who sends it, as answers name him: the source's name, or of several the one that does."""
        ...

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """Non-empty chunks of any length. Raises SourceAway when the transfer breaks off, SourceWrong."""
        ...
