"""All fetches of this process: one an object, joined by whoever wants it, ended by nobody who leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, suppress
from typing import Final, NamedTuple

from index_frontend.digest_gate import DigestMismatch
from index_frontend.fill.flight import Flight
from index_frontend.fill.reporter import Reporter
from index_frontend.fill.through import Through, through
from index_frontend.fill.transfer import Transfer
from index_frontend.ports import ContentStore, Held, Oracle, Source, StorageProblem, Wanted
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.messages import Observed
from matrix_pypi_bot.wire.problems import Problem

log = logging.getLogger(__name__)

HASHING_THREADS: Final = 2


class Asker(NamedTuple):
    """What a client asked for by name: the bot is told that it was stored. Metadata has no asker: it is never attested, only noted."""

    project: str
    file: str


class Fills:
    """Close it when done; `sources` are tried in their order."""

    def __init__(self, store: ContentStore, sources: Sequence[Source], oracle: Oracle, reporter: Reporter) -> None:
        self._store = store
        self._sources = tuple(sources)
        self._oracle = oracle
        self._reporter = reporter
        self._hashing = ThreadPoolExecutor(HASHING_THREADS, "hashing")
        self._flights: dict[Sha256, tuple[Flight, set[Asker]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def join(self, wanted: Wanted, asker: Asker | None) -> Flight:
        """The fetch of the object, begun now if there is none yet."""
        if wanted.sha256 not in self._flights:
            flight = Flight(wanted, self._store, self._sources, self._hashing, self._on_wrong)
            self._flights[wanted.sha256] = (flight, set())
            self._spawn(self._fly(flight))
        flight, askers = self._flights[wanted.sha256]
        if asker is not None:
            askers.add(asker)
        return flight

    def given(self, wanted: Wanted, held: Held) -> None:
        """A client was given the stored object. The fetch that has stored it may be ending still: then it knows whence it came."""
        flight, _ = self._flights.get(wanted.sha256, (None, ()))
        self._reporter.asked(wanted.project, wanted.name, held, "cache" if flight is None else flight.source)

    def through(self, wanted: Wanted, given: Transfer | None = None) -> AbstractAsyncContextManager[Through]:
        """A transfer past the store, for one client; see `fill.through`."""
        return through(self._sources, wanted, given)

    async def close(self) -> None:
        """Stops every fetch; what was not finished is thrown away."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._hashing.shutdown()

    async def _fly(self, flight: Flight) -> None:
        outcome: Held | Problem | None = None
        try:
            await self._note_wanted(flight)
            outcome = await flight.run()
        except Exception:
            log.exception("fetch failed", extra={"file": flight.wanted.name})
        finally:
            # Before any reader is told how it ended: who asks again because of it must not join what has ended.
            _, askers = self._flights.pop(flight.wanted.sha256)
            flight.end(outcome)
        if isinstance(outcome, Held):
            for asker in askers:
                self._reporter.asked(asker.project, asker.file, outcome, flight.source)
            if flight.wanted.is_metadata:
                self._reporter.asked(flight.wanted.project, flight.wanted.name, outcome, flight.source)
            return
        if outcome is not None:
            log.warning("file is not stored", extra={"file": flight.wanted.name, "cause": outcome.detail})
        for asker in askers:
            with suppress(StorageProblem):  # a note too many costs a look at the store now and then
                await self._store.forget_wanted(asker.project, asker.file, flight.wanted.sha256)

    async def _note_wanted(self, flight: Flight) -> None:
        """Before any byte is let out: a process that dies right after its answer must not take the report with it."""
        _, askers = self._flights[flight.wanted.sha256]
        try:
            for asker in tuple(askers):
                await self._store.note_wanted(asker.project, asker.file, flight.wanted.sha256)
        except StorageProblem as problem:
            log.warning("fetch is not noted", extra={"file": flight.wanted.name, "cause": problem.detail})

    async def _on_wrong(self, wanted: Wanted, mismatch: DigestMismatch, source: str, cid: str | None) -> None:
        """Remembered before any reader is told: his next request may be to resume what was wrong."""
        log.error(
            "wrong bytes",
            extra={
                "file": wanted.name,
                "expected": wanted.sha256,
                "cause": mismatch.detail,
                "source": source,
                "cid": cid,
            },
        )
        await self._store.note_wrong(wanted.sha256)
        observed = Observed(
            project=wanted.project,
            file=wanted.name,
            expected_sha256=wanted.sha256,
            sha256=mismatch.actual,
            size=mismatch.size,
            source=source,
            reason=mismatch.detail,
            kind="bytes" if cid is None else "cid-content",
            cid=cid,
        )
        self._spawn(self._oracle.report_observed(observed))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
