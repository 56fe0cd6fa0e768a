"""Other organisations' logs over HTTP (`ports.LogReader`): bounded in bytes, lines and time, whatever answers."""

from __future__ import annotations

from email.message import Message
from typing import Final

import aiohttp

from matrix_pypi_bot.core.limits import MAX_LEAF_LINE_BYTES, MAX_NOTE_BYTES
from matrix_pypi_bot.core.list_document import MAX_LIST_BYTES
from matrix_pypi_bot.ports import Absent, Away, Entries, Peer, Wrong
from matrix_pypi_bot.process.outbound import ForbiddenAddress, Outbound, Unreachable, origin_of
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.problems import clean_line

NOTE_SECONDS: Final = 10.0
ENTRIES_SECONDS: Final = 30.0
MAX_ENTRIES_BYTES: Final = (4 << 20) + MAX_LEAF_LINE_BYTES  # a page ends at 4 MiB, unless its first line is longer
_ABSENT: Final = frozenset({404, 410})
_REDIRECTS: Final = 2
_NOTE: Final = "text/plain"
_ENTRIES: Final = "application/x-ndjson"


class _Unfit(Exception):
    """An answer that is not what was asked for."""


class PeerHttp:
    """`ports.LogReader`. An address that the operator wrote opens exactly its scheme, host and port, although http or private."""

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound

    async def note(self, peer: Peer, of: str | None) -> str | Absent | Away | Wrong:
        """See `ports.LogReader.note`."""
        body = await self._get(peer, _path(of, "checkpoint"), _NOTE, MAX_NOTE_BYTES, NOTE_SECONDS)
        if not isinstance(body, bytes):
            return body
        try:
            return body.decode()
        except UnicodeDecodeError:
            return Wrong("a checkpoint that is not text")

    async def entries(self, peer: Peer, of: str | None, start: int, end: int) -> Entries | Away | Wrong:
        """See `ports.LogReader.entries`."""
        path = f"{_path(of, 'entries')}?from={start}&to={end}"
        body = await self._get(peer, path, _ENTRIES, MAX_ENTRIES_BYTES, ENTRIES_SECONDS)
        if isinstance(body, Absent):
            return Wrong("there are no entries")
        if not isinstance(body, bytes):
            return body
        lines = tuple(body.split(b"\n"))
        if lines[-1]:
            return Wrong("a page of entries that breaks off within a line")
        if not 0 < len(lines) - 1 <= end - start:
            return Wrong(f"{len(lines) - 1} entries where 1 to {end - start} were asked for")
        return Entries(lines[:-1], len(body))

    async def list(self, peer: Peer, sha256: Sha256) -> bytes | Absent | Away | Wrong:
        """See `ports.LogReader.list`."""
        return await self._get(peer, f"lists/{sha256}", _ENTRIES, MAX_LIST_BYTES, ENTRIES_SECONDS)

    async def _get(
        self, peer: Peer, path: str, kind: str, max_bytes: int, seconds: float
    ) -> bytes | Absent | Away | Wrong:
        try:
            url = f"{peer.url.rstrip('/')}/{path}"
            async with self._outbound.request(
                "GET",
                url,
                headers={"Accept": kind, "Accept-Encoding": "identity"},
                opened=(origin_of(url),) if peer.configured else (),
                total_seconds=seconds,
                max_redirects=_REDIRECTS,
            ) as response:
                if response.status in _ABSENT:
                    return Absent()
                if response.status != 200:
                    return Away(f"status {response.status}")
                return await _read(response, kind, max_bytes)
        except Unreachable as error:
            return Away(error.detail)
        except (ForbiddenAddress, _Unfit) as error:
            return Wrong(clean_line(str(error)))


def _path(of: str | None, page: str) -> str:
    return page if of is None else f"copies/{of}/{page}"


async def _read(response: aiohttp.ClientResponse, kind: str, max_bytes: int) -> bytes:
    """The body. Raises _Unfit for another type, an encoding, or more than `max_bytes`, as soon as it is known."""
    message = Message()
    message["Content-Type"] = clean_line(response.headers.get("Content-Type", ""), 200)
    if message.get_content_type() != kind:
        raise _Unfit(f"not {kind} but {message.get_content_type()}")
    if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise _Unfit("an encoding that was not asked for")
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > max_bytes:
            raise _Unfit(f"more than {max_bytes} bytes")
    return bytes(body)
