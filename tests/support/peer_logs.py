"""Organisations with logs, whoever serves them, and a bot that pulls."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from matrix_pypi_bot.core.envelope import Envelope
from matrix_pypi_bot.core.events import Checked, sign_statement
from matrix_pypi_bot.core.heads import Fork
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.keyring import PinnedOrg
from matrix_pypi_bot.core.notes import Checkpoint, NoteKey, cosign, sign_checkpoint
from matrix_pypi_bot.core.signers import SigningKey
from matrix_pypi_bot.core.statements.attestation import Attestation, Source
from matrix_pypi_bot.core.statements.common import SignedBy
from matrix_pypi_bot.core.tlog import leaf_hash, root_of
from matrix_pypi_bot.ports import Absent, Away, Entries, LogReader, Peer, Store, Wrong
from matrix_pypi_bot.services import keys
from matrix_pypi_bot.services.intake import Intake
from matrix_pypi_bot.services.keys import Organisation
from matrix_pypi_bot.services.log import LogKeeper
from matrix_pypi_bot.services.log_pages import Budget
from matrix_pypi_bot.services.members import Members
from matrix_pypi_bot.services.pulling import PullParts, pulling
from matrix_pypi_bot.services.resume import ResumeGuard
from matrix_pypi_bot.services.signing import envelope_json
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName, project_and_version
from tests.support.bot_world import CountingPostman, ManualClock

BOT = "@pypi:orga.example"


class LogOrg:
    """An organisation and everything it said, in order; what it serves is the test's business."""

    def __init__(self, name: str, seed: int) -> None:
        root, mirror, log = (SigningKey(bytes([seed + offset]) * 32) for offset in range(3))
        self.organisation = Organisation(name, root=root, mirror=mirror, log=log)
        self.name = name
        self.leaves: list[Envelope] = []

    @property
    def pinned(self) -> PinnedOrg:
        """As others pin it."""
        own = self.organisation.pinned
        return PinnedOrg(
            name=own.name,
            roots=own.roots,
            threshold=1,
            roles=own.roles,
            log_url=f"https://{own.name}.example/log/v1",
        )

    @property
    def note_key(self) -> NoteKey:
        """The key of its log."""
        return NoteKey(self.organisation.log_origin, self.organisation.log.public)

    @property
    def lines(self) -> list[bytes]:
        """Its leaves, as a page of entries has them."""
        return [envelope_json(envelope) for envelope in self.leaves]

    def introduce(self, now: Instant, version: int = 1) -> None:
        """Signs its manifest."""
        self.leaves.append(keys._signed(self.organisation, None, (), version, now, ()).envelope)

    def attest(self, *files: str, key: SigningKey | None = None, salt: str = "") -> None:
        """Signs that these files are the bytes of their names."""
        for file in files:
            self.leaves.append(self.attestation(file, key=key, salt=salt))

    def attestation(self, file: str, *, key: SigningKey | None = None, salt: str = "") -> Envelope:
        """The envelope alone."""
        signer = key or self.organisation.mirror
        project, version = project_and_version(FileName(file))
        predicate = Attestation(
            signer=SignedBy(org=self.name, key=signer.keyid),
            seq=len(self.leaves) + 1,
            prev=None,
            issued=Instant(1_767_225_600),
            project=project,
            version=version,
            size=1_000,
            source=Source(kind="pypi", method="bytes"),
            expires=None,
        )
        digest = Sha256(hashlib.sha256((file + salt).encode()).hexdigest())
        return sign_statement({file: digest}, predicate, signer)

    def head(
        self, now: Instant, size: int | None = None, *, root: bytes | None = None, by: SigningKey | None = None
    ) -> str:
        """A head over its first leaves, or over something else."""
        key, origin = by or self.organisation.log, self.organisation.log_origin
        size = len(self.leaves) if size is None else size
        tree = root or root_of([leaf_hash(envelope.payload) for envelope in self.leaves[:size]])
        note = sign_checkpoint(Checkpoint(origin, size, tree), key)
        return str(note.with_signature(cosign(note, origin, key, now)))


Answer = str | Absent | Away | Wrong


@dataclass(slots=True)
class ScriptedReader:
    """`ports.LogReader` over what a test wrote down: by (peer, whose log), None for the peer's own."""

    notes: dict[tuple[str, str | None], Answer] = field(default_factory=dict)
    lines: dict[tuple[str, str | None], list[bytes]] = field(default_factory=dict)
    lists: dict[tuple[str, str], bytes] = field(default_factory=dict)
    asked: list[tuple[str, str | None, int, int]] = field(default_factory=list)
    page: int = 1_000

    def serve(
        self, peer: str, log: LogOrg, head: str, *, copy: bool = False, lines: Sequence[bytes] | None = None
    ) -> None:
        """The peer shows this head, and these lines (all of the log's, unless told)."""
        of = log.name if copy else None
        self.notes[peer, of] = head
        self.lines[peer, of] = list(log.lines if lines is None else lines)

    def off(self, peer: str) -> None:
        """The peer does not answer any more."""
        for key in [key for key in self.notes if key[0] == peer]:
            del self.notes[key]

    async def note(self, peer: Peer, of: str | None) -> Answer:
        return self.notes.get((peer.org, of), Away("nobody answers"))

    async def list(self, peer: Peer, sha256: Sha256) -> bytes | Absent | Away | Wrong:
        return self.lists.get((peer.org, sha256), Absent())

    async def entries(self, peer: Peer, of: str | None, start: int, end: int) -> Entries | Away | Wrong:
        self.asked.append((peer.org, of, start, end))
        if (peer.org, of) not in self.notes:
            return Away("nobody answers")
        found = tuple(self.lines[peer.org, of][start : min(end, start + self.page)])
        return Entries(found, sum(len(line) + 1 for line in found)) if found else Wrong("no entries")


class Node:
    """One life of a bot, as far as logs of others are its business."""

    def __init__(
        self,
        store: Store,
        clock: ManualClock,
        reader: LogReader,
        *peers: LogOrg,
        own: LogOrg | None = None,
        statements_per_day: int = 1_000_000,
        bytes_per_day: int = 1 << 40,
    ) -> None:
        self.store, self.clock, self.reader = store, clock, reader
        self.own = own or LogOrg("orga", 1)
        organisation = self.own.organisation
        self.forks: list[Fork] = []
        self.lies: list[Envelope] = []
        self.restored: list[Checked] = []
        self.statements: list[tuple[str, str]] = []
        self.followed: list[str] = []
        self.rounds = 0
        self.members = Members(
            store=store, clock=clock, own=organisation.pinned, pinned=[peer.pinned for peer in peers]
        )
        self.intake = Intake(
            self.members,
            on_statement=lambda project, org: self.statements.append((project, org)),
            on_lie=self.lies.append,
        )
        self.guard = ResumeGuard(store=store, key=self.own.note_key, bot_mxid=BOT, asks_peers=bool(peers))
        self.keeper = LogKeeper(
            store=store,
            clock=clock,
            guard=self.guard,
            postman=CountingPostman(),
            origin=organisation.log_origin,
            key=organisation.log,
            bot_mxid=BOT,
            checkpoint_seconds=600,
        )
        self.pull = pulling(
            PullParts(
                store=store,
                clock=clock,
                reader=reader,
                door=self.intake,
                members=self.members,
                organisation=organisation,
                guard=self.guard,
                keeper=self.keeper,
                budget=Budget(statements_per_day, bytes_per_day),
                every_seconds=60,
                on_restored=self._restored,
                on_round=self._round,
                on_fork=self.forks.append,
                on_project=self.followed.append,
                announced=lambda org: f"https://announced.example/{org}",
            )
        )

    async def start(self) -> Node:
        await self.members.start()
        await self.keeper.start()
        await self.pull.start()
        await self.guard.compare([])
        return self

    def _restored(self, checked: Checked) -> None:
        self.restored.append(checked)
        predicate: Any = checked.statement.predicate
        if predicate.NAME == "keys":
            self.members.learn_own(predicate)

    async def _round(self, everybody: bool) -> None:
        self.rounds += 1
        if everybody:
            self.guard.peers_were_asked()

    @property
    def now(self) -> Instant:
        """The time."""
        return Instant.of_ms(self.clock.now_ms())

    async def attested(self, org: str) -> list[str]:
        """Files that the ledger holds an attestation of by this organisation, in the order in which they came."""
        async with self.store.transaction() as tables:
            db: Any = tables.ledger
            rows = await db._db.fetch(
                "SELECT file FROM envelope WHERE org = $1 AND kind = 'attestation' ORDER BY n", org
            )
        return [row["file"] for row in rows]
