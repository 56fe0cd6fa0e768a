"""What every database must keep of copies of other logs: a tree that a signed head bears, and nothing else for ever."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from matrix_pypi_bot.adapters.database.engine import DatabaseStore, open_store
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.leaves import Leaf
from matrix_pypi_bot.core.notes import NoteKey
from matrix_pypi_bot.core.tlog import fold, full_subtrees, leaf_hash, root_of
from matrix_pypi_bot.ports import Break, CopyHead, CopyId, Store, Transaction, Waiting
from tests.conformance.test_stores import attestation
from tests.support.bot_world import ManualClock
from tests.support.peer_logs import LogOrg, Node, ScriptedReader

KEY, OTHER_KEY = NoteKey("orgb/matrix-pypi", bytes([1]) * 32), NoteKey("orgb/matrix-pypi", bytes([2]) * 32)
HASHES = [leaf_hash(number.to_bytes(2)) for number in range(100)]
LEAVES = [Leaf(f"{number:064x}", HASHES[number], b'{"n":%d}' % number, False) for number in range(100)]  # type: ignore[arg-type]
ROOT = bytes([7]) * 32


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    return f"sqlite:{tmp_path}/bot.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
async def store(url: str) -> AsyncIterator[DatabaseStore]:
    """A store over it."""
    async with open_store(url) as opened:
        yield opened


async def root(tables: Transaction, copy: CopyId, size: int) -> bytes:
    return fold([await tables.peer_logs.subtree(copy, level, index) for level, index in full_subtrees(0, size)])


async def grown(store: Store, steps: Iterable[tuple[int, int]]) -> CopyId:
    """A copy that got leaves in these steps: (staged up to, settled up to)."""
    async with store.transaction() as tables:
        copy = await tables.peer_logs.copy("orgb", KEY, 1)
        end = 0
        for staged, settled in steps:
            await tables.peer_logs.stage(copy, LEAVES[end:staged], relayed=False)
            end = staged
            await tables.peer_logs.settle(copy, settled)
    return copy


@pytest.mark.parametrize(
    "steps", [[(100, 0)], [(100, 100)], [(33, 20), (61, 33), (100, 64)], [(1, 1), (2, 2), (3, 3), (100, 97)]]
)
async def test_the_tree_has_the_root_of_the_standard_at_every_size_staged_or_settled(
    store: Store, steps: list[tuple[int, int]]
) -> None:
    copy = await grown(store, steps)
    async with store.transaction() as tables:
        assert await tables.peer_logs.end(copy) == 100
        assert [await root(tables, copy, size) for size in range(101)] == [
            root_of(HASHES[:size]) for size in range(101)
        ]


async def test_what_is_staged_can_be_dropped_and_what_is_settled_stays(store: Store) -> None:
    copy = await grown(store, [(50, 37)])
    async with store.transaction() as tables:
        logs = tables.peer_logs
        assert not await logs.drop_staged(copy)
        assert await logs.end(copy) == 37
        await logs.stage(copy, LEAVES[60:70], relayed=True)
        assert await logs.drop_staged(copy)
        assert not await logs.drop_staged(copy)
        await logs.stage(copy, LEAVES[37:64], relayed=False)
        await logs.settle(copy, 64)
        assert await root(tables, copy, 64) == root_of(HASHES[:64])
        with pytest.raises(LookupError):
            await logs.subtree(copy, 0, 64)


async def test_one_copy_is_of_one_organisation_and_one_log_key(store: Store) -> None:
    async with store.transaction() as tables:
        logs = tables.peer_logs
        first = await logs.copy("orgb", KEY, 1)
        assert await logs.copy("orgb", KEY, 2) == first
        other, stranger = await logs.copy("orgb", OTHER_KEY, 3), await logs.copy("orgc", KEY, 4)
        assert len({first, other, stranger}) == 3
        assert await logs.newest_copy("orgb") is None
        head = CopyHead(size=2, root=ROOT, note="a note", signed=Instant(5), taken=1)
        await logs.put_head(first, head)
        assert await logs.newest_copy("orgb") == first
        await logs.put_head(other, replace(head, size=9))
        await logs.put_head(first, replace(head, taken=2))
        assert (await logs.newest_copy("orgb"), await logs.head(first)) == (other, replace(head, taken=2))
        assert await logs.heads() == {"orgb": replace(head, size=9)}
        assert await logs.head(stranger) is None


async def test_envelopes_come_from_the_ledger_once_they_are_there(store: Store) -> None:
    rows = [replace(attestation(number), id=f"{number:064x}", envelope=b"kept %d" % number) for number in range(3)]
    copy = await grown(store, [(4, 3)])
    async with store.transaction() as tables:
        logs = tables.peer_logs
        assert await logs.waiting(copy, 1, 9, 2) == [Waiting(n, LEAVES[n].envelope, False, "") for n in (1, 2)]
        await tables.ledger.keep(rows[1])
        await logs.kept(copy, 1)
        await logs.found(copy, 2, "E_SIG")
        assert await logs.entries(copy, 0, 9) == [LEAVES[0].envelope, b"kept 1", LEAVES[2].envelope]
        assert await logs.entries(copy, 1, 2) == [b"kept 1"]
        assert [each.n for each in await logs.waiting(copy, 0, 9, 9)] == [0, 2, 3]
        wrong = Waiting(2, LEAVES[2].envelope, False, "E_SIG")
        assert await logs.uncounted(copy, frozenset({"E_SIG", "E_JSON"}), 9) == [wrong]
        assert await logs.uncounted(copy, frozenset({"E_SIG"}), 9, start=3) == []
        assert await logs.uncounted(copy, frozenset({"E_SIG"}), 9, relayed_only=True) == []
        await logs.mend(copy, 2, b"mended")
        assert await logs.waiting(copy, 2, 3, 9) == [Waiting(2, b"mended", False, "")]


async def test_notes_of_one_size_are_kept_side_by_side_and_breaks_once(store: Store) -> None:
    copy = await grown(store, [])
    async with store.transaction() as tables:
        logs = tables.peer_logs
        assert await logs.largest_note(copy) == 0
        for at_ms, (size, tree, note) in enumerate(
            [(3, ROOT, "a"), (3, KEY.public, "b"), (3, ROOT, "c"), (8, ROOT, "d")]
        ):
            await logs.see(copy, size, tree, note, at_ms)
        assert await logs.notes(copy, 1, 8) == [(3, ROOT, "a"), (3, KEY.public, "b")]
        assert await logs.largest_note(copy) == 8
        found = Break(copy=copy, org="orgb", key=KEY, fork=True, notes=("a", "b"))
        assert [await logs.break_off(found, 1), await logs.break_off(found, 2)] == [True, False]
        assert await logs.break_off(replace(found, fork=False), 3)
        assert await logs.breaks() == [found, replace(found, fork=False)]


async def test_what_a_day_cost_adds_up_and_yesterday_is_forgotten(store: Store) -> None:
    async with store.transaction() as tables:
        logs = tables.peer_logs
        assert [await logs.spend("orgb", 5, 1, 10), await logs.spend("orgb", 5, 2, 20)] == [(1, 10), (3, 30)]
        assert await logs.spend("orgc", 5, 0, 0) == (0, 0)
        assert await logs.spend("orgb", 6, 1, 1) == (1, 1)


async def test_the_newest_cosignature_of_each_witness_is_kept(store: Store) -> None:
    async with store.transaction() as tables:
        logs = tables.peer_logs
        await logs.cosigned("orgb/witness", 3, "first", 1)
        await logs.cosigned("orgb/witness", 4, "second", 2)
        await logs.cosigned("orgc/witness", 4, "third", 2)
        assert await logs.cosignatures(4) == {"orgb/witness": "second", "orgc/witness": "third"}
        assert await logs.cosignatures(3) == {}


@pytest.mark.parametrize("table", ["peer_copy", "peer_leaf", "peer_node", "peer_note", "peer_break"])
@pytest.mark.parametrize("change", ["DELETE FROM {}", "UPDATE {} SET {}"])
async def test_the_database_refuses_to_change_what_is_known(store: Store, table: str, change: str) -> None:
    copy = await grown(store, [(4, 4)])
    async with store.transaction() as tables:
        await tables.peer_logs.see(copy, 1, ROOT, "a", 1)
        await tables.peer_logs.break_off(Break(copy=copy, org="orgb", key=KEY, fork=True, notes=("a", "b")), 1)
    column = "at_ms = 9" if table in ("peer_copy", "peer_note", "peer_break") else "n = 99"
    with pytest.raises((sqlite3.IntegrityError, asyncpg.RaiseError), match="insert-only"):
        async with store.transaction() as tables:
            logs: Any = tables.peer_logs
            await logs._db.execute(change.format(table, column))


async def test_a_log_is_pulled_taken_and_given_on(url: str) -> None:
    """The whole way, on the engine itself, in two lives."""
    clock, reader, orgb = ManualClock(), ScriptedReader(), LogOrg("orgb", 11)
    start = Instant.of_ms(clock.now_ms())
    orgb.introduce(start)
    orgb.attest(*(f"mxa-{number}-py3-none-any.whl" for number in range(300)))
    reader.serve("orgb", orgb, orgb.head(start, 200))
    for size in (200, 301):
        async with open_store(url) as store:
            node = await Node(store, clock, reader, orgb).start()
            reader.serve("orgb", orgb, orgb.head(start, size))
            await node.pull.pull("orgb")
            assert len(await node.attested("orgb")) == size - 1
            assert (node.pull.heads, node.pull.broken) == ({"orgb": start}, frozenset())
