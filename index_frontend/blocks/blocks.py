"""All neighbours of this process as one `ports.Source`; parts of files before the whole is here; single blocks to mend a store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from msgspec import structs

from index_frontend.blocks.file import BlockFile, NotTheFile, open_file
from index_frontend.blocks.gateways import Gateways
from index_frontend.blocks.getter import Getter
from index_frontend.blocks.neighbour import Neighbour, usable
from index_frontend.dag.blocks import LEAF_BYTES, BadBlock, is_leaf, root_of
from index_frontend.ports import SourceAway, SourceGone, SourceWrong, Wanted
from index_frontend.storage.api import WrongContent
from matrix_pypi_bot.wire.cids import Cid, InvalidCid, parse_cid, raw_cid
from matrix_pypi_bot.wire.messages import Observed

REPORT_SECONDS: Final = 1.0
_MAX_CIDS: Final = 3  # different ones for one digest: all but one are wrong

Report = Callable[[Observed], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class BlockBody:
    """A `ports.SourceBody`."""

    file: BlockFile
    start: int
    on_other: Callable[[NotTheFile], Awaitable[None]]

    @property
    def size(self) -> int:
        """As the graph tells it."""
        return self.file.size

    @property
    def sender(self) -> str:
        """`peer` or `kubo`."""
        return self.file.sender

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Leaf by leaf."""
        try:
            async with aclosing(self.file.chunks(self.start)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except NotTheFile as problem:
            await self.on_other(problem)
            raise


class Blocks:
    """A `ports.Source` over the neighbours, and over the `gateways` that a file names. `report` is told of wrong blocks."""

    name = "peer"

    def __init__(self, neighbours: Sequence[Neighbour], report: Report, gateways: Gateways | None = None) -> None:
        self._neighbours = tuple(neighbours)
        self._gateways = gateways
        self._report = report

    def ways(self, wanted: Wanted) -> tuple[Wanted, ...]:
        """One for each CID that the file may have, while somebody can be asked."""
        if not usable(self._neighbours) and (self._gateways is None or not self._gateways.can_be_asked(wanted)):
            return ()
        return tuple(replace(wanted, cids=(cid,), urls=()) for cid in cids_of(wanted))

    @asynccontextmanager
    async def fetch(self, wanted: Wanted, start: int = 0) -> AsyncIterator[BlockBody]:
        """The body from `start` on, by the first CID of `wanted`. Open when its root is here."""
        yield BlockBody(await self.open(wanted), start, partial(self._other, wanted))

    async def open(self, wanted: Wanted) -> BlockFile:
        """The file by the first CID of one of `ways`. Raises SourceGone, SourceAway, SourceWrong."""
        named = () if self._gateways is None else await self._gateways.named(wanted)
        getter = Getter((*self._neighbours, *named), partial(self._wrong, wanted))
        try:
            return await open_file(getter, parse_cid(wanted.cids[0]), wanted.size, wanted.max_bytes)
        except NotTheFile as problem:
            await self._other(wanted, problem)
            raise

    def asks_for_whereabouts(self, wanted: Wanted) -> bool:
        """Whether the bot must be asked who may have the file, or under which CID: pages tell neither."""
        if wanted.has_peers and self._gateways is not None:
            return not wanted.peers
        return bool(self._neighbours) and needs_cid(wanted)

    async def open_any(self, wanted: Wanted) -> BlockFile | None:
        """The file by whichever CID leads to it; None when none does now."""
        for way in self.ways(wanted):
            with suppress(SourceGone, SourceAway, SourceWrong):
                return await self.open(way)
        return None

    async def repair(self, cid: Cid) -> bytes | None:
        """One block, right; None when nobody has it."""
        held = () if self._gateways is None else self._gateways.held
        getter = Getter((*self._neighbours, *held), _unreported)
        try:
            return (await getter.get(cid))[0]
        except (SourceGone, SourceAway):
            return None

    async def _wrong(self, wanted: Wanted, name: str, problem: WrongContent) -> None:
        await self._tell(_observed(wanted, f"peer {name}", problem.detail))

    async def _other(self, wanted: Wanted, problem: NotTheFile) -> None:
        """The blocks are right and the file is not: that is nobody's fault who sent them."""
        told = _observed(wanted, self.name, problem.detail)
        await self._tell(structs.replace(told, kind="cid-content", cid=wanted.cids[0], size=problem.size))

    async def _tell(self, observed: Observed) -> None:
        # The block is still to be had from another neighbour: a silent bot must not keep that waiting.
        with suppress(TimeoutError):
            async with asyncio.timeout(REPORT_SECONDS):
                await self._report(observed)


def cids_of(wanted: Wanted) -> tuple[Cid, ...]:
    """The CIDs that the object may have: of a file of one leaf its sha256 tells it, of others those that were attested.

    A file whose size nobody told and whose CID nobody attested may be a short one.
    """
    own = raw_cid(wanted.sha256)
    if wanted.is_metadata:
        return (own,)
    if wanted.size is not None and wanted.size <= LEAF_BYTES:
        return (own,)
    told = tuple(cid for text in wanted.cids[:_MAX_CIDS] if (cid := _fitting(text, own, wanted.size)) is not None)
    return told if told or wanted.size is not None else (own,)


def needs_cid(wanted: Wanted) -> bool:
    """Whether the CIDs must be asked for: nobody told any, and the digest alone does not tell it."""
    return not wanted.cids and (wanted.is_metadata or wanted.size is None or wanted.size > LEAF_BYTES)


def is_right_by_block(wanted: Wanted) -> bool:
    """Whether the file's blocks are known to be the file's before the whole is hashed: its digest tells its CID, or we attested it.

    Another's word on the CID of a digest may be wrong, and only the sha256 of the whole finds that out.
    """
    return wanted.cids_are_ours or cids_of(wanted) == (raw_cid(wanted.sha256),)


def _fitting(text: str, own: Cid, size: int | None) -> Cid | None:
    """`text` as a CID that a file with the leaf CID `own` and `size` bytes can have."""
    try:
        cid = parse_cid(text)
        if size is not None:
            root_of(cid, size)
    except (InvalidCid, BadBlock):
        return None
    return None if is_leaf(cid) and cid != own else cid


def _observed(wanted: Wanted, source: str, reason: str) -> Observed:
    return Observed(
        project=wanted.project,
        file=wanted.name,
        expected_sha256=wanted.sha256,
        sha256=None,
        size=0,
        source=source,
        reason=reason,
    )


async def _unreported(name: str, problem: WrongContent) -> None:
    """It is in the log."""
