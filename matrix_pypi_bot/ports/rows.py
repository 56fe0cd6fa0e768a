"""What is kept, row by row. Times are milliseconds since the epoch, UTC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName, ProjectName

TRUST_ROOM = "trust"  # the trust room's key; every other room's key is PROJECT_ROOM and the project's name
PROJECT_ROOM = "project:"
SPACE_ROOM = "space"
_AT = "@"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvelopeRow:
    """A statement that was verified once and is kept for ever. `id` = hex(sha256(payload)); `envelope` the DSSE JSON as bytes."""

    id: str
    kind: str
    project: ProjectName | None
    file: FileName | None
    sha256: Sha256 | None
    keyid: str
    org: str
    seq: int | None
    envelope: bytes
    first_seen_ms: int
    via: str  # "own", "room", "log"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRow:
    """What was judged of a statement (of a log, for a fork: `statement_id` is the digest of its origin then); the newest row counts.

    `result` is a `core.judge.Verdict`'s value, `fault` the class of the accusation, `keyid` and `org` whom it blames. `evidence_id` is
    the refutation that carried the evidence, None where this bot found it out itself. `suspends`: while this is the newest word, the
    key counts for nothing.
    """

    statement_id: str
    fault: str
    result: str
    project: ProjectName | None
    file: FileName | None
    keyid: str
    org: str
    evidence_id: str | None
    reason: str
    suspends: bool
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """L: a digest that this organisation itself accepted, `by` serving it under R8 or by an operator's approval."""

    project: ProjectName
    file: FileName
    sha256: Sha256
    size: int | None
    at_ms: int
    by: Literal["served", "approved"]
    serial: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewRow:
    """The last answer of upstream about a project: the page it sent (`raw` empty when gone), and how the last attempt went.

    `state`: `live` the last attempt succeeded, `down` it failed (the page is the last known one), `gone` upstream answered twice that
    the project, once there, is no more. `fetched_ms` is when the page came, `checked_ms` when upstream last said that it is so (a
    failed attempt does not move it). `raw` is the PEP 691 JSON that was validated, HTML pages already converted. `upstream` says which
    index answered: what another one said before the configuration changed is no view of this one.
    """

    project: ProjectName
    upstream: str
    state: Literal["live", "down", "gone"]
    etag: str | None
    serial: int | None
    fetched_ms: int
    checked_ms: int
    raw: bytes
    opened_origins: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OverrideRow:
    """An operator's signed decision. `file` None: the whole project."""

    statement_id: str
    project: ProjectName
    file: FileName | None
    action: Literal["approve", "quarantine", "release"]
    sha256: Sha256 | None
    reason: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxRow:
    """A raw Matrix event that the homeserver was told we have."""

    n: int
    event_id: str
    room_id: str
    raw: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxRow:
    """An event of ours on its way to a room. `room` is a room key; `txn_id` is fixed when queued: a retry is no second event."""

    n: int
    room: str
    type: str
    state_key: str | None
    content: bytes
    txn_id: str
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomRow:
    """A room that we are in: its key, id, alias, and the hash of the constitution that it should have.

    The room with a plain key (`trust`, `space`, `project:<name>`) is the one in which we speak. Further rooms, which we only read, have
    the organisation at which they were found behind an `@`: `trust@orgb`, `project:flask@orgb`. `made_by` is that organisation too,
    `""` for a room of our own making. `servers` are those by which the room can be joined again. `listed`: the Space has been told of
    it. `lost`: we were put out of it.
    """

    key: str
    room_id: str
    alias: str
    constitution: str
    created_ms: int
    listed: bool = False
    made_by: str = ""
    servers: tuple[str, ...] = ()
    lost: bool = False

    @property
    def about(self) -> str:
        """The key without the organisation: `trust`, `project:flask`."""
        return self.key.partition(_AT)[0]

    @property
    def is_read_only(self) -> bool:
        """Whether it is one of those in which we say nothing new."""
        return _AT in self.key

    @property
    def project(self) -> ProjectName | None:
        """The project that the room is about."""
        about = self.about
        return ProjectName(about.removeprefix(PROJECT_ROOM)) if about.startswith(PROJECT_ROOM) else None


def others_room(about: str, org: str, number: int = 1) -> str:
    """The key of another organisation's room about the same, e.g. `project:flask@orgb`; of its second one `project:flask@orgb~2`."""
    return f"{about}{_AT}{org}" + (f"~{number}" if number > 1 else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """How much mail waits: `unread` and `queued` will be worked off, `unreadable` and `aside` were put away for a person to see."""

    unread: int
    unreadable: int
    queued: int
    aside: int
