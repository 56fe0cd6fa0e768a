"""Others' accusations of statements about one project: which are settled, and what those say that are not.

A settled one is not verified again, however often the project is looked at and however many of them somebody makes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from cachetools import LRUCache

from matrix_pypi_bot.core.claims import Claim
from matrix_pypi_bot.core.events import check_envelope
from matrix_pypi_bot.core.judge import BY_KNOWLEDGE, Verdict
from matrix_pypi_bot.core.rejected import Rejected
from matrix_pypi_bot.core.signers import Keyid
from matrix_pypi_bot.core.statements import Statement
from matrix_pypi_bot.core.statements.refutation import Fault, Refutation
from matrix_pypi_bot.ports import EnvelopeRow, VerdictRow
from matrix_pypi_bot.services.members import Members
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName

MAX_REMEMBERED: Final = 100_000  # two short texts each


class Verdicts:
    """What was judged of a project's statements, oldest first."""

    def __init__(self, rows: Iterable[VerdictRow]) -> None:
        self._newest: dict[tuple[str, str], str] = {}
        self._dismissed: set[str] = set()
        for row in rows:
            self.add(row)

    def add(self, row: VerdictRow) -> None:
        """One more."""
        self._newest[row.statement_id, row.fault] = row.result
        if row.result == Verdict.DISMISSED.value and row.evidence_id is not None:
            self._dismissed.add(row.evidence_id)

    def newest(self, statement_id: str, fault: Fault) -> str | None:
        """The newest word on whether the statement has this fault."""
        return self._newest.get((statement_id, fault.value))

    def is_settled(self, statement_id: str, fault: Fault, accusation_id: str) -> bool:
        """Whether the accusation need not be looked into.

        Where evidence decides that another one carries, a wrong accusation settles nothing but itself: whoever is guilty could accuse
        himself badly before somebody else does it well.
        """
        newest = self.newest(statement_id, fault)
        if newest == Verdict.DISMISSED.value and fault not in BY_KNOWLEDGE:
            return accusation_id in self._dismissed
        return newest in (Verdict.UPHELD.value, Verdict.DISMISSED.value)

    def newest_of_all(self) -> dict[tuple[str, Fault], str]:
        """The newest word on each (statement id, fault)."""
        return {(statement_id, Fault(fault)): result for (statement_id, fault), result in self._newest.items()}

    def upheld(self) -> frozenset[tuple[str, str]]:
        """(Statement id, fault) of what need not be found again."""
        return frozenset(key for key, result in self._newest.items() if result == Verdict.UPHELD.value)


@dataclass(frozen=True, slots=True)
class Accusation:
    """A refutation by somebody else. `accused` is what is kept of the accused statement; `is_kept` False: it counts for nothing here
    and was never kept, and may convict all the same.
    """

    row: EnvelopeRow
    statement: Statement
    told: Refutation
    accused: Claim
    is_kept: bool


class Accusations:
    """Reads them."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._faults: LRUCache[str, Fault] = LRUCache(MAX_REMEMBERED)

    def unsettled(
        self, rows: Iterable[EnvelopeRow], claims: Iterable[Claim], verdicts: Verdicts
    ) -> Iterator[Accusation]:
        """Those that are to be looked into, one after the other: what becomes of one may settle the next."""
        kept = {str(claim.statement_id): claim for claim in claims}
        for row in rows:
            if row.org == self._members.own.name or row.sha256 is None:
                continue
            fault = self._faults.get(row.id)
            if fault is not None and verdicts.is_settled(row.sha256, fault, row.id):
                continue
            try:
                statement = check_envelope(json.loads(row.envelope), self._members.keyring.keys, Refutation).statement
            except Rejected:
                continue  # by a key that is known no more: the statements it carried were kept, and speak for themselves
            told = statement.predicate
            assert isinstance(told, Refutation)
            self._faults[row.id] = told.fault
            if not verdicts.is_settled(row.sha256, told.fault, row.id):
                accused = kept.get(row.sha256)
                yield Accusation(row, statement, told, accused or self._not_kept(row, told), accused is not None)

    def _not_kept(self, row: EnvelopeRow, told: Refutation) -> Claim:
        key = self._members.keyring.keys.get(told.accused)
        return Claim(
            statement_id=row.sha256,  # type: ignore[arg-type]
            kind="attestation",
            file=FileName(told.file or ""),
            subject=Sha256(row.sha256 or ""),
            org=key.org if key is not None else "",
            keyid=Keyid(told.accused),
            index="",
            word="",
            received_ms=row.first_seen_ms,
        )
