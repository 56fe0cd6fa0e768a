"""The organisation's key manifest: which keys speak in its name. Signed by its root when it is missing, changed or about to expire."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from matrix_pypi_bot.core.events import Checked, check_envelope, post_of, sign_statement
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.keyring import PinnedOrg, root_keys
from matrix_pypi_bot.core.rejected import Rejected
from matrix_pypi_bot.core.signers import LOG, MIRROR, WATCHER, SigningKey
from matrix_pypi_bot.core.statements.keys import Delegation, ListedKey, Log, Manifest, Revoked, RootKey
from matrix_pypi_bot.ports import TRUST_ROOM, Clock, Store, Transaction
from matrix_pypi_bot.services.signing import keep_own
from matrix_pypi_bot.wire.digests import sha256_of
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

log = logging.getLogger(__name__)

VALID_SECONDS: Final = 90 * 86_400
RENEW_SECONDS: Final = 30 * 86_400  # before it expires


@dataclass(frozen=True, slots=True)
class Organisation:
    """Who signs: the name in every statement, the root key, the mirror key, and the key of the log.

    `former_roots` are those that `keys rotate root` put away: the manifest that names the next root is signed by the last one too.
    """

    name: str
    root: SigningKey
    mirror: SigningKey
    log: SigningKey
    former_roots: tuple[SigningKey, ...] = ()

    @property
    def pinned(self) -> PinnedOrg:
        """The organisation as it pins itself."""
        return PinnedOrg(name=self.name, roots=(self.root.public,), threshold=1, roles=frozenset({MIRROR, WATCHER}))

    @property
    def ever_pinned(self) -> PinnedOrg:
        """The organisation as whoever pinned it at any time did, as far as the keys are there."""
        publics = (self.root.public, *(root.public for root in self.former_roots))
        return PinnedOrg(name=self.name, roots=publics, threshold=1, roles=frozenset({MIRROR, WATCHER}))

    @property
    def log_origin(self) -> str:
        """The first line of the checkpoints of its log."""
        return f"{self.name}/matrix-pypi"


async def ensure_manifest(store: Store, clock: Clock, organisation: Organisation, *, bot_mxid: str) -> Manifest:
    """The manifest that holds now; made, kept, logged and queued for the trust room when there is none that will do.

    `bot_mxid` names its slot there. Raises StoreAway, and Problem (CONFIGURATION) for a key that was revoked.
    """
    now_ms = clock.now_ms()
    async with store.transaction() as tables:
        held, highest = await newest(tables, organisation)
        if held is not None and _will_do(held, organisation, Instant.of_ms(now_ms)):
            return held
        if held is not None:
            refuse_revoked(held, organisation)
        listed = held.keys if held is not None else ()
        return await publish(tables, organisation, held, listed, highest + 1, now_ms=now_ms, bot_mxid=bot_mxid)


async def held_manifest(store: Store, organisation: Organisation) -> Manifest | None:
    """The newest manifest that is kept, whether it will do or not. Raises StoreAway, and Problem as `ensure_manifest` does."""
    async with store.transaction() as tables:
        held, _ = await newest(tables, organisation)
    if held is not None:
        refuse_revoked(held, organisation)
    return held


async def publish(
    tables: Transaction,
    organisation: Organisation,
    held: Manifest | None,
    listed: Sequence[ListedKey],
    version: int,
    *,
    now_ms: int,
    bot_mxid: str,
    delegations: Sequence[Delegation] | None = None,
) -> Manifest:
    """The next manifest, with these keys and those that sign now: signed, kept, logged and queued when the transaction ends.

    `delegations` None: those of the one held.
    """
    if delegations is None:
        delegations = held.delegations if held is not None else ()
    checked = _signed(organisation, held, listed, version, Instant.of_ms(now_ms), delegations)
    manifest = checked.statement.predicate
    assert isinstance(manifest, Manifest), "that is what was signed"
    await keep_own(tables, checked, org=organisation.name, file=None, seq=manifest.version, now_ms=now_ms)
    post = post_of(checked)
    content = json.dumps(post.content, sort_keys=True, separators=(",", ":")).encode()
    await tables.mail.send(TRUST_ROOM, post.type, bot_mxid, content, now_ms)
    log.info("key manifest signed", extra={"org": organisation.name, "version": manifest.version})
    return manifest


async def newest(tables: Transaction, organisation: Organisation) -> tuple[Manifest | None, int]:
    """The newest manifest that a root signed whose key is here, and the highest version that any root of it ever signed."""
    found, highest = None, 0
    for row in await tables.ledger.manifests(organisation.name):
        highest = max(highest, row.seq or 0)
        try:
            checked = check_envelope(json.loads(row.envelope), root_keys(organisation.ever_pinned, None), Manifest)
        except Rejected:
            continue  # by another root, before the key file was changed
        manifest = checked.statement.predicate
        if isinstance(manifest, Manifest) and (found is None or manifest.version > found.version):
            found = manifest
    return found, max(highest, found.version if found is not None else 0)


def _will_do(manifest: Manifest, organisation: Organisation, now: Instant) -> bool:
    listed = {(key.key, role) for key in manifest.keys if key.revoked is None for role in key.roles}
    needed = {(organisation.mirror.public.hex(), MIRROR), (organisation.log.public.hex(), LOG)}
    by_this_root = {root.key for root in manifest.roots} == {organisation.root.public.hex()}
    return by_this_root and needed <= listed and manifest.expires > now + RENEW_SECONDS


def _signed(
    organisation: Organisation,
    held: Manifest | None,
    listed: Sequence[ListedKey],
    version: int,
    now: Instant,
    delegations: Sequence[Delegation] = (),
) -> Checked:
    """The next manifest. Keys that were listed stay listed: what they signed still has to be told from forgeries.

    Where the roots change, those of the one held sign too.
    """
    keys = {key.key: _retired(key, organisation, now) for key in listed}
    for used in _used_keys(organisation, now):
        keys.setdefault(used.key, used)
    manifest = Manifest(
        org=organisation.name,
        version=version,
        issued=now,
        expires=Instant(now + VALID_SECONDS),
        roots=(RootKey(key=organisation.root.public.hex(), scheme="ed25519"),),
        threshold=1,
        keys=tuple(keys.values()),
        log=Log(origin=organisation.log_origin),
        delegations=tuple(delegations),
    )
    name = organisation.name
    before = {root.key for root in held.roots} if held is not None else set()
    signers = {key.keyid: key for key in organisation.former_roots if key.public.hex() in before}
    signers[organisation.root.keyid] = organisation.root
    envelope = sign_statement({name: sha256_of(name.encode())}, manifest, *signers.values())
    return check_envelope(envelope.to_json(), root_keys(organisation.pinned, None), Manifest)


def _used_keys(organisation: Organisation, now: Instant) -> tuple[ListedKey, ListedKey]:
    """The keys that sign now, as a manifest lists them for the first time."""
    mirror, log_key = organisation.mirror.public.hex(), organisation.log.public.hex()
    return (
        ListedKey(key=mirror, scheme="ed25519", roles=("mirror", "watcher"), added=now, revoked=None),
        ListedKey(key=log_key, scheme="ed25519", roles=("log", "witness"), added=now, revoked=None),
    )


def _retired(key: ListedKey, organisation: Organisation, now: Instant) -> ListedKey:
    """A log has one key at a time: with another one a new log begins, and heads by the old one are no word of it."""
    if LOG not in key.roles or key.key == organisation.log.public.hex() or key.revoked is not None:
        return key
    end = Revoked(at=now, reason="replaced by another log key", compromised_since=None)
    return msgspec.structs.replace(key, revoked=end)


def refuse_revoked(held: Manifest, organisation: Organisation) -> None:
    """Raises Problem (CONFIGURATION) when a key that is to sign was revoked."""
    revoked = {key.key for key in held.keys if key.revoked is not None}
    for name, key in (("mirror", organisation.mirror), ("log", organisation.log)):
        if key.public.hex() in revoked:
            raise Problem(
                f"the {name} key was revoked by the organisation's manifest",
                hint=f"organisation.{name}_key_file must name another key",
                code=ProblemCode.CONFIGURATION,
            )
