"""Who writes an object: one process at a time, by a lock that the kernel drops when its holder dies."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from index_frontend.storage.filestore.disk import told

_LENGTH_CHARACTERS: Final = 20


@dataclass(slots=True)
class Claim:
    """A lock that this process holds. The lock file goes when it is released: its name means that somebody is at work."""

    path: Path
    descriptor: int

    def tell(self, total: int) -> None:
        """Lets others read how long the whole will be. Raises StorageFull or StorageBroken."""
        with told("write", self.path):
            os.pwrite(self.descriptor, f"{total}\n".encode(), 0)

    def forget(self) -> None:
        """The length that was told is not believed any more. Raises StorageFull or StorageBroken."""
        with told("write", self.path):
            os.ftruncate(self.descriptor, 0)

    def release(self) -> None:
        """The next process may claim. The name goes first: whoever locks the nameless file after that notices."""
        with suppress(OSError):
            self.path.unlink()
        os.close(self.descriptor)


def try_claim(path: Path) -> Claim | None:
    """The claim whose lock is `path`, None while another one holds it. Raises StorageFull or StorageBroken."""
    with told("lock", path):
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                mine = os.fstat(descriptor)
                if _is_at(path, mine):
                    if mine.st_size:  # the length that a dead predecessor told need not be ours
                        os.ftruncate(descriptor, 0)
                    return Claim(path, descriptor)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # its holder let go and took the name away between our two steps


def told_length(path: Path) -> int | None:
    """What the holder of the claim at `path` said about the length of the whole; None while nobody said anything."""
    try:
        with path.open("rb") as lock:
            text = lock.read(_LENGTH_CHARACTERS)
    except OSError:
        return None
    return int(text) if text.endswith(b"\n") and text[:-1].isdigit() else None


def _is_at(path: Path, found: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), found)
    except FileNotFoundError:
        return False
