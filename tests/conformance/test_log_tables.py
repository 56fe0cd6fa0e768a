"""What every database must keep of the log: the tree the pure code defines, and one promise a size."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from mautrix.util.async_db import Database, UpgradeTable

from matrix_pypi_bot.adapters.database.engine import OWNER, DatabaseStore, open_store
from matrix_pypi_bot.adapters.database.upgrade import v00_first, v01_rules, v02_reports
from matrix_pypi_bot.core.tlog import fold, full_subtrees, leaf_hash, root_of
from matrix_pypi_bot.ports import HeadRow, Store, Transaction
from tests.conformance.test_stores import attestation
from tests.support.bot_world import ManualClock, ScriptedIndex, World
from tests.unit.bot.test_log import EVERY_SECONDS, keeper_of, payload, say

LEAVES = [leaf_hash(number.to_bytes(2)) for number in range(100)]
ROOT, OTHER_ROOT = bytes([1]) * 32, bytes([2]) * 32


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    return f"sqlite:{tmp_path}/bot.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
async def store(url: str) -> AsyncIterator[DatabaseStore]:
    """A store over it."""
    async with open_store(url) as opened:
        yield opened


async def root(tables: Transaction, size: int) -> bytes:
    """The root over the first `size` leaves, from what is stored."""
    return fold([await tables.log.subtree(level, index) for level, index in full_subtrees(0, size)])


async def grow(tables: Transaction, start: int, end: int) -> None:
    for number in range(start, end):
        assert await tables.log.append(f"{number:064x}", LEAVES[number]) == number


async def test_the_stored_tree_has_the_root_of_the_standard_at_every_size(store: Store) -> None:
    async with store.transaction() as tables:
        await grow(tables, 0, 33)
    async with store.transaction() as tables:
        await grow(tables, 33, 100)
    async with store.transaction() as tables:
        assert await tables.log.size() == 100
        assert [await root(tables, size) for size in range(101)] == [root_of(LEAVES[:size]) for size in range(101)]


async def test_a_subtree_that_is_not_full_is_not_there(store: Store) -> None:
    async with store.transaction() as tables:
        await grow(tables, 0, 3)
        for level, index in ((0, 3), (1, 1), (2, 0)):
            with pytest.raises(LookupError):
                await tables.log.subtree(level, index)


async def test_a_leaf_that_was_rolled_back_leaves_nothing_of_the_tree(store: Store) -> None:
    async with store.transaction() as tables:
        await grow(tables, 0, 3)
    with pytest.raises(ZeroDivisionError):
        async with store.transaction() as tables:
            await tables.log.append("lost", bytes(32))
            raise ZeroDivisionError
    async with store.transaction() as tables:
        await grow(tables, 3, 8)
        assert await root(tables, 8) == root_of(LEAVES[:8])


async def test_entries_are_the_envelopes_in_the_order_of_the_leaves(store: Store) -> None:
    rows = [replace(attestation(number), envelope=b'{"n": %d}' % number) for number in (7, 3, 5)]
    async with store.transaction() as tables:
        for row in rows:
            await tables.ledger.keep(row)
            await tables.log.append(row.id, bytes(32))
        assert await tables.log.entries(0, 9) == [row.envelope for row in rows]
        assert await tables.log.entries(1, 2) == [rows[1].envelope]
        assert await tables.log.entries(3, 9) == []
        assert await tables.log.places([rows[2].id, "f" * 64, rows[0].id]) == {rows[2].id: 2, rows[0].id: 0}


async def test_what_was_promised_for_a_size_stays_promised(store: Store) -> None:
    async with store.transaction() as tables:
        assert await tables.log.promise(5, ROOT, at_ms=1) == ROOT
        assert await tables.log.promise(5, ROOT, at_ms=2) == ROOT
    async with store.transaction() as tables:
        assert await tables.log.promise(5, OTHER_ROOT, at_ms=3) == ROOT
        assert await tables.log.promise(6, OTHER_ROOT, at_ms=3) == OTHER_ROOT


async def test_the_newest_note_is_the_head(store: Store) -> None:
    async with store.transaction() as tables:
        assert await tables.log.head() is None
        for size, promised in ((5, ROOT), (9, OTHER_ROOT)):
            await tables.log.promise(size, promised, at_ms=size)
            await tables.log.put_head(size, f"note of {size}", at_ms=size)
        await tables.log.put_head(9, "signed again", at_ms=20)
    async with store.transaction() as tables:
        assert await tables.log.head() == HeadRow(
            size=9, root=OTHER_ROOT, note="signed again", promised_ms=9, signed_ms=20
        )


async def test_leaves_of_an_older_version_get_their_tree(url: str) -> None:
    older = UpgradeTable()
    for upgrade in (v00_first.create, v01_rules.remember_rules, v02_reports.keep_reports_that_differ):
        older.register(upgrade, description="older")
    database = Database.create(url, upgrade_table=older, owner_name=OWNER)
    await database.start()
    insert = "INSERT INTO log_leaf (n, statement_id, leaf_hash) VALUES ($1, $2, $3)"
    await database.executemany(insert, [(number, f"{number:064x}", LEAVES[number % 100]) for number in range(1_030)])
    await database.stop()
    async with open_store(url) as store, store.transaction() as tables:
        hashes = [LEAVES[number % 100] for number in range(1_030)]
        for size in (1, 2, 999, 1_000, 1_001, 1_030):
            assert await root(tables, size) == root_of(hashes[:size])
        assert await tables.log.append("new", LEAVES[0]) == 1_030
        assert await root(tables, 1_031) == root_of([*hashes, LEAVES[0]])


async def test_a_checkpoint_is_signed_told_and_read_in_the_next_life(url: str) -> None:
    clock = ManualClock()
    async with open_store(url) as store:
        keeper, guard = keeper_of(World(store, ScriptedIndex(), clock))
        await guard.compare([])
        await say(store, *range(300))
        assert await keeper.sign_if_due()
        assert not await keeper.sign_if_due()
        head = keeper.head
        async with store.transaction() as tables:
            assert (await tables.mail.backlog()).queued == 1
    async with open_store(url) as store:
        keeper, guard = keeper_of(World(store, ScriptedIndex(), clock))
        await keeper.start()
        assert keeper.head == head
        assert len(await keeper.entries(0, 300)) == 300
        await say(store, 300)
        await guard.compare([])
        clock.pass_seconds(EVERY_SECONDS)
        assert await keeper.sign_if_due()
        assert keeper.head is not None
        assert keeper.head.root == root_of([leaf_hash(payload(number)) for number in range(301)])
