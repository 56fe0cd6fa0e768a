"""The database behind `ports.Store`: opened, brought up to date, and used in transactions that are serial on both engines.

mautrix' `async_db` gives connections, pools and the table of upgrades. Its own transactions are not used: on SQLite they stay open
when the task is cancelled, and a task started inside one would run without any.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import asyncpg
from mautrix.util.async_db import Connection, Database, DatabaseException, Scheme

from matrix_pypi_bot.adapters.database.ledger import LedgerTables
from matrix_pypi_bot.adapters.database.log import LogTables
from matrix_pypi_bot.adapters.database.mail import MailTables
from matrix_pypi_bot.adapters.database.peer_logs import PeerLogTables
from matrix_pypi_bot.adapters.database.postgres import PostgresConnection
from matrix_pypi_bot.adapters.database.provenance import ProvenanceTables
from matrix_pypi_bot.adapters.database.sqlite import SqliteConnection
from matrix_pypi_bot.adapters.database.upgrade import UPGRADES
from matrix_pypi_bot.adapters.database.views import ViewTables
from matrix_pypi_bot.ports import Ledger, Log, Mail, PeerLogs, Proofs, StoreAway, Transaction, Views
from matrix_pypi_bot.wire.problems import Problem, ProblemCode, clean_line

log = logging.getLogger(__name__)

OWNER: Final = "matrix-pypi"
WAIT_SECONDS: Final = 30.0  # for a connection: longer than any transaction of ours takes
LOCK_KEY: Final = 0x6D70_7970  # of the advisory lock that makes transactions serial on PostgreSQL

_SQLITE_ARGS: Final[dict[str, Any]] = {
    "min_size": 1,
    "init_commands": [
        "PRAGMA foreign_keys = ON",
        "PRAGMA journal_mode = WAL",
        # NORMAL may lose the last transactions when the machine stops: what was promised (200, 202) must stay.
        "PRAGMA synchronous = FULL",
        "PRAGMA busy_timeout = 5000",
        "PRAGMA recursive_triggers = ON",  # else INSERT OR REPLACE deletes behind the back of a trigger
    ],
}
_POSTGRES_ARGS: Final[dict[str, Any]] = {
    "min_size": 1,
    "max_size": 5,
    "timeout": 10,
    "command_timeout": WAIT_SECONDS,
    "meow_exit_on_ice": False,
}
_AWAY: Final = (
    sqlite3.OperationalError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that was cut off in the middle of a statement, used or given back
    ConnectionError,
    TimeoutError,  # asyncpg's word for a statement that took longer than `command_timeout`
)


class DatabaseTransaction:
    """One transaction, seen as tables (`ports.Transaction`)."""

    __slots__ = ("ledger", "log", "mail", "peer_logs", "provenance", "views")

    def __init__(self, connection: Connection, scheme: Scheme) -> None:
        self.ledger: Ledger = LedgerTables(connection, scheme)
        self.log: Log = LogTables(connection, scheme)
        self.peer_logs: PeerLogs = PeerLogTables(connection, scheme)
        self.views: Views = ViewTables(connection, scheme)
        self.mail: Mail = MailTables(connection, scheme)
        self.provenance: Proofs = ProvenanceTables(connection, scheme)


class DatabaseStore:
    """`ports.Store` over SQLite or PostgreSQL. Transactions do not nest: one inside another would wait for itself."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextlib.asynccontextmanager
    async def transaction(self, *, reads_only: bool = False) -> AsyncIterator[Transaction]:
        """See `ports.Store.transaction`. One runs at a time, so what a transaction read cannot have changed when it writes."""
        try:
            async with contextlib.AsyncExitStack() as stack:
                try:
                    async with asyncio.timeout(WAIT_SECONDS):
                        connection = await stack.enter_async_context(self._database.acquire_direct())
                except (TimeoutError, OSError, *_AWAY) as error:
                    raise StoreAway(f"no connection to the database: {_cause(error)}") from error
                async with _begun(connection, reads_only) as begun:
                    yield DatabaseTransaction(begun, self._database.scheme)
        except _AWAY as error:  # of the transaction, or of giving its connection back
            raise StoreAway(f"the database failed: {_cause(error)}") from error


@contextlib.asynccontextmanager
async def open_store(url: str) -> AsyncIterator[DatabaseStore]:
    """The store at `url` (`sqlite:<file>` or `postgres://...`), its schema brought up to date; closed when the block ends.

    Raises StoreAway when it cannot be reached, Problem (CONFIGURATION) when it is another program's or of a newer version.
    """
    database = _database(url)
    try:
        try:
            await database.start()
        except DatabaseException as error:
            raise Problem(
                f"the database cannot be used: {clean_line(str(error))}",
                hint="give the bot a database of its own, or the version of the bot that made it",
                code=ProblemCode.CONFIGURATION,
            ) from error
        except (OSError, asyncpg.PostgresError, *_AWAY) as error:
            raise StoreAway(
                f"the database cannot be opened: {_cause(error)}",
                hint="is database.url right, the server running, the folder there and writable?",
            ) from error
        yield DatabaseStore(database)
    finally:
        with contextlib.suppress(Exception):  # a pool that never opened cannot be closed
            await database.stop()


def _database(url: str) -> Database:
    sqlite = url.startswith("sqlite")
    if sqlite and not (folder := Path(url.partition(":")[2]).absolute().parent).is_dir():
        raise StoreAway(f"the folder {folder} of the database does not exist", hint="create it, or change database.url")
    arguments = _SQLITE_ARGS if sqlite else _POSTGRES_ARGS
    return Database.create(
        url, db_args=dict(arguments), upgrade_table=UPGRADES, owner_name=OWNER, ignore_foreign_tables=False
    )


@contextlib.asynccontextmanager
async def _begun(connection: Connection, reads_only: bool) -> AsyncIterator[Connection]:
    """A transaction on `connection`; whatever ends the block, cancellation included, none stays open."""
    if connection.scheme == Scheme.POSTGRES:
        wrapped: asyncpg.Connection = connection.wrapped
        async with wrapped.transaction(isolation="repeatable_read" if reads_only else None, readonly=reads_only):
            if not reads_only:
                await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK_KEY)
            yield PostgresConnection(connection)
        return
    begun = SqliteConnection(connection, reads_only=reads_only)
    try:
        yield begun
        await begun.commit()
    except BaseException:
        # Queued behind whatever the worker thread still runs; nothing happens when no transaction is open.
        await asyncio.shield(asyncio.ensure_future(connection.wrapped.rollback()))
        raise


def _cause(error: BaseException) -> str:
    return clean_line(str(error) or type(error).__name__, 200)
