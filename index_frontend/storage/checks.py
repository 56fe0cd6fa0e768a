"""What `storage.verified` does with bytes on their way.

They are hashed beside the event loop, and let out only as far as they are known to be right.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from typing import Final, Protocol

from index_frontend.dag.blocks import LEAF_BYTES, BadBlock, Link, children, root_of
from index_frontend.digest_gate import releasable
from index_frontend.storage.api import MAX_CHUNK_BYTES, BackendProblem, ContentId, Unavailable, WrongContent
from matrix_pypi_bot.wire.cids import CidBuilder, raw_cid, split_cid
from matrix_pypi_bot.wire.digests import Sha256, sha256_of

THREAD_BYTES: Final = 64 << 10
"""From this length on, hashing takes longer than handing it to a thread, which runs beside the loop."""

GetBlock = Callable[..., Awaitable[bytes]]


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...


class Hashing:
    """Feeds all of `hashes` with what comes, in threads of their own, while the next part is on its way."""

    def __init__(self, *hashes: _Hash) -> None:
        self._hashes = hashes
        self._running: tuple[asyncio.Future[None], ...] = ()

    async def update(self, data: bytes) -> None:
        """Returns as soon as hashing it has begun."""
        await self.settle()
        if len(data) < THREAD_BYTES:
            for one in self._hashes:
                one.update(data)
        else:
            loop = asyncio.get_running_loop()
            self._running = tuple(loop.run_in_executor(None, one.update, data) for one in self._hashes)

    async def settle(self) -> None:
        """Everything that came has been hashed."""
        running, self._running = self._running, ()
        for future in running:
            await future


class _Tail:
    """Keeps the end of a file of `size` bytes back."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self._free = releasable(size, size)
        self._held = bytearray()

    def free(self, data: bytes) -> bytes:
        """As much of `data` as may go out at once."""
        count = max(0, min(self._free - self.count, len(data)))
        self.count += len(data)
        self._held += data[count:]
        return data if count == len(data) else data[:count]

    def rest(self) -> bytes:
        """What was kept back."""
        return bytes(self._held)


async def checked_whole(
    content: ContentId, source: AsyncIterator[bytes], *, backend: str
) -> AsyncGenerator[bytes, None]:
    """The file as it comes, but for its last 64 KiB, which wait for the sha256. Raises WrongContent, Unavailable when it is cut off."""
    digest, tail = hashlib.sha256(), _Tail(content.size)
    hashing = Hashing(digest)
    async for chunk in source:
        for piece in _pieces(chunk, backend):
            _refuse_longer(tail.count + len(piece), content, backend)
            await hashing.update(piece)
            if out := tail.free(piece):
                yield out
    await _finish(content, tail, hashing, digest.hexdigest, backend)
    if rest := tail.rest():
        yield rest


async def checked_blocks(
    content: ContentId, source: AsyncIterator[bytes], get_block: GetBlock, *, backend: str
) -> AsyncGenerator[bytes, None]:
    """The same, each leaf held against its CID before a byte of it goes out; `checked_whole` when the backend has no root node."""
    try:
        root = root_of(content.cid, content.size)
        node = b"" if root.level == 0 else await get_block(root.cid)
    except BadBlock as error:
        raise WrongContent(error.detail, backend=backend) from error
    except WrongContent:
        raise
    except BackendProblem:
        async for piece in checked_whole(content, source, backend=backend):
            yield piece
        return
    digest, tail = hashlib.sha256(), _Tail(content.size)
    hashing = Hashing(digest)
    leaves = _leaves(root, node, get_block, backend)
    async for leaf, data in _leafwise(leaves, source, content, backend):
        await hashing.update(data)
        if await _sha256_of(data) != split_cid(leaf.cid).sha256:
            raise WrongContent(f"the block from byte {tail.count} on is not {leaf.cid}", backend=backend)
        if out := tail.free(data):
            yield out
    await _finish(content, tail, hashing, digest.hexdigest, backend)
    if rest := tail.rest():
        yield rest


async def _finish(content: ContentId, tail: _Tail, hashing: Hashing, digest: Callable[[], str], backend: str) -> None:
    if tail.count != content.size:
        raise Unavailable(f"broke off after {tail.count} of {content.size} bytes", backend=backend)
    await hashing.settle()
    if (actual := digest()) != content.sha256:
        raise WrongContent(f"expected sha256 {content.sha256}, got {actual}", backend=backend)


async def _leaves(root: Link, data: bytes, get_block: GetBlock, backend: str) -> AsyncGenerator[Link, None]:
    """The leaves below a node in order; other nodes are fetched when their leaves are due."""
    if root.level == 0:
        yield root
        return
    try:
        below = await asyncio.to_thread(children, root, data)  # a full node takes 15 ms to read
    except BadBlock as error:
        raise WrongContent(error.detail, backend=backend) from error
    for link in below:
        if link.level == 0:
            yield link
        else:
            async for leaf in _leaves(link, await get_block(link.cid), get_block, backend):
                yield leaf


async def _leafwise(
    leaves: AsyncIterator[Link], source: AsyncIterator[bytes], content: ContentId, backend: str
) -> AsyncGenerator[tuple[Link, bytes], None]:
    """The stream cut as its leaves are. A leaf that is cut off is not given."""
    leaf = await anext(leaves)
    pieces: list[bytes] = []
    count = total = 0
    async for chunk in source:
        for piece in _pieces(chunk, backend):
            total += len(piece)
            _refuse_longer(total, content, backend)
            rest = piece
            while len(rest) >= leaf.size - count and rest:
                cut = leaf.size - count
                yield leaf, b"".join((*pieces, rest[:cut])) if pieces or cut < len(rest) else rest
                rest, pieces, count = rest[cut:], [], 0
                leaf = await anext(leaves, leaf)
            if rest:
                pieces.append(rest)
                count += len(rest)


class Incoming:
    """A file on its way to a backend, which is not given the end of it before all of it is known to be right.

    `failure` is what the source raised, or WrongContent. `is_complete`: everything was right; the backend has it, or could have.
    """

    def __init__(self, content: ContentId, chunks: AsyncIterator[bytes], *, backend: str) -> None:
        self.failure: Exception | None = None
        self.is_complete = False
        self._content = content
        self._chunks = chunks
        self._backend = backend
        self._digest, self._cid = hashlib.sha256(), CidBuilder()
        self._hashing = Hashing(self._digest, self._cid)
        self._count = 0
        self._ready: deque[bytes] = deque()
        self._last = b""
        self._is_over = False

    def __aiter__(self) -> Incoming:
        """Itself: there is one source."""
        return self

    async def __anext__(self) -> bytes:
        """The next chunk, of 1 byte to 1 MiB."""
        if self.failure is not None:
            raise self.failure
        if self._is_over:
            raise Unavailable("reads on after its call has ended", backend=self._backend)
        try:
            while not self._ready and not self.is_complete:
                await self._advance()
        except Exception as error:
            self.failure = error
            raise
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.popleft()

    def close(self) -> None:
        """The backend has returned: whatever of it still reads gets nothing."""
        self._is_over = True

    async def _advance(self) -> None:
        chunk = await anext(self._chunks, None)
        if chunk is None:
            await self._finish()
            return
        for piece in _pieces(chunk, "what is stored"):
            self._count += len(piece)
            if self._count > self._content.size:
                raise self._wrong(f"it is longer than {self._content.size} bytes")
            await self._hashing.update(piece)
            if self._last:
                self._ready.append(self._last)
            self._last = piece

    async def _finish(self) -> None:
        await self._hashing.settle()
        content = self._content
        if self._count != content.size:
            raise self._wrong(f"it has {self._count} bytes, not {content.size}")
        if (sha256 := self._digest.hexdigest()) != content.sha256:
            raise self._wrong(f"its sha256 is {sha256}, not {content.sha256}")
        if (cid := self._cid.finish()) != content.cid:
            raise self._wrong(f"its CID is {cid}, not {content.cid}")
        if self._last:
            self._ready.append(self._last)
        self.is_complete = True

    def _wrong(self, detail: str) -> WrongContent:
        return WrongContent(f"what was to be stored is not what it is called: {detail}", backend=self._backend)


def refuse_impossible(content: ContentId, *, backend: str) -> None:
    """Raises WrongContent when no file can have this sha256, size and CID at once, as far as that is seen without the file."""
    try:
        root_of(content.cid, content.size)
    except BadBlock as error:
        raise WrongContent(error.detail, backend=backend) from error
    if content.size <= LEAF_BYTES and content.cid != raw_cid(content.sha256):
        raise WrongContent(f"a file of {content.size} bytes with another CID than {content.cid}", backend=backend)
    if content.size == 0 and content.sha256 != sha256_of(b""):
        raise WrongContent("an empty file with another sha256 than that of nothing", backend=backend)


def _refuse_longer(count: int, content: ContentId, backend: str) -> None:
    if count > content.size:
        raise WrongContent(f"gave more than the {content.size} bytes that the file has", backend=backend)


def _pieces(chunk: object, backend: str) -> Iterator[bytes]:
    """`chunk` in pieces of 1 byte to 1 MiB."""
    if not isinstance(chunk, bytes | bytearray | memoryview):
        raise Unavailable(f"gave {type(chunk).__name__} for bytes", backend=backend)
    data = bytes(chunk)
    if len(data) <= MAX_CHUNK_BYTES:
        if data:
            yield data
        return
    for start in range(0, len(data), MAX_CHUNK_BYTES):
        yield data[start : start + MAX_CHUNK_BYTES]


async def _sha256_of(data: bytes) -> Sha256:
    if len(data) < THREAD_BYTES:
        return sha256_of(data)
    return await asyncio.get_running_loop().run_in_executor(None, sha256_of, data)
