"""What these tests send and expect again and again."""

from __future__ import annotations

import http.client
from pathlib import Path

import pytest

from matrix_pypi_bot.wire.cids import raw_cid
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import Stored
from tests.support.dists import Dist, wheel
from tests.support.file_side import FileSide
from tests.support.http_client import Reply, transfer
from tests.support.waiting import wait_until

KEPT = "private, max-age=31536000, immutable"
SMALL = wheel("mxa", payload_bytes=10_000)
LARGE = wheel("mxb", payload_bytes=1_000_000)
TAIL_BYTES = 65_536
BOTH = pytest.mark.parametrize("dist", [SMALL, LARGE], ids=["small", "large"])
SIZE_KNOWN_OR_NOT = pytest.mark.parametrize("known", [True, False], ids=["size known", "size unknown"])


def warm(side: FileSide, dist: Dist) -> Dist:
    """The file is stored."""
    assert side.get(dist).body == dist.content
    wait_until(lambda: side.store.held(Sha256(dist.sha256)), f"{dist.filename} is stored")
    return dist


def etag(dist: Dist) -> str:
    """The file's ETag."""
    return f'"sha256-{dist.sha256}"'


def stored(dist: Dist, source: str) -> Stored:
    """The report of a file of at most 1 MiB."""
    cid = raw_cid(Sha256(dist.sha256))
    return Stored(project=dist.project, file=dist.filename, sha256=dist.sha256, size=dist.size, cid=cid, source=source)


def files_in(folder: Path) -> list[Path]:
    """Everything that a store in `folder` has put in its place."""
    return list(folder.glob("files/??/??/*"))


def whole(side: FileSide, dist: Dist) -> Reply | None:
    """The answer, None when it was cut."""
    try:
        return side.get(dist)
    except (http.client.IncompleteRead, ConnectionResetError):
        return None


def cut_off(side: FileSide, dist: Dist) -> bytes:
    """What came before the connection was cut; fails when the answer was complete."""
    with transfer(side.url(dist)) as answer:
        try:
            body = answer.read()
        except http.client.IncompleteRead as cut:
            return cut.partial
    pytest.fail(f"a complete answer of {len(body)} bytes")
