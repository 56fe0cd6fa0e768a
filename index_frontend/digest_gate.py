"""Lets a file out only if the whole of it has the digest it must have.

What is fetched from elsewhere is nobody's word until it is hashed. A client may get the beginning of a file while the rest is still on
its way, but never its last 64 KiB: so he can receive a transfer that breaks off, and never a complete wrong file.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

TAIL_BYTES: Final = 65_536


class DigestMismatch(Problem):
    """Bytes that are not those the digest names. `actual` is None when they were not read to their end."""

    code = ProblemCode.DIGEST_MISMATCH

    def __init__(self, detail: str, *, expected: Sha256, actual: Sha256 | None, size: int) -> None:
        super().__init__(detail)
        self.expected = expected
        self.actual = actual
        self.size = size


@dataclass(frozen=True, slots=True)
class Verified:
    """That somebody hashed `size` bytes to `sha256`. Minted by `Tally.finish`; a store takes nothing without it."""

    sha256: Sha256
    size: int


def releasable(count: int, total: int | None, tail_bytes: int = TAIL_BYTES) -> int:
    """How many of the first `count` bytes may be let out before all of them are verified.

    `total` is the length of the whole; without it the tail is held back from what has come so far.
    """
    return max(0, min(count, (count if total is None else total) - tail_bytes))


class Tally:
    """Counts and hashes a body as it comes; `released` says how many bytes from its start may be let out now.

    `size` is what the body's length must be, None when nobody told it; then `max_bytes` bounds it. No I/O, no clock; hashing a large
    chunk drops the GIL, so `update` may run in a thread.
    """

    def __init__(self, sha256: Sha256, *, size: int | None, max_bytes: int, tail_bytes: int = TAIL_BYTES) -> None:
        self.sha256 = sha256
        self.size = size
        self.count = 0
        self._max_bytes = max_bytes
        self._tail_bytes = tail_bytes
        self._hash = hashlib.sha256()
        self._verified = False

    @property
    def released(self) -> int:
        """Bytes from the start that may be let out."""
        return self.count if self._verified else releasable(self.count, self.size, self._tail_bytes)

    def expect(self, size: int) -> None:
        """The length that the body declares, when nobody else told one."""
        if self.size is None:
            self.size = size

    def update(self, chunk: bytes | bytearray | memoryview) -> int:
        """Takes the next part; `released` after it. Raises DigestMismatch at the first byte too many, which is not hashed."""
        limit = self._max_bytes if self.size is None else self.size
        if self.count + len(chunk) > limit:
            self.count = limit + 1
            told = f"its size is {limit}" if self.size is not None else f"{limit} bytes are the most that is taken"
            raise self._mismatch(f"the body is longer than it may be: {told}", None)
        self._hash.update(chunk)
        self.count += len(chunk)
        return self.released

    def finish(self) -> Verified:
        """The proof, when nothing more will come; everything is released then. Raises DigestMismatch."""
        actual = Sha256(self._hash.hexdigest())
        if self.size is not None and self.count != self.size:
            raise self._mismatch(f"the body ends after {self.count} of {self.size} bytes", actual)
        if actual != self.sha256:
            raise self._mismatch(f"expected sha256 {self.sha256}, got {actual}", actual)
        self._verified = True
        return Verified(self.sha256, self.count)

    def _mismatch(self, detail: str, actual: Sha256 | None) -> DigestMismatch:
        return DigestMismatch(detail, expected=self.sha256, actual=actual, size=self.count)


class DigestGate:
    """A body passing through: feed it chunks of any size, each call returns the bytes that may go out now.

    The last `tail_bytes` wait for `finish()`. What it holds is at most the tail and one chunk.
    """

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._held = bytearray()
        self._out = 0

    def feed(self, chunk: bytes) -> bytes:
        """What may go out after `chunk` has come in, perhaps nothing. Raises DigestMismatch when the body is too long."""
        self._tally.update(chunk)
        self._held += chunk
        return self._let_out()

    def finish(self) -> bytes:
        """The rest, when the whole is right. Raises DigestMismatch; then the rest must never go out."""
        self._tally.finish()
        return self._let_out()

    def _let_out(self) -> bytes:
        count = self._tally.released - self._out
        out = bytes(self._held[:count])
        del self._held[:count]
        self._out += count
        return out
