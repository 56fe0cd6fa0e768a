"""The bot's internal API over HTTP, on TCP or a unix socket, with a bearer token."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, Literal, TypeVar, get_args
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL

from index_frontend.oracle.link import BotAway, BotBroken, PageAnswer
from index_frontend.ports import ProjectNames
from matrix_pypi_bot.wire.messages import (
    API,
    STREAM_SILENCE_SECONDS,
    Change,
    Decision,
    Observed,
    Stored,
    ViewState,
    decode_as,
    encode,
)
from matrix_pypi_bot.wire.names import FileName, ProjectName
from matrix_pypi_bot.wire.problems import PROBLEM_TYPE, Problem, ProblemBody, ProblemCode, clean_line

MAX_DOCUMENT_BYTES: Final = 128 << 20  # the bot refuses upstream pages far below this
MAX_LINE_BYTES: Final = 16 << 20  # a change that withdraws every file of the largest project
MAX_ERROR_BYTES: Final = 64 << 10
CONNECT_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 30.0  # of silence; those who wait give up long before
_NAMES_AT_ONCE: Final = 1_000

_WORDS: Final = {
    404: ProblemCode.NOT_FOUND,
    403: ProblemCode.REFUSED,
    502: ProblemCode.UPSTREAM_WRONG,
    503: ProblemCode.UPSTREAM_AWAY,
}
_NDJSON: Final = "application/x-ndjson"
_STATES: Final[dict[str, ViewState]] = {state: state for state in get_args(ViewState)}

M = TypeVar("M")


class HttpBot:
    """The BotLink over HTTP. `base_url` e.g. `http://127.0.0.1:29330`; with `socket_path` its host means nothing."""

    def __init__(self, base_url: str, token: str, *, socket_path: str | None = None) -> None:
        self._base = base_url + API
        connector = aiohttp.UnixConnector(socket_path) if socket_path else aiohttp.TCPConnector(limit=64)
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={"Authorization": f"Bearer {token}"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=ANSWER_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            max_field_size=32_768,
        )

    async def close(self) -> None:
        """Close all connections; idempotent."""
        await self._session.close()

    async def page(self, project: ProjectName, *, revision: str | None, refresh: bool) -> PageAnswer:
        """See the port."""
        headers = {"If-None-Match": f'"{revision}"'} if revision is not None else {}
        path = f"/projects/{project}{'?refresh=1' if refresh else ''}"
        async with self._asked("GET", path, headers=headers, good=(200, 304)) as response:
            raw = await read_body(response, MAX_DOCUMENT_BYTES) if response.status == 200 else None
            return _page_answer(response.headers, raw, revision)

    async def decision(self, project: ProjectName, file: FileName, path: str | None) -> Decision:
        """See the port."""
        query = "" if path is None else f"?path={quote(path)}"
        async with self._asked("GET", f"/decide/{project}/{quote(file)}{query}") as response:
            return _decoded(Decision, await read_body(response, MAX_ERROR_BYTES))

    @asynccontextmanager
    async def projects(self, revision: str | None) -> AsyncIterator[ProjectNames]:
        """See the port."""
        headers = {"If-None-Match": f'"{revision}"'} if revision is not None else {}
        async with self._asked("GET", "/projects", headers=headers, good=(200, 304)) as response:
            tag = response.headers.get("ETag", "").strip('"') or None
            yield ProjectNames(revision=tag, unchanged=response.status == 304, batches=_names(response))

    async def changes(self, after: int | None) -> AsyncIterator[Change]:
        """See the port."""
        path = "/changes" if after is None else f"/changes?after={after}"
        async with self._asked("GET", path, silence_seconds=STREAM_SILENCE_SECONDS) as response:
            async for line in _lines(response):
                yield _decoded(Change, line)
        raise BotAway("the bot ended the change stream")

    async def stored(self, stored: Stored) -> None:
        """See the port."""
        async with self._asked("POST", "/stored", body=encode(stored), good=(202,)):
            pass

    async def observed(self, observed: Observed) -> None:
        """See the port."""
        async with self._asked("POST", "/observed", body=encode(observed), good=(202, 204)):
            pass

    @asynccontextmanager
    async def _asked(
        self,
        method: Literal["GET", "POST"],
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        good: tuple[int, ...] = (200,),
        silence_seconds: float = ANSWER_SECONDS,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The response, when its status is one of `good`. Raises BotAway and Problem as BotLink promises, also inside the block."""
        sent = dict(headers or {}) | ({"Content-Type": "application/json"} if body is not None else {})
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=silence_seconds)
        try:
            async with self._session.request(
                method,
                URL(self._base + path, encoded=True),
                headers=sent,
                data=body,
                timeout=limits,
                allow_redirects=False,
            ) as response:
                if response.status not in good:
                    raise await _error_of(response)
                yield response
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            cause = clean_line(str(error) or type(error).__name__, 200)
            raise BotAway(f"the bot cannot be reached: {cause}", hint="is it running? look at oracle.url") from error


def _page_answer(headers: Mapping[str, str], raw: bytes | None, asked: str | None) -> PageAnswer:
    try:
        return PageAnswer(
            raw=raw,
            revision=headers["ETag"].strip('"') if raw is not None else asked or "",
            state=_STATES[headers["X-View-State"]],
            age_seconds=float(headers["X-View-Age-Seconds"]),
            fresh_seconds=float(headers["X-View-Fresh-Seconds"]),
            seq=int(headers["X-Seq"]),
            has_peers=headers.get("X-Has-Peers") == "1",
        )
    except (KeyError, ValueError) as error:
        raise BotBroken(
            f"the bot's answer lacks its standing: {error}", hint="are both of the same version?"
        ) from error


async def _error_of(response: aiohttp.ClientResponse) -> Problem:
    """The bot's word when it says one of the four errors that are answers, else BotBroken."""
    body = await read_body(response, MAX_ERROR_BYTES)
    code = _WORDS.get(response.status)
    if code is not None and response.content_type == PROBLEM_TYPE:
        return Problem(_decoded(ProblemBody, body).detail, code=code)
    if response.status == 401:
        return BotBroken(
            "the bot refuses our token", hint="oracle.token_file must be the file that api.token_file names"
        )
    if response.content_type == PROBLEM_TYPE:
        return BotBroken(f"the bot failed: {_decoded(ProblemBody, body).detail}", hint="look at the bot's log")
    return BotBroken(f"what answers at oracle.url is not the bot (status {response.status})", hint="look at oracle.url")


async def read_body(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The whole body. Raises BotBroken when it is longer than `most` bytes."""
    parts = bytearray()
    async for chunk in response.content.iter_any():
        parts += chunk
        if len(parts) > most:
            raise BotBroken(f"the bot's answer is longer than {most} bytes")
    return bytes(parts)


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The lines of an NDJSON answer, without the empty ones."""
    if response.content_type != _NDJSON:
        raise BotBroken(f"what answers at oracle.url sends {clean_line(response.content_type, 60)} for lines")
    rest = bytearray()
    async for chunk in response.content.iter_any():
        rest += chunk
        if len(rest) > MAX_LINE_BYTES:
            raise BotBroken(f"a line of the bot is longer than {MAX_LINE_BYTES} bytes")
        *lines, tail = rest.split(b"\n")
        rest = bytearray(tail)
        for line in lines:
            if line.strip():
                yield bytes(line)


async def _names(response: aiohttp.ClientResponse) -> AsyncIterator[list[str]]:
    batch: list[str] = []
    async for line in _lines(response):
        batch.append(_decoded(str, line))
        if len(batch) == _NAMES_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _decoded(kind: type[M], data: bytes) -> M:
    try:
        return decode_as(kind, data)
    except msgspec.MsgspecError as error:
        raise BotBroken(
            f"the bot's answer is no {kind.__name__}: {error}", hint="are both of the same version?"
        ) from error
