"""Every step on the disk, one method each, so that a test can end the world between any two of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from index_frontend.ports import StorageBroken, StorageFull
from matrix_pypi_bot.wire.problems import clean_line

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class Space:
    """A filesystem: what is free for us and how large it is; inodes are 0 where it does not count them."""

    free_bytes: int
    total_bytes: int
    free_inodes: int
    total_inodes: int


class Disk:
    """The steps of writing a file and of putting it in its place. They raise StorageFull or StorageBroken, never OSError."""

    def make_folders(self, path: Path) -> list[Path]:
        """`path` and its parents are there. The folders whose lists of names changed for it, innermost first: still to be synced."""
        with told("make", path):
            missing = [folder for folder in (path, *path.parents) if not folder.exists()]
            path.mkdir(parents=True, exist_ok=True)
        return [folder.parent for folder in missing]

    def create(self, path: Path) -> int:
        """A descriptor of a new, empty file that only we may read."""
        with told("create", path):
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def append(self, descriptor: int, data: bytes | bytearray) -> None:
        """All of `data`, at the descriptor's position."""
        with told("write", None):
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]

    def seal(self, descriptor: int) -> None:
        """Nobody writes to the file from here on."""
        with told("protect", None):
            os.fchmod(descriptor, 0o444)

    def sync(self, descriptor: int) -> None:
        """The file's bytes survive a power cut."""
        with told("sync", None):
            os.fsync(descriptor)

    def publish(self, source: Path, target: Path) -> None:
        """`source` becomes `target`, in one step."""
        with told("rename", source):
            source.replace(target)

    def sync_folder(self, path: Path) -> None:
        """The names in the folder survive a power cut."""
        with told("sync", path):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def space(self, path: Path) -> Space:
        """Of the filesystem that `path` is on."""
        with told("look at", path):
            seen = os.statvfs(path)
        unit = seen.f_frsize
        return Space(seen.f_bavail * unit, seen.f_blocks * unit, seen.f_favail, seen.f_files)

    def remove(self, path: Path) -> None:
        """The file is not there any more, if it was."""
        with told("remove", path), suppress(FileNotFoundError):
            path.unlink()


@contextmanager
def told(verb: str, path: Path | None) -> Iterator[None]:
    """An OSError as a problem of ours that says what was tried, and where."""
    try:
        yield
    except OSError as error:
        what = f"cannot {verb} {path or 'a file of the store'}: {clean_line(error.strerror or str(error), 120)}"
        kind = StorageFull if error.errno in _NO_ROOM else StorageBroken
        raise kind(what, hint="look at the disk under storage.folder: room, permissions, mount options") from error
