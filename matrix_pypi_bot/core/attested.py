"""What attestations say of a digest beside that it is right: how long the file is, and under which CID its blocks are found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from matrix_pypi_bot.core.claims import Claim

MAX_CIDS: Final = 3
"""Of different CIDs for one digest all but one are wrong."""


@dataclass(frozen=True, slots=True)
class Attested:
    """`size` is None when nobody told it; `cids` are different ones, in the order of the attestations."""

    size: int | None
    cids: tuple[str, ...]


def attested(claims: Iterable[Claim]) -> Attested:
    """What attestations of one digest say, those first that count most."""
    told = [claim.facts for claim in claims]
    size = next((facts.size for facts in told if facts.size is not None), None)
    cids = dict.fromkeys(facts.cid for facts in told if facts.cid is not None)
    return Attested(size, tuple(cids)[:MAX_CIDS])
