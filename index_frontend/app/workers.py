"""Several processes on one port: the kernel spreads connections over them, this one keeps them alive.

Every worker has its own oracle and change stream, so each refuses what the bot withdraws by itself; they share nothing but the
folder of files, whose locks make one fetch of an object enough for all. They are forked, from a process without threads and event
loop, so that they share the memory that the program itself takes.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from types import FrameType
from typing import Final

from prometheus_client import values
from prometheus_client.multiprocess import mark_process_dead

from index_frontend.app.process import TOKEN_HINT, serve
from index_frontend.app.serving import CannotListen
from index_frontend.config import ListenSettings, Settings
from matrix_pypi_bot.process.lifecycle import STOP_SECONDS, run_until_signal
from matrix_pypi_bot.process.secret_files import read_secret
from matrix_pypi_bot.wire.problems import Problem

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 30.0
SOUND_SECONDS: Final = 60.0  # one that lived this long is started again without a longer pause
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_METRICS_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"


def supervise(settings: Settings, workers: int) -> None:
    """Keep `workers` processes serving until SIGTERM or SIGINT, then stop them. Raises Problem when they could not begin."""
    read_secret(settings.oracle.token_file, hint=TOKEN_HINT)
    _refuse_taken_port(settings.listen)
    with _signals() as signalled, tempfile.TemporaryDirectory(prefix="matrix-pypi-metrics-") as folder:
        _count_in(folder)
        gc.freeze()  # the collector's marks would make each worker copy all that it shares
        slots = [_Slot(settings, signalled) for _ in range(workers)]
        try:
            while not signalled.poll():
                pauses = [slot.tend() for slot in slots]
                alive = [slot.process.sentinel for slot in slots if slot.process is not None]
                wait([signalled.reader, *alive], timeout=min(pauses))
        finally:
            _stop([slot.process for slot in slots if slot.process is not None])


class _Slot:
    """The place of one worker."""

    def __init__(self, settings: Settings, signalled: _Signalled) -> None:
        self.process: ForkProcess | None = None
        self._settings = settings
        self._signalled = signalled
        self._begun = self._due = time.monotonic()
        self._pause = FIRST_PAUSE_SECONDS

    def tend(self) -> float:
        """Start the worker when it is time. For how many seconds nothing is to be done, unless it dies."""
        if self.process is not None and not self.process.is_alive():
            self._bury(self.process)
        if self.process is None and time.monotonic() >= self._due:
            context = multiprocessing.get_context("fork")
            self.process = context.Process(target=_work, args=(self._settings, self._signalled))
            with _signals_wait():
                self.process.start()
            self._begun = time.monotonic()
        return LONGEST_PAUSE_SECONDS if self.process is not None else max(0.0, self._due - time.monotonic())

    def _bury(self, process: ForkProcess) -> None:
        mark_process_dead(process.pid)  # type: ignore[no-untyped-call]
        now = time.monotonic()
        if now - self._begun >= SOUND_SECONDS:
            self._pause = FIRST_PAUSE_SECONDS
        told = {"worker": process.pid, "exit_code": process.exitcode, "pause_seconds": self._pause}
        log.warning("worker died, another one follows", extra=told)
        self.process, self._due = None, now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)


class _Signalled:
    """Whether to stop. `reader` becomes readable then, so that nobody sleeps through it."""

    def __init__(self) -> None:
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._stopping = False

    def set(self, number: int, frame: FrameType | None) -> None:
        """A signal came."""
        self._stopping = True
        self._writer.send(b"!")

    def poll(self) -> bool:
        """Whether one came."""
        return self._stopping

    def close(self) -> None:
        """Nobody waits any more."""
        self.reader.close()
        self._writer.close()


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Signals that come while the block runs are delivered after it: to a child that was just forked, when it is ready for them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _count_in(folder: str) -> None:
    """Have the metrics of all workers written there, so that each can tell all. The library decides that when it is imported."""
    os.environ[_METRICS_FOLDER] = folder
    values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]


@contextmanager
def _signals() -> Iterator[_Signalled]:
    signalled = _Signalled()
    before = {number: signal.signal(number, signalled.set) for number in _SIGNALS}
    try:
        yield signalled
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signalled.close()


def _refuse_taken_port(listen: ListenSettings) -> None:
    """Raise CannotListen when others are on the port: with SO_REUSEPORT the workers would share it with them, unnoticed."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise CannotListen(listen.host, listen.port, error) from error


def _stop(processes: list[ForkProcess]) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            log.error("worker did not stop in time", extra={"worker": process.pid})
            process.kill()
            process.join()


def _work(settings: Settings, signalled: _Signalled) -> None:
    """The life of a worker."""
    signalled.close()  # the parent's
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    try:
        run_until_signal(partial(_serve_beside_parent, settings), prefer_uvloop=False)
    except Problem as problem:
        log.exception("worker cannot serve", extra={"hint": problem.hint})
        sys.exit(1)


async def _serve_beside_parent(settings: Settings) -> None:
    """Serve; stop when the parent is gone, killed perhaps: nobody else would ever stop this process."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    asyncio.get_running_loop().add_reader(parent.sentinel, _stop_myself)
    await serve(settings, shares_port=True)


def _stop_myself() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    asyncio.get_running_loop().remove_reader(parent.sentinel)
    log.warning("the supervising process is gone, stopping")
    os.kill(os.getpid(), signal.SIGTERM)
