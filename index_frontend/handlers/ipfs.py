"""`/ipfs/<cid>`: the trustless gateway. Single blocks, and CARs, of files that are here, attested, and not refused.

Who asks can check every byte by himself, so nothing is rendered and nobody is trusted. Nothing is fetched for him either. Every answer
asks first how the files stand in which the block lies; a CAR asks again between its blocks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from aiohttp import web
from cachetools import LRUCache

from index_frontend.dag.blocks import PROBE_CID, is_leaf, read_node
from index_frontend.dag.car import car_header, car_section_bytes, car_section_head
from index_frontend.dag.scope import within
from index_frontend.handlers.index import matches
from index_frontend.handlers.ipfs_request import RAW_TYPE, CarAsk, GatewayAsk, read_ask
from index_frontend.handlers.middleware import SERVER, problem_response
from index_frontend.handlers.send import PROGRESS_SECONDS, YEAR_SECONDS, refusal, send_file, send_pieces, send_span
from index_frontend.handlers.words import Withdrawn
from index_frontend.ports import BlockPlace, BlockStore, Damaged, Oracle
from index_frontend.serve_plan import Deny, Later, judge
from matrix_pypi_bot.wire.cids import Cid, parse_cid
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName, ProjectName
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

MAX_AT_ONCE: Final = 64
"""Answers under way in this process; who comes beyond is told to come back. Each holds a few blocks at most."""

CARS_OF_THEM: Final = 4
"""One in so many may be a CAR, whose client may take it slowly: single blocks are what mirrors live on."""

BLOCK_SECONDS: Final = 30.0
"""A client takes a block in this time, or loses his place."""

RETRY_AFTER_SECONDS: Final = 1
_MAX_ASKERS: Final = 32  # under so many names the same bytes are looked for one that may be served
_MAX_NODES: Final = 4_096  # of 1,024 links each: four terabytes
_REMEMBERED: Final = 2_000  # files, and a name of each that was servable
_READ_NODES: Final = 32  # at most 5 MB; a mirror asks for a file part by part, and a full node takes 15 ms to read
_INLINE_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class _Allowed:
    """That the block at `place` may leave: it is in a file that may, as `project` and `file` name it, or is its METADATA."""

    place: BlockPlace
    project: ProjectName
    file: FileName
    metadata: bool = False


@dataclass(frozen=True, slots=True)
class _Section:
    """A block of a CAR, and how many bytes it has."""

    cid: Cid
    size: int


@dataclass(frozen=True, slots=True)
class _Node:
    """A node's bytes, and what they say: its children, and how many bytes of the file lie below each."""

    data: bytes
    cids: list[Cid]
    sizes: list[int]


class GatewayHandler:
    """Answers GET and HEAD for blocks and CARs."""

    def __init__(self, oracle: Oracle, store: BlockStore, *, max_at_once: int = MAX_AT_ONCE) -> None:
        self._oracle = oracle
        self._store = store
        self._free = max_at_once
        self._free_cars = max(1, max_at_once // CARS_OF_THEM)
        self._servable: LRUCache[Sha256, _Allowed] = LRUCache(_REMEMBERED)
        self._nodes: LRUCache[Cid, _Node] = LRUCache(_READ_NODES)

    async def handle(self, request: web.BaseRequest, rest: str, query: str) -> web.StreamResponse:
        """The answer to `/ipfs/<rest>?<query>`. Raises Problem: 400, 404, 406, and what the oracle raises."""
        if "script" in request.headers.getall("Service-Worker", ()):
            raise Problem("matrix-pypi: no scripts from here", code=ProblemCode.BAD_REQUEST)
        text, _, path = rest.partition("/")
        cid = PROBE_CID if text == PROBE_CID else parse_cid(text)
        if path:
            raise Problem(f"matrix-pypi: {cid} is a file, and has nothing below it", code=ProblemCode.NOT_FOUND)
        ask = read_ask(request, query)
        if self._free <= 0 or (ask.car is not None and self._free_cars <= 0):
            told = "matrix-pypi: too many blocks are being sent, try again"
            return problem_response(ProblemCode.TOO_MANY, told, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
        with self._one_of_few(ask):
            return self._probed(ask) if cid == PROBE_CID else await self._answer(request, cid, ask)

    @contextmanager
    def _one_of_few(self, ask: GatewayAsk) -> Iterator[None]:
        cars = int(ask.car is not None)
        self._free -= 1
        self._free_cars -= cars
        try:
            yield
        finally:
            self._free += 1
            self._free_cars += cars

    async def _answer(self, request: web.BaseRequest, cid: Cid, ask: GatewayAsk) -> web.StreamResponse:
        allowed = await self._allowed(cid)
        if allowed is None:
            told = f"matrix-pypi: {cid} is not held here"
            raise Problem(told, code=ProblemCode.NOT_HELD if ask.only_if_cached else ProblemCode.NOT_FOUND)
        if isinstance(allowed, Later):
            return refusal(allowed)
        if isinstance(allowed, Deny):
            return problem_response(  # 410: the specification's word for what a gateway has and refuses
                ProblemCode.REFUSED, allowed.reason, status=410, headers={"X-Matrix-PyPI-Rule": allowed.rule}
            )
        headers = _headers(cid, ask)
        if matches(request.headers.get("If-None-Match"), headers["ETag"]) is not None:
            del headers["Content-Type"]
            return web.Response(status=304, headers=headers)
        try:
            if ask.car is None:
                return await self._block(request, allowed, headers)
            return await self._car(request, allowed, ask.car, headers)
        except Damaged as damage:
            if request.writer.output_size > 0:
                raise
            raise Problem(f"matrix-pypi: {cid} is not held here any more", code=ProblemCode.NOT_FOUND) from damage

    def _probed(self, ask: GatewayAsk) -> web.Response:
        """The identity block of nothing, by which clients find out what this is."""
        body = b"" if ask.car is None else car_header(PROBE_CID)
        return web.Response(headers=_headers(PROBE_CID, ask), body=body)

    # One block ---------------------------------------------------------------------------------------------------------

    async def _block(self, request: web.BaseRequest, allowed: _Allowed, headers: dict[str, str]) -> web.StreamResponse:
        headers["Content-Length"] = str(allowed.place.size)
        if request.method == "HEAD":
            return web.Response(headers=headers)
        place = allowed.place
        response = web.StreamResponse(headers=headers)
        file = await self._store.open_leaf(place) if place.size > _INLINE_BYTES else None
        if file is not None and place.offset is not None:
            with file:
                async with asyncio.timeout(BLOCK_SECONDS):
                    await send_file(request, response, file, (place.offset, place.offset + place.size), _once)
            return response
        data = await self._store.read_block(place)
        if len(data) <= _INLINE_BYTES:
            return web.Response(headers=headers, body=data)

        async def whole() -> AsyncGenerator[bytes, None]:
            yield data

        async with asyncio.timeout(BLOCK_SECONDS):
            await send_pieces(request, response, whole())
            await response.write_eof()
        return response

    # A CAR -------------------------------------------------------------------------------------------------------------

    async def _car(
        self, request: web.BaseRequest, allowed: _Allowed, car: CarAsk, headers: dict[str, str]
    ) -> web.StreamResponse:
        root = allowed.place.cid
        sections = await self._sections(root, car)
        await self._look(sections)
        header = car_header(root)
        length = len(header) + sum(car_section_bytes(section.size) for section in sections)
        headers["Content-Length"] = str(length)
        if request.method == "HEAD":
            return web.Response(headers=headers)
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        for section in sections:
            await self._section(
                request, response, allowed, header + car_section_head(section.cid, section.size), section
            )
            header = b""
        await response.write_eof()
        return response

    async def _sections(self, root: Cid, car: CarAsk) -> list[_Section]:
        """The blocks of a CAR, depth first. Only nodes are read for it. Raises BadScope, Damaged."""
        size = (await self._place(root)).size if is_leaf(root) else sum((await self._node(root)).sizes)
        span = (0, size) if car.span is None else car.span.span(size)
        sections: list[_Section] = []
        seen: set[Cid] = set()
        nodes = 0
        below: list[tuple[Cid, int, int]] = [(root, size, 0)]
        while below:
            cid, size, offset = below.pop()
            if not is_leaf(cid):
                nodes += 1
                if nodes > _MAX_NODES:
                    raise Damaged(f"{root} has more nodes than a file can have")
                if car.scope != "block":
                    node = await self._node(cid)
                    below.extend(reversed(list(within(node.cids, node.sizes, offset, span))))
            if car.dups or cid not in seen:
                sections.append(_Section(cid, (await self._place(cid)).size))
            seen.add(cid)
        return sections

    async def _look(self, sections: list[_Section]) -> None:
        """Raises Damaged when the file is gone, which its nodes, remembered here, do not tell; later there is no 404 any more."""
        leaf = next((section.cid for section in sections if is_leaf(section.cid)), None)
        file = None if leaf is None else await self._store.open_leaf(await self._place(leaf))
        if file is not None:
            file.close()

    async def _section(
        self, request: web.BaseRequest, response: web.StreamResponse, allowed: _Allowed, head: bytes, section: _Section
    ) -> None:
        """`head` and the block, only if the file is not withdrawn. Raises Withdrawn, Damaged."""
        place = await self._place(section.cid)
        file = await self._store.open_leaf(place) if place.size > _INLINE_BYTES else None
        if file is not None and place.offset is not None and place.size == section.size:
            with file:
                await self._still(allowed)
                async with asyncio.timeout(PROGRESS_SECONDS):
                    await response.write(head)
                    await send_span(request, response, file, (place.offset, place.offset + place.size), _once)
            return
        data = await self._store.read_block(place) if is_leaf(section.cid) else (await self._node(section.cid)).data
        if len(data) != section.size:
            raise Damaged(f"the block {section.cid} has {len(data)} bytes, not {section.size}")
        await self._still(allowed)
        async with asyncio.timeout(PROGRESS_SECONDS):
            await response.write(head + data)

    async def _node(self, cid: Cid) -> _Node:
        known = self._nodes.get(cid)
        if known is None:
            data = await self._store.read_block(await self._place(cid))
            known = self._nodes[cid] = _Node(data, *await asyncio.to_thread(read_node, data))
        return known

    async def _place(self, cid: Cid) -> BlockPlace:
        places = await self._store.places_of(cid)
        if not places:
            raise Damaged(f"the block {cid} is gone")
        return places[0]

    # May it leave? -----------------------------------------------------------------------------------------------------

    async def _allowed(self, cid: Cid) -> _Allowed | Deny | Later | None:
        """A place of the block in a file that may be served; else why not; None when no file that was ever attested has it."""
        word: Deny | Later | None = None
        asked = 0
        for place in await self._store.places_of(cid):
            known = self._servable.get(place.sha256)  # whole files are asked for leaf by leaf
            if known is not None and await self._word(replace(known, place=place), place.sha256) is None:
                return replace(known, place=place)
            for project, file, metadata in await self._names_of(place.sha256):
                allowed = _Allowed(place, ProjectName(project), FileName(file), metadata)
                said = await self._word(allowed, place.sha256)
                if said is None:
                    self._servable[place.sha256] = allowed
                    return allowed
                word = said if word is None or isinstance(said, Later) else word
                asked += 1
                if asked >= _MAX_ASKERS:
                    return word
        return word

    async def _names_of(self, sha256: Sha256) -> list[tuple[str, str, bool]]:
        """(project, file, whether the bytes are its METADATA) of what clients were given and the bot was told of."""
        files = await self._store.askers_of(sha256)
        wheels = await self._store.metadata_of(sha256)
        return [*((*file, False) for file in files), *((*wheel, True) for wheel in wheels)]

    async def _word(self, allowed: _Allowed, sha256: Sha256) -> Deny | Later | None:
        """Why the file may not be served as these bytes; None when it may."""
        try:
            decision = await self._oracle.standing_of(allowed.project, allowed.file)
        except Problem as problem:
            if problem.code is ProblemCode.NOT_FOUND:
                return Deny(status=404, rule="", reason=problem.detail)
            return Later(rule="", reason=problem.detail)
        word = judge(decision, metadata=allowed.metadata, max_file_bytes=0)
        if isinstance(word, Deny | Later):
            return word
        if word.sha256 != sha256:
            return Deny(status=403, rule=word.rule, reason=f"matrix-pypi: {word.name}: another digest is served now")
        return None

    async def _still(self, allowed: _Allowed) -> None:
        """Raises Withdrawn when the file is refused by now; what cannot be asked now was decided when the answer was begun."""
        word = await self._word(allowed, allowed.place.sha256)
        if isinstance(word, Deny):
            raise Withdrawn(word)


async def _once() -> None:
    """A block is one piece: it was asked before whether it may leave."""


def _headers(cid: Cid, ask: GatewayAsk) -> dict[str, str]:
    car, query = ask.car, "format=raw" if ask.car is None else ask.car.query
    variant = "raw" if car is None else f"car.{car.scope}.{car.span or 'all'}.{'y' if car.dups else 'n'}"
    headers = {
        "Content-Type": RAW_TYPE if car is None else car.content_type,
        "Content-Disposition": f'attachment; filename="{cid}.{"bin" if car is None else "car"}"',
        "ETag": f'"{cid}.{variant}"',
        "Cache-Control": f"private, max-age={YEAR_SECONDS}, immutable",  # a shared cache would outlive a refusal
        "Vary": "Accept",
        "Accept-Ranges": "none",
        "X-Content-Type-Options": "nosniff",
        "X-Ipfs-Path": f"/ipfs/{cid}",
        "X-Ipfs-Roots": cid,
        "Server": SERVER,
    }
    if not ask.is_spelled_out:
        headers["Content-Location"] = f"/ipfs/{cid}?{query}"
    return headers
