"""What every database must keep of provenance: findings by root, the newest of a file, and publishers for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from matrix_pypi_bot.adapters.database.engine import DatabaseStore, open_store
from matrix_pypi_bot.adapters.database.provenance import MAX_BAD_A_FILE
from matrix_pypi_bot.core.provenance import Finding, Pin
from matrix_pypi_bot.core.publisher import Publisher
from matrix_pypi_bot.ports import Store, Transaction
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName, ProjectName

MXA, MXB = ProjectName("mxa"), ProjectName("mxb")
ONE, TWO = FileName("mxa-1.0-py3-none-any.whl"), FileName("mxa-2.0-py3-none-any.whl")
OURS = Publisher("github", "trailofbits/mxa", "release.yml")
GOOD = Finding(sha256=Sha256("ab" * 32), publishers=(OURS,), signed=1_750_000_000)
BAD = Finding(fault='it is "bad"')
PIN = Pin(publishers=(OURS.home,), file=ONE, signed=1_750_000_000)


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[DatabaseStore]:
    """An empty database of either kind."""
    url = f"sqlite:{tmp_path}/bot.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    async with open_store(url) as opened:
        yield opened


async def keep(tables: Transaction, file: FileName, raw: bytes, finding: Finding, root: str = "root") -> bool:
    return await tables.provenance.keep(MXA, file, root=root, raw=raw, finding=finding, at_ms=1)


async def test_what_was_found_comes_back_file_by_file(store: Store) -> None:
    async with store.transaction() as tables:
        assert await keep(tables, ONE, b"one", GOOD)
        assert await keep(tables, TWO, b"two \0", BAD)
    async with store.transaction() as tables:
        assert await tables.provenance.findings(MXA, "root") == {ONE: GOOD, TWO: BAD}
        assert await tables.provenance.findings(MXB, "root") == {}
        assert await tables.provenance.document(MXA, TWO) == b"two \0"
        assert await tables.provenance.document(MXB, TWO) is None


async def test_the_newest_finding_counts_and_the_same_one_is_kept_once(store: Store) -> None:
    async with store.transaction() as tables:
        assert [await keep(tables, ONE, raw, BAD) for raw in (b"a", b"b", b"a")] == [True, True, False]
        assert await keep(tables, ONE, b"c", GOOD)
        assert await tables.provenance.findings(MXA, "root") == {ONE: GOOD}
        assert await tables.provenance.document(MXA, ONE) == b"c"


async def test_a_root_has_its_own_findings_of_one_document(store: Store) -> None:
    async with store.transaction() as tables:
        assert await keep(tables, ONE, b"a", BAD, "old")
        assert await tables.provenance.findings(MXA, "new") == {}
        assert await keep(tables, ONE, b"a", GOOD, "new")
        assert await tables.provenance.findings(MXA, "old") == {ONE: BAD}
        assert await tables.provenance.findings(MXA, "new") == {ONE: GOOD}


async def test_two_files_may_have_one_document(store: Store) -> None:
    async with store.transaction() as tables:
        assert [await keep(tables, file, b"same", GOOD) for file in (ONE, TWO)] == [True, True]


async def test_useless_documents_do_not_fill_the_disk_and_a_good_one_still_counts(store: Store) -> None:
    async with store.transaction() as tables:
        kept = [await keep(tables, ONE, b"%d" % number, BAD) for number in range(MAX_BAD_A_FILE + 3)]
        assert kept == [True] * MAX_BAD_A_FILE + [False] * 3
        assert await keep(tables, ONE, b"good", GOOD)


async def test_the_publisher_of_first_sight_stays(store: Store) -> None:
    async with store.transaction() as tables:
        assert await tables.provenance.pinned(MXA) is None
        await tables.provenance.pin(MXA, PIN, 1)
        await tables.provenance.pin(MXA, Pin(publishers=(), file=TWO, signed=2), 2)
    async with store.transaction() as tables:
        assert await tables.provenance.pinned(MXA) == PIN
        assert await tables.provenance.pinned(MXB) is None


@pytest.mark.parametrize("table", ["provenance_document", "provenance_finding", "first_publisher"])
@pytest.mark.parametrize("change", ["DELETE FROM {}", "UPDATE {} SET {} = {}"])
async def test_nothing_of_it_can_be_changed_or_taken_away(store: DatabaseStore, table: str, change: str) -> None:
    column = {"provenance_document": "raw", "provenance_finding": "at_ms", "first_publisher": "at_ms"}[table]
    async with store.transaction() as tables:
        await keep(tables, ONE, b"one", GOOD)
        await tables.provenance.pin(MXA, PIN, 1)
    with pytest.raises(Exception, match="insert-only"):
        async with store._database.acquire() as connection:
            await connection.execute(change.format(table, column, column))
