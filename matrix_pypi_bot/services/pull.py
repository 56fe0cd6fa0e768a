"""Pulling the logs of the organisations that are pinned: each in its own time, from itself or from whoever has a copy of it.

One round with an organisation: its own log, its copy of ours, and its copies of everybody else's, whose heads are compared with what we
have. Bounded in bytes, statements and time, per round and per day; beyond it the rest is pulled later, and nothing is dropped.
"""

from __future__ import annotations

import asyncio
import collections
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from matrix_pypi_bot.core.heads import SignedHead, read_head_of
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.keyring import Keyring
from matrix_pypi_bot.core.limits import MAX_NOTE_BYTES
from matrix_pypi_bot.ports import Absent, Away, CopyId, LogReader, Peer, Wrong
from matrix_pypi_bot.services.copies import Copies, Weighed, Weight
from matrix_pypi_bot.services.log_pages import LogPages, Source
from matrix_pypi_bot.services.own_copies import OwnCopies
from matrix_pypi_bot.services.taking import Taking
from matrix_pypi_bot.wire.problems import Problem

log = logging.getLogger(__name__)

ROUND_SECONDS: Final = 300.0  # what is staged by then is not lost
HINT_SECONDS: Final = 2.0  # a hint is followed no sooner after a round
LOOK_SECONDS: Final = 5.0  # for organisations that are new
PAGES_PER_ROUND: Final = 50
RELAY_AFTER: Final = 3  # rounds in which an organisation's own log did not bring what others have of it
MENDED_PER_ROUND: Final = 10
HEARD_NOTES: Final = 8
_ENDLESS: Final = 2**62


class Pull:
    """Have `run()` run. `peers()` are the organisations pinned now, this one not among them; `keyring()` the keys known now.

    `on_round(everybody)` is awaited after every round, and told whether every peer was asked by now. `hear_head`, `hear_note` and
    `keys_changed` may be called at any time.
    """

    def __init__(
        self,
        *,
        reader: LogReader,
        pages: LogPages,
        copies: Copies,
        taking: Taking,
        own: OwnCopies,
        peers: Callable[[], Sequence[Peer]],
        keyring: Callable[[], Keyring],
        on_round: Callable[[bool], Awaitable[None]],
        every_seconds: float,
    ) -> None:
        self._reader = reader
        self._pages = pages
        self._copies = copies
        self._taking = taking
        self._own = own
        self._peers = peers
        self._keyring = keyring
        self._on_round = on_round
        self._every_seconds = every_seconds
        self._locks: dict[str, asyncio.Lock] = collections.defaultdict(asyncio.Lock)
        self._wakes: dict[str, asyncio.Event] = collections.defaultdict(asyncio.Event)
        self._heard: dict[str, collections.deque[str]] = {}
        self._quiet: collections.Counter[str] = collections.Counter()
        self._failed: collections.Counter[str] = collections.Counter()
        self._misfits: dict[str, str] = {}
        self._read_to: dict[Source, int] = {}
        self._looked_with: dict[CopyId, Keyring] = {}
        self._asked: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def peers(self) -> Sequence[Peer]:
        """The organisations pinned now, and where their logs answer."""
        return self._peers()

    @property
    def heads(self) -> Mapping[str, Instant]:
        """When each organisation's newest verified head was signed; whoever is not in it has none."""
        return self._copies.heads

    @property
    def broken(self) -> frozenset[str]:
        """Organisations whose log contradicts itself, or whose newest head the leaves that they give do not bear."""
        return frozenset(self._copies.broken) | frozenset(self._misfits)

    async def start(self) -> None:
        """What was known before is known again. Raises StoreAway."""
        await self._copies.start(lambda org: self._keyring().log_keys_of(org))

    async def run(self) -> None:
        """Pulls until cancelled."""
        try:
            while True:
                self._begin_and_end()
                await asyncio.sleep(min(self._every_seconds, LOOK_SECONDS))
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def hear_head(self, org: str, note: str) -> None:
        """A note was seen elsewhere, as in a trust room: it is compared, and the log is pulled at once."""
        if len(note) <= MAX_NOTE_BYTES and any(peer.org == org for peer in self._peers()):
            self._heard.setdefault(org, collections.deque(maxlen=HEARD_NOTES)).append(note)
            self._wakes[org].set()

    def hear_note(self, note: str) -> None:
        """The same, of whatever log it is the head of. A forged one, as strangers can send, wakes nobody and takes nobody's place."""
        for peer in self._peers():
            if len(note) <= MAX_NOTE_BYTES and read_head_of(note, self._keyring().log_keys_of(peer.org)) is not None:
                self.hear_head(peer.org, note)

    def keys_changed(self) -> None:
        """The keyring grew, or an address became known: everybody is pulled at once."""
        for peer in self._peers():
            self._wakes[peer.org].set()

    async def pull(self, org: str) -> None:
        """One round with the organisation. Raises StoreAway."""
        try:
            await self._go_round(org)
        finally:
            self._asked.add(org)
        await self._tell_of_round()

    async def _go_round(self, org: str) -> None:
        peers = {peer.org: peer for peer in self._peers()}
        peer = peers.get(org)
        if peer is None:
            return
        async with self._locks[org]:
            while heard := self._heard.get(org):
                await self._weigh(org, heard.popleft())
            text = await self._reader.note(peer, None) if peer.url else Away("nobody knows where its log is")
            brought = await self._from_itself(peer, text)
            self._quiet[org] = 0 if brought else self._quiet[org] + 1
        if isinstance(text, Away):
            return  # its copies are not there either, and to find that out would take as long again for each
        await self._own.look(peer, self._keyring())
        for other in peers:
            if other != org:
                text = await self._reader.note(peer, other)
                if isinstance(text, str):
                    async with self._locks[other]:
                        await self._from_copy(Source(peer, other), text)

    async def _tell_of_round(self) -> None:
        await self._on_round(self._asked >= {peer.org for peer in self._peers()})

    def _begin_and_end(self) -> None:
        orgs = [peer.org for peer in self._peers()]
        for org in [org for org in self._tasks if org not in orgs]:
            self._tasks.pop(org).cancel()
        for org in orgs:
            if org not in self._tasks:
                self._tasks[org] = asyncio.create_task(self._keep_pulling(org), name=f"pull {org}")

    async def _keep_pulling(self, org: str) -> None:
        while True:
            self._wakes[org].clear()
            try:
                try:
                    async with asyncio.timeout(ROUND_SECONDS):
                        await self.pull(org)
                except TimeoutError:
                    log.info("log is pulled on in the next round", extra={"org": org})
                    await self._tell_of_round()
            except Problem as problem:
                log.warning("log must wait", extra={"org": org, "reason": problem.detail})
            except Exception:  # nothing that a peer sends may end the pulling
                log.exception("pulling a log failed", extra={"org": org})
            pause = min(HINT_SECONDS, self._every_seconds)
            await asyncio.sleep(pause)
            try:
                async with asyncio.timeout(self._every_seconds - pause):
                    await self._wakes[org].wait()
            except TimeoutError:
                pass

    async def _from_itself(self, peer: Peer, text: str | Absent | Away | Wrong) -> bool:
        """Whether the organisation's own log, which shows this head, brought everything that anybody has shown of it."""
        source, org = Source(peer), peer.org
        if not isinstance(text, str):
            self._pages.complain(org, "it has no head yet" if isinstance(text, Absent) else text.reason)
            return False
        weighed = await self._known_or_introduced(source, text)
        if weighed.copy is None or weighed.head is None:
            self._pages.complain(org, weighed.weight.value)
            return False
        self._pages.all_is_well(org)
        if weighed.weight is Weight.LARGER and self._misfits.get(org) != weighed.head.note.text:
            await self._grow(source, weighed.copy, weighed.head)
        await self._take(org, weighed.copy)
        await self._mend(source, weighed.copy)
        return not await self._copies.is_behind(weighed.copy)

    async def _grow(self, source: Source, copy: CopyId, head: SignedHead) -> None:
        """The first time leaves that somebody relayed may be what is wrong; the second time all of them are the log's own."""
        org = source.log_of
        while self._failed[org] < 2 and await self._fetch(source, copy, head):
            if await self._copies.settle(org, copy, head):
                self._failed.pop(org, None)
                self._misfits.pop(org, None)
                return
            self._failed[org] += 1
        if self._failed[org] >= 2:
            self._failed.pop(org)
            self._misfits[org] = head.note.text
            log.error("log does not bear its own head alarm", extra={"org": org, "size": head.size})

    async def _from_copy(self, source: Source, text: str) -> None:
        """Compares the head in a peer's copy of another log; takes leaves from it when that log itself is quiet."""
        org = source.log_of
        if self._quiet[org] < RELAY_AFTER:
            await self._weigh(org, text)
            return
        weighed = await self._known_or_introduced(source, text)
        if weighed.copy is None or weighed.head is None or weighed.weight is not Weight.LARGER:
            return
        if await self._fetch(source, weighed.copy, weighed.head):
            if await self._copies.settle(org, weighed.copy, weighed.head):
                self._misfits.pop(org, None)
            else:
                what = {"org": org, "peer": source.peer.org}
                log.warning("a peer's copy of a log does not bear the head it stands under alarm", extra=what)
        await self._take(org, weighed.copy)

    async def _weigh(self, org: str, text: str) -> Weighed:
        return await self._copies.weigh(org, text, self._keyring().log_keys_of(org))

    async def _known_or_introduced(self, source: Source, text: str) -> Weighed:
        """The note, weighed; when no key of its log is known, its entries are searched for the manifest that names it."""
        weighed = await self._weigh(source.log_of, text)
        start = self._read_to.get(source, 0)
        for _ in range(PAGES_PER_ROUND):
            if weighed.weight is not Weight.UNSIGNED:
                break
            leaves = await self._pages.leaves(source, start, _ENDLESS)
            if not leaves:
                break
            await self._taking.introduce(leaves)
            start = self._read_to[source] = start + len(leaves)
            weighed = await self._weigh(source.log_of, text)
        return weighed

    async def _fetch(self, source: Source, copy: CopyId, head: SignedHead) -> bool:
        """Whether all leaves below the head are here now; what is not, comes in a later round."""
        start = await self._copies.end(copy)
        for _ in range(PAGES_PER_ROUND):
            if start >= head.size:
                break
            leaves = await self._pages.leaves(source, start, head.size)
            if not leaves:
                return False
            await self._taking.introduce(leaves)
            await self._copies.stage(copy, leaves, relayed=source.of is not None)
            start += len(leaves)
        return start >= head.size

    async def _take(self, org: str, copy: CopyId) -> None:
        """What a verified head bears counts, unless the log contradicts itself: then nothing new of it does."""
        if self._copies.is_broken(copy):
            return
        keyring = self._keyring()
        await self._taking.take(org, copy)
        if self._looked_with.get(copy) is not keyring:
            await self._taking.take_again(org, copy)
            self._looked_with[copy] = keyring

    async def _mend(self, source: Source, copy: CopyId) -> None:
        """What was relayed without a good signature is asked of the log itself."""
        for n in await self._taking.spoiled(copy, MENDED_PER_ROUND):
            for leaf in await self._pages.leaves(source, n, n + 1):
                await self._taking.mend(source.log_of, copy, n, leaf)
