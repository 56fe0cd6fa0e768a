"""How much a store may hold and how much of its disk it leaves free; and how much has to go when it is too much. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from index_frontend.storage.filestore.disk import Space

LOW_WATER: Final = 0.9
"""Once something has to go, it goes until the store holds this share of what it may."""
FREE_WATER: Final = 1.25
"""... and until so many times the floor is free: so the next file does not begin the next round."""
_SHARE_OF_BYTES: Final = 20
_SHARE_OF_INODES: Final = 100


@dataclass(frozen=True, slots=True)
class Limits:
    """`max_bytes` of all files, None for no bound; the floors are those of the disk: 0 for none.

    On a small disk the floors are at most a 20th of its bytes and a 100th of its inodes.
    """

    max_bytes: int | None = None
    min_free_bytes: int = 0
    min_free_inodes: int = 0

    @property
    def are_set(self) -> bool:
        """Whether anything may ever be evicted."""
        return self.max_bytes is not None or self.min_free_bytes > 0 or self.min_free_inodes > 0


@dataclass(frozen=True, slots=True)
class Excess:
    """What has to go: so many bytes, and so many files."""

    bytes: int = 0
    files: int = 0

    def __bool__(self) -> bool:
        return self.bytes > 0 or self.files > 0


def excess(limits: Limits, held_bytes: int, space: Space, coming_bytes: int = 0) -> Excess:
    """What has to go so that the limits hold when a file of `coming_bytes` has been stored; nothing while they do."""
    return _beyond(limits, held_bytes, space, coming_bytes, low=1, free=1)


def surplus(limits: Limits, held_bytes: int, space: Space) -> Excess:
    """What a round takes away once the limits are reached: enough for a while."""
    return _beyond(limits, held_bytes, space, 0, low=LOW_WATER, free=FREE_WATER)


def _beyond(limits: Limits, held: int, space: Space, coming: int, *, low: float, free: float) -> Excess:
    over_quota = 0 if limits.max_bytes is None else held + coming - int(limits.max_bytes * low)
    floor = min(limits.min_free_bytes, space.total_bytes // _SHARE_OF_BYTES)
    too_few_bytes = int(floor * free) - (space.free_bytes - coming) if floor else 0
    floor = min(limits.min_free_inodes, space.total_inodes // _SHARE_OF_INODES)
    too_few_inodes = int(floor * free) - space.free_inodes if floor else 0
    return Excess(max(0, over_quota, too_few_bytes), max(0, too_few_inodes))
