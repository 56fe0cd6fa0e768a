"""The database, as services see it: tables inside one transaction.

Everything in one `Transaction` becomes durable together or not at all; outside one nothing is written. Adapters exist for SQLite and
PostgreSQL: one schema, one body of tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

from matrix_pypi_bot.core.claims import Claim
from matrix_pypi_bot.core.cooldown import Sight
from matrix_pypi_bot.ports.log import Log
from matrix_pypi_bot.ports.peer_logs import PeerLogs
from matrix_pypi_bot.ports.provenance import Proofs
from matrix_pypi_bot.ports.rows import (
    Accepted,
    Backlog,
    EnvelopeRow,
    InboxRow,
    OutboxRow,
    OverrideRow,
    RoomRow,
    VerdictRow,
    ViewRow,
)
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import Change, Observed, Stored
from matrix_pypi_bot.wire.names import FileName, ProjectName
from matrix_pypi_bot.wire.problems import Problem, ProblemCode


class Ledger(Protocol):
    """What is known and never forgotten: insert-only, refused otherwise by the database itself."""

    async def keep(self, row: EnvelopeRow, claims: Sequence[Claim] = ()) -> bool:
        """True when it was new; then what it claims of files is kept beside it, unless its organisation said too much."""
        ...

    async def claims(self, project: ProjectName) -> list[Claim]:
        """Everything that anybody's statements claim of the project's files, oldest first."""
        ...

    async def claims_on(self, project: ProjectName, file: FileName) -> list[Claim]:
        """The same on one file, and whatever takes back a whole version."""
        ...

    async def projects_of(self, org: str, after: str, limit: int) -> list[ProjectName]:
        """Projects of which the organisation claims something, sorted, after `after`."""
        ...

    async def unreviewed(self, own: str, after: str, limit: int) -> list[ProjectName]:
        """Projects of which others attest something that the organisation `own` neither attested nor compared with upstream, sorted."""
        ...

    async def unsettled(self, after: str, limit: int) -> list[ProjectName]:
        """Projects of which a statement is contested, or in conflict, by the newest word on an accusation of it, sorted."""
        ...

    async def refutation_ids(self, project: ProjectName) -> list[str]:
        """The ids of all refutations kept of the project's attestations, oldest first."""
        ...

    async def judge(self, row: VerdictRow) -> None:
        """Keeps a verdict; earlier ones on the same accusation stay, and count no more."""
        ...

    async def verdicts(self, project: ProjectName) -> list[VerdictRow]:
        """The verdicts on statements about the project, oldest first."""
        ...

    async def suspensions(self) -> list[VerdictRow]:
        """The verdicts that suspend a key and are the newest word on their accusation."""
        ...

    async def envelope(self, statement_id: str) -> EnvelopeRow | None: ...

    async def attestations(self, project: ProjectName) -> list[EnvelopeRow]:
        """Every attestation kept for the project, oldest first."""
        ...

    async def last_refutations(self, project: ProjectName, limit: int) -> list[EnvelopeRow]:
        """The same, but only the last few of them, newest first."""
        ...

    async def manifests(self, org: str) -> list[EnvelopeRow]:
        """Every key manifest kept of the organisation, oldest first; `seq` is its version."""
        ...

    async def announcements(self, org: str) -> list[EnvelopeRow]:
        """The announcements kept of the organisation, the last few of them, the newest first."""
        ...

    async def said(self, kind: str, project: ProjectName, file: FileName | None) -> list[EnvelopeRow]:
        """Every statement of one kind about a project, or about a file of it, oldest first."""
        ...

    async def carried_by(self, event_id: str) -> EnvelopeRow | None:
        """The statement that was seen in this event."""
        ...

    async def sighted(self, statement_id: str, *, room_id: str, event_id: str, sender: str, at_ms: int) -> None:
        """That an event carried the statement; the sender is kept apart, purgeable."""
        ...

    async def last_index(self, keyid: str, project: ProjectName) -> EnvelopeRow | None:
        """The newest index statement about the project by this key; `sha256` is the root of its list."""
        ...

    async def newest_index(self, project: ProjectName) -> dict[str, EnvelopeRow]:
        """The newest index statement of each organisation about the project, by its name; `sha256` is the root of its list."""
        ...

    async def keep_document(self, sha256: Sha256, body: bytes) -> None:
        """Keeps a document by its digest. One that is there stays."""
        ...

    async def document(self, sha256: Sha256) -> bytes | None:
        """The document with this digest."""
        ...

    async def event_of(self, statement_id: str, room_id: str) -> str | None:
        """The id of the event that carried the statement first in this room; None when it came in none."""
        ...

    async def forget_senders(self, before_ms: int) -> None:
        """Purges who sent what before that time; what was sent stays."""
        ...

    async def chain(self, keyid: str, project: ProjectName | None) -> tuple[int, str | None]:
        """The highest `seq` this key used for the project (0 for none) and the id of that statement."""
        ...

    async def sign_once(self, keyid: str, file: FileName, sha256: Sha256) -> bool:
        """Reserves the right to sign `sha256` for `file` with this key. False when the key signed another digest: never sign then."""
        ...

    async def signed(self, keyid: str, file: FileName) -> Sha256 | None:
        """The digest that this key signed for `file`; None when it signed none."""
        ...

    async def accept(self, accepted: Accepted) -> None:
        """L of the file is this digest from now on; earlier rows stay."""
        ...

    async def accepted(self, project: ProjectName) -> dict[FileName, Accepted]:
        """The newest accepted digest of each file of the project."""
        ...

    async def first_seen(self, project: ProjectName) -> dict[FileName, Sha256]:
        """The first digest that upstream ever named for each file of the project."""
        ...

    async def sights(self, project: ProjectName) -> dict[FileName, Sight]:
        """When each file of the project was first seen."""
        ...

    async def see_first(
        self, project: ProjectName, files: dict[FileName, Sha256], at_ms: int, lacked_ms: int | None = None
    ) -> None:
        """Notes digests of files not seen before; for a file seen before nothing changes. `lacked_ms`: see `Sight`."""
        ...

    async def own_view(self, project: ProjectName, upstream: str, serial: int | None, root: Sha256, at_ms: int) -> None:
        """That this upstream showed this page (root = sha256 of it) at this serial."""
        ...

    async def serial_floor(self, project: ProjectName, upstream: str) -> int | None:
        """The highest serial observed there since an operator last released the project, which is how a wrong one is forgotten.

        Serials of two indexes cannot be compared.
        """
        ...

    async def override(self, row: OverrideRow) -> None: ...

    async def overrides(self, project: ProjectName) -> list[OverrideRow]:
        """Oldest first."""
        ...

    async def observe(self, observed: Observed, at_ms: int) -> None:
        """That wrong bytes were seen somewhere: evidence for people."""
        ...


class Views(Protocol):
    """The last page of each project, and what frontends must hear of."""

    async def get(self, project: ProjectName) -> ViewRow | None: ...

    async def put(self, row: ViewRow) -> None: ...

    async def checked(self, project: ProjectName, state: Literal["live", "down", "gone"], checked_ms: int) -> None:
        """Notes how the last attempt went; the page stays as it is. Nothing happens for a project that has no view."""
        ...

    async def names(self, after: str, limit: int) -> list[ProjectName]:
        """Known projects that are not gone, sorted, after `after`."""
        ...

    async def change(self, project: ProjectName, revision: str, withdrawn: tuple[str, ...], at_ms: int) -> int:
        """The sequence number of the change: larger than every one before, also those pruned."""
        ...

    async def told(self, project: ProjectName) -> str | None:
        """The revision of the project that was told last; None when it is none of those remembered."""
        ...

    async def changes(self, after: int, limit: int) -> list[Change]: ...

    async def change_bounds(self) -> tuple[int, int]:
        """(oldest remembered, newest) sequence number; (0, 0) when there never was a change."""
        ...

    async def forget_changes(self, keep: int) -> None:
        """Prunes the change table to about the newest `keep` (at least one); their numbers never come back."""
        ...

    async def rules_since(self, rules: str, at_ms: int) -> int:
        """The sequence number from which on changes were told under `rules`; a new one, larger than all, when others held until now."""
        ...

    async def report(self, stored: Stored, at_ms: int) -> None:
        """Keeps what a frontend stored until it can be decided.

        The same again is no error; one that differs in anything waits beside it, as only the page will tell which is right.
        """
        ...

    async def reports(self, project: ProjectName) -> list[Stored]: ...

    async def reported_projects(self) -> list[ProjectName]:
        """Projects that have reports not settled yet."""
        ...

    async def settled(self, stored: Stored) -> None:
        """This very report was attested, or can never be; others on the same file still wait."""
        ...


class Mail(Protocol):
    """Matrix events in and out, and the rooms they belong to."""

    async def receive(self, txn_id: str, events: list[tuple[str, str, bytes]], at_ms: int) -> int:
        """Keeps (event id, room id, raw JSON) triples; how many were new. Known event ids are skipped, whatever the transaction id."""
        ...

    async def unread(self, limit: int) -> list[InboxRow]:
        """In the order of arrival."""
        ...

    async def read(self, n: int) -> None: ...

    async def forget(self, n: int) -> None:
        """Drops an event that is none of our business now, as if it had never come: received again, it is new."""
        ...

    async def unreadable(self, n: int, problem: str) -> None:
        """Puts away an event that could not be worked off: kept, never unread again."""
        ...

    async def send(self, room: str, type: str, state_key: str | None, content: bytes, at_ms: int) -> None:
        """Queues an event. For a state event an unsent one of the same room, type and key is replaced in its place.

        What replaces has a number of its own: `sent(n)` of the replaced one does not touch it.
        """
        ...

    async def rooms_with_mail(self) -> list[str]:
        """Room keys that have something queued, the longest waiting first."""
        ...

    async def next_to(self, room: str) -> OutboxRow | None:
        """The oldest queued event of the room."""
        ...

    async def sent(self, n: int, event_id: str) -> None: ...

    async def failed(self, n: int, error: str) -> None:
        """Counts an attempt; the event stays queued."""
        ...

    async def set_aside(self, n: int, error: str) -> None:
        """Puts away an event that can never be sent: kept, not tried again."""
        ...

    async def sent_as(self, event_id: str) -> OutboxRow | None:
        """What we sent as this event, its content left out; None when it is not ours."""
        ...

    async def backlog(self) -> Backlog: ...

    async def room(self, key: str) -> RoomRow | None: ...

    async def room_by_id(self, room_id: str) -> RoomRow | None: ...

    async def rooms(self) -> list[RoomRow]: ...

    async def lost_rooms(self) -> list[RoomRow]:
        """Those that we were put out of."""
        ...

    async def keep_room(self, row: RoomRow) -> None:
        """Inserts or replaces by key."""
        ...

    async def rename_room(self, key: str, new_key: str) -> None:
        """The room has another key from now on, under which there was none."""
        ...

    async def said_again(self, event_id: str, statement_id: str, at_ms: int) -> int:
        """Notes that the statement is said again because of this event; how often it was by now. 0 when the event had its answer."""
        ...


class Transaction(Protocol):
    """One database transaction, seen as tables. What is asked at the same time, in tasks that end before it does, costs less."""

    ledger: Ledger
    log: Log
    peer_logs: PeerLogs
    views: Views
    mail: Mail
    provenance: Proofs


class StoreAway(Problem):
    """The database cannot be reached, or failed. Nothing of the transaction was kept; the same may be tried again."""

    code = ProblemCode.STORAGE


class Store(Protocol):
    """The database. Transactions run one at a time and do not nest; keep them short, and wait for nothing else inside one."""

    def transaction(self, *, reads_only: bool = False) -> AbstractAsyncContextManager[Transaction]:
        """Commits when the block ends, rolls back when it raises. Raises StoreAway when the database cannot be reached.

        With `reads_only` nothing may be written, which costs less; what is asked at the same time is answered as of one moment.
        """
        ...
