"""Another user of the homeserver: what Element would do, over the client-server API and nothing else."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit

Event = dict[str, Any]
SYNC_MILLISECONDS = 2000
TIMEOUT_SECONDS = 30


class MatrixRefusal(Exception):
    """The homeserver said no: `status`, and Matrix's own `errcode`."""

    def __init__(self, status: int, answer: Event) -> None:
        super().__init__(f"{status} {answer}")
        self.status = status
        self.errcode = str(answer.get("errcode", ""))


@dataclass(frozen=True, slots=True)
class MatrixUser:
    """A user with an access token on `homeserver`, e.g. `http://127.0.0.1:18081`."""

    homeserver: str
    user_id: str
    token: str

    @classmethod
    def register(cls, homeserver: str, shared_secret: str, localpart: str) -> Self:
        """A new user, made with Synapse's registration shared secret."""
        path = "/_synapse/admin/v1/register"
        nonce = _call(homeserver, "GET", path)["nonce"]
        signed = b"\0".join(part.encode() for part in (nonce, localpart, "password", "notadmin"))
        mac = hmac.new(shared_secret.encode(), signed, hashlib.sha1).hexdigest()
        account = {"nonce": nonce, "username": localpart, "password": "password", "admin": False, "mac": mac}
        answer = _call(homeserver, "POST", path, account)
        return cls(homeserver, answer["user_id"], answer["access_token"])

    def resolve(self, alias: str) -> str | None:
        """The room id of an alias, None when there is no such room."""
        try:
            return str(self._call("GET", f"/directory/room/{quote(alias, safe='')}")["room_id"])
        except MatrixRefusal as refusal:
            if refusal.status != 404:
                raise
            return None

    def join(self, room: str) -> str:
        """The id of the room, joined by its id or alias."""
        return str(self._call("POST", f"/join/{quote(room, safe='')}", {})["room_id"])

    def create_room(self, localpart: str, invited: list[str]) -> str:
        """The id of a new room that anybody may join, with the alias `#localpart:server`."""
        content = {"preset": "public_chat", "room_alias_name": localpart, "invite": invited, "room_version": "12"}
        return str(self._call("POST", "/createRoom", content)["room_id"])

    def forget_alias(self, alias: str) -> None:
        """An alias that is this user's leads nowhere any more."""
        self._call("DELETE", f"/directory/room/{quote(alias, safe='')}")

    def redact(self, room_id: str, event_id: str) -> str:
        """The event id of the redaction."""
        transaction = hashlib.sha256(f"{time.monotonic_ns()}".encode()).hexdigest()
        path = f"/rooms/{quote(room_id, safe='')}/redact/{quote(event_id, safe='')}/{transaction}"
        return str(self._call("PUT", path, {})["event_id"])

    def put_out(self, room_id: str, how: str, user: str) -> None:
        """`how`: `kick` or `ban`. Raises MatrixRefusal where the user may not be."""
        self._call("POST", f"/rooms/{quote(room_id, safe='')}/{how}", {"user_id": user})

    def say(self, room_id: str, text: str) -> str:
        """The event id of a text message."""
        transaction = hashlib.sha256(f"{time.monotonic_ns()}".encode()).hexdigest()
        path = f"/rooms/{quote(room_id, safe='')}/send/m.room.message/{transaction}"
        return str(self._call("PUT", path, {"msgtype": "m.text", "body": text})["event_id"])

    def put_state(self, room_id: str, kind: str, key: str, content: Event) -> str:
        """The event id of a state event."""
        return str(self._call("PUT", _state_path(room_id, kind, key), content)["event_id"])

    def state(self, room_id: str) -> list[Event]:
        """The whole current state, each event whole."""
        events: list[Event] = self._call("GET", f"/rooms/{quote(room_id, safe='')}/state")
        return events

    def state_of(self, room_id: str, kind: str) -> dict[str, Event]:
        """The content of every state event of one type, by state key."""
        return {event["state_key"]: event["content"] for event in self.state(room_id) if event["type"] == kind}

    def content(self, room_id: str, kind: str, key: str = "") -> Event | None:
        """The content of one state event, None when it is not set."""
        try:
            found: Event = self._call("GET", _state_path(room_id, kind, key))
        except MatrixRefusal as refusal:
            if refusal.status != 404:
                raise
            return None
        return found

    def timeline(self, room_id: str, kind: str) -> list[Event]:
        """Every event of one type that the room's history holds, oldest first, state events among them.

        It is read backwards, so that a homeserver that joined later asks the others for what came before.
        """
        events: list[Event] = []
        query = {"dir": "b", "limit": "500", "filter": json.dumps({"types": [kind]})}
        while True:
            answer = self._call("GET", f"/rooms/{quote(room_id, safe='')}/messages?{urlencode(query)}")
            events += answer["chunk"]
            if "end" not in answer:
                return events[::-1]
            query["from"] = answer["end"]

    def wait_for_state(
        self, room_id: str, ready: Callable[[list[Event]], bool], *, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> list[Event]:
        """The room's state as soon as it is `ready`; between looks it waits in /sync, as a client does."""
        deadline, since = time.monotonic() + timeout_seconds, ""
        while True:
            state = self.state(room_id)
            if ready(state):
                return state
            assert time.monotonic() < deadline, f"{room_id} did not get ready; types {_types(state)}"
            since = self._sync(since)

    def wait_for_content(
        self, room_id: str, kind: str, key: str = "", *, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> Event:
        """The content of a state event as soon as it is there."""

        def find(state: list[Event]) -> Event | None:
            return next(
                (event["content"] for event in state if (event["type"], event["state_key"]) == (kind, key)), None
            )

        found = find(self.wait_for_state(room_id, lambda state: bool(find(state)), timeout_seconds=timeout_seconds))
        assert found is not None
        return found

    def _sync(self, since: str) -> str:
        query = {"timeout": str(SYNC_MILLISECONDS if since else 0), **({"since": since} if since else {})}
        return str(self._call("GET", f"/sync?{urlencode(query)}")["next_batch"])

    def _call(self, method: str, path: str, content: Event | None = None) -> Any:
        return _call(self.homeserver, method, f"/_matrix/client/v3{path}", content, self.token)


def _state_path(room_id: str, kind: str, key: str) -> str:
    return f"/rooms/{quote(room_id, safe='')}/state/{quote(kind, safe='')}/{quote(key, safe='')}"


def _types(state: list[Event]) -> list[str]:
    return sorted({event["type"] for event in state})


def _call(homeserver: str, method: str, path: str, content: Event | None = None, token: str | None = None) -> Any:
    split = urlsplit(homeserver)
    connection = http.client.HTTPConnection(split.hostname or "", split.port, timeout=TIMEOUT_SECONDS)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        connection.request(method, path, None if content is None else json.dumps(content), headers)
        with connection.getresponse() as answer:
            told = json.loads(answer.read() or b"{}")
            if answer.status != 200:
                raise MatrixRefusal(answer.status, told)
            return told
    finally:
        connection.close()
