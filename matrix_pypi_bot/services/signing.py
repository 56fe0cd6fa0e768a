"""Saying something in this organisation's name: signed, kept, logged, in one transaction."""

from __future__ import annotations

import json
from collections.abc import Callable

from matrix_pypi_bot.core.claims import claims_of
from matrix_pypi_bot.core.envelope import Envelope, StatementId
from matrix_pypi_bot.core.events import Checked, check_envelope, sign_statement
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.signers import MIRROR, WATCHER, Keys, PinnedKey, SigningKey
from matrix_pypi_bot.core.statements.common import Chained, Predicate, SignedBy
from matrix_pypi_bot.core.tlog import leaf_hash
from matrix_pypi_bot.ports import EnvelopeRow, Transaction
from matrix_pypi_bot.services.resume import ResumeGuard
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName, ProjectName

Chain = tuple[SignedBy, int, StatementId | None, Instant]
"""What a chained statement says of itself: its signer, `seq`, `prev` and `issued`."""


class Voice:
    """The organisation's mirror key, and the chain of what it said. It is silent while `guard` is closed."""

    def __init__(self, org: str, key: SigningKey, *, guard: ResumeGuard | None = None) -> None:
        self.org = org
        self._key = key
        self._guard = guard
        self._known: Keys = {
            key.keyid: PinnedKey(public=key.public, org=org, roles=frozenset({MIRROR, WATCHER})),
        }

    @property
    def keyid(self) -> str:
        """The id of the key."""
        return self._key.keyid

    @property
    def may_speak(self) -> bool:
        """Whether it is known that nothing said now contradicts what was said before. What can wait, waits for this."""
        return self._guard is None or self._guard.is_open

    async def say(
        self,
        tables: Transaction,
        subjects: dict[str, Sha256],
        predicate: Callable[[Chain], Chained],
        *,
        file: FileName | None,
        now_ms: int,
    ) -> Checked:
        """The statement, signed, kept and logged when the transaction ends. Checked as others will check it before it leaves.

        Raises Rejected or StatementTooLarge for one that nobody would take: a bug, or input that was not looked at. Raises
        LogBehind when the database is an old one.
        """
        if self._guard is not None:
            self._guard.check()
        draft = predicate((self._signer(), 1, None, Instant.of_ms(now_ms)))
        project = draft.about_project()
        seq, prev = await tables.ledger.chain(self.keyid, ProjectName(project) if project else None)
        last = StatementId(prev) if prev is not None else None
        final = predicate((self._signer(), seq + 1, last, Instant.of_ms(now_ms)))
        envelope = sign_statement(subjects, final, self._key)
        checked = check_envelope(envelope.to_json(), self._known, type(final))
        await keep_own(tables, checked, org=self.org, file=file, seq=final.seq, now_ms=now_ms)
        return checked

    async def say_once(
        self,
        tables: Transaction,
        subjects: dict[str, Sha256],
        predicate: Callable[[SignedBy, Instant], Predicate],
        *,
        file: FileName | None,
        now_ms: int,
    ) -> Checked:
        """The same for a kind that stands in no chain. Raises as `say` does."""
        if self._guard is not None:
            self._guard.check()
        said = predicate(self._signer(), Instant.of_ms(now_ms))
        envelope = sign_statement(subjects, said, self._key)
        checked = check_envelope(envelope.to_json(), self._known, type(said))
        await keep_own(tables, checked, org=self.org, file=file, seq=None, now_ms=now_ms)
        return checked

    def _signer(self) -> SignedBy:
        return SignedBy(org=self.org, key=self._key.keyid)


async def keep_own(
    tables: Transaction, checked: Checked, *, org: str, file: FileName | None, seq: int | None, now_ms: int
) -> None:
    """Keeps a statement of our own and gives it its leaf in our log."""
    statement = checked.statement
    project = statement.predicate.about_project()
    await tables.ledger.keep(
        EnvelopeRow(
            id=statement.id,
            kind=statement.predicate.NAME,
            project=ProjectName(project) if project else None,
            file=file,
            sha256=statement.subject.sha256,
            keyid=checked.key.keyid,
            org=org,
            seq=seq,
            envelope=envelope_json(checked.envelope),
            first_seen_ms=now_ms,
            via="own",
        ),
        list(claims_of(statement, org=org, keyid=checked.key.keyid, received_ms=now_ms)),
    )
    await tables.log.append(statement.id, leaf_hash(checked.envelope.payload))


def envelope_json(envelope: Envelope) -> bytes:
    """The DSSE JSON as it is kept, sent and logged."""
    return json.dumps(envelope.to_json(), sort_keys=True, separators=(",", ":")).encode()
