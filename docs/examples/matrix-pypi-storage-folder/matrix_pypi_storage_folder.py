"""A storage backend for Matrix-PyPI: every file in one plain folder, such as a mounted share."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

from index_frontend.storage.api import (
    MAX_CHUNK_BYTES,
    ContentId,
    Health,
    Misconfigured,
    NotFound,
    Stat,
    StorageBackend,
    StorageFull,
    Usage,
)
from matrix_pypi_bot.wire.cids import InvalidCid, parse_cid
from matrix_pypi_bot.wire.digests import InvalidDigest, Sha256, parse_sha256

PART = ".part"
OLD_SECONDS = 86_400


def backend(name: str, section: Mapping[str, Any]) -> "FolderBackend":
    """What the entry point names: makes the backend `name` of its section in the configuration, without I/O."""
    unknown = [key for key in section if key != "folder"]
    if unknown:
        raise Misconfigured(f"unknown key {unknown[0]}", backend=name, key=unknown[0], hint="the only one is folder")
    if not isinstance(section.get("folder"), str):
        raise Misconfigured("the key folder is missing: where the files are", backend=name)
    return FolderBackend(name, Path(section["folder"]))  # absolute already


class FolderBackend(StorageBackend):
    """`<sha256>.<cid>` is a complete file; `….part` is one on its way, which nobody sees."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name)
        self._folder = folder

    async def open(self) -> None:
        with suppress(OSError):  # the share is away: then `health` says so, and calls fail
            await asyncio.to_thread(self._sweep)

    async def close(self) -> None:
        """Nothing stays open between calls."""

    async def stat(self, content: ContentId) -> Stat | None:
        held = await asyncio.to_thread(self._size, self._path(content))
        return Stat(content=content) if held == content.size else None

    @asynccontextmanager
    async def read(self, content: ContentId) -> AsyncIterator[AsyncIterator[bytes]]:
        try:
            file = await asyncio.to_thread(self._path(content).open, "rb")
        except FileNotFoundError as error:
            await asyncio.to_thread(os.stat, self._folder)  # if that is gone, the share is away, and this raises
            raise NotFound("does not have it", backend=self.name) from error

        async def chunks() -> AsyncIterator[bytes]:
            while chunk := await asyncio.to_thread(file.read, MAX_CHUNK_BYTES):
                yield chunk

        with file:
            yield chunks()

    async def health(self) -> Health:
        try:
            free = (await asyncio.to_thread(shutil.disk_usage, self._folder)).free
        except OSError as error:
            return Health(state="down", detail=f"{self._folder}: {error.strerror}")
        return Health(state="ok", detail=f"{free >> 30} GiB free")

    async def put(self, content: ContentId, chunks: AsyncIterator[bytes]) -> None:
        target = self._path(content)
        if await self.stat(content) is not None:
            return
        part = target.with_name(f"{content.sha256}-{token_hex(8)}{PART}")
        try:
            with part.open("xb") as file:
                async for chunk in chunks:  # raises when this is not the file: then nothing is kept
                    await asyncio.to_thread(file.write, chunk)
                await asyncio.to_thread(_sync, file)
            await asyncio.to_thread(os.replace, part, target)
        except OSError as error:
            if shutil.disk_usage(self._folder).free < content.size:
                raise StorageFull(f"{self.name}: no room in {self._folder}") from error
            raise
        finally:
            part.unlink(missing_ok=True)

    async def delete(self, content: ContentId) -> bool:
        try:
            await asyncio.to_thread(self._path(content).unlink)
        except FileNotFoundError:
            return False
        return True

    async def list(self, *, after: Sha256 | None = None) -> AsyncIterator[Stat]:
        for name in sorted(await asyncio.to_thread(os.listdir, self._folder)):
            sha256, _, cid = name.partition(".")
            size = await asyncio.to_thread(self._size, self._folder / name)
            if size is not None and (after is None or sha256 > after):
                with suppress(InvalidDigest, InvalidCid):  # some other file
                    yield Stat(content=ContentId(sha256=parse_sha256(sha256), size=size, cid=parse_cid(cid)))

    async def usage(self) -> Usage:
        sizes = [stat.content.size async for stat in self.list()]
        return Usage(bytes=sum(sizes), files=len(sizes))

    def _path(self, content: ContentId) -> Path:
        return self._folder / f"{content.sha256}.{content.cid}"

    def _size(self, path: Path) -> int | None:
        try:
            return path.stat().st_size
        except FileNotFoundError:
            self._folder.stat()  # see `read`
            return None

    def _sweep(self) -> None:
        """Removes what a process that was killed left behind. What time it is the share says, by a new file."""
        probe = self._folder / f"probe-{token_hex(8)}{PART}"
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
        for part in self._folder.glob(f"*{PART}"):
            if now - part.stat().st_mtime > OLD_SECONDS:
                part.unlink(missing_ok=True)


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
