"""The organisation's keys as its manifest lists them, and what an operator decides of keys: ends, and maintainers' delegations."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.limits import MAX_DELEGATIONS, MAX_REASON_CHARACTERS
from matrix_pypi_bot.core.signers import keyid_of
from matrix_pypi_bot.core.statements.keys import Delegation, ListedKey, Manifest, Revoked
from matrix_pypi_bot.ports import Clock, Postman, Store
from matrix_pypi_bot.services.keys import Organisation, newest, publish
from matrix_pypi_bot.services.resume import ResumeGuard
from matrix_pypi_bot.wire.digests import InvalidDigest, parse_sha256
from matrix_pypi_bot.wire.messages import DelegationTold, KeyDelegation, KeyRevocation, KeysTold, KeyTold
from matrix_pypi_bot.wire.names import InvalidName, normalise_project
from matrix_pypi_bot.wire.problems import Problem, ProblemCode, clean_line

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDesk:
    """Tells the keys and ends them. `on_manifest` hears, after the commit, of a manifest that was signed."""

    store: Store
    clock: Clock
    organisation: Organisation
    guard: ResumeGuard
    postman: Postman
    bot_mxid: str
    on_manifest: Callable[[Manifest], None]

    async def keys(self) -> KeysTold:
        """What the newest manifest lists. Raises Problem (NOT_FOUND) while there is none, StoreAway."""
        async with self.store.transaction() as tables:
            held, _ = await newest(tables, self.organisation)
        return _told(_there(held))

    async def revoke(self, revocation: KeyRevocation) -> KeysTold:
        """The key no longer speaks for the organisation when it returns, and the manifest that says so is on its way.

        What it signed and was received before `compromised_since` stays good; without that, what was received before now.
        Raises Problem: NOT_FOUND for a key that is not listed, BAD_REQUEST for one that signs now, for an end that was told
        before, and for times and reasons that cannot be; LogBehind, StoreAway.
        """
        self.guard.check()
        now_ms = self.clock.now_ms()
        end = _end(revocation, Instant.of_ms(now_ms))
        async with self.store.transaction() as tables:
            held, highest = await newest(tables, self.organisation)
            key = self._named(_there(held), revocation.key)
            _refuse_weaker(key, end)
            listed = [msgspec.structs.replace(each, revoked=end) if each is key else each for each in _there(held).keys]
            manifest = await publish(
                tables, self.organisation, held, listed, highest + 1, now_ms=now_ms, bot_mxid=self.bot_mxid
            )
        log.warning("operator: key revoked", extra={"key": keyid_of(bytes.fromhex(key.key)), "reason": end.reason})
        self.on_manifest(manifest)
        self.postman.poke()
        return _told(manifest)

    async def delegate(self, order: KeyDelegation) -> KeysTold:
        """The key speaks for the project in this organisation's eyes, or does not any more, when it returns.

        Raises Problem: BAD_REQUEST for what is no project or key, for a key of the organisation itself, for one delegation too many;
        NOT_FOUND for the end of one that there is not; LogBehind, StoreAway.
        """
        self.guard.check()
        now_ms, wanted = self.clock.now_ms(), _delegation(order)
        async with self.store.transaction() as tables:
            held, highest = await newest(tables, self.organisation)
            there = _there(held)
            if wanted.key in {key.key for key in there.keys} | {root.key for root in there.roots}:
                raise Problem("this is a key of the organisation itself", code=ProblemCode.BAD_REQUEST)
            others = [one for one in there.delegations if one != wanted]
            if not order.delegated and len(others) == len(there.delegations):
                raise Problem("this key is not delegated that project", code=ProblemCode.NOT_FOUND)
            delegations = [*others, wanted] if order.delegated else others
            if len(delegations) > MAX_DELEGATIONS:
                raise Problem(f"a manifest holds {MAX_DELEGATIONS} delegations", code=ProblemCode.BAD_REQUEST)
            manifest = await publish(
                tables,
                self.organisation,
                held,
                there.keys,
                highest + 1,
                now_ms=now_ms,
                bot_mxid=self.bot_mxid,
                delegations=delegations,
            )
        what = "delegated" if order.delegated else "delegation ended"
        log.warning(f"operator: {what}", extra={"project": wanted.project, "key": wanted.key})
        self.on_manifest(manifest)
        self.postman.poke()
        return _told(manifest)

    def _named(self, held: Manifest, name: str) -> ListedKey:
        """The listed key with this public key or key id."""
        spelled = name.strip().lower().removeprefix("ed25519:")
        key = next((key for key in held.keys if spelled in (key.key, keyid_of(bytes.fromhex(key.key)))), None)
        if key is None:
            raise Problem(
                f"the manifest lists no key {clean_line(name, 80)}",
                hint="matrix-pypi keys show lists the keys",
                code=ProblemCode.NOT_FOUND,
            )
        if key.key in (self.organisation.mirror.public.hex(), self.organisation.log.public.hex()):
            raise Problem(
                "this key signs now",
                hint="matrix-pypi keys rotate, restart the bot, and revoke it then",
                code=ProblemCode.BAD_REQUEST,
            )
        return key


def _delegation(order: KeyDelegation) -> Delegation:
    try:
        key = parse_sha256(order.key.strip().lower().removeprefix("ed25519:"))  # 32 bytes in hex, as a digest is
        return Delegation(project=normalise_project(order.project), key=key)
    except (InvalidName, InvalidDigest) as error:
        raise Problem(error.detail, code=ProblemCode.BAD_REQUEST) from error


def _end(revocation: KeyRevocation, now: Instant) -> Revoked:
    reason = clean_line(revocation.reason, MAX_REASON_CHARACTERS)
    if not reason:
        raise Problem("a revocation needs a reason", code=ProblemCode.BAD_REQUEST)
    since = None
    if revocation.compromised_since is not None:
        try:
            since = Instant.parse(revocation.compromised_since)
        except ValueError as error:
            raise Problem(f"compromised_since: {error}", code=ProblemCode.BAD_REQUEST) from error
        if since > now:
            raise Problem("compromised_since is in the future", code=ProblemCode.BAD_REQUEST)
    return Revoked(at=now, reason=reason, compromised_since=since)


def _refuse_weaker(key: ListedKey, end: Revoked) -> None:
    """An end that was told can be moved back in time, when more becomes known, and never forward."""
    if key.revoked is None:
        return
    before, since = key.revoked.compromised_since, end.compromised_since
    if since is None or since >= (key.revoked.at if before is None else before):
        raise Problem("the key was revoked already, from that time on or earlier", code=ProblemCode.BAD_REQUEST)


def _there(held: Manifest | None) -> Manifest:
    if held is None:
        raise Problem("no manifest is signed yet: the homeserver was not there", code=ProblemCode.NOT_FOUND)
    return held


def _told(manifest: Manifest) -> KeysTold:
    return KeysTold(
        org=manifest.org,
        version=manifest.version,
        expires=str(manifest.expires),
        roots=tuple(root.key for root in manifest.roots),
        keys=tuple(
            KeyTold(
                keyid=keyid_of(bytes.fromhex(key.key)),
                key=key.key,
                roles=key.roles,
                added=str(key.added),
                revoked=str(key.revoked.at) if key.revoked is not None else None,
                reason=key.revoked.reason if key.revoked is not None else None,
                compromised_since=_written(key.revoked.compromised_since) if key.revoked is not None else None,
            )
            for key in manifest.keys
        ),
        delegations=tuple(DelegationTold(project=one.project, key=one.key) for one in manifest.delegations),
    )


def _written(moment: Instant | None) -> str | None:
    return None if moment is None else str(moment)
