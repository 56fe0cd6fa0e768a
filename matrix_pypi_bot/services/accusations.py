"""Others' accusations of statements about one project: which are settled, and what those say that are not.

A settled one is not read again, however often the project is looked at and however many of them somebody makes; nor is one that
waits for upstream.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from cachetools import LRUCache

from matrix_pypi_bot.core.claims import Claim
from matrix_pypi_bot.core.envelope import StatementId
from matrix_pypi_bot.core.events import check_envelope
from matrix_pypi_bot.core.evidence import Provenance
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.judge import BY_KNOWLEDGE, Judgement, Proven, Verdict, judge
from matrix_pypi_bot.core.rejected import Rejected
from matrix_pypi_bot.core.signers import Keyid
from matrix_pypi_bot.core.statements import Statement
from matrix_pypi_bot.core.statements.refutation import Fault, Refutation
from matrix_pypi_bot.ports import EnvelopeRow, Store, VerdictRow
from matrix_pypi_bot.services.members import Members
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName, ProjectName

Prove = Callable[[ProjectName, FileName, Mapping[str, object]], Awaitable[Provenance]]

_STAYING: Final = BY_KNOWLEDGE | {Fault.CID_CONTENT}
"""Accusations of these may wait long for upstream, or for bytes; reading them tells the same each time."""

MAX_REMEMBERED: Final = 100_000  # a few short texts each
MAX_WAITING: Final = 4_000  # of at most 30 KB each, as a rule of 4


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


@dataclass(slots=True)
class Heard:
    """A refutation by somebody else, as it was read. `proven` is what the bundle in it proves, if there is one."""

    row: EnvelopeRow
    statement: Statement
    told: Refutation
    proven: Provenance = None
    judged: Judgement | None = None


@dataclass(frozen=True, slots=True)
class Accusation:
    """One that is not settled. `accused` is what is kept of the accused statement; `is_kept` False: it counts for nothing here and was
    never kept, and may convict all the same.
    """

    heard: Heard
    accused: Claim
    is_kept: bool

    @property
    def row(self) -> EnvelopeRow:
        """As it was kept."""
        return self.heard.row

    @property
    def fault(self) -> Fault:
        """Which it names."""
        return self.heard.told.fault


class Accusations:
    """Reads them. `prove` verifies a bundle of provenance; without it such accusations wait for somebody who can."""

    def __init__(self, members: Members, store: Store, prove: Prove | None) -> None:
        self._members = members
        self._store = store
        self._prove = prove
        self._about: LRUCache[str, tuple[str, Fault] | None] = LRUCache(MAX_REMEMBERED)
        self._waiting: LRUCache[str, Heard] = LRUCache(MAX_WAITING)

    async def listen(self, project: ProjectName, verdicts: Verdicts) -> list[Heard]:
        """Others' accusations that were not settled before. Nothing is locked meanwhile: reading one takes milliseconds."""
        async with self._store.transaction() as tables:
            ids = await tables.ledger.refutation_ids(project)
        heard: list[Heard] = []
        for one in ids:
            if one in self._about and ((about := self._about[one]) is None or verdicts.is_settled(*about, one)):
                self._waiting.pop(one, None)
                continue
            found = self._waiting.get(one) or await self._read(project, one)
            if found is not None:
                heard.append(found)
        return heard

    async def _read(self, project: ProjectName, accusation_id: str) -> Heard | None:
        async with self._store.transaction() as tables:
            row = await tables.ledger.envelope(accusation_id)
        if row is None:
            return None
        if row.org == self._members.own.name or row.sha256 is None:
            self._about[row.id] = None
            return None
        try:
            statement = check_envelope(json.loads(row.envelope), self._members.keyring.keys, Refutation).statement
        except Rejected:
            return None  # by a key that is known no more: the statements it carried were kept, and speak for themselves
        told = statement.predicate
        assert isinstance(told, Refutation)
        heard = Heard(row, statement, told)
        if self._prove is not None and told.file is not None and isinstance(bundle := told.evidence.bundle, dict):
            heard.proven = await self._prove(project, FileName(told.file), bundle)
        self._about[row.id] = (row.sha256, told.fault)
        if told.fault in _STAYING:
            self._waiting[row.id] = heard
        return heard

    def unsettled(self, heard: Iterable[Heard], claims: Iterable[Claim], verdicts: Verdicts) -> Iterator[Accusation]:
        """Those that are to be looked into, one after the other: what becomes of one may settle the next."""
        kept = {str(claim.statement_id): claim for claim in claims}
        for one in heard:
            if not verdicts.is_settled(one.row.sha256 or "", one.told.fault, one.row.id):
                accused = kept.get(one.row.sha256 or "")
                yield Accusation(one, accused or self._not_kept(one.row, one.told), accused is not None)

    def judge(self, heard: Heard, claims: Iterable[Claim]) -> Judgement:
        """What its evidence alone tells. `claims`: what is kept of the project, and since when."""
        if heard.judged is None or heard.told.fault not in _STAYING:
            first_seen = {StatementId(claim.statement_id): Instant.of_ms(claim.received_ms) for claim in claims}
            heard.judged = judge(heard.statement, self._members.keyring, first_seen.get, _always(heard.proven))
        return heard.judged

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


def _always(provenance: Provenance) -> Proven:
    return lambda bundle: provenance
