"""What every database must do (`ports.Store`): one body of tests, SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest
from mautrix.util.async_db import Database, UpgradeTable

from matrix_pypi_bot.adapters.database import engine, ledger, log
from matrix_pypi_bot.adapters.database.engine import OWNER, DatabaseStore, open_store
from matrix_pypi_bot.adapters.database.packing import pack
from matrix_pypi_bot.adapters.database.upgrade import v00_first, v01_rules
from matrix_pypi_bot.core.cooldown import Sight
from matrix_pypi_bot.ports import Accepted, EnvelopeRow, OverrideRow, Store, StoreAway, Transaction, ViewRow
from matrix_pypi_bot.services.together import together
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import Change, Observed, Stored, encode
from matrix_pypi_bot.wire.names import FileName, ProjectName
from matrix_pypi_bot.wire.problems import Problem

T = TypeVar("T")
A, B, C = (Sha256(digit * 64) for digit in "abc")
KEY, OTHER_KEY = "1" * 64, "2" * 64
MXA, MXB = ProjectName("mxa"), ProjectName("mxb")
PYPI, OTHER_INDEX = "pypi https://index.example/simple/", "pypi https://other.example/simple/"
WHEEL, SDIST = FileName("mxa-1.0-py3-none-any.whl"), FileName("mxa-1.0.tar.gz")


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    return f"sqlite:{tmp_path}/bot.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
async def store(url: str) -> AsyncIterator[DatabaseStore]:
    """A store over it."""
    async with open_store(url) as opened:
        yield opened


def attestation(
    number: int = 1, *, keyid: str = KEY, project: ProjectName | None = MXA, seq: int | None = 1
) -> EnvelopeRow:
    """A statement with an id of its own."""
    return EnvelopeRow(
        id=f"{number:064x}",
        kind="attestation",
        project=project,
        file=WHEEL if project else None,
        sha256=A if project else None,
        keyid=keyid,
        org="orga",
        seq=seq,
        envelope=b'{"payload": "\x00\xff"}',
        first_seen_ms=1_000 + number,
        via="own",
    )


def view(project: ProjectName = MXA, raw: bytes = b'{"files": []}', **changes: object) -> ViewRow:
    """A live view."""
    fields: dict[str, object] = {
        "upstream": PYPI, "state": "live", "etag": 'W/"x"', "serial": 7, "fetched_ms": 10, "checked_ms": 20,
        "opened_origins": ("http://127.0.0.1:80",),
    }  # fmt: skip
    return ViewRow(project=project, raw=raw, **(fields | changes))  # type: ignore[arg-type]


def stored(file: str = WHEEL, sha256: str = A, size: int = 3) -> Stored:
    """A frontend's report."""
    return Stored(project=MXA, file=file, sha256=sha256, size=size, cid="b" * 59, source="upstream")


async def test_a_statement_is_kept_once_and_comes_back_whole(store: Store) -> None:
    row = attestation()
    async with store.transaction() as tables:
        assert await tables.ledger.keep(row)
        assert not await tables.ledger.keep(row)
    async with store.transaction() as tables:
        assert await tables.ledger.envelope(row.id) == row
        assert await tables.ledger.envelope("f" * 64) is None


async def test_a_statement_of_no_project_comes_back_whole(store: Store) -> None:
    row = attestation(project=None, seq=None)
    async with store.transaction() as tables:
        await tables.ledger.keep(row)
        assert await tables.ledger.envelope(row.id) == row


async def test_attestations_of_a_project_come_oldest_first(store: Store) -> None:
    rows = [attestation(3, seq=1), attestation(1, seq=2), attestation(2, keyid=OTHER_KEY)]
    async with store.transaction() as tables:
        for row in [*rows, attestation(4, project=MXB)]:
            await tables.ledger.keep(row)
        assert await tables.ledger.attestations(MXA) == rows


async def test_a_sighting_twice_is_no_error_and_senders_can_be_forgotten(store: Store) -> None:
    async with store.transaction() as tables:
        for _ in range(2):
            await tables.ledger.sighted("1" * 64, room_id="!r", event_id="$e", sender="@eve:example.org", at_ms=5)
        await tables.ledger.forget_senders(before_ms=6)


async def test_chains_are_counted_per_key_and_project(store: Store) -> None:
    async with store.transaction() as tables:
        for row in (
            attestation(1, seq=1),
            attestation(2, seq=2),
            attestation(3, keyid=OTHER_KEY, seq=9),
            attestation(4, project=None, seq=5),
        ):
            await tables.ledger.keep(row)
        assert await tables.ledger.chain(KEY, MXA) == (2, f"{2:064x}")
        assert await tables.ledger.chain(KEY, None) == (5, f"{4:064x}")
        assert await tables.ledger.chain(KEY, MXB) == (0, None)


async def test_a_key_signs_one_digest_of_a_file_for_ever(store: Store) -> None:
    async with store.transaction() as tables:
        assert await tables.ledger.sign_once(KEY, WHEEL, A)
        assert await tables.ledger.sign_once(KEY, WHEEL, A)
    async with store.transaction() as tables:
        assert not await tables.ledger.sign_once(KEY, WHEEL, B)
        assert await tables.ledger.signed(KEY, WHEEL) == A
        assert await tables.ledger.signed(OTHER_KEY, WHEEL) is None
        assert await tables.ledger.sign_once(OTHER_KEY, WHEEL, B)


async def test_the_newest_accepted_digest_counts(store: Store) -> None:
    first = Accepted(project=MXA, file=WHEEL, sha256=A, size=3, at_ms=1, by="served", serial=7)
    second = Accepted(project=MXA, file=WHEEL, sha256=B, size=None, at_ms=2, by="approved", serial=None)
    other = Accepted(project=MXA, file=SDIST, sha256=C, size=5 * 2**30, at_ms=1, by="served", serial=2**53 - 1)
    async with store.transaction() as tables:
        for accepted in (first, other, second):
            await tables.ledger.accept(accepted)
        assert await tables.ledger.accepted(MXA) == {WHEEL: second, SDIST: other}
        assert await tables.ledger.accepted(MXB) == {}


async def test_the_first_digest_ever_seen_is_never_replaced(store: Store) -> None:
    async with store.transaction() as tables:
        await tables.ledger.see_first(MXA, {WHEEL: A}, at_ms=1)
        await tables.ledger.see_first(MXA, {WHEEL: B, SDIST: C}, at_ms=2)
        await tables.ledger.see_first(MXA, {WHEEL: B}, at_ms=3)
        assert await tables.ledger.first_seen(MXA) == {WHEEL: A, SDIST: C}
        assert await tables.ledger.first_seen(MXB) == {}


async def test_when_a_file_was_first_seen_and_which_page_lacked_it_is_remembered(store: Store) -> None:
    async with store.transaction() as tables:
        await tables.ledger.see_first(MXA, {WHEEL: A}, at_ms=1)
        await tables.ledger.see_first(MXA, {WHEEL: B, SDIST: C}, at_ms=3, lacked_ms=2)
    async with store.transaction() as tables:
        assert await tables.ledger.sights(MXA) == {WHEEL: Sight(1), SDIST: Sight(3, lacked_ms=2)}
        assert await tables.ledger.sights(MXB) == {}


async def test_a_page_of_six_thousand_files_is_noted_whole(store: Store) -> None:
    files = {FileName(f"mxa-{n}.0-py3-none-any.whl"): Sha256(f"{n:064x}") for n in range(6_000)}
    async with store.transaction() as tables:
        await tables.ledger.see_first(MXA, files, at_ms=1)
    async with store.transaction() as tables:
        assert await tables.ledger.first_seen(MXA) == files


async def test_the_serial_floor_is_the_highest_ever_seen_at_that_index(store: Store) -> None:
    async with store.transaction() as tables:
        assert await tables.ledger.serial_floor(MXA, PYPI) is None
        for serial in (7, 9, None, 8):
            await tables.ledger.own_view(MXA, PYPI, serial, A, at_ms=1)
        await tables.ledger.own_view(MXA, OTHER_INDEX, 99, A, at_ms=1)
        assert await tables.ledger.serial_floor(MXA, PYPI) == 9
        assert await tables.ledger.serial_floor(MXB, PYPI) is None


async def test_a_release_of_the_project_and_nothing_else_lowers_the_serial_floor(store: Store) -> None:
    async def order(number: int, **told: object) -> None:
        row = OverrideRow(
            statement_id=f"{number:064x}", project=MXA, file=None, action="release", sha256=None, reason="", at_ms=2
        )
        await tables.ledger.override(replace(row, **told))  # type: ignore[arg-type]

    async with store.transaction() as tables:
        await tables.ledger.own_view(MXA, PYPI, 99, A, at_ms=1)
        await order(1, project=MXB)
        await order(2, file=WHEEL)
        await order(3, action="quarantine")
        assert await tables.ledger.serial_floor(MXA, PYPI) == 99
        await order(4)
        assert await tables.ledger.serial_floor(MXA, PYPI) is None
        await tables.ledger.own_view(MXA, PYPI, 7, A, at_ms=3)
        assert await tables.ledger.serial_floor(MXA, PYPI) == 7


async def test_manifests_of_an_organisation_come_oldest_first(store: Store) -> None:
    def manifest(number: int, org: str) -> EnvelopeRow:
        return replace(attestation(number, project=None, seq=number), kind="keys", org=org)

    rows = [manifest(2, "orga"), manifest(1, "orga")]
    async with store.transaction() as tables:
        for row in [*rows, manifest(3, "orgb"), attestation(4)]:
            await tables.ledger.keep(row)
        assert await tables.ledger.manifests("orga") == rows


async def test_overrides_come_oldest_first(store: Store) -> None:
    one = OverrideRow(
        statement_id="1" * 64, project=MXA, file=WHEEL, action="approve", sha256=A, reason="checked by hand", at_ms=5
    )
    two = OverrideRow(
        statement_id="2" * 64, project=MXA, file=None, action="quarantine", sha256=None, reason="", at_ms=4
    )
    async with store.transaction() as tables:
        await tables.ledger.override(one)
        await tables.ledger.override(two)
        assert await tables.ledger.overrides(MXA) == [one, two]
        assert await tables.ledger.overrides(MXB) == []


async def after_a_step(asking: Coroutine[Any, Any, T]) -> T:
    return await asyncio.create_task(asking)


@pytest.mark.parametrize("reads_only", [False, True], ids=["that may write", "that only reads"])
async def test_in_a_transaction_much_may_be_asked_at_the_same_time(store: Store, reads_only: bool) -> None:
    accepted = Accepted(project=MXA, file=WHEEL, sha256=A, size=3, at_ms=1, by="served", serial=7)
    async with store.transaction() as tables:
        await tables.ledger.accept(accepted)
        await tables.ledger.see_first(MXA, {SDIST: B}, at_ms=1)
    async with store.transaction(reads_only=reads_only) as tables:
        for _ in range(2):
            async with together() as group:
                one = group.create_task(tables.ledger.accepted(MXA))
                later = group.create_task(after_a_step(tables.ledger.first_seen(MXA)))
                other = group.create_task(tables.ledger.accepted(MXB))
                view = group.create_task(tables.views.get(MXA))
            assert [task.result() for task in (one, later, other, view)] == [{WHEEL: accepted}, {SDIST: B}, {}, None]


async def test_who_asks_at_the_same_time_as_somebody_who_writes_sees_it_whole_or_not_at_all(store: Store) -> None:
    accepted = Accepted(project=MXA, file=WHEEL, sha256=A, size=3, at_ms=1, by="served", serial=7)

    async def write() -> None:
        async with store.transaction() as tables:
            await tables.ledger.accept(accepted)
            await tables.ledger.see_first(MXA, {WHEEL: A}, at_ms=1)

    async def read() -> tuple[int, int]:
        async with store.transaction(reads_only=True) as tables:
            async with together() as group:
                one = group.create_task(tables.ledger.accepted(MXA))
                other = group.create_task(tables.ledger.first_seen(MXA))
            return len(one.result()), len(other.result())

    results = await asyncio.gather(read(), read(), write(), read(), read(), write(), read())
    assert {result for result in results if result is not None} <= {(0, 0), (1, 1)}
    assert await read() == (1, 1)


async def test_who_promised_only_to_read_cannot_write(store: Store) -> None:
    order = OverrideRow(
        statement_id="1" * 64, project=MXA, file=None, action="quarantine", sha256=None, reason="", at_ms=4
    )
    with pytest.raises((AssertionError, asyncpg.ReadOnlySQLTransactionError), match=r"only read|read-only"):
        async with store.transaction(reads_only=True) as tables:
            await tables.ledger.override(order)
    with pytest.raises((AssertionError, asyncpg.ReadOnlySQLTransactionError), match=r"only read|read-only"):
        async with store.transaction(reads_only=True) as tables:
            await tables.views.change(MXA, "revision", (), at_ms=1)
    async with store.transaction() as tables:
        assert await tables.ledger.overrides(MXA) == []
        assert await tables.views.changes(0, 9) == []


@pytest.mark.parametrize("reads_only", [False, True], ids=["that may write", "that only reads"])
async def test_a_question_that_fails_fails_those_asked_with_it_and_nobody_after(
    store: DatabaseStore, reads_only: bool
) -> None:
    async def ask_nonsense(ledger: Any) -> None:
        await ledger._db.fetch("SELECT word FROM nowhere")

    for order in (1, -1):
        with pytest.raises((StoreAway, asyncpg.UndefinedTableError), match="nowhere"):
            async with store.transaction(reads_only=reads_only) as tables:
                async with together() as group:
                    askings: list[Coroutine[Any, Any, object]] = [
                        tables.ledger.accepted(MXA),
                        ask_nonsense(tables.ledger),
                    ]
                    for asking in askings[::order]:
                        group.create_task(asking)
    async with store.transaction(reads_only=reads_only) as tables:
        assert await tables.ledger.accepted(MXA) == {}


async def test_what_is_asked_after_a_transaction_could_not_begin_is_not_kept_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite: each statement outside of a transaction would be one of its own."""
    patience = [command for command in engine._SQLITE_ARGS["init_commands"] if "busy_timeout" not in command]
    monkeypatch.setitem(engine._SQLITE_ARGS, "init_commands", [*patience, "PRAGMA busy_timeout = 1"])
    async with open_store(f"sqlite:{tmp_path}/bot.db") as store:
        with contextlib.closing(sqlite3.connect(tmp_path / "bot.db", isolation_level=None)) as somebody:
            somebody.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreAway):
                async with store.transaction() as tables:
                    with pytest.raises(sqlite3.OperationalError, match="locked"):
                        await tables.ledger.accepted(MXA)
                    somebody.execute("ROLLBACK")
                    await tables.views.change(MXA, "revision", (), at_ms=1)
        async with store.transaction() as tables:
            assert await tables.views.changes(0, 9) == []


@pytest.mark.parametrize("steps", range(6))
async def test_who_is_cancelled_while_asking_leaves_the_database_to_the_next(store: Store, steps: int) -> None:
    async def read() -> None:
        async with store.transaction(reads_only=True) as tables:
            async with together() as group:
                for _ in range(3):
                    group.create_task(tables.ledger.accepted(MXA))

    reading = asyncio.create_task(read())
    for _ in range(steps):
        await asyncio.sleep(0)
    reading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reading
    await read()


async def test_leaves_are_numbered_without_gaps_also_after_a_rollback(store: Store) -> None:
    async with store.transaction() as tables:
        assert await tables.log.append("a", bytes(32)) == 0
    with pytest.raises(ZeroDivisionError):
        async with store.transaction() as tables:
            assert await tables.log.append("lost", bytes(32)) == 1
            raise ZeroDivisionError
    async with store.transaction() as tables:
        assert await tables.log.append("b", bytes(32)) == 1
        assert await tables.log.append("c", bytes(32)) == 2
        assert await tables.log.leaves(1, 3) == ["b", "c"]
        assert await tables.log.leaves(3, 9) == []


async def test_the_same_wrong_bytes_of_one_day_are_one_observation(store: DatabaseStore) -> None:
    seen = Observed(
        project=MXA, file=WHEEL, expected_sha256=A, sha256=B, size=3, source="upstream", reason="other bytes"
    )
    async with store.transaction() as tables:
        for at_ms in (1, 2, 86_400_001):
            await tables.ledger.observe(seen, at_ms)
    async with store._database.acquire_direct() as connection:
        assert await connection.fetchval("SELECT COUNT(*) FROM observation") == 2


async def test_a_view_comes_back_whole_and_is_replaced(store: Store) -> None:
    large = view(raw=b"\x00" * 3_000_000, opened_origins=())
    async with store.transaction() as tables:
        assert await tables.views.get(MXA) is None
        await tables.views.put(view())
        assert await tables.views.get(MXA) == view()
        await tables.views.put(large)
    async with store.transaction() as tables:
        assert await tables.views.get(MXA) == large


async def test_a_checked_view_keeps_its_page(store: Store) -> None:
    async with store.transaction() as tables:
        await tables.views.put(view())
        await tables.views.checked(MXA, "down", 20)
        await tables.views.checked(MXB, "live", 99)
        assert await tables.views.get(MXA) == view(state="down")
        assert await tables.views.get(MXB) is None


async def test_names_are_sorted_by_bytes_and_paged_without_those_that_are_gone(store: Store) -> None:
    async with store.transaction() as tables:
        for name in ("b", "a-b", "a", "ab", "c"):
            await tables.views.put(view(ProjectName(name)))
        await tables.views.put(view(ProjectName("gone"), raw=b"", state="gone"))
        assert await tables.views.names("", 3) == ["a", "a-b", "ab"]
        assert await tables.views.names("ab", 9) == ["b", "c"]


async def test_numbers_of_changes_grow_and_never_come_back(store: Store) -> None:
    async with store.transaction() as tables:
        assert await tables.views.change_bounds() == (0, 0)
        numbers = [await tables.views.change(MXA, f"r{n}", (WHEEL,) if n else (), at_ms=n) for n in range(3)]
        assert sorted(set(numbers)) == numbers
        await tables.views.forget_changes(1)
        assert await tables.views.change_bounds() == (numbers[2], numbers[2])
        assert await tables.views.changes(0, 9) == [
            Change(seq=numbers[2], project=MXA, revision="r2", withdrawn=(WHEEL,))
        ]
    async with store.transaction() as tables:
        assert await tables.views.change(MXB, "r", (), at_ms=9) > numbers[2]
        assert len(await tables.views.changes(0, 1)) == 1
        assert [change.project for change in await tables.views.changes(numbers[2], 9)] == [MXB]


async def test_other_rules_begin_at_a_number_of_their_own(store: Store) -> None:
    async with store.transaction() as tables:
        assert await tables.views.rules_since("first", at_ms=1) == 0
        told = await tables.views.change(MXA, "r", (), at_ms=2)
        assert await tables.views.rules_since("first", at_ms=3) == 0
        since = await tables.views.rules_since("second", at_ms=4)
        assert since > told
        assert await tables.views.rules_since("second", at_ms=5) == since
        assert await tables.views.change_bounds() == (told, told)
        assert await tables.views.change(MXA, "s", (), at_ms=6) > since
        assert await tables.views.rules_since("first", at_ms=7) > since


async def test_a_statement_that_takes_too_long_means_that_the_database_is_away(store: Store) -> None:
    with pytest.raises(StoreAway):
        async with store.transaction() as tables:
            await tables.log.append("1", bytes(32))
            raise TimeoutError
    async with store.transaction() as tables:
        assert await tables.log.leaves(0, 9) == []


async def test_reports_wait_until_they_are_settled(store: Store) -> None:
    async with store.transaction() as tables:
        for report in (stored(), stored(), stored(sha256=B), stored(SDIST)):
            await tables.views.report(report, at_ms=1)
        assert await tables.views.reports(MXA) == [stored(), stored(sha256=B), stored(SDIST)]
        assert await tables.views.reports(MXB) == []
        assert await tables.views.reported_projects() == [MXA]
        await tables.views.settled(stored())
        await tables.views.settled(stored())
        assert await tables.views.reports(MXA) == [stored(sha256=B), stored(SDIST)]


async def test_a_wrong_report_keeps_no_other_of_the_same_digest_away(store: Store) -> None:
    wrong, right = stored(size=4), stored()
    async with store.transaction() as tables:
        for report in (wrong, right, right):
            await tables.views.report(report, at_ms=1)
        assert await tables.views.reports(MXA) == [wrong, right]
        await tables.views.settled(wrong)
        assert await tables.views.reports(MXA) == [right]


async def test_reports_that_wait_are_taken_along_from_an_older_database(url: str) -> None:
    older = UpgradeTable()
    older.register(v00_first.create, description="first schema")
    older.register(v01_rules.remember_rules, description="rules of the change stream")
    database = Database.create(url, upgrade_table=older, owner_name=OWNER)
    await database.start()
    for n, report in enumerate((stored(SDIST), stored())):
        await database.execute(
            "INSERT INTO stored_report (project, file, sha256, body, at_ms) VALUES ($1, $2, $3, $4, $5)",
            report.project, report.file, report.sha256, encode(report), n,
        )  # fmt: skip
    await database.stop()
    async with open_store(url) as store, store.transaction() as tables:
        assert await tables.views.reports(MXA) == [stored(SDIST), stored()]
        await tables.views.settled(stored())
        assert await tables.views.reports(MXA) == [stored(SDIST)]


async def test_first_digests_of_an_older_database_are_of_files_that_no_page_is_known_to_have_lacked(url: str) -> None:
    older = UpgradeTable()
    older.register(v00_first.create, description="first schema")
    database = Database.create(url, upgrade_table=older, owner_name=OWNER)
    await database.start()
    await database.execute(
        "INSERT INTO first_digest (project, at_ms, digests) VALUES ($1, $2, $3)", MXA, 1, await pack(encode({WHEEL: A}))
    )
    await database.stop()
    async with open_store(url) as store, store.transaction() as tables:
        assert await tables.ledger.sights(MXA) == {WHEEL: Sight(1)}
        await tables.ledger.see_first(MXA, {SDIST: B}, at_ms=3, lacked_ms=2)
        assert await tables.ledger.sights(MXA) == {WHEEL: Sight(1), SDIST: Sight(3, lacked_ms=2)}


COLUMNS = {
    "envelope": "kind", "sighting": "id", "own_signature": "sha256", "own_digest": "cause", "first_digest": "project",
    "own_view": "root", "operator_override": "reason", "log_leaf": "leaf_hash", "observation": "body",
    "log_node": "hash", "log_checkpoint": "root",
}  # fmt: skip


@pytest.mark.parametrize("table", (*ledger.INSERT_ONLY, *log.INSERT_ONLY))
async def test_the_database_itself_refuses_to_change_or_forget_what_is_known(store: DatabaseStore, table: str) -> None:
    async with store.transaction() as tables:
        await _fill(tables)
    async with store._database.acquire_direct() as connection:
        count = await connection.fetchval(f"SELECT COUNT(*) FROM {table}")
        assert count > 0
        for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET {COLUMNS[table]} = {COLUMNS[table]}"):
            with pytest.raises(Exception, match="insert-only"):
                await connection.execute(statement)
        assert await connection.fetchval(f"SELECT COUNT(*) FROM {table}") == count


async def test_replacing_a_row_of_the_ledger_is_refused_too(tmp_path: Path) -> None:
    async with open_store(f"sqlite:{tmp_path}/bot.db") as store:
        async with store.transaction() as tables:
            await tables.ledger.sign_once(KEY, WHEEL, A)
        async with store._database.acquire_direct() as connection:
            with pytest.raises(Exception, match="insert-only"):
                await connection.execute("INSERT OR REPLACE INTO own_signature VALUES ($1, $2, $3)", KEY, WHEEL, B)


async def test_a_block_that_raises_leaves_nothing(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        async with store.transaction() as tables:
            await tables.ledger.keep(attestation())
            await tables.views.report(stored(), at_ms=1)
            await tables.views.put(view())
            raise ZeroDivisionError
    async with store.transaction() as tables:
        assert await tables.ledger.envelope(attestation().id) is None
        assert await tables.views.reports(MXA) == []
        assert await tables.views.get(MXA) is None


async def test_a_cancelled_block_leaves_nothing_and_the_next_works(store: Store) -> None:
    inside = asyncio.Event()

    async def stuck() -> None:
        async with store.transaction() as tables:
            await tables.ledger.keep(attestation())
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(stuck())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with store.transaction() as tables:
        assert await tables.ledger.keep(attestation())
    async with store.transaction() as tables:
        assert await tables.ledger.envelope(attestation().id) == attestation()


async def test_cancelling_at_any_moment_never_breaks_the_store(store: Store) -> None:
    async def once(number: int) -> None:
        async with store.transaction() as tables:
            await tables.ledger.keep(attestation(number, seq=number))

    for turns in range(40):
        task = asyncio.create_task(once(turns))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    async with store.transaction() as tables:
        kept = await tables.ledger.attestations(MXA)
        assert [row.seq for row in kept] == sorted(row.seq or 0 for row in kept)


async def test_a_task_started_inside_a_transaction_is_not_inside_it(store: Store) -> None:
    async def beside() -> None:
        async with store.transaction() as tables:
            await tables.ledger.sign_once(KEY, SDIST, A)

    with pytest.raises(ZeroDivisionError):
        async with store.transaction() as tables:
            await tables.ledger.sign_once(KEY, WHEEL, A)
            task = asyncio.create_task(beside())
            raise ZeroDivisionError
    await task
    async with store.transaction() as tables:
        assert not await tables.ledger.sign_once(KEY, SDIST, B)
        assert await tables.ledger.sign_once(KEY, WHEEL, B)


async def test_transactions_are_serial(store: Store) -> None:
    async def append(number: int) -> None:
        async with store.transaction() as tables:
            await tables.log.append(str(number), bytes(32))

    await asyncio.gather(*(append(number) for number in range(20)))
    async with store.transaction() as tables:
        assert sorted(await tables.log.leaves(0, 99)) == sorted(str(number) for number in range(20))


async def test_everything_is_there_after_reopening(url: str) -> None:
    async with open_store(url) as store:
        async with store.transaction() as tables:
            await tables.views.put(view())
            seq = await tables.views.change(MXA, "r", (), at_ms=1)
            await tables.views.forget_changes(1)
    async with open_store(url) as store:
        async with store.transaction() as tables:
            assert await tables.views.get(MXA) == view()
            assert await tables.views.change(MXA, "s", (), at_ms=2) > seq


@pytest.mark.parametrize("url", ["sqlite:/nonexistent/folder/bot.db", "postgres://nobody@127.0.0.1:1/none"])
async def test_a_database_that_is_not_there_is_named_at_the_start(url: str) -> None:
    with pytest.raises(StoreAway) as raised:
        async with open_store(url):
            pass
    assert raised.value.hint


async def test_a_database_of_another_program_is_refused(url: str) -> None:
    async with open_store(url) as store, store._database.acquire_direct() as connection:
        await connection.execute("UPDATE database_owner SET owner = 'another'")
    with pytest.raises(Problem, match="owned by another"):
        async with open_store(url):
            pass


async def test_a_database_of_a_newer_version_is_refused(url: str) -> None:
    async with open_store(url) as store, store._database.acquire_direct() as connection:
        await connection.execute("UPDATE version SET version = 99")
    with pytest.raises(Problem, match="v99"):
        async with open_store(url):
            pass


async def test_a_failing_database_is_away_and_nothing_else(store: DatabaseStore, url: str) -> None:
    async with store._database.acquire_direct() as connection:
        await connection.execute("SELECT 1")
    with pytest.raises(StoreAway):
        async with store.transaction() as tables:
            if url.startswith("sqlite"):
                await tables.ledger._db.execute("INSERT INTO nowhere VALUES (1)")
            await tables.ledger._db.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    async with store.transaction() as tables:
        assert await tables.ledger.keep(attestation())


async def _fill(transaction: Transaction) -> None:
    """One row in every insert-only table."""
    for number in range(2):
        await transaction.log.append(f"{number:064x}", bytes(32))
    await transaction.log.promise(2, bytes(32), at_ms=1)
    tables = transaction.ledger
    await tables.keep(attestation())
    await tables.sighted("1" * 64, room_id="!r", event_id="$e", sender="@eve:example.org", at_ms=5)
    await tables.sign_once(KEY, WHEEL, A)
    await tables.accept(Accepted(project=MXA, file=WHEEL, sha256=A, size=3, at_ms=1, by="served", serial=7))
    await tables.see_first(MXA, {WHEEL: A}, at_ms=1)
    await tables.own_view(MXA, PYPI, 7, A, at_ms=1)
    await tables.override(
        OverrideRow(statement_id="1" * 64, project=MXA, file=None, action="release", sha256=None, reason="", at_ms=1)
    )
    await tables.observe(
        Observed(project=MXA, file=WHEEL, expected_sha256=A, sha256=None, size=0, source="peer", reason="cut"), at_ms=1
    )
