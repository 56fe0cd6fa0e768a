"""Where the bytes of one transfer go: hashed, kept and let out, in batches, while the next ones are being received."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextlib import aclosing, suppress
from typing import Final, get_args

from index_frontend.blocks import Kind
from index_frontend.digest_gate import Tally
from index_frontend.fill.transfer import MEMORY_BYTES, SMALL_BYTES, Transfer
from index_frontend.ports import (
    Held,
    Part,
    Source,
    SourceAway,
    SourceBody,
    SourceGone,
    SourceWrong,
    StorageProblem,
    Verified,
    Wanted,
    Writer,
)
from matrix_pypi_bot.wire.problems import Problem

BATCH_BYTES: Final = 1 << 20
INLINE_BYTES: Final = 65_536  # hashing so much takes less time than handing it to a thread
_BY_CID: Final = frozenset(get_args(Kind))
ALONE_SECONDS: Final = 0.1
"""What is in memory for longer than this is written to the store as it comes: clients of other processes can read it only there."""


class Incoming:
    """One transfer in the process that fetches it. A short body that comes at once is stored when it is verified, out of memory."""

    def __init__(self, wanted: Wanted, writer: Writer, hashing: Executor) -> None:
        self.transfer = Transfer("")
        self._tally = Tally(wanted.sha256, size=wanted.size, max_bytes=wanted.max_bytes)
        self._writer = writer
        self._hashing = hashing
        self._senders: dict[str, str | None] = {}
        self._memory: bytearray | None = None
        self._part: Part | None = None
        self._verified: Verified | None = None

    @property
    def count(self) -> int:
        """Bytes that came so far."""
        return self._tally.count

    @property
    def senders(self) -> str:
        """Whoever sent of them, e.g. `upstream`, or `peer and upstream` when one broke off and the other one went on."""
        return " and ".join(self._senders)

    @property
    def cid(self) -> str | None:
        """The CID by whose blocks, each of them right, all came; None when somebody sent bytes by another word."""
        cids = set(self._senders.values())
        return cids.pop() if len(cids) == 1 else None

    async def receive(self, source: Source, wanted: Wanted) -> None:
        """Takes what is missing yet from `source`. Raises what the source raises, DigestMismatch, StorageFull or StorageBroken."""
        async with source.fetch(wanted, self._tally.count) as body:
            self.transfer.source = body.sender
            if not self._tally.count:
                self._senders.clear()
            self._senders[body.sender] = wanted.cids[0] if body.sender in _BY_CID and wanted.cids else None
            if body.size is not None and self.transfer.total is None:
                await self._expect(body.size)
            if self._memory is not None:
                await self._into_memory(body, self._memory)
            else:
                await self._into_store(body)

    async def store(self) -> Held:
        """Lets the rest out, if the whole is right, and stores it.

        A process that dies right after must not have given away what it did not keep: what was only in memory is stored before its
        end goes out; a part that is on the disk already is taken over by the next process, so its readers need not wait.
        Raises DigestMismatch before anything more is let out; StorageFull or StorageBroken, and then `drop` lets the rest out.
        """
        verified = self._verified = self._tally.finish()
        if self._memory is None:
            self.transfer.succeed(verified.size)
            return await self._writer.commit(verified)
        self.transfer.grow(self._memory, 0)
        held = await self._commit(verified, self._memory)
        self.transfer.succeed(verified.size)
        return held

    def drop(self, problem: Problem) -> None:
        """Its readers get the rest if it is right, although it is not stored; else they are told. Idempotent.

        Not before nobody can join it any more: who has the whole of it may ask again, to have it stored.
        """
        if self._verified is not None:
            self.transfer.succeed(self._verified.size)
        self.transfer.fail(problem)
        self.transfer.end()

    async def _expect(self, total: int) -> None:
        self._tally.expect(total)
        self.transfer.expect(total)
        if total <= MEMORY_BYTES and not self._tally.count:
            self._memory = bytearray()
        else:
            await self._writer.expect(total)

    async def _into_memory(self, body: SourceBody, memory: bytearray) -> None:
        sharing = asyncio.create_task(self._share(memory))
        try:
            async with aclosing(body.chunks()) as chunks:
                async for chunk in chunks:
                    self._tally.update(chunk)
                    memory += chunk
                    self.transfer.grow(memory, self._tally.released)
        finally:
            sharing.cancel()
            await _ended(sharing)

    async def _share(self, memory: bytearray) -> None:
        """Writes what is there after `ALONE_SECONDS`, and then what comes, until cancelled."""
        total = self.transfer.total
        if total is None or total <= SMALL_BYTES:  # nobody gets a byte of it before its end
            return
        await asyncio.sleep(ALONE_SECONDS)
        try:
            await self._writer.expect(total)
            while True:
                seen = self.transfer.released
                await self._writer.write(bytes(memory[self._writer.size :]))
                await self.transfer.until(seen)
        except StorageProblem:  # our own readers need no store; whether it can be stored is seen when it is whole
            with suppress(StorageProblem):
                await self._writer.restart()

    async def _commit(self, verified: Verified, memory: bytearray) -> Held:
        if not self._writer.size:
            return await self._writer.commit(verified, memory)
        await self._writer.write(bytes(memory[self._writer.size :]))
        return await self._writer.commit(verified)

    async def _into_store(self, body: SourceBody) -> None:
        batches = _Batches(self._take)
        try:
            async with aclosing(body.chunks()) as chunks:
                async for chunk in chunks:
                    await batches.add(chunk)
        except (SourceGone, SourceAway, SourceWrong):
            await batches.flush()  # so that another source can go on where this one stopped
            raise
        else:
            await batches.flush()
        finally:
            await batches.settle()

    async def _take(self, batch: bytes) -> None:
        if len(batch) <= INLINE_BYTES:
            self._tally.update(batch)
            await self._writer.write(batch)
        else:
            hashed = asyncio.get_running_loop().run_in_executor(self._hashing, self._tally.update, batch)
            try:
                await self._writer.write(batch)
            finally:
                await asyncio.wait([hashed])
            hashed.result()
        if self._part is None:
            self._part = self._writer.part()
        self.transfer.grow(self._part, self._tally.released)


class _Batches:
    """Gathers chunks while `take` is busy with the batch before: many small chunks cost one step, and none waits for the next."""

    def __init__(self, take: Callable[[bytes], Awaitable[None]]) -> None:
        self._take = take
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._taking: asyncio.Task[None] | None = None

    async def add(self, chunk: bytes) -> None:
        """Takes a chunk, now or soon. Raises what `take` raised on an earlier one."""
        self._waiting.append(chunk)
        self._waiting_bytes += len(chunk)
        if self._taking is not None and (self._taking.done() or self._waiting_bytes >= BATCH_BYTES):
            await self._taking
            self._taking = None
        if self._taking is None:
            self._taking = asyncio.create_task(self._work_off())

    async def flush(self) -> None:
        """Everything has been taken when it returns."""
        if self._taking is not None:
            await self._taking
            self._taking = None
        await self._work_off()

    async def settle(self) -> None:
        """Nothing is being taken any more when it returns, whatever came of it."""
        if self._taking is not None:
            self._waiting.clear()
            await _ended(self._taking)
            if not self._taking.cancelled():
                self._taking.exception()

    async def _work_off(self) -> None:
        while self._waiting:
            batch = self._waiting[0] if len(self._waiting) == 1 else b"".join(self._waiting)
            self._waiting, self._waiting_bytes = [], 0
            await self._take(batch)


async def _ended(task: asyncio.Task[None]) -> None:
    """Returns when it has, also to a caller who is cancelled: nobody may throw a part away that is being written to."""
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
