"""The kinds of statements, one module each, and reading one from a verified payload."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from matrix_pypi_bot.core.envelope import StatementId
from matrix_pypi_bot.core.rejected import Code, Rejected
from matrix_pypi_bot.core.statements.announcement import Announcement
from matrix_pypi_bot.core.statements.attestation import Attestation
from matrix_pypi_bot.core.statements.common import IN_TOTO, Predicate, Subject, from_json_text
from matrix_pypi_bot.core.statements.index import IndexView
from matrix_pypi_bot.core.statements.keys import Manifest
from matrix_pypi_bot.core.statements.override import Override
from matrix_pypi_bot.core.statements.refutation import Refutation
from matrix_pypi_bot.core.statements.review import Review
from matrix_pypi_bot.core.statements.withdrawal import Withdrawal
from matrix_pypi_bot.core.strict_json import canonical, parse_strict
from matrix_pypi_bot.wire.digests import Sha256, sha256_of

KINDS: Final[dict[str, type[Predicate]]] = {
    kind.type(): kind
    for kind in (Attestation, Review, Withdrawal, Refutation, IndexView, Manifest, Override, Announcement)
}
"""Predicate type to kind."""

EVENT_KINDS: Final[dict[str, type[Predicate]]] = {
    kind.event_type(): kind for kind in (Attestation, Withdrawal, Refutation, IndexView, Manifest, Announcement)
}
"""Event type to kind. Reviews and overrides live in logs alone."""

_STATEMENT_KEYS: Final = frozenset({"_type", "predicateType", "subject", "predicate"})
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Statement:
    """What a payload says. `id` is the sha256 of the payload it was read from."""

    id: StatementId
    subjects: tuple[Subject, ...]
    predicate: Predicate

    @property
    def subject(self) -> Subject:
        """The subject of the kinds that have one only; the first of a review's."""
        return self.subjects[0]


def read_statement(payload: bytes, kind: type[Predicate] | None = None) -> Statement:
    """The statement in a verified payload; of `kind`, or of any kind when None.

    Raises Rejected: E_JSON, E_TYPE, E_SUBJECT, E_FIELDS, in this order.
    """
    document = parse_strict(payload)
    if not isinstance(document, dict) or document.get("_type") != IN_TOTO:
        raise Rejected(Code.TYPE, "not an in-toto statement")
    told = document.get("predicateType")
    told_kind = KINDS.get(told) if isinstance(told, str) else None
    if told_kind is None or kind not in (None, told_kind):
        raise Rejected(Code.TYPE, "not a statement of the kind expected here")
    subjects = _read(tuple[Subject, ...], document.get("subject"), Code.SUBJECT)
    if not 1 <= len(subjects) <= told_kind.MAX_SUBJECTS:
        raise Rejected(Code.SUBJECT, f"1 to {told_kind.MAX_SUBJECTS} subjects")
    if document.keys() != _STATEMENT_KEYS:
        raise Rejected(Code.FIELDS, "a field that is missing or unknown")
    predicate = _read(told_kind, document["predicate"], Code.FIELDS)
    return Statement(StatementId(sha256_of(payload)), subjects, predicate)


def write_statement(subjects: dict[str, Sha256], predicate: Predicate) -> bytes:
    """The payload that says `predicate` of `subjects` (name to digest), in the one form in which ours are signed."""
    return canonical(
        {
            "_type": IN_TOTO,
            "predicateType": predicate.type(),
            "subject": [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in subjects.items()],
            "predicate": msgspec.to_builtins(predicate, enc_hook=str),
        }
    )


def _read(kind: type[T], value: object, code: Code) -> T:
    try:
        return msgspec.convert(value, kind, dec_hook=from_json_text)
    except msgspec.ValidationError as error:
        raise Rejected(code, str(error)) from error
