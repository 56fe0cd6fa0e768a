"""What a node holds for us, told by the names of its pins."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from index_frontend.storage.api import ContentId, Stat
from matrix_pypi_bot.wire.cids import InvalidCid, parse_cid
from matrix_pypi_bot.wire.digests import Sha256

if TYPE_CHECKING:
    from index_frontend.storage.kubo.rpc import KuboRpc

RUN: Final = 10_000
"""How many files are kept in memory while listing; a node tells its pins in no order, and tells all of them for each run."""

_PIN_NAME: Final = re.compile(r"([0-9a-f]{64}) (0|[1-9][0-9]{0,14})(?: (.+))?", re.DOTALL)
_MAX_PIN_NAME_BYTES: Final = 255  # Kubo's


@dataclass(frozen=True, slots=True)
class Pin:
    """What the name of a pin of ours says: the file's sha256 and size, and the name it was pinned under, if it was."""

    sha256: Sha256
    size: int
    name: str | None


def pin_name(content: ContentId, name: str | None = None) -> str:
    """The name of a pin in the node, so that what it holds can be told by looking: `<sha256> <size>[ <name>]`.

    Everything kept is pinned in the node, or its garbage collection would take it; only with `name` it is pinned for us too.
    A name is cut where Kubo would refuse it.
    """
    whole = f"{content.sha256} {content.size}" + (f" {name}" if name else "")
    return whole.encode()[:_MAX_PIN_NAME_BYTES].decode(errors="ignore")


def read_pin(name: str) -> Pin | None:
    """A pin's name; None when it is none of ours."""
    match = _PIN_NAME.fullmatch(name)
    return None if match is None else Pin(Sha256(match[1]), int(match[2]), match[3])


def content_of(cid: str, pin: Pin) -> ContentId | None:
    """What a pin of ours holds; None when its CID is not one that we give."""
    try:
        return ContentId(sha256=pin.sha256, size=pin.size, cid=parse_cid(cid))
    except InvalidCid:
        return None


async def holdings(rpc: KuboRpc, after: str) -> AsyncGenerator[Stat, None]:
    """The files behind the sha256 `after`, in order."""
    while run := await _next_run(rpc, after):
        for stat in run:
            yield stat
        after = run[-1].content.sha256


async def _next_run(rpc: KuboRpc, after: str) -> list[Stat]:
    run: dict[Sha256, Stat] = {}
    async with aclosing(rpc.pins()) as pins:
        async for line in pins:
            pin = read_pin(line.name)
            content = None if pin is None or pin.sha256 <= after else content_of(line.cid, pin)
            if pin is not None and content is not None:
                run[content.sha256] = Stat(content=content, pin=pin.name)
            if len(run) == 2 * RUN:
                run = dict(sorted(run.items())[:RUN])
    return [stat for _, stat in sorted(run.items())[:RUN]]
