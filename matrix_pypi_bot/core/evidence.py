"""What is known of one file when it is decided about.

Four witnesses may name a digest: upstream now, our own memory, other organisations, and provenance. Bytes are no witness: they
are compared with the digest that was decided, whatever their source.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from matrix_pypi_bot.wire.digests import Sha256


class Level(enum.IntEnum):
    """How many organisations stand behind a digest. The own one never counts, each other one once."""

    MINORITY = 1  # fewer than the quorum
    QUORUM = 2  # at least k organisations hashed the bytes themselves; k = min(quorum, organisations pinned)
    ACKED = 3  # a quorum, and every pinned watcher attested or reviewed it `ok`, but for those that may be missing


class Mode(enum.StrEnum):
    """What is needed to serve a file this organisation never verified, while upstream is away."""

    SELF = "self"  # nothing suffices
    ACKED = "acked"
    KOFN = "kofn"


@dataclass(frozen=True, slots=True)
class Live:
    """Upstream names this digest: the last attempt to read its page succeeded."""

    sha256: Sha256


class Absence(enum.Enum):
    """Upstream names no digest. GONE and QUARANTINED stay when upstream cannot be reached later."""

    GONE = "gone"  # the last live answer had the project but not this file, or twice no project
    QUARANTINED = "quarantined"  # the project's status (PEP 792)
    DOWN = "down"


Upstream: TypeAlias = Live | Absence


@dataclass(frozen=True, slots=True)
class Proves:
    """Provenance of the pinned publisher, or a delegated maintainer's attestation: this is the digest."""

    sha256: Sha256


class Doubt(enum.Enum):
    """Provenance that proves no digest."""

    INVALID = "invalid"  # it fails, or its pieces contradict one another
    PUBLISHER_CHANGED = "publisher changed"  # valid, by another publisher than the one pinned


Provenance: TypeAlias = Proves | Doubt | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that `decide()` looks at, of one file.

    `accepted` is L: the digest that this organisation accepted itself, by serving it under R8 or by an operator's approval.
    `first_seen` is the first digest that upstream ever named for the file. `attested` holds what counts of other
    organisations' statements. `cooling`: the file is younger than the cooldown. `denied`: policy or an operator says no.
    """

    upstream: Upstream
    accepted: Sha256 | None = None
    first_seen: Sha256 | None = None
    attested: Mapping[Sha256, Level] = field(default_factory=dict)
    provenance: Provenance = None
    cooling: bool = False
    denied: bool = False

    @property
    def remembered(self) -> Sha256 | None:
        """L, for which the first digest seen stands in while upstream is live and names another one.

        A digest merely seen is not L otherwise: what R6 or R7 refused must not be served by R13 in the next outage.
        """
        if self.accepted is None and isinstance(self.upstream, Live) and self.first_seen != self.upstream.sha256:
            return self.first_seen
        return self.accepted


@dataclass(frozen=True, slots=True)
class Terms:
    """What the operator chose: the mode, and whether a file that upstream removed is kept (`removed_upstream: keep`)."""

    mode: Mode = Mode.ACKED
    keep_removed: bool = False
