"""Pages over a real socket, with a bot that says what the test says: caching headers, forms, redirects, the root index."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from index_frontend.pages.negotiate import HTML, JSON, TEXT
from matrix_pypi_bot.wire.problems import Problem, ProblemCode
from tests.support.bot_pages import file_entry
from tests.support.frontend import Frontend, running
from tests.support.problems import problem
from tests.support.scripted_bot import ScriptedBot
from tests.support.simple_api import Page, max_age, unpacked

FILES = [file_entry(f"mxa-{number}.0-py3-none-any.whl", yanked=number % 2 == 0) for number in range(20)]
LARGE = [file_entry(f"mxl-{number}.0-py3-none-any.whl") for number in range(2000)]


@pytest.fixture
async def frontend() -> AsyncIterator[Frontend]:
    bot = ScriptedBot()
    bot.publish("mxa", FILES, revision="r1", meta={"api-version": "1.4", "_last-serial": 17})
    async with running(bot) as made:
        yield made


async def test_a_page_is_a_miss_and_then_a_hit_with_all_headers(frontend: Frontend) -> None:
    first, second = [await frontend.get("/simple/mxa/", Accept=JSON) for _ in range(2)]
    assert [(reply.status, reply.headers["x-matrix-pypi-cache"]) for reply in (first, second)] == [
        (200, "MISS"),
        (200, "HIT"),
    ]
    assert first.body == second.body
    wanted = ("content-type", "content-length", "vary", "x-pypi-last-serial", "x-content-type-options", "server")
    assert {name: second.headers[name] for name in wanted} == {
        "content-type": JSON,
        "content-length": str(len(first.body)),
        "vary": "Accept, Accept-Encoding",
        "x-pypi-last-serial": "17",
        "x-content-type-options": "nosniff",
        "server": "matrix-pypi",
    }
    assert "date" in second.headers
    assert 0 < max_age(second) <= 60
    assert frontend.bot.asked == [("page", "mxa")]


@pytest.mark.parametrize("accept", [JSON, HTML, TEXT])
@pytest.mark.parametrize("coding", ["identity", "gzip", "zstd"])
async def test_every_form_unpacks_to_the_same_and_revalidates(frontend: Frontend, accept: str, coding: str) -> None:
    plain = await frontend.get("/simple/mxa/", Accept=accept)
    form = await frontend.get("/simple/mxa/", Accept=accept, Accept_Encoding=coding)
    assert unpacked(form) == plain.body
    assert form.headers.get("content-encoding", "identity") == coding
    again = await frontend.get(
        "/simple/mxa/", Accept=accept, Accept_Encoding=coding, If_None_Match=form.headers["etag"]
    )
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", form.headers["etag"])
    assert not {"content-type", "content-encoding", "content-length"} & set(again.headers)
    assert {"vary", "cache-control", "date"} <= set(again.headers)


async def test_a_client_that_has_the_packed_form_of_a_large_page_need_not_wait_for_it(frontend: Frontend) -> None:
    frontend.bot.publish("mxl", LARGE, revision="r1")
    first = await frontend.get("/simple/mxl/", Accept=JSON, Accept_Encoding="gzip")
    assert "content-encoding" not in first.headers
    packed_tag = first.headers["etag"][:-1] + '-gzip"'
    again = await frontend.get("/simple/mxl/", Accept=JSON, Accept_Encoding="gzip", If_None_Match=packed_tag)
    assert (again.status, again.headers["etag"]) == (304, packed_tag)
    async with asyncio.timeout(10):
        while True:
            packed = await frontend.get("/simple/mxl/", Accept=JSON, Accept_Encoding="gzip")
            if "content-encoding" in packed.headers:
                break
    assert (unpacked(packed), packed.headers["etag"]) == (first.body, packed_tag)
    assert len(json.loads(first.body)["files"]) == len(LARGE)


@pytest.mark.parametrize("spelled", ["W/{}", "*", '"other", {}', '{}, W/"other"', "{}"])
async def test_if_none_match_is_read_in_every_form(frontend: Frontend, spelled: str) -> None:
    tag = (await frontend.get("/simple/mxa/")).headers["etag"]
    assert (await frontend.get("/simple/mxa/", If_None_Match=spelled.format(tag))).status == 304


@pytest.mark.parametrize("spelled", ['"other"', "", "junk", 'W/"x", "y"', '"'])
async def test_other_tags_get_the_page(frontend: Frontend, spelled: str) -> None:
    assert (await frontend.get("/simple/mxa/", If_None_Match=spelled)).status == 200


@pytest.mark.parametrize("path", ["/simple/mxa/", "/simple/", "/healthz", "/readyz", "/simple/nope/", "/simple/mxa"])
async def test_a_head_request_says_what_a_get_would(frontend: Frontend, path: str) -> None:
    frontend.bot.names = ["mxa"]
    await frontend.get(path)
    whole, head = [await frontend.get(path, method) for method in ("GET", "HEAD")]
    assert (head.status, head.body, head.reason) == (whole.status, b"", whole.reason)
    changing = {"date"}
    assert {key: value for key, value in head.headers.items() if key not in changing} == {
        key: value for key, value in whole.headers.items() if key not in changing
    }


async def test_a_page_whose_upstream_is_down_may_not_be_kept(frontend: Frontend) -> None:
    frontend.bot.state = "down"
    reply = await frontend.get("/simple/mxa/")
    assert (reply.headers["x-matrix-pypi-cache"], max_age(reply)) == ("STALE", 0)


async def test_no_page_may_be_kept_longer_than_pypi_s(frontend: Frontend) -> None:
    frontend.bot.fresh_seconds = 86_400
    assert max_age(await frontend.get("/simple/mxa/")) == 600


async def test_a_change_is_seen_at_once(frontend: Frontend) -> None:
    tag = (await frontend.get("/simple/mxa/", Accept=JSON)).headers["etag"]
    frontend.bot.seq = 5
    frontend.bot.publish("mxa", FILES[:1], revision="r2")
    await frontend.change(5, "r2")
    page = await frontend.get("/simple/mxa/", Accept=JSON, If_None_Match=tag)
    assert (page.status, len(page.json["files"])) == (200, 1)


async def test_fifty_clients_that_want_no_cache_cause_one_look(frontend: Frontend) -> None:
    await frontend.get("/simple/mxa/")
    replies = await asyncio.gather(*(frontend.get("/simple/mxa/", Cache_Control="no-cache") for _ in range(50)))
    assert {reply.status for reply in replies} == {200}
    assert frontend.bot.asked == [("page", "mxa"), ("page", "mxa", "refresh")]


async def test_max_age_0_means_nothing_since_pip_always_says_it(frontend: Frontend) -> None:
    for _ in range(2):
        reply = await frontend.get("/simple/mxa/", Cache_Control="max-age=0")
    assert (reply.headers["x-matrix-pypi-cache"], frontend.bot.asked) == ("HIT", [("page", "mxa")])


@pytest.mark.parametrize("query", [f"format={JSON}", f"x=1&format={JSON.replace('+', '%2B')}", f"format={JSON}&y"])
async def test_format_overrides_accept(frontend: Frontend, query: str) -> None:
    assert (await frontend.get(f"/simple/mxa/?{query}", Accept=TEXT)).content_type == JSON


async def test_a_header_in_several_lines_is_one_header(frontend: Frontend) -> None:
    def sent(*lines: str) -> bytes:
        return "\r\n".join(["GET /simple/mxa/ HTTP/1.1", "Host: x", "Connection: close", *lines, "", ""]).encode()

    for _ in range(2):  # the second time out of memory
        both = await frontend.raw(sent(f"Accept: {TEXT};q=0.5", f"Accept: {JSON}"))
        only = await frontend.raw(sent(f"Accept: {TEXT};q=0.5"))
        assert (f"Content-Type: {JSON}\r\n".encode() in both, b"Content-Type: text/html\r\n" in only) == (True, True)
    await frontend.raw(sent("Cache-Control: max-age=0", "Cache-Control: no-cache"))
    assert frontend.bot.asked[-1] == ("page", "mxa", "refresh")


async def test_of_a_header_in_very_many_lines_as_much_is_read_as_one_line_holds(frontend: Frontend) -> None:
    lines = [f"Accept: {TEXT};q=0.5", *[f"Accept: {'a/b,' * 1500}"] * 100, f"Accept: {JSON}"]
    sent = "\r\n".join(["GET /simple/mxa/ HTTP/1.1", "Host: x", "Connection: close", *lines, "", ""]).encode()
    assert b"\r\nContent-Type: text/html\r\n" in await frontend.raw(sent)


async def test_a_query_that_means_nothing_changes_nothing(frontend: Frontend) -> None:
    await frontend.get("/simple/mxa/?x=1")
    reply = await frontend.get("/simple/mxa/?x=2&&=&%00")
    assert (reply.status, reply.headers["x-matrix-pypi-cache"]) == (200, "HIT")


@pytest.mark.parametrize("path", ["/simple/mxa/?format=yaml", "/simple/?format=yaml"])
async def test_an_unknown_format_is_a_406(frontend: Frontend, path: str) -> None:
    reply = await frontend.get(path)
    assert (reply.status, "yaml" in problem(reply)) == (406, True)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (ProblemCode.NOT_FOUND, 404),
        (ProblemCode.REFUSED, 403),
        (ProblemCode.UPSTREAM_WRONG, 502),
        (ProblemCode.UPSTREAM_AWAY, 503),
    ],
)
async def test_the_bot_s_refusal_reaches_pip_and_uv_as_one_line(
    frontend: Frontend, code: ProblemCode, status: int
) -> None:
    told = "matrix-pypi: R14 orgb and orgc are missing\r\nX-Evil: 1 ‮ ☕"
    frontend.bot.pages["mxa"] = Problem(told, code=code)
    reply = await frontend.get("/simple/mxa/")
    assert (reply.status, problem(reply)) == (status, "matrix-pypi: R14 orgb and orgc are missing X-Evil: 1")
    assert "x-evil" not in reply.headers
    assert reply.headers["cache-control"] == "no-store"
    assert ("retry-after" in reply.headers) == (status == 503)
    assert int(reply.headers.get("retry-after", "0")) <= 5


# The bot away --------------------------------------------------------------------------------------------------------


async def test_while_the_bot_is_away_held_pages_are_served_as_stale_and_others_are_503() -> None:
    bot = ScriptedBot()
    bot.publish("mxa", FILES, revision="r1")
    async with running(bot) as frontend:
        before = await frontend.get("/simple/mxa/")
        bot.down = True
        bot.break_stream()
        reply = await frontend.get("/simple/mxa/")
        while reply.headers["x-matrix-pypi-cache"] != "STALE":
            reply = await frontend.get("/simple/mxa/")
        assert (reply.status, reply.body, max_age(reply)) == (200, before.body, 0)
        missing = await frontend.get("/simple/mxb/")
        assert (missing.status, bool(problem(missing))) == (503, True)


async def test_after_max_stale_seconds_without_the_bot_pages_are_503() -> None:
    bot = ScriptedBot()
    bot.publish("mxa", FILES, revision="r1")
    async with running(bot, max_stale_seconds=0) as frontend:
        await frontend.get("/simple/mxa/")
        bot.down = True
        bot.break_stream()
        while (reply := await frontend.get("/simple/mxa/")).status == 200:
            pass
        assert (reply.status, bool(problem(reply))) == (503, True)


async def test_an_answer_under_way_is_finished_when_the_frontend_stops() -> None:
    bot = ScriptedBot()
    bot.publish("mxa", FILES, revision="r1")
    async with running(bot) as frontend:
        bot.gate.clear()
        asking = asyncio.create_task(frontend.get("/simple/mxa/", Accept=JSON))
        while not bot.asked:
            await asyncio.sleep(0.01)
        asyncio.get_running_loop().call_later(0.1, bot.gate.set)
    assert len((await asking).json["files"]) == len(FILES)


async def test_a_bot_that_hangs_costs_a_client_less_than_three_seconds() -> None:
    bot = ScriptedBot()
    async with running(bot) as frontend:
        bot.gate.clear()
        bot.break_stream()
        async with asyncio.timeout(3):
            reply = await frontend.get("/simple/mxa/")
        assert (reply.status, bool(problem(reply))) == (503, True)


# Redirects and names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/simple/mxa", "mxa/"),
        ("/simple/mxa?format=x+y&z=%2B", "mxa/?format=x+y&z=%2B"),
        ("/simple/My_Pkg", "my-pkg/"),
        ("/simple/My_Pkg/", "../my-pkg/"),
        ("/simple/MY.PKG/", "../my-pkg/"),
        ("/simple/my--pkg/?x=1", "../my-pkg/?x=1"),
        ("/simple", "simple/"),
    ],
)
async def test_other_spellings_redirect_relatively_and_ask_nobody(frontend: Frontend, path: str, location: str) -> None:
    reply = await frontend.get(path)
    assert (reply.status, reply.headers["location"], frontend.bot.asked) == (308, location, [])
    assert max_age(reply) <= 3600


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/simple/-/",
        "/simple/./",
        "/simple/../",
        "/simple/_/",
        "/simple//",
        "/simple/mxa//",
        "/simple/mxa/x/",
        "/simple/mxa/x",
        "/simple/../../etc/passwd",
        "/simple/%2e%2e%2f",
        "/simple/..%2f/",
        "/simple/..%5c/",
        "/simple/%252e/",
        "//etc",
        "/simple/mxa;/",
        "/simple/mxa%00/",
        "/simple/mxa%0d%0aX-Evil:1/",
        "/simple/%FF/",
        "/simple/%C0%AF/",
        "/simple/caf%C3%A9/",
        "/simple/\N{KELVIN SIGN}/",
        "/simple/ｍｘａ/",
        "/simple/" + "a" * 215 + "/",
        "/simplex/mxa/",
        "/packages/",
        "/packages/aa/bb/cc/x.whl",
        "/packages/aa/bb/" + "c" * 60 + "/x.whl/y",
        "/packages/aa/bb/" + "c" * 60 + "/..%2fx.whl",
        "/packages/aa/bb/" + "c" * 60 + "/x.whl.asc",
        "/packages/AA/bb/" + "c" * 60 + "/x.whl",
        "/metrics/",
        "/healthz/x",
    ],
)
async def test_what_no_project_and_no_file_can_be_called_is_a_404_and_asks_nobody(
    frontend: Frontend, path: str
) -> None:
    raw = await frontend.raw(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    status_line, _, rest = raw.partition(b"\r\n")
    assert status_line.startswith((b"HTTP/1.1 404 ", b"HTTP/1.0 400 ", b"HTTP/1.1 400 ")), raw
    assert b"application/problem+json" in rest
    assert b"\r\nlocation:" not in rest.lower()
    assert b"\r\nx-evil" not in rest.lower()
    assert frontend.bot.asked == []


# The root index ------------------------------------------------------------------------------------------------------


async def test_the_root_lists_what_the_bot_knows_in_every_form(frontend: Frontend) -> None:
    frontend.bot.names = [f"p{number}" for number in range(3_000)]
    as_json = await frontend.get("/simple/", Accept=JSON)
    assert as_json.json == {
        "meta": {"api-version": "1.4"},
        "projects": [{"name": name} for name in frontend.bot.names],
    }
    as_html = await frontend.get("/simple/", Accept=TEXT)
    assert [anchor["href"] for anchor in Page(as_html.body).anchors] == [f"{name}/" for name in frontend.bot.names]
    assert as_json.headers["etag"] != as_html.headers["etag"]


async def test_the_root_is_revalidated_and_follows_the_bot(frontend: Frontend) -> None:
    frontend.bot.names = ["mxa"]
    tag = (await frontend.get("/simple/", Accept=JSON)).headers["etag"]
    assert (await frontend.get("/simple/", Accept=JSON, If_None_Match=tag)).status == 304
    frontend.bot.names = ["mxa", "mxb"]
    reply = await frontend.get("/simple/", Accept=JSON, If_None_Match=tag)
    assert (reply.status, len(reply.json["projects"])) == (200, 2)


async def test_a_list_longer_than_memory_allows_comes_whole_to_many_at_once(frontend: Frontend) -> None:
    frontend.bot.names = [f"project-with-a-long-name-{number}" for number in range(60_000)]
    replies = await asyncio.gather(*(frontend.get("/simple/", Accept=JSON) for _ in range(5)))
    assert {len(reply.json["projects"]) for reply in replies} == {60_000}


async def test_without_the_bot_there_is_no_list(frontend: Frontend) -> None:
    frontend.bot.down = True
    reply = await frontend.get("/simple/")
    assert (reply.status, bool(problem(reply))) == (503, True)
