"""The server: tokens, routes, and where it listens."""

from __future__ import annotations

import contextlib
import errno
import hmac
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from aiohttp import web

from matrix_pypi_bot.api.errors import Handler, answering
from matrix_pypi_bot.api.pages import PageHandlers
from matrix_pypi_bot.api.reports import ReportHandlers
from matrix_pypi_bot.api.services import Services
from matrix_pypi_bot.api.stream import ChangeStream
from matrix_pypi_bot.wire.messages import API
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

MAX_BODY_BYTES: Final = 64 << 10  # a report is some hundred bytes
STOP_SECONDS: Final = 1.0
_OPEN: Final = frozenset({"/healthz", "/readyz"})
_OPERATORS_ONLY: Final = frozenset(
    f"{API}/{one}" for one in ("overrides", "keys/revocations", "keys/delegations", "statements")
)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Who may ask: frontends with the one, operators with the other, which opens everything."""

    frontend: str
    operator: str

    def allow(self, header: str, path: str) -> bool:
        """Whether an `Authorization` header opens `path`. Takes as long for a wrong token as for a right one."""
        told = header.encode("utf-8", "surrogateescape")
        operator = hmac.compare_digest(told, f"Bearer {self.operator}".encode())
        frontend = hmac.compare_digest(told, f"Bearer {self.frontend}".encode())
        return operator or (frontend and path not in _OPERATORS_ONLY)


class Listening(Protocol):
    """An application that can be listened for. `name` is what it is called in complaints, `setting` where its address is set."""

    name: str
    setting: str
    app: web.Application

    def stop(self) -> None:
        """Nothing of it keeps anybody waiting any more."""
        ...


class Api:
    """The application. `stop()` ends the streams, so that nobody has to wait for them."""

    name = "internal API"
    setting = "api.listen"

    def __init__(self, services: Services, tokens: Tokens) -> None:
        self._services = services
        self._tokens = tokens
        self._stream = ChangeStream(services)
        self.app = web.Application(middlewares=[answering, self._authorise], client_max_size=MAX_BODY_BYTES)
        pages, reports = PageHandlers(services), ReportHandlers(services)
        self.app.add_routes(
            [
                web.get("/healthz", self._health),
                web.get("/readyz", self._ready),
                web.get(f"{API}/projects", pages.names),
                web.get(f"{API}/projects/{{project}}", pages.page),
                web.get(f"{API}/decide/{{project}}/{{file}}", pages.decide),
                web.get(f"{API}/explain/{{project}}", pages.explain),
                web.get(f"{API}/explain/{{project}}/{{file}}", pages.explain),
                web.get(f"{API}/figures", pages.figures),
                web.get(f"{API}/changes", self._stream.handle),
                web.post(f"{API}/stored", reports.stored),
                web.post(f"{API}/observed", reports.observed),
                web.post(f"{API}/overrides", reports.override),
                web.get(f"{API}/keys", pages.keys),
                web.post(f"{API}/keys/revocations", reports.revocation),
                web.post(f"{API}/keys/delegations", reports.delegation),
                web.post(f"{API}/statements", reports.statement),
            ]
        )

    def stop(self) -> None:
        """No stream goes on."""
        self._stream.stop()

    @web.middleware
    async def _authorise(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in _OPEN and not self._tokens.allow(request.headers.get("Authorization", ""), request.path):
            raise Problem("a bearer token that is not ours, or none", code=ProblemCode.UNAUTHORISED)
        return await handler(request)

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def _ready(self, request: web.Request) -> web.Response:
        parts = dict(self._services.readiness())
        ready = parts.pop("ready")
        return web.json_response({"ready": ready, **parts}, status=200 if ready else 503)


@contextlib.asynccontextmanager
async def listen(api: Listening, *, socket_path: str | None, host: str = "", port: int = 0) -> AsyncIterator[None]:
    """It is there while the block runs, on a unix socket (0600) or on a TCP address. Raises Problem when that cannot be had."""
    runner = web.AppRunner(
        api.app, access_log=None, handle_signals=False, shutdown_timeout=STOP_SECONDS, max_line_size=8_190
    )
    await runner.setup()
    try:
        try:
            site = _unix_site(runner, socket_path) if socket_path else web.TCPSite(runner, host, port)
            await site.start()
        except OSError as error:
            raise Problem(
                f"the {api.name} cannot listen at {socket_path or f'{host}:{port}'}: {error.strerror or error}",
                hint=f"is the bot running already? look at {api.setting}",
                code=ProblemCode.CONFIGURATION,
            ) from error
        if socket_path:
            Path(socket_path).chmod(0o600)
        yield
    finally:
        api.stop()
        await runner.cleanup()


def _unix_site(runner: web.AppRunner, path: str) -> web.UnixSite:
    """A site on `path`. A socket that a process which was killed left behind is replaced (asyncio would replace any).

    Raises OSError when somebody listens there.
    """
    if Path(path).is_socket() and _answers(path):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    return web.UnixSite(runner, path)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except OSError:
            return False
        return True
