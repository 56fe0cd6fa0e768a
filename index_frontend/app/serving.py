"""A listening socket, from the first connection to the last answer."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from index_frontend.handlers.connection import Server
from index_frontend.handlers.middleware import Handler
from matrix_pypi_bot.process.command_line import NeededIsMissing

# After the signal: answers under way may end in this time. aiohttp waits for it twice, the second time for those that it cut.
GRACE_SECONDS: Final = 2.5
_BACKLOG: Final = 1_024


class CannotListen(NeededIsMissing):
    """The address is taken, not ours, or not to be had."""

    def __init__(self, host: str, port: int, error: OSError) -> None:
        taken = error.errno == errno.EADDRINUSE
        super().__init__(
            f"cannot listen on {host}:{port}: {'it is taken' if taken else error.strerror or error}",
            hint="stop what listens there, or change listen.port" if taken else "look at listen.host and listen.port",
        )


@asynccontextmanager
async def listening(handler: Handler, host: str, port: int, *, shared: bool = False) -> AsyncIterator[int]:
    """The port on which `handler` is called for every request; `shared` with other processes that listen on it.

    Leaving the block refuses new connections at once, and gives answers under way `GRACE_SECONDS`. Raises CannotListen.
    """
    runner = web.ServerRunner(Server(handler), shutdown_timeout=GRACE_SECONDS)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=_BACKLOG, reuse_port=shared or None)
        try:
            await site.start()
        except OSError as error:
            raise CannotListen(host, port, error) from error
        yield site.port
    finally:
        await runner.cleanup()
