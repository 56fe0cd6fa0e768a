"""What is accepted and what is signed of what frontends report, and what never is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from matrix_pypi_bot.core.events import Checked, check_event
from matrix_pypi_bot.core.signers import keyid_of
from matrix_pypi_bot.core.tlog import leaf_hash
from matrix_pypi_bot.ports import Store, StoreAway, Transaction
from matrix_pypi_bot.wire.names import FileName, ProjectName
from matrix_pypi_bot.wire.problems import Problem
from tests.support.bot_world import (
    KEY,
    KEYS,
    MXA,
    ONE,
    OTHER_ONE,
    TWO,
    ManualClock,
    ScriptedIndex,
    World,
    report,
)
from tests.support.dists import Dist, sdist, wheel
from tests.unit.bot.conftest import Live

LARGE = wheel("mxa", "3.0", payload_bytes=2 << 20)


async def accepted(world: World) -> dict[str, str]:
    """L of each file, from the database."""
    async with world.store.transaction() as tables:
        return {file: row.sha256 for file, row in (await tables.ledger.accepted(MXA)).items()}


async def posted(world: World) -> Checked:
    """The one statement that waits to be sent, as whoever receives it checks it."""
    [mail] = await world.mail()
    return check_event({key: mail[key] for key in ("type", "state_key", "content")}, MXA, KEYS)


async def test_what_was_stored_is_accepted_signed_logged_and_queued_in_one_go(
    world: World, index: ScriptedIndex
) -> None:
    await world.mirror(ONE, stored=[ONE])
    assert await accepted(world) == {ONE.filename: ONE.sha256}
    assert world.postman.pokes == 1
    [mail] = await world.mail()
    assert (mail["room"], mail["state_key"]) == ("project:mxa", f"{keyid_of(KEY.public)[:16]}/{ONE.filename}")
    checked = await posted(world)
    predicate: Any = checked.statement.predicate
    assert checked.statement.subject.sha256 == ONE.sha256
    assert (predicate.project, predicate.version, predicate.size) == ("mxa", "1.0", ONE.size)
    assert predicate.cid == report(ONE).cid
    assert predicate.core_metadata.sha256 == ONE.metadata_sha256
    source = predicate.source
    assert (source.kind, source.method, source.index, source.serial) == ("pypi", "bytes", "pypi", 2)
    assert source.upload_time == "2024-01-02T03:04:05.678901Z"
    assert (predicate.seq, predicate.prev, str(predicate.issued)) == (1, None, "2026-01-01T00:00:00Z")
    async with world.store.transaction() as tables:
        assert await tables.log.leaves(0, 9) == [checked.statement.id]
        row = await tables.ledger.envelope(checked.statement.id)
        assert row is not None
        assert (json.loads(row.envelope), row.via, row.file) == (mail["content"]["dsse"], "own", ONE.filename)
        assert len(leaf_hash(checked.envelope.payload)) == 32
    assert await world.reports("mxa") == []


async def test_mail_is_looked_for_although_the_database_went_away_before_it_said_that_all_was_done(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = world.store.transaction

    @asynccontextmanager
    async def unheard() -> AsyncIterator[Transaction]:
        async with heard() as tables:
            yield tables
        raise StoreAway("the database failed: connection was closed in the middle of operation")

    await world.mirror(ONE)
    with monkeypatch.context() as patch:
        patch.setattr(world.store, "transaction", unheard)
        with pytest.raises(StoreAway):
            await world.store_file(ONE)
    await world.store_file(ONE)  # as a frontend does until it is told that it was heard
    assert (len(await world.mail()), world.postman.pokes) == (1, 1)


async def test_pages_can_be_rebuilt_offline_from_what_an_attestation_says(world: World, index: ScriptedIndex) -> None:
    index.publish(ONE, **{"requires-python": ">=3.8", "yanked": "bad"})
    await world.mirror(TWO, stored=[ONE])
    predicate: Any = (await posted(world)).statement.predicate
    assert predicate.ext == {"requiresPython": ">=3.8", "yanked": "bad"}


async def test_statements_of_a_project_are_a_chain(world: World) -> None:
    await world.mirror(ONE, TWO, stored=[ONE, TWO, ONE, TWO])
    async with world.store.transaction() as tables:
        first, second = await tables.ledger.attestations(MXA)
        assert [first.seq, second.seq] == [1, 2]
        assert await tables.ledger.chain(KEY.keyid, MXA) == (2, second.id)
        assert len(await tables.log.leaves(0, 9)) == 2
    assert world.postman.pokes == 2


async def test_a_large_file_is_attested_with_the_cid_the_frontend_tells(world: World) -> None:
    await world.mirror(LARGE, stored=[LARGE])
    assert await world.attestations("mxa") == [LARGE.sha256]


async def test_the_frontend_cannot_have_another_digest_signed(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await world.mirror(ONE, stored=[OTHER_ONE])
    assert (await world.attestations("mxa"), await accepted(world), await world.reports("mxa")) == ([], {}, [])
    assert "stored digest is not the one upstream names alarm" in caplog.text


async def test_nothing_is_signed_for_a_file_that_is_refused(world: World) -> None:
    await world.mirror(ONE)
    world.later(OTHER_ONE)
    await world.page("mxa")
    await world.store_file(OTHER_ONE)
    assert (await world.attestations("mxa"), await accepted(world)) == ([], {})


async def test_one_key_signs_one_digest_of_a_file_for_ever(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    async with live() as world:
        async with world.store.transaction() as tables:
            await tables.ledger.sign_once(KEY.keyid, FileName(ONE.filename), OTHER_ONE.sha256)  # type: ignore[arg-type]
        await world.mirror(ONE, stored=[ONE])
        assert (await world.attestations("mxa"), await accepted(world)) == ([], {ONE.filename: ONE.sha256})
        assert "second digest of a file is not signed alarm" in caplog.text


async def test_another_size_than_upstream_tells_is_accepted_but_not_attested(
    world: World, index: ScriptedIndex, caplog: pytest.LogCaptureFixture
) -> None:
    index.publish(ONE, size=ONE.size + 1)
    await world.page("mxa")
    await world.store_file(ONE)
    assert (await world.attestations("mxa"), await accepted(world)) == ([], {ONE.filename: ONE.sha256})
    assert "another size" in caplog.text
    async with world.store.transaction() as tables:
        assert (await tables.ledger.accepted(MXA))[FileName(ONE.filename)].size is None


async def test_a_size_that_nobody_tells_is_no_obstacle(world: World, index: ScriptedIndex) -> None:
    index.publish(ONE, size=None)
    await world.page("mxa")
    await world.store_file(ONE)
    assert await world.attestations("mxa") == [ONE.sha256]


async def test_what_cannot_be_attested_is_only_accepted(world: World) -> None:
    egg = Dist(project="mxa", version="1.0", filename="mxa-1.0-py3.11.egg", content=b"egg")
    empty = Dist(project="mxa", version="1.1", filename="mxa-1.1.zip", content=b"")
    odd = Dist(project="mxa", version="1.2", filename="mxa-1.2-beta.tar.gz", content=b"odd")
    await world.mirror(egg, empty, odd, stored=[egg, empty, odd])
    assert await world.attestations("mxa") == []
    assert await accepted(world) == {dist.filename: dist.sha256 for dist in (egg, empty, odd)}
    assert await world.reports("mxa") == []


async def test_words_of_upstream_are_attested_as_far_as_an_accusation_could_carry_them(
    world: World, index: ScriptedIndex
) -> None:
    index.publish(ONE, yanked="\u20ac" * 4_096, **{"requires-python": "\u20ac" * 4_096})
    await world.page("mxa")
    await world.store_file(ONE)
    assert await world.attestations("mxa") == [ONE.sha256]
    async with world.store.transaction() as tables:
        [claim] = await tables.ledger.claims(ProjectName("mxa"))
    assert (claim.facts.yanked, claim.facts.requires_python) == ("\u20ac" * 255, None)


async def test_an_index_that_is_not_attested_leaves_no_statement(live: Live) -> None:
    async with live(attests=False) as world:
        await world.mirror(ONE, stored=[ONE])
        assert (await world.attestations("mxa"), await world.mail()) == ([], [])
        assert await accepted(world) == {ONE.filename: ONE.sha256}


async def test_what_was_accepted_unattested_is_attested_when_that_is_wanted_later(live: Live) -> None:
    async with live(attests=False) as world:
        await world.mirror(ONE, stored=[ONE])
    async with live() as world:
        await world.store_file(ONE)
        assert await world.attestations("mxa") == [ONE.sha256]


async def test_a_report_before_any_page_waits_for_one(world: World, index: ScriptedIndex) -> None:
    index.publish(ONE)
    await world.store_file(ONE)
    await world.settled()
    assert (await world.attestations("mxa"), await world.reports("mxa")) == ([ONE.sha256], [])
    assert index.count("mxa") == 1


async def test_a_report_while_upstream_is_away_waits_and_survives_a_restart(
    live: Live, index: ScriptedIndex, clock: ManualClock
) -> None:
    async with live() as world:
        await world.mirror(ONE)
        index.off()
        world.later()
        await world.refused("mxa")
        await world.store_file(ONE)
        await world.settled()
        assert (await world.attestations("mxa"), await world.reports("mxa")) == ([], [report(ONE)])
    index.on()
    async with live() as world:
        clock.pass_seconds(6)
        await world.page("mxa")
        await world.settled()
        assert (await world.attestations("mxa"), await world.reports("mxa")) == ([ONE.sha256], [])


async def test_a_report_on_a_stale_page_is_judged_by_a_fresh_one(world: World) -> None:
    await world.mirror(ONE)
    world.later(OTHER_ONE)
    await world.store_file(ONE)
    await world.settled()
    assert (await world.attestations("mxa"), await accepted(world), await world.reports("mxa")) == ([], {}, [])
    assert await world.rule(ONE) == ("R3", 403)


@pytest.mark.parametrize("wrong_first", [True, False])
async def test_a_wrong_report_keeps_the_right_one_of_the_same_digest_waiting_no_longer_than_upstream_does(
    world: World, index: ScriptedIndex, clock: ManualClock, *, wrong_first: bool
) -> None:
    index.publish(ONE)
    index.off()
    for is_wrong in (wrong_first, not wrong_first):
        await world.store_file(ONE, **({"size": ONE.size + 1} if is_wrong else {}))
    await world.settled()
    assert len(await world.reports("mxa")) == 2
    index.on()
    clock.pass_seconds(6)
    await world.page("mxa")
    await world.settled()
    assert (await world.attestations("mxa"), await world.reports("mxa")) == ([ONE.sha256], [])
    predicate: Any = (await posted(world)).statement.predicate
    assert predicate.size == ONE.size


async def test_a_report_that_comes_while_others_are_settled_is_settled_with_them(
    world: World, index: ScriptedIndex
) -> None:
    index.publish(ONE)
    await asyncio.gather(world.store_file(ONE, size=ONE.size + 1), world.store_file(ONE))
    await world.settled()
    assert (await world.attestations("mxa"), await world.reports("mxa")) == ([ONE.sha256], [])


async def test_reports_on_a_project_that_is_not_there_do_not_wait_for_ever(world: World) -> None:
    await world.store_file(ONE)
    await world.settled()
    assert await world.reports("mxa") == []


async def test_a_kept_file_from_the_cache_is_no_alarm(
    live: Live, index: ScriptedIndex, caplog: pytest.LogCaptureFixture
) -> None:
    async with live(keep_removed=True) as world:
        await world.mirror(ONE, stored=[ONE])
        index.remove(ONE)
        world.later()
        await world.page("mxa")
        caplog.clear()
        await world.store_file(ONE, source="cache")
        assert (caplog.text, await world.reports("mxa")) == ("", [])


@pytest.mark.parametrize(
    "told",
    [
        {"project": "Mx_A"},
        {"project": "../mxa"},
        {"file": "../mxa-1.0-py3-none-any.whl"},
        {"file": "mxa"},
        {"sha256": "0" * 63},
        {"sha256": ONE.sha256.upper()},
        {"size": -1},
        {"size": 6 * 2**30},
        {"size": 2 << 20},
        {"source": "elsewhere"},
        {"cid": "bafy"},
        {"cid": report(TWO).cid},
        {"cid": report(LARGE).cid},
    ],
    ids=str,
)
async def test_a_report_that_cannot_be_true_is_refused(world: World, told: dict[str, Any]) -> None:
    await world.mirror(ONE)
    with pytest.raises(Problem):
        await world.store_file(ONE, **told)
    assert (await world.attestations("mxa"), await world.reports("mxa")) == ([], [])


async def test_a_crash_before_the_commit_leaves_nothing_and_the_report_can_come_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.mirror(ONE)
    fail_to_queue(world.store, monkeypatch)
    with pytest.raises(ZeroDivisionError):
        await world.store_file(ONE)
    monkeypatch.undo()
    assert (await world.attestations("mxa"), await accepted(world), await world.mail()) == ([], {}, [])
    async with world.store.transaction() as tables:
        assert await tables.log.leaves(0, 9) == []
        assert await tables.ledger.signed(KEY.keyid, FileName(ONE.filename)) is None
    await world.store_file(ONE)
    assert await world.attestations("mxa") == [ONE.sha256]


async def test_sdists_are_attested_like_wheels(world: World) -> None:
    dist = sdist("mxa")
    await world.mirror(dist, stored=[dist])
    assert await world.attestations("mxa") == [dist.sha256]


def fail_to_queue(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last step of an attestation, the mail, raises."""
    from matrix_pypi_bot.adapters.database.mail import MailTables

    async def fail(self: Transaction, *arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(MailTables, "send", fail)
