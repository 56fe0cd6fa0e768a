"""A bot of `bot_world` with its log and its key manifest, whose trust pages are served, at its own listener and through a frontend."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from index_frontend.handlers.passing import Passing
from index_frontend.handlers.public import PublicHandler
from index_frontend.handlers.trust import TrustHandler
from index_frontend.oracle import PublicPages
from matrix_pypi_bot.api import PublicApi, listen
from matrix_pypi_bot.core.signers import SigningKey
from matrix_pypi_bot.services.keys import Organisation, ensure_manifest
from matrix_pypi_bot.services.log import LogKeeper
from matrix_pypi_bot.services.shown_copies import ShownCopies
from matrix_pypi_bot.services.trust_pages import TrustPages
from matrix_pypi_bot.web import TrustHandlers
from tests.support.bot_world import KEY, ORG, World
from tests.support.frontend import running
from tests.support.http_client import Reply
from tests.support.scripted_bot import ScriptedBot
from tests.support.two_doors import TwoDoors
from tests.unit.bot.test_log import BOT, keeper_of
from tests.unit.bot.test_log import KEY as LOG_KEY

ROOT_KEY = SigningKey(bytes([7]) * 32)
ORGANISATION = Organisation(ORG, root=ROOT_KEY, mirror=KEY, log=LOG_KEY)


@dataclass(slots=True, kw_only=True)
class TrustWorld(TwoDoors):
    """The bot, the keeper of its log, and both doors to its pages."""

    world: World
    keeper: LogKeeper
    pages: TrustPages

    async def json(self, path: str) -> Reply:
        """The page as JSON."""
        return await self.both(path, Accept="application/json")


@asynccontextmanager
async def trust_world(world: World, *, is_public: bool = True) -> AsyncIterator[TrustWorld]:
    """Its pages are there while the block runs; the manifest is signed."""
    keeper, guard = keeper_of(world)
    await guard.compare([])
    await ensure_manifest(world.store, world.clock, ORGANISATION, bot_mxid=BOT)
    pages = TrustPages(
        explainer=world.explainer,
        projects=world.projects,
        store=world.store,
        clock=world.clock,
        log=keeper,
        org=ORG,
        log_origin=ORGANISATION.log_origin,
        orgs=lambda: [ORG],
        is_public=is_public,
    )
    port = _free_port()
    base = f"http://127.0.0.1:{port}"
    passed_on = PublicPages(base)
    api = PublicApi(keeper, ShownCopies(world.store), more=TrustHandlers(pages).routes)
    public, trust = PublicHandler(Passing(passed_on)), TrustHandler(Passing(passed_on))
    async with (
        listen(api, socket_path=None, host="127.0.0.1", port=port),
        running(ScriptedBot(), public=public, trust=trust) as frontend,
    ):
        yield TrustWorld(world=world, keeper=keeper, pages=pages, base=base, frontend=frontend)
    await passed_on.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
