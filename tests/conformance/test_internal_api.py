"""The internal API over a unix socket, held against its own description: every answer, every error, every hostile request."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML
from yarl import URL

from matrix_pypi_bot.adapters.database.engine import open_store
from matrix_pypi_bot.api import Api, Services, Tokens, listen
from matrix_pypi_bot.core.signers import SigningKey
from matrix_pypi_bot.ports import Away, StoreAway, Wrong
from matrix_pypi_bot.services.intake import Intake
from matrix_pypi_bot.services.keys import ensure_manifest
from matrix_pypi_bot.services.members import Members
from matrix_pypi_bot.services.relay import Relay
from matrix_pypi_bot.wire.messages import API, KeyDelegation, KeyRevocation, Override, Stored, encode
from matrix_pypi_bot.wire.problems import Problem
from tests.support.bot_world import MXA, ManualClock, ScriptedIndex, World, report
from tests.support.dists import wheel
from tests.support.plain_statements import attestation, envelope_of, id_of
from tests.unit.bot.test_revoke import BOT, MIRROR, NEW_MIRROR, ORGA, ROTATED, desk_of

DESCRIPTION = YAML(typ="safe").load((Path(__file__).parents[2] / "docs/protocol/internal-api.yaml").read_text())
ONE, TWO = wheel("mxa", "1.0"), wheel("mxa", "2.0")
MAINTAINER = SigningKey(b"\x0a" * 32)
TOKENS = Tokens(frontend="frontend-token", operator="operator-token")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that fits the description."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks over the socket, and checks every answer against the description."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def ask(
        self, method: str, path: str, body: bytes | None = None, *, token: str | None = TOKENS.frontend, **headers: str
    ) -> Reply:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        url = URL(f"http://bot{path}", encoded=True)
        async with self.session.request(method, url, data=body, headers=sent) as answer:
            told = {name.lower(): value for name, value in answer.headers.items()}
            reply = Reply(answer.status, told, await answer.read())
        check(method, url.raw_path, reply)
        return reply

    async def get(self, path: str, **headers: Any) -> Reply:
        return await self.ask("GET", f"{API}{path}", **headers)

    async def post(self, path: str, body: bytes, **headers: Any) -> Reply:
        return await self.ask("POST", f"{API}{path}", body, **headers)


def check(method: str, path: str, reply: Reply) -> None:
    """The answer is one that the description names, with a body and headers of the schema that it gives."""
    described = operation(method, path)
    if described is None:
        assert reply.status in (400, 401, 404, 405), (method, path, reply)
        validate({"$ref": "#/components/schemas/Problem"}, reply.json)
        return
    responses = described["responses"]
    if reply.status == 500 or (str(reply.status) not in responses and reply.status in (404, 405)):
        validate({"$ref": "#/components/schemas/Problem"}, reply.json)
        return
    assert str(reply.status) in responses, (method, path, reply)
    expected = resolved(responses[str(reply.status)])
    for name, header in expected.get("headers", {}).items():
        value: Any = reply.headers[name.lower()]
        kind = header["schema"].get("type")
        validate(header["schema"], {"number": float, "integer": int}.get(kind, str)(value))
    for content_type, content in expected.get("content", {}).items():
        assert reply.headers["content-type"].partition(";")[0] == content_type
        documents = reply.body.splitlines() if content_type.endswith("ndjson") else [reply.body]
        for document in documents:
            validate(content["schema"], json.loads(document))


def operation(method: str, path: str) -> dict[str, Any] | None:
    """The description of a request, None when there is none."""
    for template, methods in DESCRIPTION["paths"].items():
        if re.fullmatch(re.sub(r"{[a-z]+}", "[^/]+", template), path):
            found: dict[str, Any] | None = methods.get(method.lower())
            return found
    return None


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    """What a reference points to."""
    if "$ref" not in node:
        return node
    found: Any = DESCRIPTION
    for part in node["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return dict(found)


def validate(schema: dict[str, Any], document: Any) -> None:
    Draft202012Validator(schema | {"components": DESCRIPTION["components"]}).validate(document)


@pytest.fixture
def index() -> ScriptedIndex:
    """Upstream, with one project."""
    index = ScriptedIndex()
    index.publish(ONE, yanked="because")
    index.publish(TWO)
    return index


@pytest.fixture
async def world(tmp_path: Path, index: ScriptedIndex) -> AsyncIterator[World]:
    async with open_store(f"sqlite:{tmp_path}/bot.db") as store:
        world = World(store, index, ManualClock())
        await world.start()
        yield world
        await world.stop()


@pytest.fixture
async def client(world: World, tmp_path: Path) -> AsyncIterator[Client]:
    path = str(tmp_path / "bot.sock")
    async with listen(Api(services_of(world), TOKENS), socket_path=path):
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session:
            yield Client(session)


def test_the_description_is_one() -> None:
    for schema in DESCRIPTION["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


async def test_a_page_and_the_same_revision_again(client: Client, world: World) -> None:
    page = await client.get("/projects/mxa")
    document = page.json
    assert [file["filename"] for file in document["files"]] == [ONE.filename, TWO.filename]
    assert page.headers["etag"] == f'"{document["_view"]["revision"]}"'
    world.clock.pass_seconds(100)
    again = await client.get("/projects/mxa", If_None_Match=page.headers["etag"])
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", page.headers["etag"])
    assert (again.headers["x-view-age-seconds"], again.headers["x-view-fresh-seconds"]) == ("100.000", "500.000")
    assert (again.headers["x-view-state"], again.headers["x-seq"]) == ("live", str(document["_view"]["seq"]))
    assert (await client.get("/projects/mxa", If_None_Match='"another"')).status == 200


async def test_refresh_asks_upstream(client: Client, world: World, index: ScriptedIndex) -> None:
    await client.get("/projects/mxa")
    world.clock.pass_seconds(10)
    assert (await client.get("/projects/mxa?refresh=1")).status == 200
    assert index.asked[-1].no_cache


async def test_what_is_not_there_refused_wrong_or_away_is_told_apart(
    client: Client, world: World, index: ScriptedIndex
) -> None:
    assert (await client.get("/projects/nope")).status == 404
    await world.overrides.apply(Override(action="quarantine", target="mxb", reason="typosquat"))
    refused = await client.get("/projects/mxb")
    assert (refused.status, "typosquat" in refused.json["detail"]) == (403, True)
    index.instead["mxc"] = [Wrong("a login page")]
    wrong = await client.get("/projects/mxc")
    assert (wrong.status, "a login page" in wrong.json["detail"]) == (502, True)
    index.instead["mxd"] = [Away("refused")]
    away = await client.get("/projects/mxd")
    assert (away.status, away.headers["retry-after"]) == (503, "5")


async def test_a_page_of_which_nothing_can_be_served_names_the_rule(
    client: Client, world: World, index: ScriptedIndex
) -> None:
    await client.get("/projects/mxa")
    index.off()
    world.clock.pass_seconds(601)
    away = await client.get("/projects/mxa")
    assert (away.status, away.headers["retry-after"], "R14" in away.json["detail"]) == (503, "5", True)


async def test_a_decision_with_and_without_its_path(client: Client) -> None:
    for query in ("", f"?path={ONE.path}"):
        decision = (await client.get(f"/decide/mxa/{ONE.filename}{query}")).json
        assert (decision["rule"], decision["sha256"], decision["path"]) == ("R8", ONE.sha256, ONE.path)
        assert (decision["attested_by"], decision["cids"]) == ([], [])
    assert (await client.get(f"/decide/mxa/{ONE.filename}?path={TWO.path}")).status == 404
    await client.post("/stored", encode(report(ONE)))
    decision = (await client.get(f"/decide/mxa/{ONE.filename}")).json
    assert (decision["attested_by"], decision["cids"], decision["size"]) == (["orga"], [report(ONE).cid], ONE.size)


async def test_a_refusal_is_a_decision_and_no_error(client: Client, world: World) -> None:
    await client.get("/projects/mxa")
    await world.overrides.apply(Override(action="quarantine", target=ONE.filename, reason="malware"))
    decision = await client.get(f"/decide/mxa/{ONE.filename}")
    assert (decision.status, decision.json["http"], decision.json["rule"]) == (200, 403, "R1")


async def test_a_stored_file_is_attested(client: Client, world: World) -> None:
    await client.get("/projects/mxa")
    assert (await client.post("/stored", encode(report(ONE)))).status == 202
    assert await world.attestations("mxa") == [ONE.sha256]


async def test_figures_tell_what_is_logged_and_what_waits(client: Client, world: World) -> None:
    await client.get("/projects/mxa")
    before = (await client.get("/figures")).json
    assert (await client.post("/stored", encode(report(ONE)))).status == 202
    assert await world.attestations("mxa") == [ONE.sha256]
    after = (await client.get("/figures")).json
    assert before.pop("peers") == after.pop("peers") == []
    assert {name: after[name] - before[name] for name in after} == {
        "log_leaves": 1,
        "rooms": 0,
        "unread": 0,
        "unreadable": 0,
        "queued": 1,
        "aside": 0,
    }


async def test_wrong_bytes_are_noted(client: Client, world: World) -> None:
    seen = {
        "project": "mxa", "file": f"{ONE.filename}.metadata", "expected_sha256": ONE.sha256, "sha256": None, "size": 3,
        "source": "upstream", "reason": "cut\r\noff",
    }  # fmt: skip
    assert (await client.post("/observed", json.dumps(seen).encode())).status == 202
    other = {**seen, "kind": "cid-content", "cid": report(ONE).cid, "size": 0}
    assert (await client.post("/observed", json.dumps(other).encode())).status == 202
    for wrong in ({"cid": None}, {"cid": "nonsense"}, {"kind": "bytes"}, {"kind": "anything"}):
        assert (await client.post("/observed", json.dumps({**other, **wrong}).encode())).status == 400


async def test_operators_end_keys_and_frontends_only_see_them(client: Client, world: World) -> None:
    assert (await client.get("/keys")).status == 404
    for organisation in (ORGA, ROTATED):
        await ensure_manifest(world.store, world.clock, organisation, bot_mxid=BOT)
    assert (await client.get("/keys")).json["version"] == 2
    body = encode(KeyRevocation(key=MIRROR.keyid, reason="stolen", compromised_since="2025-12-31T23:00:00Z"))
    assert (await client.post("/keys/revocations", body)).status == 401
    assert (await client.get("/keys")).json["version"] == 2
    done = await client.post("/keys/revocations", body, token=TOKENS.operator)
    assert (done.status, done.json) == (200, (await client.get("/keys")).json)
    assert [(key["key"], key["revoked"]) for key in done.json["keys"] if "mirror" in key["roles"]] == [
        (MIRROR.public.hex(), "2026-01-01T00:00:00Z"),
        (NEW_MIRROR.public.hex(), None),
    ]
    assert (await client.post("/keys/revocations", body, token=TOKENS.operator)).status == 400
    assert (await client.post("/keys/revocations", b'{"key": 5}', token=TOKENS.operator)).status == 400


async def test_operators_delegate_projects_to_maintainers(client: Client, world: World) -> None:
    await ensure_manifest(world.store, world.clock, ORGA, bot_mxid=BOT)
    body = encode(KeyDelegation(project="mxa", key="ab" * 32, delegated=True))
    assert (await client.post("/keys/delegations", body)).status == 401
    done = await client.post("/keys/delegations", body, token=TOKENS.operator)
    assert (done.status, done.json["delegations"]) == (200, [{"project": "mxa", "key": "ab" * 32}])
    assert (await client.get("/keys")).json == done.json
    assert (await client.post("/keys/delegations", b"{}", token=TOKENS.operator)).status == 400


async def test_a_maintainers_statement_is_taken_from_operators(client: Client, world: World) -> None:
    told = attestation(MAINTAINER, "maint", project="mxa", version="1.0", source={"kind": "build", "method": "bytes"})
    told["subject"][0]["name"] = ONE.filename
    body = json.dumps(envelope_of(told, MAINTAINER)).encode()
    assert (await client.post("/statements", body)).status == 401
    for new in (True, False):
        done = await client.post("/statements", body, token=TOKENS.operator)
        assert (done.status, done.json) == (
            200,
            {"statement_id": id_of(told), "project": "mxa", "file": ONE.filename, "new": new},
        )
    for wrong in (b"{}", b"[]", json.dumps(envelope_of(attestation(), MIRROR)).encode()):
        assert (await client.post("/statements", wrong, token=TOKENS.operator)).status == 400


async def test_operators_decide_and_frontends_do_not(client: Client, world: World) -> None:
    await client.get("/projects/mxa")
    order = encode(Override(action="quarantine", target=ONE.filename, reason="malware"))
    assert (await client.post("/overrides", order)).status == 401
    done = await client.post("/overrides", order, token=TOKENS.operator)
    assert (done.status, done.json["decisions"][ONE.filename]["rule"]) == (200, "R1")
    assert (await client.get("/projects/mxa", token=TOKENS.operator)).status == 200


async def test_explanations(client: Client) -> None:
    assert (await client.get("/explain/mxa")).status == 404
    await client.get("/projects/mxa")
    assert set((await client.get("/explain/mxa")).json["files"]) == {ONE.filename, TWO.filename}
    one = (await client.get(f"/explain/mxa/{ONE.filename}")).json
    assert [evidence["kind"] for evidence in one["evidence"][ONE.filename]] == ["upstream", "first-seen"]


async def test_the_names_of_all_projects(client: Client, index: ScriptedIndex) -> None:
    assert (await client.get("/projects")).body == b""
    for name in ("mxb", "mxa", "mx-c"):
        index.publish(wheel(name))
        await client.get(f"/projects/{name}")
    names = await client.get("/projects")
    assert names.body.split() == [b'"mx-c"', b'"mxa"', b'"mxb"']
    assert (await client.get("/projects", If_None_Match=names.headers["etag"])).status == 304


async def lines(client: Client, after: str) -> AsyncIterator[dict[str, Any]]:
    headers = {"Authorization": f"Bearer {TOKENS.frontend}"}
    async with client.session.get(f"http://bot{API}/changes{after}", headers=headers) as answer:
        assert (answer.status, answer.content_type) == (200, "application/x-ndjson")
        async for line in answer.content:
            change = json.loads(line)
            validate({"$ref": "#/components/schemas/Change"}, change)
            yield change


async def test_changes_are_streamed_as_they_happen(client: Client, world: World) -> None:
    changes = lines(client, "")
    assert await anext(changes) == {"heartbeat": True}
    waiting = asyncio.ensure_future(anext(changes))
    view = (await client.get("/projects/mxa")).json["_view"]
    assert await waiting == {"seq": view["seq"], "project": "mxa", "revision": view["revision"]}
    await changes.aclose()


async def test_a_stream_is_resumed_or_reset(client: Client, world: World) -> None:
    seq = (await client.get("/projects/mxa")).json["_view"]["seq"]
    resumed = lines(client, "?after=0")
    assert [await anext(resumed), (await anext(resumed))["project"]] == [{"heartbeat": True}, "mxa"]
    reset = lines(client, f"?after={seq + 1}")
    assert [await anext(reset), await anext(reset)] == [{"reset": True}, {"seq": seq, "heartbeat": True}]
    await resumed.aclose()
    await reset.aclose()


async def test_a_stopping_bot_does_not_wait_for_its_streams(world: World, tmp_path: Path) -> None:
    path = str(tmp_path / "stopping.sock")
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session:
        async with listen(Api(services_of(world), TOKENS), socket_path=path):
            changes = lines(Client(session), "")
            await anext(changes)
            begun = time.monotonic()
        assert time.monotonic() - begun < 2
        assert [change async for change in changes] == []


async def test_health_and_readiness_need_no_token(client: Client, world: World) -> None:
    assert (await client.ask("GET", "/healthz", token=None)).status == 200
    assert (await client.ask("GET", "/readyz", token=None)).status == 503
    world.days = 1
    assert (await client.ask("GET", "/readyz", token=None)).json == {"ready": True, "homeserver": False}


@pytest.mark.parametrize("token", [None, "", "wrong", TOKENS.frontend + "x", TOKENS.frontend[:-1], "é"])
@pytest.mark.parametrize(
    "path", ["/projects/mxa", "/projects", "/changes", "/decide/mxa/a.whl", "/explain/mxa", "/none"]
)
async def test_without_the_token_nothing_is_told(client: Client, token: str | None, path: str) -> None:
    answer = await client.ask("GET", f"{API}{path}", token=token)
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")


async def test_a_wrong_scheme_is_no_token(client: Client) -> None:
    for header in (TOKENS.frontend, f"Basic {TOKENS.frontend}", f"bearer  {TOKENS.frontend}"):
        answer = await client.ask("GET", f"{API}/projects", token=None, Authorization=header)
        assert answer.status == 401


@pytest.mark.parametrize(
    "path",
    [
        "/projects/My_Pkg",
        "/projects/..%2f..%2fetc",
        "/projects/%00",
        "/projects/mxa%0d%0aX-Evil:1",
        "/projects/%E2%84%AA",
        "/projects/%FF",
        "/projects/" + "a" * 215,
        "/projects/mxa/",
        "/projects/mxa/x",
        "/decide/mxa/..%2fx.whl",
        "/decide/mxa/x",
        "/decide/mxa/a%00.whl",
        "/decide/MXA/" + ONE.filename,
        f"/decide/mxa/{ONE.filename}?path=/etc/passwd",
        f"/decide/mxa/{ONE.filename}?path=/packages/aa/bb/{'0' * 60}/..",
        "/explain/..",
        "/explain/mxa/..%2f",
        "/changes?after=-1",
        "/changes?after=x",
        "/changes?after=" + "9" * 40,
        "/changes?after=%D9%A1",
        "/nothing",
    ],
)
async def test_names_and_numbers_that_are_none_are_refused_without_asking_anybody(
    client: Client, index: ScriptedIndex, path: str
) -> None:
    answer = await client.get(path)
    assert answer.status in (400, 404)
    assert index.asked == []


@pytest.mark.parametrize("path", ["/stored", "/observed", "/overrides"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'{"project": 5}',
        b"[" * 60_000,
        b'{"x":' * 10_000,
        encode(Stored(project="../x", file="x", sha256="", size=-1, cid="", source="")),
        encode(Override(action="quarantine", target="../x", reason="r")),
        b'{"action": "delete", "target": "mxa", "reason": "r"}',
    ],
    ids=lambda body: body[:20].decode(errors="replace"),
)
async def test_bodies_that_are_none_are_refused(client: Client, path: str, body: bytes) -> None:
    answer = await client.post(path, body, token=TOKENS.operator)
    assert answer.status in (400, 404)


async def test_a_body_that_is_too_large_is_refused(client: Client) -> None:
    assert (await client.post("/stored", b" " * 100_000)).status == 413


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_other_methods_are_named(client: Client, method: str) -> None:
    answer = await client.ask(method, f"{API}/projects/mxa")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_a_database_that_is_away_is_a_failure_of_ours(
    client: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(**_: object) -> Any:
        raise StoreAway("the database failed: disk full")

    monkeypatch.setattr(world.store, "transaction", away)
    for answer in (await client.get("/projects/mxa"), await client.post("/stored", encode(report(ONE)))):
        assert (answer.status, "disk full" in answer.json["detail"]) == (500, True)


async def test_a_bug_is_an_answer_and_no_traceback(
    client: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: object) -> Any:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(world.projects, "load", bug)
    answer = await client.get("/projects/mxa")
    assert (answer.status, b"secret" in answer.body) == (500, False)


def known(world: World) -> Members:
    """An organisation that knows one maintainer."""
    pins = {MXA: frozenset({MAINTAINER.public.hex()})}
    return Members(store=world.store, clock=world.clock, own=ORGA.pinned, maintainers=pins)


def services_of(world: World) -> Services:
    """What the API calls."""
    return Services(
        answers=world.answers,
        attester=world.attester,
        overrides=world.overrides,
        explainer=world.explainer,
        keys=desk_of(world),
        relay=Relay(store=world.store, clock=world.clock, intake=Intake(known(world)), postman=world.postman),
        peers=world.peers,
        projects=world.projects,
        store=world.store,
        clock=world.clock,
        readiness=lambda: {"ready": bool(world.days), "homeserver": False},
    )


async def test_a_socket_is_private_and_what_a_killed_bot_left_is_replaced(tmp_path: Path, world: World) -> None:
    path = tmp_path / "left.sock"
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(str(path))
        held.listen()
        with pytest.raises(Problem, match="cannot listen"):
            async with listen(Api(services_of(world), TOKENS), socket_path=str(path)):
                pass
    assert path.is_socket()
    async with listen(Api(services_of(world), TOKENS), socket_path=str(path)):
        assert path.stat().st_mode & 0o777 == 0o600


async def test_a_port_that_is_taken_is_named(world: World) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        with pytest.raises(Problem, match=str(port)):
            async with listen(Api(services_of(world), TOKENS), socket_path=None, host="127.0.0.1", port=port):
                pass
