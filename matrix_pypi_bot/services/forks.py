"""A log that showed two people different things: two signed heads of one size with different roots. Proof for everybody, at once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from matrix_pypi_bot.core.events import Checked
from matrix_pypi_bot.core.judge import log_fork
from matrix_pypi_bot.core.signers import keyid_of
from matrix_pypi_bot.core.statements.refutation import Fault, Refutation
from matrix_pypi_bot.ports import Clock, Postman, Store, VerdictRow
from matrix_pypi_bot.services.members import Members
from matrix_pypi_bot.services.refutations import Refutations
from matrix_pypi_bot.wire.digests import sha256_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forks:
    """Judges them. `on_suspended(organisations)` is called, after the commit, when a log's key was suspended."""

    store: Store
    clock: Clock
    members: Members
    refutations: Refutations
    postman: Postman
    on_suspended: Callable[[frozenset[str]], None]

    async def accused(self, checked: Checked) -> None:
        """Somebody says that a log forked. Nobody is believed: the two heads say it, or they do not. Raises StoreAway."""
        told = checked.statement.predicate
        if isinstance(told, Refutation) and isinstance(told.evidence.notes, tuple):
            await self.found((told.evidence.notes[0], told.evidence.notes[1]))

    async def found(self, notes: tuple[str, str]) -> bool:
        """Whether these two heads are a fork of a log that is known here; it is refuted and suspended then. Raises StoreAway."""
        key = log_fork(notes[0], notes[1], self.members.keyring.log_keys())
        if key is None:
            return False
        keyid, now_ms = keyid_of(key.public), self.clock.now_ms()
        org = self.members.keyring.org_of_log(key) or self.members.keyring.keys[keyid].org
        if org == self.members.own.name:
            log.error("own log forked alarm: two copies of this bot sign with one key", extra={"origin": key.name})
            return True
        async with self.store.transaction() as tables:
            if any(row.keyid == keyid and row.fault == Fault.LOG_FORK for row in await tables.ledger.suspensions()):
                return True
            evidence_id = await self.refutations.fork(tables, key.name, keyid, notes, now_ms)
            await tables.ledger.judge(
                VerdictRow(
                    statement_id=sha256_of(key.name.encode()),
                    fault=Fault.LOG_FORK.value,
                    result="UPHELD",
                    project=None,
                    file=None,
                    keyid=keyid,
                    org=org,
                    evidence_id=evidence_id,
                    reason="two heads of one size",
                    suspends=True,
                    at_ms=now_ms,
                )
            )
        async with self.store.transaction() as tables:
            await self.members.read_suspensions(tables)
        log.warning("log forked alarm", extra={"org": org, "origin": key.name})
        self.postman.poke()
        self.on_suspended(frozenset({org}))
        return True
