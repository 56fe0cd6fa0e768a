"""What others last saw listed makes the page that upstream does not show; a list counts by its digest, whoever sends it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from matrix_pypi_bot.ports import Peer
from matrix_pypi_bot.services.lists import ListFetcher
from tests.support.bot_world import MXA
from tests.support.dists import wheel
from tests.support.federation import Federation, Participant, federation
from tests.support.peer_logs import ScriptedReader

ONE = wheel("mxa", "1.0")
PEERS = [Peer("orga", "https://orga.example/log/v1"), Peer("orgb", "https://orgb.example/log/v1")]


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[Federation]:
    """A and B verified a file that upstream then yanked; C never saw it."""
    async with federation(tmp_path, "orga", "orgb", "orgc") as made:
        made.publish(ONE, to=["orga", "orgb"])
        await made["orga"].serve(ONE)
        await made["orgb"].serve(ONE)
        made.publish(ONE, to=["orga", "orgb"], yanked="a broken build")
        made.clock.pass_seconds(601)
        await made["orga"].serve(ONE)
        await made["orgb"].serve(ONE)
        made.upstream_off()
        await made["orgc"].hear(made["orga"], made["orgb"])
        yield made


async def body_of(org: Participant) -> tuple[str, bytes]:
    async with org.store.transaction() as tables:
        root = (await tables.ledger.newest_index(MXA))[org.name].sha256
        assert root is not None
        body = await tables.ledger.document(root)
    assert body is not None
    return root, body


async def fetched(three: Federation, reader: ScriptedReader) -> bool | str:
    """Whether C's page shows the file as yanked, after the lists were fetched."""
    told: list[str] = []
    fetcher = ListFetcher(store=three["orgc"].store, reader=reader, peers=lambda: PEERS, on_new=told.append)
    await fetcher.fetch(MXA)
    for project in told:
        three["orgc"].docket.hear_list(MXA)
        assert project == MXA
    await three["orgc"].settle()
    answer = await three["orgc"].answers.page(MXA)
    [file] = json.loads(answer.document())["files"]
    return file.get("yanked", False)  # type: ignore[no-any-return]


async def test_a_file_that_upstream_yanked_is_yanked_on_the_page_that_others_lists_make(three: Federation) -> None:
    reader = ScriptedReader()
    assert await fetched(three, reader) is False
    for org in ("orga", "orgb"):
        root, body = await body_of(three[org])
        reader.lists["orga", root] = body  # one gives both: a list is known by its digest
    assert await fetched(three, reader) == "a broken build"


async def test_one_organisations_list_alone_changes_nothing_and_a_false_list_is_none(three: Federation) -> None:
    reader = ScriptedReader()
    root, body = await body_of(three["orga"])
    reader.lists["orga", root] = body.replace(b"broken", b"b0rken")
    assert await fetched(three, reader) is False
    async with three["orgc"].store.transaction() as tables:
        assert await tables.ledger.document((await tables.ledger.newest_index(MXA))["orga"].sha256 or root) is None  # type: ignore[arg-type]


async def test_a_list_is_forgotten_when_its_statement_expires(three: Federation) -> None:
    reader = ScriptedReader()
    for org in ("orga", "orgb"):
        root, body = await body_of(three[org])
        reader.lists[org, root] = body
    assert await fetched(three, reader) == "a broken build"
    three.clock.pass_seconds(73 * 3600)
    await three["orgc"].projects.redecide(MXA)
    assert await fetched(three, reader) is False
