"""sha256 digests: the only statement about bytes that decides anything here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Final, NewType

from matrix_pypi_bot.wire.problems import Problem, ProblemCode

Sha256 = NewType("Sha256", str)
"""A sha256 as 64 lower-case hex digits. Minted by the functions of this module."""

_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


class InvalidDigest(Problem, ValueError):
    """A text that is not 64 lower-case hex digits."""

    code = ProblemCode.BAD_REQUEST


def parse_sha256(text: str) -> Sha256:
    """`text` as a digest. Raises InvalidDigest for anything but exactly 64 lower-case hex digits."""
    if not _SHA256.fullmatch(text):
        raise InvalidDigest(f"{text[:80]!a} is not a sha256 of 64 lower-case hex digits")
    return Sha256(text)


def sha256_of(data: bytes) -> Sha256:
    """The digest of `data`."""
    return Sha256(hashlib.sha256(data).hexdigest())


def sha256_of_chunks(chunks: Iterable[bytes]) -> Sha256:
    """The digest of all chunks, one after the other, in constant memory."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return Sha256(digest.hexdigest())
