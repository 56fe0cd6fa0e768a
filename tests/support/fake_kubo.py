"""A Kubo node in a few hundred lines, for what a real one does not do when asked: it lies, breaks off, is silent, or says no.

async with FakeKubo() as kubo:
    kubo.fault("cat", truncated)
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from index_frontend.dag.blocks import read_node
from index_frontend.dag.car import BadCar, CarReader
from matrix_pypi_bot.wire.cids import RAW, Cid, CidBuilder, raw_cid, split_cid
from matrix_pypi_bot.wire.digests import sha256_of

TOKEN = "the token of the fake node"
LEAF_BYTES = 1 << 20

Fault = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]


class FakeKubo:
    """The node. `pins` maps CIDs to names, `blocks` CIDs to bytes; `seen` are the commands in order; all of it the test's to change."""

    def __init__(self) -> None:
        self.blocks: dict[str, bytes] = {}
        self.pins: dict[str, str] = {}
        self.seen: list[str] = []
        self.version = "0.43.0"
        self.pin_error = ""
        self.adds: str | None = None
        self.absent: set[str] = set()
        self._faults: dict[str, Fault] = {}
        self._runner: web.AppRunner | None = None
        self._released = asyncio.Event()
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_post("/api/v0/{command:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self.off()

    async def off(self) -> None:
        """Connections are refused from now on, and those that stand are cut."""
        self._released.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def fault(self, command: str, fault: Fault) -> None:
        """`command` (`*`: every one) is answered by `fault`, which is given the right body, until `mend`."""
        self._faults[command] = fault

    def mend(self) -> None:
        """It is an honest node again."""
        self._faults.clear()
        self.pin_error, self.adds, self.absent = "", None, set()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        command = request.match_info["command"]
        self.seen.append(command)
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.Response(status=403, text="403 - Forbidden")
        fault = self._faults.get(command) or self._faults.get("*")
        if command in self.absent:
            return web.Response(status=404, text="404 page not found")
        if fault is not None and getattr(fault, "reads_nothing", False):
            return await fault(request, b"")
        answer = getattr(self, "_do_" + command.replace("/", "_"))
        try:
            body = await answer(request)
        except _No as no:
            told = {"Message": str(no), "Code": 0, "Type": "error"}
            return web.json_response(told, status=500)
        return await (fault or well)(request, body)

    # The commands --------------------------------------------------------------------------------------------------------

    async def _do_version(self, _: web.Request) -> bytes:
        return _lines({"Version": self.version})

    async def _do_swarm_peers(self, _: web.Request) -> bytes:
        return _lines({"Peers": None})

    async def _do_repo_stat(self, _: web.Request) -> bytes:
        return _lines({"RepoSize": sum(map(len, self.blocks.values())), "StorageMax": 10_000_000_000})

    async def _do_repo_gc(self, _: web.Request) -> bytes:
        kept = {block for cid in self.pins for block in self._below(cid)}
        gone = [cid for cid in self.blocks if cid not in kept]
        for cid in gone:
            del self.blocks[cid]
        return _lines(*({"Key": {"/": cid}} for cid in gone))

    async def _do_pin_ls(self, request: web.Request) -> bytes:
        if "arg" not in request.query:
            return _lines(*({"Cid": cid, "Name": name, "Type": "recursive"} for cid, name in self.pins.items()))
        cid = request.query["arg"]
        if cid not in self.pins:
            raise _No(f"path '/ipfs/{cid}' is not pinned")
        return _lines({"Keys": {cid: {"Type": "recursive", "Name": self.pins[cid]}}})

    async def _do_pin_add(self, request: web.Request) -> bytes:
        cid = request.query["arg"]
        self._below(cid)
        self.pins[cid] = request.query.get("name", "")
        return b"\n" + _lines({"Progress": 1}, {"Pins": [cid]})

    async def _do_pin_rm(self, request: web.Request) -> bytes:
        cid = request.query["arg"]
        if self.pins.pop(cid, None) is None:
            raise _No("not pinned or pinned indirectly")
        return _lines({"Pins": [cid]})

    async def _do_block_get(self, request: web.Request) -> bytes:
        return self._block(request.query["arg"])

    async def _do_cat(self, request: web.Request) -> bytes:
        return self._file(request.query["arg"])

    async def _do_dag_import(self, request: web.Request) -> bytes:
        reader, taken = CarReader(max_bytes=1 << 30), {}
        try:
            async for chunk in await _uploaded(request):
                taken.update(reader.feed(chunk))
            reader.finish()
        except (BadCar, ValueError, OSError) as error:
            raise _No(f"import failed: {error}") from error
        self.blocks.update(taken)
        if request.query["pin-roots"] == "true" or self.pin_error:
            return _lines(
                *({"Root": {"Cid": {"/": root}, "PinErrorMsg": self.pin_error}} for root in reader.roots or ()),
                {"Stats": {"BlockCount": len(taken)}},
            )
        return b""

    async def _do_add(self, request: web.Request) -> bytes:
        leaves: list[bytes] = []
        nodes: dict[str, bytes] = {}
        builder = CidBuilder(on_block=lambda block: nodes.update({block.cid: block.data} if block.data else {}))
        data = b"".join([chunk async for chunk in await _uploaded(request)])
        builder.update(data)
        leaves = [data[start : start + LEAF_BYTES] for start in range(0, len(data), LEAF_BYTES)] or [b""]
        cid = builder.finish()
        self.blocks |= nodes | {raw_cid(sha256_of(leaf)): leaf for leaf in leaves}
        return _lines({"Name": "file", "Hash": self.adds or cid, "Size": str(len(data))})

    def _block(self, cid: str) -> bytes:
        if cid not in self.blocks:
            raise _No(f"block was not found locally (offline): ipld: could not find {cid}")
        return self.blocks[cid]

    def _file(self, cid: str) -> bytes:
        if split_cid(cid).codec == RAW:
            return self._block(cid)
        return b"".join(map(self._file, read_node(self._block(cid))[0]))

    def _below(self, cid: str) -> list[Cid]:
        block = self._block(cid)
        links = [] if split_cid(cid).codec == RAW else read_node(block)[0]
        return [Cid(cid), *(found for link in links for found in self._below(link))]


class _No(Exception):
    """What Kubo answers with status 500."""


async def _uploaded(request: web.Request) -> AsyncIterator[bytes]:
    part: Any = await (await request.multipart()).next()

    async def chunks() -> AsyncIterator[bytes]:
        while chunk := await part.read_chunk(LEAF_BYTES):
            yield chunk

    return chunks()


def _lines(*answers: object) -> bytes:
    return b"".join(json.dumps(answer).encode() + b"\n" for answer in answers)


# The faults --------------------------------------------------------------------------------------------------------------


async def well(request: web.Request, body: bytes) -> web.StreamResponse:
    """No fault."""
    return web.Response(body=body)


def says(status: int, body: bytes, **headers: str) -> Fault:
    """Something else altogether, e.g. the page of a proxy."""

    async def send(_: web.Request, __: bytes) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return send


async def truncated(request: web.Request, body: bytes) -> web.StreamResponse:
    """Half of it under a status 200, ended as if it were whole: what aiohttp's clients see of a trailer `X-Stream-Error`."""
    response = await _start(request)
    await response.write(body[: len(body) // 2])
    return response


async def too_long(request: web.Request, body: bytes) -> web.StreamResponse:
    """All of it, and more and more."""
    response = await _start(request)
    await response.write(body)
    for _ in range(64):
        await response.write(b" " * 65_536)
    return response


async def cut(request: web.Request, body: bytes) -> web.StreamResponse:
    """Half of it, and the connection is gone."""
    response = await _start(request)
    await response.write(body[: len(body) // 2])
    assert request.transport is not None
    request.transport.abort()
    return response


async def error_line(request: web.Request, body: bytes) -> web.StreamResponse:
    """An error as a line, under a status 200."""
    return web.Response(body=b"\n" + _lines({"Message": "the disk is on fire", "Code": 0, "Type": "error"}))


async def silent(request: web.Request, body: bytes) -> web.StreamResponse:
    """Nothing, until the client gives up."""
    await _until_gone(request)
    return web.Response()


async def silent_after_half(request: web.Request, body: bytes) -> web.StreamResponse:
    """Half of it, then nothing."""
    response = await _start(request)
    await response.write(body[: len(body) // 2])
    await _until_gone(request)
    return response


async def deaf(request: web.Request, body: bytes) -> web.StreamResponse:
    """Takes nothing of what is sent, and says nothing."""
    await _until_gone(request)
    return web.Response()


deaf.reads_nothing = True  # type: ignore[attr-defined]


async def _start(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    return response


async def _until_gone(request: web.Request) -> None:
    while request.transport is not None and not request.transport.is_closing():
        await asyncio.sleep(0.01)
