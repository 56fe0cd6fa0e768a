"""Matrix events in and out, and the rooms they belong to (`ports.Mail`)."""

from __future__ import annotations

import json
import secrets
from typing import Any, Final

from matrix_pypi_bot.adapters.database.dialect import Connection, Scheme
from matrix_pypi_bot.ports import Backlog, InboxRow, OutboxRow, RoomRow
from matrix_pypi_bot.wire.problems import clean_line

MAX_ERROR_CHARACTERS: Final = 300

SCHEMA: Final = (
    # An event id stays for ever: it is how a replay is known, since transaction ids of a homeserver on SQLite start at 1 again.
    # `raw` is NULL once the event was worked off; `problem` says why one could not be.
    """CREATE TABLE inbox (
        n {identity},
        event_id {name} NOT NULL UNIQUE,
        room_id {name} NOT NULL,
        txn_id {name} NOT NULL,
        received_ms BIGINT NOT NULL,
        raw {blob},
        problem TEXT
    )""",
    "CREATE INDEX inbox_unread ON inbox (n) WHERE raw IS NOT NULL AND problem IS NULL",
    # `n` names one content, `place` its turn: what replaces an unsent event takes its place under a new `n`, so that the news
    # "n was sent", arriving late, is not taken for news of the content that replaced it.
    """CREATE TABLE outbox (
        n {identity},
        place BIGINT NOT NULL,
        room {name} NOT NULL,
        type {name} NOT NULL,
        state_key {name},
        content {blob} NOT NULL,
        txn_id {name} NOT NULL UNIQUE,
        queued_ms BIGINT NOT NULL,
        attempts BIGINT NOT NULL DEFAULT 0,
        status {name} NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'sent', 'aside')),
        event_id {name},
        problem TEXT
    )""",
    "CREATE INDEX outbox_queued ON outbox (room, place) WHERE status = 'queued'",
    "CREATE INDEX outbox_place ON outbox (place)",
    "CREATE INDEX outbox_event ON outbox (event_id) WHERE event_id IS NOT NULL",
    """CREATE TABLE room (
        key {name} PRIMARY KEY,
        room_id {name} NOT NULL UNIQUE,
        alias {name} NOT NULL,
        constitution {name} NOT NULL,
        created_ms BIGINT NOT NULL,
        listed BOOLEAN NOT NULL
    )""",
)

# Since rooms of other organisations are joined, and what was taken out of a room is said again.
ROOMS_SCHEMA: Final = (
    "ALTER TABLE room ADD COLUMN made_by {name} NOT NULL DEFAULT ''",
    "ALTER TABLE room ADD COLUMN servers TEXT NOT NULL DEFAULT '[]'",
    "ALTER TABLE room ADD COLUMN lost BOOLEAN NOT NULL DEFAULT FALSE",
    "CREATE INDEX room_lost ON room (key) WHERE lost",
    "CREATE TABLE said_again (event_id {name} PRIMARY KEY, statement_id {name} NOT NULL, at_ms BIGINT NOT NULL)",
    "CREATE INDEX said_again_of_statement ON said_again (statement_id)",
)

_OUTBOX_COLUMNS: Final = "n, room, type, state_key, content, txn_id, attempts"
_ROOM_COLUMNS: Final = "key, room_id, alias, constitution, created_ms, listed, made_by, servers, lost"


class MailTables:
    """`ports.Mail` inside one transaction."""

    __slots__ = ("_db",)

    def __init__(self, connection: Connection, scheme: Scheme) -> None:
        self._db = connection

    # ---- in

    async def receive(self, txn_id: str, events: list[tuple[str, str, bytes]], at_ms: int) -> int:
        new = 0
        for event_id, room_id, raw in events:
            kept = await self._db.fetchval(
                "INSERT INTO inbox (event_id, room_id, txn_id, received_ms, raw) VALUES ($1, $2, $3, $4, $5) "
                "ON CONFLICT (event_id) DO NOTHING RETURNING n",
                event_id, room_id, txn_id, at_ms, raw,
            )  # fmt: skip
            new += kept is not None
        return new

    async def unread(self, limit: int) -> list[InboxRow]:
        rows = await self._db.fetch(
            "SELECT n, event_id, room_id, raw FROM inbox WHERE raw IS NOT NULL AND problem IS NULL ORDER BY n LIMIT $1",
            limit,
        )
        return [InboxRow(n=r["n"], event_id=r["event_id"], room_id=r["room_id"], raw=bytes(r["raw"])) for r in rows]

    async def read(self, n: int) -> None:
        await self._db.execute("UPDATE inbox SET raw = NULL WHERE n = $1", n)

    async def forget(self, n: int) -> None:
        await self._db.execute("DELETE FROM inbox WHERE n = $1", n)

    async def unreadable(self, n: int, problem: str) -> None:
        text = clean_line(problem, MAX_ERROR_CHARACTERS)
        await self._db.execute("UPDATE inbox SET problem = $2 WHERE n = $1", n, text)

    # ---- out

    async def send(self, room: str, type: str, state_key: str | None, content: bytes, at_ms: int) -> None:
        place = None
        if state_key is not None:
            unsent = await self._db.fetchrow(
                "SELECT n, place, content FROM outbox WHERE status = 'queued' AND room = $1 AND type = $2 AND state_key = $3",
                room, type, state_key,
            )  # fmt: skip
            if unsent is not None:
                if bytes(unsent["content"]) == content:
                    return
                place = unsent["place"]
                await self._db.execute("DELETE FROM outbox WHERE n = $1", unsent["n"])
        if place is None:
            place = await self._db.fetchval("SELECT COALESCE(MAX(place), 0) + 1 FROM outbox")
        await self._db.execute(
            "INSERT INTO outbox (place, room, type, state_key, content, txn_id, queued_ms) VALUES ($1, $2, $3, $4, $5, $6, $7)",
            place, room, type, state_key, content, f"matrix-pypi-{secrets.token_hex(16)}", at_ms,
        )  # fmt: skip

    async def rooms_with_mail(self) -> list[str]:
        rows = await self._db.fetch(
            "SELECT room, MIN(place) AS first FROM outbox WHERE status = 'queued' GROUP BY room ORDER BY first"
        )
        return [row["room"] for row in rows]

    async def next_to(self, room: str) -> OutboxRow | None:
        return _outbox_row(
            await self._db.fetchrow(
                f"SELECT {_OUTBOX_COLUMNS} FROM outbox WHERE status = 'queued' AND room = $1 ORDER BY place LIMIT 1",  # noqa: S608
                room,
            )
        )

    async def sent(self, n: int, event_id: str) -> None:
        # What it said is in the room and in the ledger; only whose event it was is still asked for.
        await self._db.execute(
            "UPDATE outbox SET status = 'sent', event_id = $2, content = $3 WHERE n = $1", n, event_id, b""
        )

    async def failed(self, n: int, error: str) -> None:
        text = clean_line(error, MAX_ERROR_CHARACTERS)
        await self._db.execute("UPDATE outbox SET attempts = attempts + 1, problem = $2 WHERE n = $1", n, text)

    async def set_aside(self, n: int, error: str) -> None:
        await self.failed(n, error)
        await self._db.execute("UPDATE outbox SET status = 'aside' WHERE n = $1", n)

    async def sent_as(self, event_id: str) -> OutboxRow | None:
        return _outbox_row(
            await self._db.fetchrow(
                f"SELECT {_OUTBOX_COLUMNS} FROM outbox WHERE event_id = $1 ORDER BY n DESC LIMIT 1",  # noqa: S608
                event_id,
            )
        )

    async def backlog(self) -> Backlog:
        row = await self._db.fetchrow(
            "SELECT (SELECT COUNT(*) FROM inbox WHERE raw IS NOT NULL AND problem IS NULL) AS unread, "
            "(SELECT COUNT(*) FROM inbox WHERE problem IS NOT NULL) AS unreadable, "
            "(SELECT COUNT(*) FROM outbox WHERE status = 'queued') AS queued, "
            "(SELECT COUNT(*) FROM outbox WHERE status = 'aside') AS aside"
        )
        assert row is not None, "counts always answer"
        return Backlog(unread=row["unread"], unreadable=row["unreadable"], queued=row["queued"], aside=row["aside"])

    # ---- rooms

    async def room(self, key: str) -> RoomRow | None:
        query = f"SELECT {_ROOM_COLUMNS} FROM room WHERE key = $1"  # noqa: S608
        return _room_row(await self._db.fetchrow(query, key))

    async def room_by_id(self, room_id: str) -> RoomRow | None:
        query = f"SELECT {_ROOM_COLUMNS} FROM room WHERE room_id = $1"  # noqa: S608
        return _room_row(await self._db.fetchrow(query, room_id))

    async def rooms(self) -> list[RoomRow]:
        rows = await self._db.fetch(f"SELECT {_ROOM_COLUMNS} FROM room ORDER BY key")  # noqa: S608
        return [found for row in rows if (found := _room_row(row)) is not None]

    async def lost_rooms(self) -> list[RoomRow]:
        rows = await self._db.fetch(f"SELECT {_ROOM_COLUMNS} FROM room WHERE lost ORDER BY key")  # noqa: S608
        return [found for row in rows if (found := _room_row(row)) is not None]

    async def keep_room(self, row: RoomRow) -> None:
        await self._db.execute(
            f"INSERT INTO room ({_ROOM_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) "  # noqa: S608
            "ON CONFLICT (key) DO UPDATE SET room_id = excluded.room_id, alias = excluded.alias, "
            "constitution = excluded.constitution, created_ms = excluded.created_ms, listed = excluded.listed, "
            "made_by = excluded.made_by, servers = excluded.servers, lost = excluded.lost",
            row.key, row.room_id, row.alias, row.constitution, row.created_ms, row.listed,
            row.made_by, json.dumps(row.servers), row.lost,
        )  # fmt: skip

    async def rename_room(self, key: str, new_key: str) -> None:
        await self._db.execute("UPDATE room SET key = $2 WHERE key = $1", key, new_key)

    async def said_again(self, event_id: str, statement_id: str, at_ms: int) -> int:
        new = await self._db.fetchval(
            "INSERT INTO said_again (event_id, statement_id, at_ms) VALUES ($1, $2, $3) "
            "ON CONFLICT (event_id) DO NOTHING RETURNING 1",
            event_id, statement_id, at_ms,
        )  # fmt: skip
        if new is None:
            return 0
        times: int = await self._db.fetchval("SELECT COUNT(*) FROM said_again WHERE statement_id = $1", statement_id)
        return times


def _outbox_row(row: Any | None) -> OutboxRow | None:
    if row is None:
        return None
    return OutboxRow(
        n=row["n"],
        room=row["room"],
        type=row["type"],
        state_key=row["state_key"],
        content=bytes(row["content"]),
        txn_id=row["txn_id"],
        attempts=row["attempts"],
    )


def _room_row(row: Any | None) -> RoomRow | None:
    if row is None:
        return None
    return RoomRow(
        key=row["key"],
        room_id=row["room_id"],
        alias=row["alias"],
        constitution=row["constitution"],
        created_ms=row["created_ms"],
        listed=bool(row["listed"]),
        made_by=row["made_by"],
        servers=tuple(json.loads(row["servers"])),
        lost=bool(row["lost"]),
    )
