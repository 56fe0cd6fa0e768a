"""A folder of files as a backend of its own: another disk, a share that several machines see, a copy to take away."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from index_frontend.storage.filestore.limits import Limits
from index_frontend.storage.filestore.opening import open_filestore
from index_frontend.storage.registry import read_section
from index_frontend.storage.store_backend import StoreBackend
from matrix_pypi_bot.process.setting_types import Bytes
from matrix_pypi_bot.process.settings import Section


class FilesSettings(Section, frozen=True, kw_only=True):
    """The keys mean what they mean under `storage`."""

    folder: Path
    max_bytes: Bytes | None = None
    min_free_bytes: Bytes = 1 << 30
    min_free_inodes: Bytes = 10_000


def files_backend(name: str, section: Mapping[str, Any]) -> StoreBackend:
    """The plug-in `file`. Raises Misconfigured."""
    settings = read_section(FilesSettings, section, backend=name)
    limits = Limits(settings.max_bytes, settings.min_free_bytes, settings.min_free_inodes)
    return StoreBackend(name, partial(open_filestore, settings.folder, limits=limits), limit_bytes=settings.max_bytes)
