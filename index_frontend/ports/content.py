"""Verified files in a store, and files on their way into it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from index_frontend.digest_gate import Verified
from matrix_pypi_bot.wire.cids import Cid
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import Stored
from matrix_pypi_bot.wire.problems import Problem, ProblemCode


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

    async def note_metadata(self, sha256: Sha256, project: str, file: str) -> None:
        """Remembers that a client was given these bytes as the METADATA of the wheel `file`."""
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

    async def metadata_of(self, sha256: Sha256) -> tuple[tuple[str, str], ...]:
        """(project, file) of wheels of which these bytes were given to a client as METADATA, and of which the bot has been told."""
        ...
