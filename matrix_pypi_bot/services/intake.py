"""The one door by which statements enter, whether a room or a log brought them: checked, kept for ever, told of."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Literal

from matrix_pypi_bot.core.claims import claims_of
from matrix_pypi_bot.core.envelope import Envelope, read_envelope
from matrix_pypi_bot.core.events import Checked, check_envelope
from matrix_pypi_bot.core.judge import carried
from matrix_pypi_bot.core.rejected import Rejected
from matrix_pypi_bot.core.signers import ROOT, Keys
from matrix_pypi_bot.core.statements.attestation import Attestation
from matrix_pypi_bot.core.statements.common import Chained
from matrix_pypi_bot.core.statements.keys import Manifest
from matrix_pypi_bot.core.statements.refutation import Refutation
from matrix_pypi_bot.core.statements.withdrawal import Withdrawal
from matrix_pypi_bot.ports import EnvelopeRow, Transaction
from matrix_pypi_bot.services.members import Members
from matrix_pypi_bot.services.signing import envelope_json
from matrix_pypi_bot.wire.names import FileName, ProjectName

log = logging.getLogger(__name__)

Via = Literal["room", "log"]


class Intake:
    """`on_statement(project, organisation)` hears by `tell` of what is about a project, `on_other(checked)` of everything else,
    `on_lie(envelope)` of what was turned away for proving its own falsehood.
    """

    def __init__(
        self,
        members: Members,
        *,
        on_statement: Callable[[ProjectName, str], None] = lambda project, org: None,
        on_other: Callable[[Checked], None] = lambda checked: None,
        on_lie: Callable[[Envelope], None] = lambda envelope: None,
    ) -> None:
        self._members = members
        self._on_statement = on_statement
        self._on_other = on_other
        self._on_lie = on_lie

    @property
    def keys(self) -> Keys:
        """The keys that are known now."""
        return self._members.keyring.keys

    def check(self, envelope: object) -> Checked:
        """The statement in an envelope that came without an event. Raises Rejected."""
        return check_any(envelope, self.keys)

    async def keep(self, tables: Transaction, checked: Checked, *, via: Via, at_ms: int) -> bool:
        """Keeps it; whether it was new. A manifest that does not follow the one held is not kept."""
        row = ledger_row(checked, via=via, at_ms=at_ms)
        predicate = checked.statement.predicate
        if (
            isinstance(predicate, Manifest)
            and checked.key.org != self._members.own.name
            and (await tables.ledger.envelope(row.id) is not None or not self._members.would_take(checked))
        ):
            return False
        if isinstance(predicate, Refutation):
            await self.keep_carried(tables, checked.envelope, via=via, at_ms=at_ms)
        claims = claims_of(checked.statement, org=checked.key.org, keyid=checked.key.keyid, received_ms=at_ms)
        return await tables.ledger.keep(row, list(claims))

    async def keep_carried(
        self, tables: Transaction, refutation: Envelope, *, via: Via, at_ms: int
    ) -> frozenset[ProjectName]:
        """Keeps the accused statements that a refutation carries, whoever made it: they are their own signers' words.

        So an accusation by anybody at all is looked into without being believed. The projects about which something was new.
        """
        news = set()
        for envelope in carried(refutation):
            try:
                accused = self.check(envelope)
            except Rejected:
                continue
            project = accused.statement.predicate.about_project()
            is_attestation = isinstance(accused.statement.predicate, Attestation) and project is not None
            if is_attestation and await self.keep(tables, accused, via=via, at_ms=at_ms):
                news.add(ProjectName(project or ""))
        return frozenset(news)

    def tell_of(self, project: ProjectName, org: str) -> None:
        """Something new about the project was kept; `org` said it, empty when nobody here knows who."""
        self._on_statement(project, org)

    def tell_of_lie(self, envelope: object) -> None:
        """A statement was turned away (F_CID_DIGEST) that convicts whoever signed it."""
        with contextlib.suppress(Rejected):
            self._on_lie(read_envelope(envelope))

    def tell(self, checked: Checked) -> None:
        """Has everybody hear of it who must. After the commit, and only of what was new."""
        predicate = checked.statement.predicate
        if isinstance(predicate, Manifest):
            self._members.learn(checked)
        project = predicate.about_project()
        if project is not None:
            self.tell_of(ProjectName(project), checked.key.org)
        else:
            self._on_other(checked)


def check_any(envelope: object, keys: Keys) -> Checked:
    """The statement in an envelope, of whatever kind; what a root signed is a manifest. Raises Rejected."""
    signers = [key for keyid in _keyids(envelope) if keyid in keys for key in keys[keyid].everywhere]
    if not any(ROOT in key.roles for key in signers):
        return check_envelope(envelope, keys)
    if not all(ROOT in key.roles for key in signers):  # one organisation lists among its keys what is another's root
        with contextlib.suppress(Rejected):
            return check_envelope(envelope, keys)
    return check_envelope(envelope, keys, Manifest)


def ledger_row(checked: Checked, *, via: str, at_ms: int) -> EnvelopeRow:
    """The ledger's row of a statement that passed every check."""
    statement, predicate = checked.statement, checked.statement.predicate
    project = predicate.about_project()
    file: str | None = None
    seq = predicate.seq if isinstance(predicate, Chained) else None
    match predicate:
        case Attestation():
            file = statement.subject.name
        case Withdrawal() | Refutation():
            file = predicate.file
        case Manifest():
            seq = predicate.version
        case _:
            pass
    return EnvelopeRow(
        id=statement.id,
        kind=predicate.NAME,
        project=ProjectName(project) if project else None,
        file=FileName(file) if file else None,
        sha256=statement.subject.sha256,
        keyid=checked.key.keyid,
        org=checked.key.org,
        seq=seq,
        envelope=envelope_json(checked.envelope),
        first_seen_ms=at_ms,
        via=via,
    )


def _keyids(envelope: object) -> list[str]:
    """The key ids that an envelope names, whatever else is wrong with it."""
    signatures = envelope.get("signatures") if isinstance(envelope, Mapping) else None
    found = []
    for signature in signatures if isinstance(signatures, list) else ():
        keyid = signature.get("keyid") if isinstance(signature, Mapping) else None
        if isinstance(keyid, str):
            found.append(keyid)
    return found
