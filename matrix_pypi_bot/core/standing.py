"""Who is believed at one moment: the organisations that are pinned, the keys that count, and what the operator asks of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from matrix_pypi_bot.core.claims import Claim
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.keyring import MAINTAINER_ORG, Keyring, PinnedOrg, build_keyring
from matrix_pypi_bot.core.signers import MAINTAINER, MIRROR, WATCHER, Keyid, PinnedKey

LONGEST_SILENCE_SECONDS: Final = 24 * 3_600
"""A log whose head is older may be held back from us: nothing is served that rests on what it does not say."""

_EPOCH: Final = Instant(0)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A value; `at` gives it at another moment.

    `suspended` are keys that were proved to have signed something false. `head_times` says when each organisation's log last showed
    that it is alive, None where nobody watches logs. `index` is the upstream that claims must be about.
    """

    keyring: Keyring
    own: str
    pinned: tuple[PinnedOrg, ...] = ()
    index: str = "pypi"
    now: Instant = _EPOCH
    quorum: int = 2
    acks_missing_allowed: int = 0
    suspended: frozenset[Keyid] = frozenset()
    head_times: dict[str, Instant] | None = field(default=None, hash=False)

    @cached_property
    def needed(self) -> int:
        """k: how many organisations must have hashed the bytes themselves."""
        return max(1, min(self.quorum, len(self.pinned)))

    @cached_property
    def watchers(self) -> tuple[str, ...]:
        """The organisations whose silence is no consent."""
        return tuple(org.name for org in self.pinned if WATCHER in org.roles)

    def outcasts(self) -> frozenset[str]:
        """Organisations with no weight: a key of theirs signed something false, and they have not said that it was stolen."""
        keys = self.keyring.keys
        suspended = (key for keyid in self.suspended if keyid in keys for key in keys[keyid].everywhere)
        return frozenset(
            key.org
            for key in suspended
            if key.org != MAINTAINER_ORG and not self.keyring.is_compromised(key.keyid, key.org)
        )

    def silent(self) -> frozenset[str]:
        """Organisations whose log has shown no life for a day."""
        if self.head_times is None:
            return frozenset()
        horizon = self.now - LONGEST_SILENCE_SECONDS
        return frozenset(org.name for org in self.pinned if self.head_times.get(org.name, _EPOCH) < horizon)

    @property
    def spelled(self) -> str:
        """Another text whenever anybody's word is worth another; empty when nobody but this organisation has any."""
        keys = sorted((keyid, *one) for keyid, key in self.keyring.keys.items() for one in _spelled(key))
        if not self.pinned and all(org == self.own for _, org, *_ in keys):
            return ""
        asked = (self.own, self.index, self.quorum, self.acks_missing_allowed, [org.name for org in self.pinned])
        return repr((asked, self.weights(), sorted(self.suspended), keys))

    def weights(self) -> dict[str, bool]:
        """Whether each pinned organisation has weight now."""
        without, weights = self.outcasts() | self.silent(), {}
        for org in self.pinned:
            member = self.keyring.member(org.name)
            lives = member is not None and member.manifest is not None and member.manifest.expires > self.now
            weights[org.name] = lives and org.name not in without
        return weights

    def counts(self, claim: Claim) -> bool:
        """Whether the claim's key may say this, and counts now. What became of the statement itself is not asked here."""
        key = self.keyring.keys.get(claim.keyid)
        received = Instant.of_ms(claim.received_ms)
        if key is None or not self.keyring.counts(claim.keyid, claim.org, received=received, now=self.now):
            return False
        if claim.org == MAINTAINER_ORG and claim.keyid in self.suspended:  # a maintainer answers for nobody but himself
            return False
        key = key.of(claim.org)
        roles = {MIRROR, WATCHER, MAINTAINER} if claim.kind == "review" else {MIRROR, MAINTAINER}
        return bool(key.roles & roles)


def _spelled(key: PinnedKey) -> list[tuple[str, list[str], list[str]]]:
    return [(one.org, sorted(one.roles), sorted(one.projects)) for one in key.everywhere]


def alone(own: str = "", *, index: str = "pypi") -> Standing:
    """The standing of an organisation that has pinned nobody."""
    return Standing(keyring=build_keyring(()), own=own, index=index)
