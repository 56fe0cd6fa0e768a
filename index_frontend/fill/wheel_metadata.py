"""METADATA out of a wheel that is held already: a `ports.Source` that costs no request. A wheel is a ZIP file of somebody's making."""

from __future__ import annotations

import asyncio
import re
import struct
import zipfile
import zlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import BinaryIO, Final

from index_frontend.ports import ContentStore, SourceGone, StorageProblem, Wanted
from matrix_pypi_bot.wire.digests import sha256_of

MAX_DIRECTORY_BYTES: Final = 8 << 20
"""The longest list of members that is read; wheels with some ten thousand files have 2 MiB."""

_METADATA: Final = re.compile(r"[^/]+\.dist-info/METADATA")
_END: Final = struct.Struct("<4s4H2LH")
_END_MAGIC: Final = b"PK\x05\x06"
_ZIP64_MAGIC: Final = b"PK\x06\x07"
_ZIP64_BYTES: Final = 20
_ENCRYPTED: Final = 0x1
_PLAIN_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may ask for gigabytes to decompress


class WheelMetadata:
    """Gives the bytes only if they have the digest wanted: an index may advertise others, and then upstream has them."""

    name = "cache"

    def __init__(self, store: ContentStore) -> None:
        self._store = store

    def ways(self, wanted: Wanted) -> tuple[Wanted, ...]:
        """One, if there is a wheel to look into."""
        return (wanted,) if wanted.wheel is not None else ()

    @asynccontextmanager
    async def fetch(self, wanted: Wanted, start: int = 0) -> AsyncIterator[Bytes]:
        """Raises SourceGone when the wheel is not held or does not have them."""
        assert wanted.wheel is not None
        held = await self._store.find(wanted.wheel)
        data = None
        if held is not None:
            try:
                data = await asyncio.to_thread(_read, self._store.open(held), wanted.max_bytes)
            except StorageProblem as problem:
                raise SourceGone(problem.detail) from problem
        if data is None or sha256_of(data) != wanted.sha256:
            raise SourceGone(f"matrix-pypi: {wanted.name} cannot be taken out of a file that is here")
        yield Bytes(data, start, self.name)


@dataclass(frozen=True, slots=True)
class Bytes:
    """A `ports.SourceBody` that is here already."""

    data: bytes
    start: int
    sender: str

    @property
    def size(self) -> int:
        """Length of the whole."""
        return len(self.data)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """All at once."""
        yield self.data[self.start :]


def metadata_of(file: BinaryIO, max_bytes: int) -> bytes | None:
    """The bytes of the one `*.dist-info/METADATA` in a wheel; None for everything that is not plainly that.

    That is: no ZIP, too long a directory, none or two METADATA, encrypted, compressed in a rare way, longer than `max_bytes`, damaged.
    """
    try:
        if not _is_small_enough(file):
            return None
        with zipfile.ZipFile(file) as archive:
            members = [member for member in archive.infolist() if _METADATA.fullmatch(member.filename)]
            if len(members) != 1 or not _is_plain(members[0], max_bytes):
                return None
            with archive.open(members[0]) as member:
                data = member.read(max_bytes + 1)
    # zipfile raises whatever its parsing runs into
    except (
        zipfile.BadZipFile,
        OSError,
        ValueError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        struct.error,
        zlib.error,
    ):
        return None
    return data if len(data) <= max_bytes else None


def _read(file: BinaryIO, max_bytes: int) -> bytes | None:
    with file:
        return metadata_of(file, max_bytes)


def _is_plain(member: zipfile.ZipInfo, max_bytes: int) -> bool:
    return (
        member.file_size <= max_bytes and not member.flag_bits & _ENCRYPTED and member.compress_type in _PLAIN_METHODS
    )


def _is_small_enough(file: BinaryIO) -> bool:
    """Whether the directory at the end of the archive may be read: its length as the archive tells it, ZIP64 not at all."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _END.size - 0xFFFF))
    tail = file.read()
    found = tail.rfind(_END_MAGIC)
    if found < 0 or len(tail) - found < _END.size:
        return False
    if tail[max(0, found - _ZIP64_BYTES) : found].startswith(_ZIP64_MAGIC):  # it would tell another length
        return False
    return bool(_END.unpack_from(tail, found)[5] <= MAX_DIRECTORY_BYTES)
