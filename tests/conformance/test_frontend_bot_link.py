"""The bot's internal API as the frontend asks it, over real sockets: what counts as its word, what as its absence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from index_frontend.oracle import BotAway, BotBroken, HttpBot, PageAnswer
from index_frontend.oracle import bot as module
from matrix_pypi_bot.wire.messages import Change, Decision, Observed, Stored, encode
from matrix_pypi_bot.wire.names import ProjectName, parse_file_path
from matrix_pypi_bot.wire.problems import PROBLEM_TYPE, Problem, ProblemCode, problem_body
from tests.support.bot_pages import file_entry
from tests.support.bot_server import NDJSON, TOKEN, serving
from tests.support.scripted_bot import ScriptedBot

MXA = ProjectName("mxa")
ENTRY = file_entry("mxa-1.0+l.1-py3-none-any.whl")
FILE = parse_file_path(ENTRY["_path"]).file


@asynccontextmanager
async def linked(bot: ScriptedBot, *, token: str = TOKEN, socket_path: str | None = None) -> AsyncIterator[HttpBot]:
    async with serving(bot, socket_path=socket_path) as url:
        link = HttpBot(url, token, socket_path=socket_path)
        try:
            yield link
        finally:
            await link.close()


@asynccontextmanager
async def answered(answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> AsyncIterator[HttpBot]:
    """A link to somebody who answers everything with `answer`."""
    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    link = HttpBot(f"http://127.0.0.1:{site.port}", TOKEN)
    try:
        yield link
    finally:
        await link.close()
        await runner.cleanup()


@pytest.mark.parametrize("unix", [False, True])
async def test_pages_come_whole_or_not_at_all_when_they_are_known(tmp_path: Path, unix: bool) -> None:
    bot = ScriptedBot()
    bot.has_peers = unix
    bot.publish("mxa", [ENTRY], revision="r1")
    async with linked(bot, socket_path=str(tmp_path / "bot.sock") if unix else None) as link:
        answer = PageAnswer(
            raw=bot.pages["mxa"],  # type: ignore[arg-type]
            revision="r1",
            state="live",
            age_seconds=0.0,
            fresh_seconds=60.0,
            seq=1,
            has_peers=unix,
        )
        assert await link.page(MXA, revision=None, refresh=False) == answer
        assert (await link.page(MXA, revision="r1", refresh=True)).raw is None
        assert bot.asked == [("page", "mxa"), ("page", "mxa", "refresh")]


async def test_decisions_names_and_reports_pass_unharmed() -> None:
    bot = ScriptedBot()
    bot.names = [f"p{number}" for number in range(2_500)]
    bot.decisions[FILE] = decision = Decision(
        action="refuse", http=403, rule="R3", reason="matrix-pypi: R3", project="mxa", file=FILE, path=ENTRY["_path"]
    )
    stored = Stored(project="mxa", file=FILE, sha256="ab" * 32, size=1, cid="bafk", source="upstream")
    observed = Observed(
        project="mxa", file=FILE, expected_sha256="ab" * 32, sha256=None, size=1, source="upstream", reason="cut"
    )
    async with linked(bot) as link:
        assert await link.decision(MXA, FILE, ENTRY["_path"]) == decision
        await link.stored(stored)
        await link.observed(observed)
        assert (bot.stored_reports, bot.observed_reports) == ([stored], [observed])
        async with link.projects(None) as names:
            assert [name async for batch in names.batches for name in batch] == bot.names
        async with link.projects(names.revision) as again:
            assert again.unchanged


async def test_the_change_stream_is_read_line_by_line_and_its_end_is_the_bot_s_absence() -> None:
    bot = ScriptedBot()
    changes = [
        Change(seq=7, heartbeat=True),
        Change(seq=8, project="mxa", revision="r2", withdrawn=tuple(f"f{number}.whl" for number in range(20_000))),
        Change(reset=True),
    ]
    async with linked(bot) as link:
        for change in changes:
            bot.say(change)
        bot.break_stream()
        heard = []
        with pytest.raises(BotAway):
            async for change in link.changes(5):
                heard.append(change)  # noqa: PERF401 - what came before the error counts
    assert (heard, bot.connections) == (changes, [5])


async def test_a_stream_that_falls_silent_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STREAM_SILENCE_SECONDS", 0.05)
    async with linked(ScriptedBot()) as link:
        with pytest.raises(BotAway):
            async with asyncio.timeout(5):
                async for _ in link.changes(None):
                    pass


async def test_nobody_there_is_the_bot_away() -> None:
    link = HttpBot("http://127.0.0.1:1", TOKEN)
    with pytest.raises(BotAway, match="cannot be reached"):
        await link.page(MXA, revision=None, refresh=False)
    await link.close()


async def test_a_token_that_the_bot_does_not_take_is_said_so() -> None:
    async with linked(ScriptedBot(), token="other") as link:
        with pytest.raises(BotBroken, match="refuses our token") as broken:
            await link.page(MXA, revision=None, refresh=False)
    assert "token_file" in broken.value.hint


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (404, ProblemCode.NOT_FOUND),
        (403, ProblemCode.REFUSED),
        (502, ProblemCode.UPSTREAM_WRONG),
        (503, ProblemCode.UPSTREAM_AWAY),
    ],
)
async def test_four_errors_are_the_bot_s_word(status: int, code: ProblemCode) -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        body = problem_body(status, "title", "matrix-pypi: R1 denied")
        return web.Response(status=status, body=body, content_type=PROBLEM_TYPE)

    async with answered(answer) as link:
        with pytest.raises(Problem, match="matrix-pypi: R1 denied") as word:
            await link.page(MXA, revision=None, refresh=False)
    assert (word.value.code, isinstance(word.value, BotAway)) == (code, False)


@pytest.mark.parametrize(
    "response",
    [
        lambda: web.Response(status=404, text="not here"),
        lambda: web.Response(status=500, body=problem_body(500, "t", "d"), content_type=PROBLEM_TYPE),
        lambda: web.Response(status=503, text="a proxy speaks"),
        lambda: web.Response(status=404, body=b"[]", content_type=PROBLEM_TYPE),
        lambda: web.Response(status=302, headers={"Location": "http://elsewhere.example/"}),
        lambda: web.Response(body=b"{}"),
        lambda: web.Response(body=b"{}", headers={"ETag": '"r"', "X-View-State": "odd"}),
        lambda: web.Response(status=503, body=b"x" * 100_000, content_type=PROBLEM_TYPE),
    ],
)
async def test_everything_else_is_no_answer_of_the_bot(response: Callable[[], web.Response]) -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        return response()

    async with answered(answer) as link:
        with pytest.raises(BotBroken):
            await link.page(MXA, revision=None, refresh=False)
        with pytest.raises(BotBroken):
            await link.decision(MXA, FILE, ENTRY["_path"])


@pytest.mark.parametrize("line", [b"nonsense\n", b"[]\n", encode({"seq": "x"}) + b"\n"])
async def test_a_line_that_is_no_change_ends_the_stream(line: bytes) -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(body=encode(Change(seq=1, heartbeat=True)) + b"\n" + line, content_type=NDJSON)

    async with answered(answer) as link:
        heard = []
        with pytest.raises(BotBroken):
            async for change in link.changes(None):
                heard.append(change)  # noqa: PERF401 - what came before the error counts
    assert heard == [Change(seq=1, heartbeat=True)]


async def test_answers_without_end_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DOCUMENT_BYTES", 1_000)
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 1_000)

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(body=b"x" * 10_000, content_type=NDJSON)

    async with answered(answer) as link:
        with pytest.raises(BotBroken, match="longer than"):
            await link.page(MXA, revision=None, refresh=False)
        with pytest.raises(BotBroken, match="longer than"):
            await anext(link.changes(None))
