"""What a storage backend is. A plug-in needs nothing of this project but this module.

A backend keeps whole files by what they are (`ContentId`), or gives single IPFS blocks, or both. It is trusted with nothing: all it is
given and all it gives is checked around it (`storage.verified`), so it need not hash. It may be slow, full, or away; it says which.

    class Backend(StorageBackend):            # required: open, close, stat, read, health
        async def put(self, content, chunks): # optional: whatever is overridden is a capability
            ...

Register it as an entry point of the group `matrix_pypi.storage`. Its value is called, without I/O, with the backend's name in the
configuration and the mapping under that name without `type`, in which paths have been made absolute (`folder`, `path`, `file` and keys
that end in `_` and one of these). It returns the backend, or raises `Misconfigured`. `docs/storage-backends.md` walks through one.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from index_frontend.ports import StorageFull, StorageProblem
from matrix_pypi_bot.wire.cids import Cid
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.problems import ProblemCode

__all__ = [
    "API_VERSION", "ENTRY_POINTS", "MAX_CHUNK_BYTES", "BackendProblem", "Capability", "ContentId", "Health", "Misconfigured",
    "NotFound", "Stat", "StorageBackend", "StorageFull", "StorageProblem", "Unauthorised", "Unavailable", "Unsupported", "Usage",
    "WrongContent",
]  # fmt: skip

API_VERSION: Final = 1
ENTRY_POINTS: Final = "matrix_pypi.storage"
MAX_CHUNK_BYTES: Final = 1 << 20
"""No chunk that goes into or comes out of a backend is longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentId:
    """A file by what it is: the sha256 of its bytes, their number, and its CID in the profile `unixfs-v1-2025`."""

    sha256: Sha256
    size: int
    cid: Cid


@dataclass(frozen=True, slots=True, kw_only=True)
class Stat:
    """A complete file that a backend holds. `pin` is the name it is pinned under, None when it is not pinned."""

    content: ContentId
    pin: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a backend holds: bytes as far as it can tell, files and pinned ones (None: not counted), and its own limit in bytes."""

    bytes: int
    files: int | None = None
    limit_bytes: int | None = None
    pinned_files: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How a backend is. `detail` is one line for an operator: a version, or what is wrong and what to do about it."""

    state: Literal["ok", "degraded", "down"]
    detail: str = ""


class Capability(enum.Enum):
    """What not every backend can. The value is the method whose being overridden tells."""

    PUT = "put"
    DELETE = "delete"
    BLOCKS = "get_block"
    PIN = "pin"
    LIST = "list"
    USAGE = "usage"


class BackendProblem(StorageProblem):
    """Something a backend says or does. `backend` is its name; `retryable` whether the same call may succeed later."""

    retryable: ClassVar[bool] = False

    def __init__(self, detail: str, *, backend: str, hint: str = "") -> None:
        super().__init__(f"{backend}: {detail}", hint=hint)
        self.backend = backend


class NotFound(BackendProblem):
    """It works, and does not have what was asked for. Never said of a backend that could not be asked."""

    code = ProblemCode.NOT_FOUND


class Unavailable(BackendProblem):
    """It could not be asked, broke off, was too slow, or answered nonsense."""

    retryable = True


class Unauthorised(BackendProblem):
    """It is there and does not accept our token, or not for this."""


class WrongContent(BackendProblem):
    """Bytes that are not what their name says: given by it, or given to it."""

    code = ProblemCode.DIGEST_MISMATCH


class Unsupported(BackendProblem):
    """It cannot do this at all; see `StorageBackend.capabilities`."""


class Misconfigured(BackendProblem):
    """Its section of the configuration makes no sense, or no such backend is installed. `key` is the one that is wrong."""

    code = ProblemCode.CONFIGURATION

    def __init__(self, detail: str, *, backend: str, key: str = "", hint: str = "") -> None:
        super().__init__(detail, backend=backend, hint=hint)
        self.key = key


class StorageBackend(abc.ABC):
    """A place for content. Make it without I/O, `open` it in the loop that uses it, `close` it there; both are idempotent.

    Calls may run side by side. Every call ends in bounded time and may raise Unavailable or Unauthorised; being cancelled leaves
    nothing half done that anybody could see. Methods that are not overridden raise Unsupported.
    """

    api_version: ClassVar[int] = API_VERSION

    def __init__(self, name: str) -> None:
        self.name = name

    # Required ----------------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    async def open(self) -> None:
        """Ready for calls when it returns. A backend whose other end is away opens all the same, and is `down`."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Gives back what it holds. After it every other call raises Unavailable."""

    @abc.abstractmethod
    async def stat(self, content: ContentId) -> Stat | None:
        """The file if it is held here, whole; None if not. Fetches nothing from anywhere."""

    @abc.abstractmethod
    def read(self, content: ContentId) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The file's bytes in order, in chunks of 1 byte to 1 MiB. Raises NotFound on entering; Unavailable also between chunks."""

    @abc.abstractmethod
    async def health(self) -> Health:
        """Within two seconds. Never raises."""

    # Capabilities ------------------------------------------------------------------------------------------------------

    async def put(self, content: ContentId, chunks: AsyncIterator[bytes]) -> None:
        """Keeps the file, durably, all or nothing; holding it already is success, and then `chunks` need not be read.

        Whatever `chunks` raises goes through, and nothing is kept. Raises StorageFull when it has no room.
        """
        raise Unsupported("cannot store", backend=self.name)

    async def delete(self, content: ContentId) -> bool:
        """Whether it was held and is gone now. A pinned file is held until it is unpinned: False."""
        raise Unsupported("cannot delete", backend=self.name)

    async def get_block(self, cid: Cid) -> bytes:
        """A leaf or a node of any file that it holds or can get; at most 2 MiB. Raises NotFound."""
        raise Unsupported("gives no blocks", backend=self.name)

    async def pin(self, content: ContentId, name: str) -> None:
        """Never evicted from now on. Raises NotFound. `unpin` comes with it."""
        raise Unsupported("cannot pin", backend=self.name)

    async def unpin(self, content: ContentId) -> None:
        """May be evicted again. No error when it was not pinned or is not held."""
        raise Unsupported("cannot pin", backend=self.name)

    def list(self, *, after: Sha256 | None = None) -> AsyncIterator[Stat]:
        """Every file held, by ascending sha256, from the one behind `after` on. What comes or goes meanwhile may be there or not."""
        raise Unsupported("cannot list what it holds", backend=self.name)

    async def usage(self) -> Usage:
        """How much it holds."""
        raise Unsupported("does not tell how much it holds", backend=self.name)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it overrides: it cannot claim what it does not have."""
        kind = type(self)
        return frozenset(c for c in Capability if getattr(kind, c.value) is not getattr(StorageBackend, c.value))
