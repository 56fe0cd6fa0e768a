"""What every database must keep of claims and verdicts, and how an older database comes to have them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from mautrix.util.async_db import Database, UpgradeTable
from msgspec.structs import replace as replace_claim

from matrix_pypi_bot.adapters.database.engine import OWNER, DatabaseStore, open_store
from matrix_pypi_bot.adapters.database.upgrade import v00_first, v01_rules, v02_reports, v03_log
from matrix_pypi_bot.core.claims import Claim, claims_of
from matrix_pypi_bot.ports import Store, VerdictRow
from matrix_pypi_bot.services.intake import ledger_row
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName, ProjectName
from tests.support.statements import Organisation

ORGA, ORGB = Organisation("orga"), Organisation("orgb")
WHEEL = "flask-3.1.3-py3-none-any.whl"
FLASK = ProjectName("flask")
VERDICT = VerdictRow(
    statement_id="a" * 64,
    fault="pypi-digest",
    result="CONTESTED",
    project=FLASK,
    file=FileName(WHEEL),
    keyid=ORGA.keyid,
    org="orga",
    evidence_id=None,
    reason="accused by orgb",
    suspends=False,
    at_ms=7_000,
)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    return f"sqlite:{tmp_path}/bot.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
async def store(url: str) -> AsyncIterator[DatabaseStore]:
    """A store over it."""
    async with open_store(url) as opened:
        yield opened


def claims(org: Organisation, file: str, at_ms: int) -> list[Claim]:
    checked = org.attest(file)
    return list(claims_of(checked.statement, org=org.name, keyid=org.keyid, received_ms=at_ms))


async def keep(store: Store, org: Organisation, file: str, at_ms: int = 7_000) -> bool:
    async with store.transaction() as tables:
        row = ledger_row(org.attest(file), via="room", at_ms=at_ms)
        return await tables.ledger.keep(row, claims(org, file, at_ms))


async def test_claims_come_back_as_they_were_kept_and_are_kept_once(store: Store) -> None:
    assert await keep(store, ORGA, WHEEL)
    assert not await keep(store, ORGA, WHEEL, 8_000)
    assert await keep(store, ORGB, WHEEL, 9_000)
    async with store.transaction() as tables:
        assert await tables.ledger.claims(FLASK) == [*claims(ORGA, WHEEL, 7_000), *claims(ORGB, WHEEL, 9_000)]
        assert await tables.ledger.claims(ProjectName("django")) == []


async def test_projects_are_found_by_who_said_something_of_them_page_by_page(store: Store) -> None:
    for file in ("a-1.tar.gz", "b-1.tar.gz", "b-2.tar.gz", "c-1.tar.gz"):
        await keep(store, ORGA, file)
    await keep(store, ORGB, "b-1.tar.gz")
    async with store.transaction() as tables:
        assert await tables.ledger.projects_of("orga", "", 2) == ["a", "b"]
        assert await tables.ledger.projects_of("orga", "b", 2) == ["c"]
        assert await tables.ledger.projects_of("orgb", "", 9) == ["b"]
        assert await tables.ledger.unreviewed("orgb", "", 9) == ["a", "b", "c"]
        assert await tables.ledger.unreviewed("orga", "", 9) == []


async def test_of_one_file_comes_what_is_claimed_of_it_and_what_takes_back_whole_versions(store: Store) -> None:
    other = "flask-3.1.3.tar.gz"
    for file in (WHEEL, other):
        await keep(store, ORGA, file)
    (claim,) = claims(ORGB, other, 9_000)
    back = [replace_claim(claim, kind="withdrawal", word=word, index="") for word in ("version", "file")]
    async with store.transaction() as tables:
        await tables.ledger.keep(ledger_row(ORGB.attest(other), via="room", at_ms=9_000), [claim, *back])
        assert await tables.ledger.claims_on(FLASK, FileName(WHEEL)) == [*claims(ORGA, WHEEL, 7_000), back[0]]
        assert await tables.ledger.claims_on(ProjectName("django"), FileName(WHEEL)) == []


async def test_only_the_last_refutations_are_read_for_who_asks_for_few(store: Store) -> None:
    rows = [
        replace(ledger_row(ORGA.attest(f"flask-{n}.tar.gz"), via="room", at_ms=n), kind="refutation") for n in range(3)
    ]
    async with store.transaction() as tables:
        for row in rows:
            await tables.ledger.keep(row)
        assert await tables.ledger.last_refutations(FLASK, 2) == [rows[2], rows[1]]
        assert await tables.ledger.refutation_ids(FLASK) == [row.id for row in rows]


async def test_the_newest_list_of_an_organisation_is_the_last_of_the_key_that_spoke_last(store: Store) -> None:
    rows = [
        replace(
            ledger_row(ORGA.attest(f"flask-{n}.tar.gz"), via="room", at_ms=at_ms), kind="index", keyid=keyid, seq=seq
        )
        for n, (keyid, seq, at_ms) in enumerate((("a" * 64, 7, 1), ("a" * 64, 6, 2), ("b" * 64, 1, 3)))
    ]
    async with store.transaction() as tables:
        for row in rows[:2]:
            await tables.ledger.keep(row)
        assert await tables.ledger.newest_index(FLASK) == {"orga": rows[0]}
        await tables.ledger.keep(rows[2])
        assert await tables.ledger.newest_index(FLASK) == {"orga": rows[2]}


async def test_the_newest_word_on_an_accusation_decides_whether_a_key_is_suspended(store: Store) -> None:
    upheld = replace(VERDICT, result="UPHELD", suspends=True, evidence_id="e" * 64)
    async with store.transaction() as tables:
        await tables.ledger.judge(VERDICT)
        await tables.ledger.judge(upheld)
    async with store.transaction() as tables:
        assert await tables.ledger.verdicts(FLASK) == [VERDICT, upheld]
        assert await tables.ledger.suspensions() == [upheld]
        await tables.ledger.judge(replace(VERDICT, result="DISMISSED"))
        assert await tables.ledger.suspensions() == []
        other = replace(upheld, statement_id="b" * 64, project=None, file=None)
        await tables.ledger.judge(other)
        assert await tables.ledger.suspensions() == [other]


@pytest.mark.parametrize("table", ["claim", "verdict"])
async def test_the_database_itself_refuses_to_change_or_delete_what_was_said_and_judged(
    store: DatabaseStore, table: str
) -> None:
    """P-27."""
    await keep(store, ORGA, WHEEL)
    async with store.transaction() as tables:
        await tables.ledger.judge(VERDICT)
    for statement in (f"UPDATE {table} SET org = 'orgz'", f"DELETE FROM {table}"):
        with pytest.raises(Exception, match="insert-only"):
            await store._database.execute(statement)


async def test_an_older_database_gets_the_claims_of_what_it_kept(url: str) -> None:
    upgrades = UpgradeTable()
    for upgrade in (
        v00_first.create,
        v01_rules.remember_rules,
        v02_reports.keep_reports_that_differ,
        v03_log.build_the_tree,
    ):
        upgrades.register(upgrade, description="before")
    before = Database.create(url, upgrade_table=upgrades, owner_name=OWNER, ignore_foreign_tables=False)
    await before.start()
    row = ledger_row(ORGA.attest(WHEEL), via="own", at_ms=7_000)
    await before.execute(
        "INSERT INTO envelope (id, kind, project, file, sha256, keyid, org, seq, envelope, first_seen_ms, via) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        row.id, row.kind, row.project, row.file, row.sha256, row.keyid, row.org, row.seq, row.envelope,
        row.first_seen_ms, row.via,
    )  # fmt: skip
    await before.stop()
    async with open_store(url) as store, store.transaction() as tables:
        assert await tables.ledger.claims(FLASK) == claims(ORGA, WHEEL, 7_000)
        assert (await tables.ledger.claims(FLASK))[0].subject == Sha256(row.sha256 or "")
