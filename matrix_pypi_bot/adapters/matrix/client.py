"""The client-server API as our bot user (`services.homeserver`), through mautrix' intent, in plain JSON objects.

mautrix' typed helpers are passed by: they would join rooms, fetch power levels and judge by a cache before each request.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import aiohttp
from mautrix.api import Method, Path, PathBuilder
from mautrix.errors import MatrixConnectionError, MatrixError, MatrixRequestError

from matrix_pypi_bot.adapters.matrix.appservice import Appservice
from matrix_pypi_bot.adapters.matrix.transaction import is_room_id
from matrix_pypi_bot.services.homeserver import HomeserverAway, HomeserverRefused, JsonObject, Place
from matrix_pypi_bot.wire.problems import clean_line

MAX_SERVERS: Final = 10  # by which a room can be joined; more do not make it likelier
_SERVER: Final = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}", re.ASCII)
REQUEST_SECONDS: Final = 60.0  # joining or reading a large room takes seconds
# 5xx answers that tell something about us, not about the homeserver: what became of its ping.
_PING_CODES: Final = frozenset({"M_BAD_STATUS", "M_CONNECTION_FAILED", "M_CONNECTION_TIMEOUT"})


class MautrixHomeserver:
    """`Homeserver` and `HomeserverLink` on the HTTP session of a listening appservice."""

    def __init__(self, appservice: Appservice, *, display_name: str) -> None:
        self._appservice = appservice
        self._display_name = display_name

    # ---- HomeserverLink

    async def answers(self) -> None:
        try:
            await self._call(Method.GET, Path.versions, what="say its versions")
        except HomeserverRefused:
            return  # it is there, and not content with us: `introduce` will tell why

    async def introduce(self) -> str:
        async def register() -> JsonObject:
            await self._appservice.intent.ensure_registered()
            return {}

        await self._guard(register, what="register the bot's user")
        who = await self._call(Method.GET, Path.v3.account.whoami, what="say who we are")
        return str(who.get("user_id"))

    async def set_name(self) -> None:
        path = Path.v3.profile[self._appservice.bot_mxid].displayname
        await self._call(Method.PUT, path, {"displayname": self._display_name}, what="set the bot's name")

    async def ping(self) -> None:
        path = Path.v1.appservice[self._appservice.id].ping
        await self._call(Method.POST, path, {"transaction_id": "matrix-pypi"}, what="ping this appservice")

    # ---- Homeserver

    async def create_room(self, request: Mapping[str, Any]) -> str:
        answer = await self._call(Method.POST, Path.v3.createRoom, dict(request), what="make a room")
        return _text(answer, "room_id")

    async def resolve(self, alias: str) -> Place:
        told = await self._call(Method.GET, Path.v3.directory.room[alias], what=f"find {alias}")
        room_id = _text(told, "room_id")
        if not is_room_id(room_id):  # another server made it up
            raise HomeserverRefused(404, "M_NOT_FOUND", "what it leads to is no room", what=f"find {alias}")
        return Place(room_id, _servers(told.get("servers")))

    async def add_alias(self, alias: str, room_id: str) -> None:
        path = Path.v3.directory.room[alias]
        await self._call(Method.PUT, path, {"room_id": room_id}, what=f"add {alias}")

    async def remove_alias(self, alias: str) -> None:
        await self._call(Method.DELETE, Path.v3.directory.room[alias], what=f"remove {alias}")

    async def join(self, room_id: str, *, via: Sequence[str] = ()) -> None:
        # `server_name` is what `via` was called before Matrix 1.12.
        query = {"via": list(via), "server_name": list(via)} if via else None
        await self._call(Method.POST, Path.v3.join[room_id], query=query, what="join a room")

    async def decline(self, room_id: str, reason: str) -> None:
        await self._call(Method.POST, Path.v3.rooms[room_id].leave, {"reason": reason}, what="decline an invitation")

    async def publish(self, room_id: str) -> None:
        path = Path.v3.directory.list.room[room_id]
        await self._call(Method.PUT, path, {"visibility": "public"}, what="publish a room")

    async def state(self, room_id: str) -> Sequence[JsonObject]:
        events = await self._call(Method.GET, Path.v3.rooms[room_id].state, what="read a room's state", answer=list)
        return [event for event in events if isinstance(event, dict)]

    async def put_state(self, room_id: str, type: str, state_key: str, content: bytes) -> str:
        path = Path.v3.rooms[room_id].state[type][state_key]
        return _text(await self._call(Method.PUT, path, content, what=f"take a state event {type}"), "event_id")

    async def send(self, room_id: str, type: str, content: bytes, txn_id: str) -> str:
        path = Path.v3.rooms[room_id].send[type][txn_id]
        return _text(await self._call(Method.PUT, path, content, what=f"take an event {type}"), "event_id")

    async def _call(
        self,
        method: Method,
        path: PathBuilder,
        content: JsonObject | bytes | None = None,
        *,
        what: str,
        query: Any = None,
        answer: type[Any] = dict,
    ) -> Any:
        api = self._appservice.intent.api
        told = await self._guard(lambda: api.request(method, path, content, query_params=query), what=what)
        if not isinstance(told, answer):
            raise HomeserverAway(f"the homeserver's answer to {method.value} {path} makes no sense")
        return told

    async def _guard(self, request: Any, *, what: str) -> Any:
        """What `request()` gives, every failure as one of our two."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return await request()
        except MatrixRequestError as error:
            errcode, message = error.errcode or "", error.message or str(error)
            if error.http_status >= 500 and errcode not in _PING_CODES:
                raise HomeserverAway(
                    f"the homeserver answered {error.http_status} {clean_line(message, 160)}"
                ) from error
            raise HomeserverRefused(error.http_status, errcode, message, what=what) from error
        except MatrixConnectionError as error:
            unreachable = isinstance(error.__cause__, aiohttp.ClientConnectorError)
            raise HomeserverAway(
                f"the homeserver cannot be reached: {clean_line(str(error), 200)}", unreachable=unreachable
            ) from error
        except (TimeoutError, MatrixError, ValueError, TypeError, KeyError) as error:
            # No answer in time, or one that mautrix could not make sense of.
            reason = clean_line(f"{type(error).__name__} {error}", 200)
            raise HomeserverAway(f"the homeserver gave no answer that makes sense: {reason}") from error


def _servers(told: Any) -> tuple[str, ...]:
    """The first few names that can be names of servers."""
    names = told if isinstance(told, list) else []
    return tuple(name for name in names if isinstance(name, str) and _SERVER.fullmatch(name))[:MAX_SERVERS]


def _text(answer: JsonObject, field: str) -> str:
    value = answer.get(field)
    if not isinstance(value, str):
        raise HomeserverAway(f"the homeserver's answer has no {field}")
    return value
