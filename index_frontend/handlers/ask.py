"""What a client asks of a file, and when it may be answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from aiohttp import web

from index_frontend.fill import Transfer
from index_frontend.ranges import answer_range, open_start, range_counts
from matrix_pypi_bot.wire.names import FilePath
from matrix_pypi_bot.wire.problems import Problem

_ENDLESS: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Ask:
    """A request for a file: `range` is its Range header, None when it does not count."""

    request: web.BaseRequest
    path: FilePath
    head: bool
    range: str | None

    @classmethod
    def of(cls, request: web.BaseRequest, path: FilePath, etag: str) -> Self:
        """The request for the file at `path`, whose ETag is `etag`."""
        head = request.method == "HEAD"  # a Range has no meaning there (RFC 9110 §14.2)
        counts = not head and range_counts(request.headers.get("If-Range"), etag)
        return cls(request, path, head, request.headers.get("Range") if counts else None)

    @property
    def whole_first(self) -> bool:
        """Whether the part asked for would be complete before the file is known to be right."""
        header = self.range
        return header is not None and open_start(header) is None and answer_range(header, _ENDLESS).status != 200

    async def is_ready(self, transfer: Transfer) -> bool:
        """Waits until the first byte asked for may go out: what goes wrong before is a plain answer. False when it failed."""
        try:
            if self.whole_first or transfer.total is None:
                await transfer.whole()
            elif not self.head:
                await transfer.until(answer_range(self.range, transfer.total).start or 0)
        except Problem:
            if transfer.failure is None:
                raise
            return False
        return True
