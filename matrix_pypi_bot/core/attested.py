"""What attestations say of a digest beside that it is right: how long the file is, and under which CID its blocks are found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from matrix_pypi_bot.core.envelope import read_envelope
from matrix_pypi_bot.core.rejected import Rejected
from matrix_pypi_bot.core.statements import read_statement
from matrix_pypi_bot.core.statements.attestation import Attestation
from matrix_pypi_bot.core.strict_json import parse_strict
from matrix_pypi_bot.wire.cids import Cid

MAX_CIDS: Final = 3
"""Of different CIDs for one digest all but one are wrong."""


@dataclass(frozen=True, slots=True)
class Attested:
    """`size` is None when nobody told it; `cids` are different ones, in the order of the attestations."""

    size: int | None
    cids: tuple[Cid, ...]


def attested(envelopes: Iterable[bytes]) -> Attested:
    """What kept attestations of one digest say, those first that count most. They were verified when they were kept."""
    size: int | None = None
    cids: dict[Cid, None] = {}
    for envelope in envelopes:
        try:
            predicate = read_statement(read_envelope(parse_strict(envelope)).payload, Attestation).predicate
        except Rejected:
            continue  # kept under rules that were wider than today's
        if isinstance(predicate, Attestation):
            size = predicate.size if size is None else size
            if predicate.cid is not None:
                cids[predicate.cid] = None
    return Attested(size, tuple(cids)[:MAX_CIDS])
