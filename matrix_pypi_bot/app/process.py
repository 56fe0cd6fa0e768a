"""The process: what is started in which order, and stopped in the other one."""

from __future__ import annotations

import gc
import logging
from typing import Final

from matrix_pypi_bot import __version__
from matrix_pypi_bot.adapters.clock import SystemClock
from matrix_pypi_bot.adapters.database.engine import open_store
from matrix_pypi_bot.adapters.provenance.root import open_verifier
from matrix_pypi_bot.api import Api, PublicApi, Tokens, listen
from matrix_pypi_bot.app.bot import Bot
from matrix_pypi_bot.app.given import Given, matrix_of, organisation_of, trust_of
from matrix_pypi_bot.config import Settings
from matrix_pypi_bot.process.lifecycle import Lifecycle
from matrix_pypi_bot.process.secret_files import read_secret
from matrix_pypi_bot.services.shown_copies import ShownCopies

log = logging.getLogger(__name__)

_MATRIX_STOP_SECONDS: Final = 2.0
_GARBAGE_THRESHOLDS: Final = (50_000, 20, 50)  # a page of thousands of files is made of as many objects that all stay


def settle_memory() -> None:
    """What is here now stays: the garbage collector leaves it alone, and looks at what is new less often."""
    gc.freeze()
    gc.set_threshold(*_GARBAGE_THRESHOLDS)


async def run(settings: Settings) -> None:
    """The bot, until cancelled. Raises Problem for what an operator has to put right.

    The internal API answers, and installs work, while the homeserver is away; `/readyz` is 200 once it has been there.
    """
    organisation, matrix, trust = organisation_of(settings), matrix_of(settings), trust_of(settings)
    tokens = Tokens(read_secret(settings.api.token_file), read_secret(settings.api.operator_token_file))
    clock = SystemClock()
    async with Lifecycle() as life:
        store = await life.enter("database", open_store(settings.database.url))
        bot = Bot(
            Given(
                settings=settings,
                organisation=organisation,
                matrix=matrix,
                trust=trust,
                verifier=open_verifier(settings.provenance.trusted_root_file),
                store=store,
                clock=clock,
            )
        )
        life.on_stop("bot", bot.stop)
        await bot.start()
        address = settings.api.listen
        await life.enter(
            "api",
            listen(Api(bot.services, tokens), socket_path=address.socket_path, host=address.host, port=address.port),
        )
        public = settings.public.listen
        await life.enter(
            "public pages",
            listen(
                PublicApi(bot.log, ShownCopies(store), bot.provenance, bot.trust_pages.routes),
                socket_path=public.socket_path,
                host=public.host,
                port=public.port,
            ),
        )
        life.on_stop("appservice", bot.matrix.stop, stop_seconds=_MATRIX_STOP_SECONDS)
        await bot.matrix.start()
        life.task("matrix", bot.matrix.run())
        life.task("commands", bot.commands.run())
        life.task("clockwork", bot.clockwork.run())
        life.task("docket", bot.docket.run())
        life.task("log", bot.log.run())
        life.task("logs of others", bot.pull.run())
        life.task("lists of others", bot.lists.run())
        settle_memory()
        log.info("bot started", extra={"version": __version__, "api": str(address), "upstream": settings.index.name})
        await life.forever()
