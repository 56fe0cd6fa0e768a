"""The organisations that are believed here, this one among them: their key manifests, and which of their keys are suspended.

Manifests are taken as TUF takes its root file: never an older version, a change of roots signed by the old ones and the new ones. What
is in memory is what the ledger says; a manifest is learnt after it was kept.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence

from matrix_pypi_bot.core.events import Checked
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.keyring import (
    MAINTAINER_ORG,
    Keyring,
    ManifestRefused,
    Member,
    PinnedOrg,
    Refusal,
    build_keyring,
    take_manifest,
)
from matrix_pypi_bot.core.rejected import Rejected
from matrix_pypi_bot.core.signers import MIRROR, Keyid
from matrix_pypi_bot.core.standing import Standing
from matrix_pypi_bot.core.statements.keys import Manifest
from matrix_pypi_bot.ports import Clock, EnvelopeRow, Store, Transaction
from matrix_pypi_bot.wire.names import ProjectName

log = logging.getLogger(__name__)

_ALREADY_TAKEN = Instant(
    0
)  # a manifest that was taken once is not refused for having expired since: its keys only count no more


class Members:
    """Knows who is who. `own` is this organisation as it pins itself, `pinned` are the others.

    `on_change(organisations)` is called when what these organisations' statements are worth may be another. `head_times` is what is
    known of the logs' last signs of life, None while nobody watches them.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        own: PinnedOrg,
        pinned: Sequence[PinnedOrg] = (),
        maintainers: Mapping[ProjectName, frozenset[str]] | None = None,
        index_name: str = "pypi",
        quorum: int = 2,
        acks_missing_allowed: int = 0,
        on_change: Callable[[frozenset[str]], None] = lambda organisations: None,
    ) -> None:
        self.own = own
        self.pinned = tuple(pinned)
        self.head_times: dict[str, Instant] | None = None
        self._store = store
        self._clock = clock
        self._maintainers = maintainers
        self._index_name = index_name
        self._quorum = quorum
        self._acks_missing_allowed = acks_missing_allowed
        self._on_change = on_change
        self._manifests: dict[str, Manifest] = {}
        self._suspended: frozenset[Keyid] = frozenset()
        self.keyring: Keyring = self._ring()
        self._weights: Mapping[str, bool] = {}

    async def start(self) -> None:
        """What was known before is known again. Raises StoreAway."""
        async with self._store.transaction() as tables:
            for org in self.pinned:
                for row in sorted(await tables.ledger.manifests(org.name), key=lambda row: row.seq or 0):
                    self._take(org, json.loads(row.envelope), _ALREADY_TAKEN)
            await self.read_suspensions(tables)
        self.keyring = self._ring()  # the weights are compared from the first look on: logs are not known yet

    def standing(self) -> Standing:
        """Who is believed at this moment."""
        return Standing(
            keyring=self.keyring,
            own=self.own.name,
            pinned=self.pinned,
            index=self._index_name,
            now=Instant.of_ms(self._clock.now_ms()),
            quorum=self._quorum,
            acks_missing_allowed=self._acks_missing_allowed,
            suspended=self._suspended,
            head_times=self.head_times,
        )

    def org(self, name: str) -> PinnedOrg | None:
        """The other organisation of this name."""
        return next((org for org in self.pinned if org.name == name), None)

    def manifest(self, name: str) -> Manifest | None:
        """The manifest held of an organisation."""
        return self._manifests.get(name)

    def own_keyids(self) -> frozenset[Keyid]:
        """The mirror keys of this organisation, former and revoked ones too: somebody else may have them."""
        own = self.own.name
        return frozenset(key.keyid for key in self.keyring.keys.values() if key.org == own and MIRROR in key.roles)

    def stands(self, row: EnvelopeRow) -> bool:
        """Whether a statement still counts: its key may have been revoked."""
        now, received = Instant.of_ms(self._clock.now_ms()), Instant.of_ms(row.first_seen_ms)
        return self.keyring.counts(Keyid(row.keyid), row.org, received=received, now=now)

    def learn_own(self, manifest: Manifest | None) -> None:
        """This organisation's manifest is this one."""
        if manifest is not None:
            self._manifests[self.own.name] = manifest
        self.keyring = self._ring()

    def would_take(self, checked: Checked) -> bool:
        """Whether a manifest of another organisation is to be kept: it is the next one, and who must sign it did."""
        manifest = checked.statement.predicate
        org = self.org(manifest.org) if isinstance(manifest, Manifest) else None
        if org is None:
            return False
        now = Instant.of_ms(self._clock.now_ms())
        try:
            take_manifest(org, self._manifests.get(org.name), checked.envelope.to_json(), now=now)
        except (Rejected, ManifestRefused) as refusal:
            # A log holds every version there ever was, and whoever reads it has the newest one already as a rule.
            old = isinstance(refusal, ManifestRefused) and refusal.refusal is Refusal.OLD_VERSION
            told = {"org": org.name, "reason": str(refusal)}
            log.log(logging.DEBUG if old else logging.WARNING, "key manifest refused alarm", extra=told)
            return False
        return True

    def learn(self, checked: Checked) -> None:
        """A manifest that was kept holds from now on."""
        manifest = checked.statement.predicate
        org = self.org(manifest.org) if isinstance(manifest, Manifest) else None
        before = self._manifests.get(org.name) if org is not None else None
        if org is None or not self._take(org, checked.envelope.to_json(), Instant.of_ms(self._clock.now_ms())):
            return
        self.keyring = self._ring()
        self._weights = self._weigh()
        told = self._manifests[org.name]
        log.info("key manifest taken", extra={"org": org.name, "version": told.version, "expires": str(told.expires)})
        delegates = told.delegations != (before.delegations if before is not None else ())
        self._on_change(frozenset({org.name, MAINTAINER_ORG} if delegates else {org.name}))

    async def read_suspensions(self, tables: Transaction) -> None:
        """Takes the suspended keys from the verdicts there are, also those of the transaction that is under way."""
        self._suspended = frozenset(Keyid(row.keyid) for row in await tables.ledger.suspensions())

    def look_at_the_time(self) -> None:
        """Tells of organisations whose word time alone made worth another: a manifest ran out, a log fell silent, or spoke again."""
        before, now = self._weights, self._weigh()
        self._weights = now
        if changed := frozenset(org for org in now if now[org] != before.get(org, now[org])):
            log.warning("organisations count otherwise than before alarm", extra={"orgs": ", ".join(sorted(changed))})
            self._on_change(changed)

    def _weigh(self) -> Mapping[str, bool]:
        """Whether each organisation has weight now."""
        return self.standing().weights()

    def _take(self, org: PinnedOrg, envelope: object, now: Instant) -> bool:
        try:
            taken = take_manifest(org, self._manifests.get(org.name), envelope, now=now).statement.predicate
        except (Rejected, ManifestRefused):
            return False
        assert isinstance(taken, Manifest)
        self._manifests[org.name] = taken
        return True

    def _ring(self) -> Keyring:
        members = [Member(org, self._manifests.get(org.name)) for org in (self.own, *self.pinned)]
        quorum = max(1, min(self._quorum, len(self.pinned)))
        return build_keyring(members, maintainers=self._maintainers, quorum=quorum)
