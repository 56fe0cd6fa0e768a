"""Announcements: where an organisation's gateway, log and Kubo node are. Our own is signed here, the others' are looked up here.

An announced address is its organisation's claim and nobody's order: whoever goes there goes through the guarded client, and what
comes from there is checked block by block.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from matrix_pypi_bot.core.envelope import read_envelope
from matrix_pypi_bot.core.events import Checked, post_of
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.keyring import PinnedOrg
from matrix_pypi_bot.core.rejected import Rejected
from matrix_pypi_bot.core.signers import Keyid
from matrix_pypi_bot.core.statements import read_statement
from matrix_pypi_bot.core.statements.announcement import Announcement, KuboPeer, LogAddress
from matrix_pypi_bot.core.strict_json import parse_strict
from matrix_pypi_bot.ports import TRUST_ROOM, Clock, EnvelopeRow, Store
from matrix_pypi_bot.services.intake import ledger_row
from matrix_pypi_bot.services.origins import origin_of_url
from matrix_pypi_bot.services.signing import Chain, Voice
from matrix_pypi_bot.wire.digests import sha256_of
from matrix_pypi_bot.wire.messages import PeerTold

log = logging.getLogger(__name__)

PROFILE: Final = "unixfs-v1-2025"
VALID_SECONDS: Final = 30 * 86_400
RENEW_SECONDS: Final = 10 * 86_400  # before it expires
MAX_GATEWAYS: Final = 16
"""So many are told for one file: more would not make it come faster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """What is announced. `gateway` without `/ipfs/`, None for none; `log` with its `/log/v1`."""

    gateway: str | None
    log: str
    kubo: KuboPeer | None = None


def addresses_of(
    gateway: str | None, log_url: str | None, kubo_peer: str | None, kubo_addrs: tuple[str, ...]
) -> Addresses | None:
    """What is announced by the settings; the log is beside the gateway unless another address is named. None: nothing."""
    gateway = None if gateway is None else gateway.rstrip("/")
    if log_url is None and gateway is None:
        return None
    return Addresses(
        gateway=gateway,
        log=f"{gateway}/log/v1" if log_url is None else log_url.rstrip("/"),
        kubo=None if kubo_peer is None else KuboPeer(peer=kubo_peer, addrs=kubo_addrs),
    )


async def ensure_announcement(
    store: Store, clock: Clock, voice: Voice, addresses: Addresses, *, bot_mxid: str, log_origin: str
) -> Announcement:
    """The announcement that holds now; signed, kept, logged and queued for the trust room when there is none that will do.

    Ask `voice.may_speak` first. Raises StoreAway, and LogBehind when nothing may be signed.
    """
    now_ms = clock.now_ms()
    now = Instant.of_ms(now_ms)

    def predicate(chain: Chain) -> Announcement:
        signer, seq, prev, issued = chain
        return Announcement(
            user=bot_mxid,
            gateway=addresses.gateway,
            log=LogAddress(url=addresses.log, origin=log_origin),
            kubo=addresses.kubo,
            profile=PROFILE,
            expires=Instant(now + VALID_SECONDS),
            signer=signer,
            seq=seq,
            prev=prev,
            issued=issued,
        )

    async with store.transaction() as tables:
        rows = await tables.ledger.announcements(voice.org)
        held = _newest([row for row in rows if row.keyid == voice.keyid])
        if held is not None and _says(held.said, addresses, bot_mxid) and held.said.expires > now + RENEW_SECONDS:
            return held.said
        checked = await voice.say(
            tables, {voice.org: sha256_of(voice.org.encode())}, predicate, file=None, now_ms=now_ms
        )
        post = post_of(checked)
        content = json.dumps(post.content, sort_keys=True, separators=(",", ":")).encode()
        await tables.mail.send(TRUST_ROOM, post.type, bot_mxid, content, now_ms)
    log.info("announcement signed", extra={"gateway": addresses.gateway, "log_url": addresses.log})
    said = checked.statement.predicate
    assert isinstance(said, Announcement), "that is what was signed"
    return said


class Peers:
    """Where the pinned organisations' gateways are: what the operator wrote of each, else what it announced last.

    `pinned` are the others, `counts(row)` whether a statement of theirs counts now. `start` reads what the
    ledger has; `tell` is called, after the commit, for every announcement that was kept since.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        pinned: Sequence[PinnedOrg],
        counts: Callable[[EnvelopeRow], bool],
    ) -> None:
        self._store = store
        self._clock = clock
        self._pinned = tuple(pinned)
        self._counts = counts
        self._announced: dict[str, dict[Keyid, _Announced]] = {}

    async def start(self) -> None:
        """What was announced before is known. Raises StoreAway."""
        async with self._store.transaction() as tables:
            for org in self._pinned:
                for row in await tables.ledger.announcements(org.name):
                    self._learn(row)

    def tell(self, checked: Checked) -> None:
        """A statement was kept; of other kinds than announcements nothing is noted."""
        if isinstance(checked.statement.predicate, Announcement):
            self._learn(ledger_row(checked, via="", at_ms=self._clock.now_ms()))

    @property
    def are_pinned(self) -> bool:
        """Whether there is anybody who may have a gateway."""
        return bool(self._pinned)

    def gateways(self, attested_by: Collection[str] = ()) -> tuple[str, ...]:
        """The addresses of gateways, those of the organisations `attested_by` first: they had the file."""
        found = [(org.name not in attested_by, url) for org in self._pinned if (url := self._gateway(org)) is not None]
        return tuple(dict.fromkeys(url for _, url in sorted(found, key=lambda one: one[0])))[:MAX_GATEWAYS]

    @property
    def origins(self) -> tuple[str, ...]:
        """`scheme://host:port` of the gateways that the operator wrote: these may be http or private, no others."""
        written = [origin_of_url(org.gateway) for org in self._pinned if org.gateway]
        return tuple(dict.fromkeys(origin for origin in written if origin is not None))

    def told(self) -> tuple[PeerTold, ...]:
        """What is known of each, for people."""
        return tuple(self._told(org) for org in self._pinned)

    def announcement(self, org: str) -> Announcement | None:
        """What the organisation announced last, if that counts and has not expired."""
        now = Instant.of_ms(self._clock.now_ms())
        held = [
            one for one in self._announced.get(org, {}).values() if self._counts(one.row) and one.said.expires > now
        ]
        # A chain belongs to a key; which of two keys spoke last only their organisation can tell.
        return max(held, key=lambda one: (one.said.issued, one.said.seq)).said if held else None

    def _gateway(self, org: PinnedOrg) -> str | None:
        """Its address; None for one that nobody should be sent to."""
        if org.gateway:
            return org.gateway.rstrip("/")
        said = self.announcement(org.name)
        if said is None or said.gateway is None or origin_of_url(said.gateway) is None:
            return None
        return said.gateway.rstrip("/")

    def _told(self, org: PinnedOrg) -> PeerTold:
        said = self.announcement(org.name)
        return PeerTold(
            org=org.name,
            gateway=self._gateway(org),
            configured=bool(org.gateway),
            announced_until=None if said is None else str(said.expires),
        )

    def _learn(self, row: EnvelopeRow) -> None:
        found = _newest([row])
        if found is None:
            return
        of_org = self._announced.setdefault(row.org, {})
        known = of_org.get(Keyid(row.keyid))
        if known is None or known.said.seq < found.said.seq:
            of_org[Keyid(row.keyid)] = found


@dataclass(frozen=True, slots=True)
class _Announced:
    """An announcement, and the row that it is kept in, without its envelope."""

    row: EnvelopeRow
    said: Announcement


def _newest(rows: Sequence[EnvelopeRow]) -> _Announced | None:
    """The last one of a key's chain among `rows`."""
    read = [_Announced(row, said) for row in rows if (said := _read(row)) is not None]
    return max(read, key=lambda one: one.said.seq) if read else None


def _read(row: EnvelopeRow) -> Announcement | None:
    try:
        predicate = read_statement(read_envelope(parse_strict(row.envelope)).payload, Announcement).predicate
    except Rejected:
        return None  # kept under rules that were wider than today's
    return predicate if isinstance(predicate, Announcement) else None


def _says(said: Announcement, addresses: Addresses, bot_mxid: str) -> bool:
    return (said.user, said.gateway, said.log.url, said.kubo) == (
        bot_mxid,
        addresses.gateway,
        addresses.log,
        addresses.kubo,
    )
