"""What statements say of files, one row a file: attestations, reviews and withdrawals in the one shape in which they are weighed.

A statement is read once, when it is kept; weighing thousands of them must not decode thousands of envelopes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, TypeGuard, TypeVar

import msgspec
from msgspec import UnsetType

from matrix_pypi_bot.core.envelope import StatementId
from matrix_pypi_bot.core.limits import MAX_PAGE_TEXT_CHARACTERS
from matrix_pypi_bot.core.signers import Keyid
from matrix_pypi_bot.core.statements import Statement
from matrix_pypi_bot.core.statements.attestation import Attestation
from matrix_pypi_bot.core.statements.review import Review
from matrix_pypi_bot.core.statements.withdrawal import Withdrawal
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName

T = TypeVar("T")
ClaimKind = Literal["attestation", "review", "withdrawal"]

BYTES: Final = "bytes"  # words of an attestation from an index: how the signer knows
BUILD: Final = "build"  # the word of an attestation of one's own build
OK: Final = "ok"  # the word of a review that is an ack
BAD: Final = "bad"  # the word of a review that is an alarm


class Facts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an attestation says beside the digest; it chooses none."""

    size: int | None = None
    cid: str | None = None
    core_metadata: Sha256 | None = None
    requires_python: str | None = None
    yanked: bool | str = False


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One statement about one file. `subject` is the digest that it names; of a withdrawal the id of the statement taken back.

    `word`: of an attestation `bytes`, `index` or `build`; of a review `ok`, `bad` or `unknown`; of a withdrawal its scope, `file` or
    `version`. `received_ms` is when this bot first had it: what a signer writes as his time proves nothing.
    """

    statement_id: StatementId
    kind: ClaimKind
    file: FileName
    subject: Sha256
    org: str
    keyid: Keyid
    index: str
    word: str
    received_ms: int
    serial: int | None = None
    upload_time: str | None = None
    facts: Facts = Facts()


def claims_of(statement: Statement, *, org: str, keyid: Keyid, received_ms: int) -> Iterator[Claim]:
    """What a checked statement claims, file by file; nothing for the kinds that claim nothing. `org` has the key that signed it."""
    predicate = statement.predicate
    if isinstance(predicate, Attestation):
        source = predicate.source
        yield Claim(
            statement_id=statement.id,
            kind="attestation",
            file=FileName(statement.subject.name),
            subject=statement.subject.sha256,
            org=org,
            keyid=keyid,
            index=predicate.index,
            word=BUILD if source.kind == BUILD else source.method,
            received_ms=received_ms,
            serial=_told(source.serial),
            upload_time=_told(source.upload_time),
            facts=_facts(predicate),
        )
    elif isinstance(predicate, Review):
        for subject, verdict in zip(statement.subjects, predicate.verdicts, strict=True):
            yield Claim(
                statement_id=statement.id,
                kind="review",
                file=FileName(subject.name),
                subject=subject.sha256,
                org=org,
                keyid=keyid,
                index=predicate.index,
                word=verdict,
                received_ms=received_ms,
                serial=_told(predicate.serial),
            )
    elif isinstance(predicate, Withdrawal):
        yield Claim(
            statement_id=statement.id,
            kind="withdrawal",
            file=FileName(predicate.file),
            subject=statement.subject.sha256,
            org=org,
            keyid=keyid,
            index="",
            word=predicate.scope,
            received_ms=received_ms,
        )


def _facts(attestation: Attestation) -> Facts:
    metadata = attestation.core_metadata
    ext = {} if isinstance(attestation.ext, UnsetType) else attestation.ext
    requires, yanked = ext.get("requiresPython"), ext.get("yanked")
    return Facts(
        size=attestation.size,
        cid=attestation.cid,
        core_metadata=None if isinstance(metadata, UnsetType) else metadata.sha256,
        requires_python=requires if _is_text(requires) else None,
        yanked=yanked if yanked is True or _is_text(yanked) else False,
    )


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= MAX_PAGE_TEXT_CHARACTERS


def _told(value: T | UnsetType) -> T | None:
    return None if isinstance(value, UnsetType) else value
