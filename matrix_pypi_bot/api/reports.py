"""What frontends and operators tell."""

from __future__ import annotations

import asyncio
from typing import Final, TypeVar

from aiohttp import web

from matrix_pypi_bot.api.services import Services
from matrix_pypi_bot.services.observe import observe
from matrix_pypi_bot.wire.messages import KeyDelegation, KeyRevocation, Observed, Override, Stored, decode_as, encode
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

BODY_SECONDS: Final = 10.0

M = TypeVar("M")


class ReportHandlers:
    """What is asked with POST."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def stored(self, request: web.Request) -> web.Response:
        """202 once the report is in the database."""
        await self._services.attester.stored(await _read(request, Stored))
        return web.Response(status=202)

    async def observed(self, request: web.Request) -> web.Response:
        """202 once the observation is in the database."""
        services = self._services
        await observe(services.store, services.clock, await _read(request, Observed), services.on_observed)
        return web.Response(status=202)

    async def override(self, request: web.Request) -> web.Response:
        """An operator's decision, in force when answered."""
        done = await self._services.overrides.apply(await _read(request, Override))
        return web.Response(body=encode(done), content_type="application/json")

    async def revocation(self, request: web.Request) -> web.Response:
        """The end of a key, in force when answered."""
        told = await self._services.keys.revoke(await _read(request, KeyRevocation))
        return web.Response(body=encode(told), content_type="application/json")

    async def delegation(self, request: web.Request) -> web.Response:
        """A maintainer's key, in force or ended when answered."""
        told = await self._services.keys.delegate(await _read(request, KeyDelegation))
        return web.Response(body=encode(told), content_type="application/json")

    async def statement(self, request: web.Request) -> web.Response:
        """A maintainer's statement, kept and on its way to its room when answered."""
        told = await self._services.relay.take(await _read(request, dict))
        return web.Response(body=encode(told), content_type="application/json")


async def _read(request: web.Request, kind: type[M]) -> M:
    """The body as a message. Raises Problem (BAD_REQUEST), msgspec.MsgspecError, or what aiohttp raises for a large one."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return decode_as(kind, await request.read())
    except TimeoutError as error:
        raise Problem("the body did not arrive in time", code=ProblemCode.BAD_REQUEST) from error
