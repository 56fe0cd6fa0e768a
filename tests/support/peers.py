"""A peer on loopback that gives blocks, and gives them wrongly in whatever way a test wants.

with Peer(content) as peer:
    peer.answers("html")
    FileSide(..., peers={"evil": peer.url})
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from aiohttp import web

from matrix_pypi_bot.wire.cids import Block, CidBuilder

T = TypeVar("T")
RAW = "application/vnd.ipld.raw"
LIES = ("wrong", "wrong now and then", "truncated", "html as a block", "too long", "endless")
FAULTS = (*LIES, "cut", "silent", "html", "404", "403", "429", "redirect")


class Peer:
    """Use it as a context manager. `asked` are the CIDs that it was asked for."""

    def __init__(self, *contents: bytes) -> None:
        self.asked: list[str] = []
        self._blocks: dict[str, bytes] = {}
        self._root = ""
        self._fault = ""
        self._spares_roots = False
        self._random = random.Random(4)
        self._lied = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="peer", daemon=True)
        self._port = 0
        self._held: frozenset[str] = frozenset()
        self._gate = asyncio.Event()
        for content in contents:
            self._add(content)

    def __enter__(self) -> Self:
        self._thread.start()
        self._runner, self._port = self._run(self._serve())
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        """Its gateway."""
        return f"http://127.0.0.1:{self._port}"

    def answers(self, fault: str, *, spares_roots: bool = False) -> None:
        """With one of FAULTS from now on; roots as they are, if it is to be found out late."""
        assert fault in FAULTS
        self._fault, self._spares_roots = fault, spares_roots

    def hold(self, *cids: str) -> None:
        """Requests for these wait until `release`."""
        self._held = frozenset(cids)
        self._gate.clear()

    def release(self) -> None:
        """What was held is answered."""
        self._loop.call_soon_threadsafe(self._gate.set)

    def _add(self, content: bytes) -> None:
        made: list[Block] = []
        builder = CidBuilder(on_block=made.append)
        builder.update(content)
        self._root = builder.finish()
        for block in made:
            data = content[block.offset : block.offset + block.size] if block.data is None else block.data
            self._blocks[block.cid] = data

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _serve(self) -> tuple[web.ServerRunner, int]:
        runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner, site.port

    async def _end(self) -> None:
        await self._runner.cleanup()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}  # requests that are never answered
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        cid = request.rel_url.raw_path.removeprefix("/ipfs/")
        self.asked.append(cid)
        if cid in self._held:
            await self._gate.wait()
        data = self._blocks.get(cid)
        if data is None:
            return web.Response(status=404)
        if not self._fault or (self._spares_roots and cid == self._root):
            return web.Response(body=data, content_type=RAW)
        return await getattr(self, f"_{self._fault.replace(' ', '_')}")(request, data)

    # Faults ------------------------------------------------------------------------------------------------------------

    async def _wrong(self, request: web.BaseRequest, data: bytes) -> web.StreamResponse:
        at = self._random.randrange(len(data))
        return web.Response(body=data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :], content_type=RAW)

    async def _wrong_now_and_then(self, request: web.BaseRequest, data: bytes) -> web.StreamResponse:
        self._lied = not self._lied
        if self._lied:
            return web.Response(body=data, content_type=RAW)
        return await self._wrong(request, data)

    async def _truncated(self, request: web.BaseRequest, data: bytes) -> web.StreamResponse:
        return web.Response(body=data[:-1], content_type=RAW)

    async def _cut(self, request: web.BaseRequest, data: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": RAW, "Content-Length": str(len(data))})
        await response.prepare(request)
        await response.write(data[: len(data) // 2])
        assert request.transport is not None
        request.transport.abort()
        return response

    async def _silent(self, request: web.BaseRequest, data: bytes) -> web.StreamResponse:
        await asyncio.sleep(3_600)
        raise AssertionError("unreachable")

    async def _html(self, request: web.BaseRequest, data: bytes) -> web.StreamResponse:
        return web.Response(text="<html>Welcome to the hotel's network</html>", content_type="text/html")

    async def _html_as_a_block(self, request: web.BaseRequest, data: bytes) -> web.StreamResponse:
        return web.Response(body=b"<html>502</html>", content_type=RAW)

    async def _too_long(self, request: web.BaseRequest, data: bytes) -> web.StreamResponse:
        return web.Response(body=data + bytes(4 << 20), content_type=RAW)

    async def _endless(self, request: web.BaseRequest, data: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": RAW})
        await response.prepare(request)
        while request.transport is not None and not request.transport.is_closing():
            await response.write(data * 100)
        return response

    async def _404(self, request: web.BaseRequest, data: bytes) -> web.StreamResponse:
        return web.Response(status=404)

    async def _403(self, request: web.BaseRequest, data: bytes) -> web.StreamResponse:
        return web.Response(status=403)

    async def _429(self, request: web.BaseRequest, data: bytes) -> web.StreamResponse:
        return web.Response(status=429, headers={"Retry-After": "1"})

    async def _redirect(self, request: web.BaseRequest, data: bytes) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": "http://127.0.0.1:1/ipfs/secret"})
