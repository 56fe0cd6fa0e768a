"""The trust pages over HTTP, as the bot's public listener answers and as a frontend passes them on."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from matrix_pypi_bot.adapters.database.engine import open_store
from matrix_pypi_bot.core.notes import parse_checkpoint, parse_note
from matrix_pypi_bot.core.tlog import leaf_hash, verify_inclusion
from matrix_pypi_bot.wire.messages import Override
from tests.support.bot_world import KEY, ONE, TWO, ManualClock, ScriptedIndex, World
from tests.support.dists import wheel
from tests.support.trust_world import ROOT_KEY, TrustWorld, trust_world

FILE = f"/trust/mxa/{ONE.filename}"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[TrustWorld]:
    """A bot that attested one file of two, under a checkpoint."""
    async with open_store(f"sqlite:{tmp_path}/bot.db") as store:
        world = World(store, ScriptedIndex(), ManualClock())
        await world.start()
        async with trust_world(world) as trusted:
            await world.mirror(ONE, TWO, stored=[ONE])
            await world.settled()
            await trusted.keeper.sign_if_due()
            yield trusted
        await world.stop()


def payloads(envelopes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [json.loads(base64.b64decode(envelope["payload"])) for envelope in envelopes]


async def test_a_file_is_told_with_its_rule_its_evidence_and_the_signed_statement(served: TrustWorld) -> None:
    reply = await served.json(FILE)
    told = reply.json
    assert (reply.status, reply.content_type, reply.headers["cache-control"]) == (200, "application/json", "no-cache")
    assert (told["org"], told["project"], told["file"], told["rule"], told["sha256"]) == (
        "orga",
        "mxa",
        ONE.filename,
        "R8",
        ONE.sha256,
    )
    assert told["decision"] == {"action": "serve+attest", "http": 200, "rule": "R8", "reason": ""}
    assert {one["kind"] for one in told["evidence"]} >= {"upstream", "first-seen", "ledger", "attestation"}
    (statement,) = payloads(told["envelopes"])
    assert statement["subject"] == [{"name": ONE.filename, "digest": {"sha256": ONE.sha256}}]
    assert (told["envelopes"][0]["signatures"][0]["keyid"], told["refutations"], told["verdicts"]) == (
        KEY.keyid,
        [],
        [],
    )


async def test_the_log_proves_the_statement_against_its_newest_checkpoint(served: TrustWorld) -> None:
    told = (await served.json(FILE)).json
    payload = base64.b64decode(told["envelopes"][0]["payload"])
    head = parse_checkpoint(parse_note(told["log"]["note"]).text)
    ((_, proof),) = told["log"]["proofs"].items()
    hashes = [base64.b64decode(one) for one in proof["hashes"]]
    assert head.origin == told["log"]["origin"] == "orga/matrix-pypi"
    assert verify_inclusion(proof["leaf"], head.size, leaf_hash(payload), hashes, head.root)


async def test_what_no_checkpoint_covers_yet_has_no_proof(served: TrustWorld) -> None:
    await served.world.store_file(TWO)
    await served.world.settled()
    told = (await served.json(f"/trust/mxa/{TWO.filename}")).json
    assert (len(told["envelopes"]), told["log"]["proofs"]) == (1, {})


async def test_the_manifests_lead_from_the_root_to_the_key_that_signed(served: TrustWorld) -> None:
    (manifest,) = (await served.json(FILE)).json["manifests"]["orga"]
    (statement,) = payloads([manifest])
    assert manifest["signatures"][0]["keyid"] == ROOT_KEY.keyid
    assert KEY.public.hex() in [key["key"] for key in statement["predicate"]["keys"]]


async def test_a_project_lists_its_files_with_every_digest_told_of_them(served: TrustWorld) -> None:
    told = (await served.json("/trust/mxa/")).json
    assert (told["project"], told["state"], set(told["files"])) == ("mxa", "live", {ONE.filename, TWO.filename})
    assert told["files"][ONE.filename]["sha256"] == [ONE.sha256]
    assert [told["files"][one.filename]["attested_by"] for one in (ONE, TWO)] == [["orga"], []]


async def test_the_first_page_names_the_projects_and_the_organisation(served: TrustWorld) -> None:
    told = (await served.json("/trust/")).json
    assert (told["org"], told["projects"], told["next"], list(told["manifests"])) == ("orga", ["mxa"], None, ["orga"])
    assert (await served.json("/trust/?after=mxa&x=<script>")).json["projects"] == []


async def test_an_operators_decision_is_told_with_his_signed_reason(served: TrustWorld) -> None:
    await served.world.overrides.apply(Override(action="quarantine", target=ONE.filename, reason="<b>incident</b> 42"))
    told = (await served.json(FILE)).json
    assert (told["rule"], told["decision"]["http"], "incident" in told["reason"]) == ("R1", 403, True)
    assert "override" in [s["predicateType"].split(":")[2] for s in payloads(told["envelopes"])]
    page = (await served.both(FILE)).body.decode()
    assert ("<b>incident" in page, "&lt;b&gt;incident&lt;/b&gt; 42" in page) == (False, True)


@pytest.mark.parametrize("path", ["/trust/", "/trust/mxa/", FILE])
async def test_people_get_a_page_without_scripts_that_loads_nothing(served: TrustWorld, path: str) -> None:
    reply = await served.both(path, Accept="text/html,application/xhtml+xml,*/*;q=0.8")
    page = reply.body.decode()
    assert (reply.status, reply.content_type) == (200, "text/html; charset=utf-8")
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "<script" not in page
    assert not [link for link in re.findall(r'(?:href|src)="([^"]*)"', page) if "//" in link or ":" in link]
    assert (await served.both(path)).body == reply.body, "a client that does not care is a person with curl"


async def test_links_lead_to_the_pages_that_they_name(served: TrustWorld) -> None:
    assert 'href="mxa/"' in (await served.both("/trust/")).body.decode()
    assert f'href="{ONE.filename}"' in (await served.both("/trust/mxa/")).body.decode()
    page = (await served.both(FILE)).body.decode()
    assert ('href="../"' in page, 'href="./"' in page, ONE.sha256 in page, "leaf 1" in page) == (True, True, True, True)


async def test_the_same_page_is_not_sent_twice(served: TrustWorld) -> None:
    for accept in ("application/json", "text/html"):
        tag = (await served.both(FILE, Accept=accept)).headers["etag"]
        again = await served.both(FILE, Accept=accept, If_None_Match=tag)
        assert (again.status, again.body, again.headers["vary"]) == (304, b"", "Accept")


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/trust", "trust/"),
        ("/trust/mxa", "mxa/"),
        ("/trust/MXA/", "../mxa/"),
        (f"/trust/MxA/{ONE.filename}", f"../mxa/{ONE.filename}"),
    ],
)
async def test_other_spellings_lead_to_the_one(served: TrustWorld, path: str, target: str) -> None:
    reply = await served.frontend.get(path)
    assert (reply.status, reply.headers["location"]) == (308, target)


@pytest.mark.parametrize(
    "path",
    [
        "/trust/nobody/", "/trust/mxa/mxa-9.9.tar.gz", "/trust/../internal/v1/keys", "/trust/%2e%2e/", "/trust/mxa/../../x.whl",
        "/trust/mxa/a.whl/b", "/trust/mxa/%3Cscript%3E.whl", "/trust/-/", "/trust/mxa/x%00.whl", "/trust//",
    ],
)  # fmt: skip
async def test_what_is_not_known_or_no_name_is_not_there(served: TrustWorld, path: str) -> None:
    for reply in (await served.frontend.get(path), await served.direct(path)):
        assert (reply.status, reply.content_type) == (404, "application/problem+json")


@pytest.mark.parametrize("query", ["?after=a&after=b", "?after=%00", "?after=A"])
async def test_a_place_to_go_on_from_is_one_project(served: TrustWorld, query: str) -> None:
    for reply in (await served.frontend.get(f"/trust/{query}"), await served.direct(f"/trust/{query}")):
        assert reply.status in (400, 404)


async def test_a_local_version_is_found_under_either_spelling(served: TrustWorld) -> None:
    local = wheel("mxa", "3.0+cpu.1")
    served.world.later(local)
    await served.world.page("mxa")
    for name in (local.filename, local.filename.replace("+", "%2B")):
        assert (await served.json(f"/trust/mxa/{name}")).json["file"] == local.filename


async def test_of_a_private_index_nothing_is_told(tmp_path: Path) -> None:
    async with open_store(f"sqlite:{tmp_path}/bot.db") as store:
        world = World(store, ScriptedIndex(), ManualClock(), attests=False)
        await world.start()
        async with trust_world(world, is_public=False) as trusted:
            await world.mirror(ONE, stored=[ONE])
            assert (await trusted.json("/trust/")).json["projects"] == []
            for path in ("/trust/mxa/", FILE):
                reply = await trusted.frontend.get(path, Accept="application/json")
                assert (reply.status, ONE.sha256.encode() in reply.body) == (404, False)
        await world.stop()


async def test_a_crowd_is_told_to_come_back_later(served: TrustWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matrix_pypi_bot.api.public.MAX_WAITING", 0)
    assert (await served.direct(FILE)).status == 429
    assert (await served.frontend.get(FILE)).status == 429


async def test_no_statement_can_break_out_of_a_page(served: TrustWorld) -> None:
    served.world.index.publish(TWO, yanked='"><script>alert(1)</script>\u202e')
    served.world.clock.pass_seconds(601)
    await served.world.page("mxa")
    for path in ("/trust/mxa/", f"/trust/mxa/{TWO.filename}"):
        page = (await served.both(path)).body
        assert (b"<script" in page, "\u202e".encode() in page) == (False, False)
