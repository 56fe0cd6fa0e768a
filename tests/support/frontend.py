"""The frontend's HTTP over a real socket, in the test's own process, beside a bot that says what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from index_frontend.app.serving import listening
from index_frontend.handlers import BlockAnswers, Dispatcher, FileAnswers, PublicAnswers
from index_frontend.handlers.index import PageHandler
from index_frontend.handlers.operations import Metrics, Operations
from index_frontend.handlers.root import RootHandler
from index_frontend.oracle import BotOracle, HttpBot, Patience
from index_frontend.shelf import Shelf
from matrix_pypi_bot.wire.messages import Change
from matrix_pypi_bot.wire.names import FilePath
from tests.support.bot_server import TOKEN, serving
from tests.support.http_client import Reply, ask
from tests.support.scripted_bot import ScriptedBot


class NamedFiles(FileAnswers):
    """Answers each file with its own name."""

    async def handle(self, request: web.BaseRequest, path: FilePath) -> web.StreamResponse:
        """See FileAnswers."""
        return web.Response(text=f"{path.address} {path.file} {path.metadata}")


class NamedBlocks(BlockAnswers):
    """Answers each block with what was asked."""

    async def handle(self, request: web.BaseRequest, rest: str, query: str) -> web.StreamResponse:
        """See BlockAnswers."""
        return web.Response(text=f"{rest} {query}")


class NamedPublicPages(PublicAnswers):
    """Answers each of the bot's public pages with what was asked."""

    async def handle(self, request: web.BaseRequest, page: str, query: str) -> web.StreamResponse:
        """See PublicAnswers."""
        return web.Response(text=f"{page} {query}")


@dataclass(slots=True)
class Frontend:
    """A running frontend."""

    bot: ScriptedBot
    oracle: BotOracle
    port: int

    async def get(self, path: str, method: str = "GET", /, **headers: str) -> Reply:
        """The answer to one request, `path` exactly as it is sent."""
        return await asyncio.to_thread(ask, f"http://127.0.0.1:{self.port}{path}", method, **headers)

    async def raw(self, sent: bytes, *, timeout_seconds: float = 5) -> bytes:
        """What comes back for these bytes until the connection is closed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(sent)
            async with asyncio.timeout(timeout_seconds):
                return await reader.read()
        finally:
            writer.close()

    async def change(self, seq: int, revision: str, withdrawn: tuple[str, ...] = (), project: str = "mxa") -> None:
        """The bot says that a project changed; returns when the frontend knows."""
        heard = self.oracle._memory.heard
        self.bot.say(Change(seq=seq, project=project, revision=revision, withdrawn=withdrawn))
        await _until(lambda: self.oracle._memory.heard > heard)


@asynccontextmanager
async def running(
    bot: ScriptedBot,
    *,
    files: FileAnswers | None = None,
    public: PublicAnswers | None = None,
    trust: PublicAnswers | None = None,
    provenance: PublicAnswers | None = None,
    allowed_hosts: tuple[str, ...] = (),
    max_stale_seconds: float = 300,
    missing: str | None = None,
) -> AsyncIterator[Frontend]:
    """A frontend whose change stream has spoken."""
    async with AsyncExitStack() as stack:
        link = HttpBot(await stack.enter_async_context(serving(bot)), TOKEN)
        stack.push_async_callback(link.close)
        oracle = BotOracle(
            link, max_stale_seconds=max_stale_seconds, patience=Patience(short_seconds=0.3, long_seconds=1.0)
        )
        stack.push_async_callback(oracle.close)
        follow = asyncio.create_task(oracle.follow())
        stack.push_async_callback(_ended, follow)
        shelf, root, metrics = Shelf(32 << 20), RootHandler(oracle), Metrics()
        stack.push_async_callback(shelf.close)

        async def is_missing() -> str | None:
            return missing

        operations = Operations(metrics, missing=is_missing, stream_is_live=lambda: oracle.pulse.is_live)
        dispatcher = Dispatcher(
            pages=PageHandler(oracle, shelf),
            root=root,
            files=files or NamedFiles(),
            blocks=NamedBlocks(),
            public=public or NamedPublicPages(),
            trust=trust or NamedPublicPages(),
            provenance=provenance or NamedPublicPages(),
            operations=operations,
            metrics=metrics,
            allowed_hosts=allowed_hosts,
        )
        port = await stack.enter_async_context(listening(dispatcher, "127.0.0.1", 0))
        bot.say(Change(seq=bot.seq, heartbeat=True))
        await _until(lambda: oracle.pulse.is_live)
        yield Frontend(bot, oracle, port)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)
