"""Everything about the logs of other organisations, put together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from matrix_pypi_bot.core.events import Checked
from matrix_pypi_bot.core.heads import Fork
from matrix_pypi_bot.core.notes import NoteKey
from matrix_pypi_bot.core.signers import MIRROR, WATCHER, Keys, PinnedKey
from matrix_pypi_bot.ports import Clock, LogReader, Peer, StatementDoor, Store
from matrix_pypi_bot.services.copies import Copies
from matrix_pypi_bot.services.keys import Organisation
from matrix_pypi_bot.services.log import LogKeeper
from matrix_pypi_bot.services.log_pages import Budget, LogPages
from matrix_pypi_bot.services.members import Members
from matrix_pypi_bot.services.own_copies import OwnCopies
from matrix_pypi_bot.services.pull import Pull
from matrix_pypi_bot.services.resume import ResumeGuard
from matrix_pypi_bot.services.taking import Taking
from matrix_pypi_bot.wire.names import ProjectName


@dataclass(frozen=True, slots=True, kw_only=True)
class PullParts:
    """What pulling needs of the rest of the bot. Hooks: see `Pull`, `Copies`, `OwnCopies` and `Taking`.

    `announced(org)` is where an organisation says that its log is, for those whose address the operator did not write; "" if nowhere.
    """

    store: Store
    clock: Clock
    reader: LogReader
    door: StatementDoor
    members: Members
    organisation: Organisation
    guard: ResumeGuard
    keeper: LogKeeper
    budget: Budget
    every_seconds: float
    on_restored: Callable[[Checked], None]
    on_round: Callable[[bool], Awaitable[None]]
    announced: Callable[[str], str] = lambda org: ""
    on_fork: Callable[[Fork], None] = lambda fork: None
    on_project: Callable[[ProjectName], None] = lambda project: None


def pulling(parts: PullParts) -> Pull:
    """A `Pull` of the organisations that are pinned; the members see from now on when their logs showed a sign of life."""
    organisation, members, guard = parts.organisation, parts.members, parts.guard
    copies = Copies(
        store=parts.store,
        clock=parts.clock,
        org=organisation.name,
        key=organisation.log,
        may_sign=lambda: guard.is_open,
        on_fork=parts.on_fork,
    )
    if members.pinned:
        members.head_times = copies.heads
    own = OwnCopies(
        store=parts.store,
        clock=parts.clock,
        reader=parts.reader,
        guard=guard,
        keeper=parts.keeper,
        org=organisation.name,
        key=NoteKey(organisation.log_origin, organisation.log.public),
        own_keys=lambda: _own_keys(organisation, members.keyring.keys),
        on_restored=parts.on_restored,
    )
    return Pull(
        reader=parts.reader,
        pages=LogPages(store=parts.store, clock=parts.clock, reader=parts.reader, budget=parts.budget),
        copies=copies,
        taking=Taking(store=parts.store, clock=parts.clock, door=parts.door, on_project=parts.on_project),
        own=own,
        peers=lambda: [
            Peer(org.name, org.log_url or parts.announced(org.name), configured=bool(org.log_url))
            for org in members.pinned
        ],
        keyring=lambda: members.keyring,
        on_round=parts.on_round,
        every_seconds=parts.every_seconds,
    )


def _own_keys(organisation: Organisation, keys: Keys) -> Keys:
    """The keys whose statements our log may hold; the one in use also before a manifest that lists it is known."""
    mirror = organisation.mirror
    used = PinnedKey(public=mirror.public, org=organisation.name, roles=frozenset({MIRROR, WATCHER}))
    return {used.keyid: used, **{keyid: key for keyid, key in keys.items() if key.org == organisation.name}}
