"""What the homeserver calls: transactions, alias queries and pings, on mautrix' web server but with routes of our own.

mautrix answers 200 to a transaction whose handler failed, and forgets which ones it saw when it restarts. Here 200 means that
every event is in the database.
"""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web
from mautrix.appservice import AppService
from mautrix.appservice.state_store import ASStateStore
from mautrix.client.state_store import MemoryStateStore

from matrix_pypi_bot.adapters.matrix.transaction import NotATransaction, take_apart
from matrix_pypi_bot.ports import StoreAway
from matrix_pypi_bot.wire.problems import Problem, ProblemCode, clean_line

log = logging.getLogger(__name__)

Receive = Callable[[str, list[tuple[str, str, bytes]]], Awaitable[None]]
MAX_TXN_ID_CHARACTERS: Final = 100


class _InMemory(ASStateStore, MemoryStateStore):
    """What mautrix wants to remember between requests: that the bot is registered. Nothing of it is worth a file."""

    def __init__(self) -> None:
        ASStateStore.__init__(self)
        MemoryStateStore.__init__(self)


class Appservice(AppService):
    """The listener. Make it in a running loop.

    `receive(transaction id, events)` returns when the events are durable and raises when they are not; `answer_alias(alias)` tells
    whether the alias leads to a room by now. `on_refused()` is called when a transaction was answered with 500, so that
    the homeserver, which now waits longer and longer, can be called when things are well again.
    """

    def __init__(
        self,
        *,
        address: str,
        server_name: str,
        bot_localpart: str,
        id: str,
        as_token: str,
        hs_token: str,
        max_body_bytes: int,
        receive: Receive,
        answer_alias: Callable[[str], Awaitable[bool]],
        on_refused: Callable[[], None],
        is_ready: Callable[[], bool],
    ) -> None:
        self.runner = None
        self.malformed_events = 0
        self._receive = receive
        self._answer_alias = answer_alias
        self._on_refused = on_refused
        self._is_ready = is_ready
        super().__init__(
            server=address,
            domain=server_name,
            as_token=as_token,
            hs_token=hs_token,
            bot_localpart=bot_localpart,
            id=id,
            log="mau.appservice",
            state_store=_InMemory(),
            aiohttp_params={"client_max_size": max_body_bytes, "middlewares": [_matrix_errors]},
        )

    async def listen(self, host: str, port: int) -> None:
        """Takes requests from now on. Raises Problem when the address cannot be had."""
        try:
            await self.start(host, port)
        except OSError as error:
            await self.close()
            raise Problem(
                f"cannot listen on {host} port {port}: {clean_line(str(error.strerror or error))}",
                hint="stop what uses the port, or change appservice.port and `url` in the registration",
                code=ProblemCode.CONFIGURATION,
            ) from error

    async def close(self) -> None:
        """Takes no requests and makes none."""
        await self.stop()

    def register_routes(self, app: web.Application) -> None:
        """Called by mautrix: current paths and those of before 2022."""
        for prefix in ("/_matrix/app/v1", ""):
            app.router.add_put(f"{prefix}/transactions/{{txn_id}}", self._transaction)
            app.router.add_get(f"{prefix}/rooms/{{alias}}", self._room)
            app.router.add_get(f"{prefix}/users/{{user_id}}", self._user)
        app.router.add_post("/_matrix/app/v1/ping", self._ping)

    async def _transaction(self, request: web.Request) -> web.Response:
        self._authorise(request)
        txn_id = clean_line(request.match_info["txn_id"], MAX_TXN_ID_CHARACTERS)
        try:
            delivery = take_apart(await request.read())
        except NotATransaction as error:
            log.warning("transaction refused", extra={"txn_id": txn_id, "reason": str(error)})
            return _error(400, error.errcode, str(error))
        if delivery.malformed:
            self.malformed_events += delivery.malformed
            log.warning("malformed events left out", extra={"txn_id": txn_id, "events": delivery.malformed})
        try:
            await self._receive(txn_id, delivery.events)
        except StoreAway as problem:
            log.warning("transaction not kept", extra={"txn_id": txn_id, "reason": problem.detail})
        except Exception:
            log.exception("transaction not kept", extra={"txn_id": txn_id})
        else:
            return web.json_response({})
        self._on_refused()
        return _error(500, "M_UNKNOWN", "the events could not be stored; send them again")

    async def _room(self, request: web.Request) -> web.Response:
        self._authorise(request)
        # Synapse takes any 200 for a yes; mautrix' own route would make a 404 of an empty object.
        if await self._answer_alias(request.match_info["alias"]):
            return web.json_response({})
        return _error(404, "M_NOT_FOUND", "no such room")

    async def _user(self, request: web.Request) -> web.Response:
        self._authorise(request)
        return _error(404, "M_NOT_FOUND", "no such user")

    async def _ping(self, request: web.Request) -> web.Response:
        self._authorise(request)
        return web.json_response({})

    async def _readiness_probe(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self._is_ready() else 500, text="{}")

    def _authorise(self, request: web.Request) -> None:
        """Raises 401 without a token and 403 with a wrong one. A header decides; homeservers of before 2023 send the query alone."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        told = token.strip() if scheme.lower() == "bearer" else request.query.get("access_token", "")
        if not told:
            raise web.HTTPUnauthorized(**_json("M_UNAUTHORIZED", "an hs_token is needed"))
        if not hmac.compare_digest(told.encode(errors="replace"), self.hs_token.encode()):
            log.warning("wrong hs_token", extra={"from": request.remote, "path": request.path})
            raise web.HTTPForbidden(**_json("M_FORBIDDEN", "not the hs_token of this appservice"))


@web.middleware
async def _matrix_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """aiohttp's own refusals in Matrix' words."""
    try:
        return await handler(request)
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as refusal:
        return _error(refusal.status, "M_UNRECOGNIZED", "unknown endpoint")
    except web.HTTPRequestEntityTooLarge:
        log.warning(
            "transaction too large, the homeserver will repeat it", extra={"advice": "raise appservice.max_body_bytes"}
        )
        return _error(413, "M_TOO_LARGE", "the body is too large")


def _error(status: int, errcode: str, message: str) -> web.Response:
    return web.Response(status=status, **_json(errcode, message))


def _json(errcode: str, message: str) -> dict[str, Any]:
    return {"text": json.dumps({"errcode": errcode, "error": message}), "content_type": "application/json"}
