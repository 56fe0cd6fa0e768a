"""What may never be evicted. A small file for each pin, not rows: the index may be thrown away, somebody's wish may not."""

from __future__ import annotations

import os

from index_frontend.ports import StorageBroken
from index_frontend.storage.filestore.disk import Disk, told
from index_frontend.storage.filestore.layout import Layout
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.problems import clean_line

MAX_NAME_CHARACTERS = 200


class Pins:
    """All calls block: make them in a thread. They raise StorageFull or StorageBroken."""

    def __init__(self, layout: Layout, disk: Disk) -> None:
        self._layout = layout
        self._disk = disk

    def put(self, sha256: Sha256, name: str) -> None:
        """Durable when it returns; under the file's claim. Another name takes the place of the one before."""
        part = self._layout.pin_part(sha256)
        descriptor = self._disk.create(part)
        try:
            self._disk.append(descriptor, f"{clean_line(name, MAX_NAME_CHARACTERS)}\n".encode())
            self._disk.sync(descriptor)
            self._disk.publish(part, self._layout.pin(sha256))
        except BaseException:
            self._disk.remove(part)
            raise
        finally:
            os.close(descriptor)
        self._disk.sync_folder(self._layout.pins)

    def remove(self, sha256: Sha256) -> None:
        """No error when there is none."""
        self._disk.remove(self._layout.pin(sha256))

    def name_of(self, sha256: Sha256) -> str | None:
        """What is in it, None when there is none."""
        path = self._layout.pin(sha256)
        try:
            with told("read", path), path.open("rb") as file:
                return file.read(4 * MAX_NAME_CHARACTERS).decode(errors="replace").rstrip("\n")
        except StorageBroken as problem:
            if isinstance(problem.__cause__, FileNotFoundError):
                return None
            raise

    def all(self) -> frozenset[Sha256]:
        """Every object that has one."""
        with told("read", self._layout.pins):
            return frozenset(self._layout.pinned())
