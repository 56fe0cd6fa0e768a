"""What operators and their programs ask: is it alive, is it ready, how much does it do. None of it touches upstream."""

from __future__ import annotations

import asyncio
import os
from collections import Counter as TallyCounter
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from index_frontend.handlers.middleware import SERVER
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

_METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_TOLD_WITHIN_SECONDS: Final = 1.0
_MULTIPROCESS: Final = "PROMETHEUS_MULTIPROC_DIR"
_STORAGE: Final = {
    "up": "1 when the backend is well, 0.5 when it is degraded, 0 when it is down",
    "bytes": "What the backend holds",
    "files": "How many files it holds, where it counts them",
    "pinned_files": "How many of them are pinned, where it counts them",
    "uncopied_files": "How many files that clients were given are not copied there yet, where copies are kept",
    "limit_bytes": "How much it may hold, where it has a limit of its own",
}
STORAGE_FIGURES: Final = frozenset(_STORAGE)


class NotReady(Problem):
    """Something that must be there before clients are."""

    code = ProblemCode.ORACLE_AWAY


class Metrics:
    """Counters with few and fixed labels: no project, file or client is ever a label."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "matrix_pypi_frontend_requests",
            "Answers, by route, status and where they came from (HIT, MISS, STALE of pages; cache, upstream, peer, kubo of files)",
            ("route", "status", "cache"),
            registry=self.registry,
        )
        self._stream = Gauge(
            "matrix_pypi_frontend_change_stream_live",
            "1 while the bot's change stream vouches for what is held",
            registry=self.registry,
            multiprocess_mode="livemin",
        )
        self._storage = {
            figure: Gauge(
                f"matrix_pypi_frontend_storage_{figure}",
                text,
                ("backend",),
                registry=self.registry,
                multiprocess_mode="mostrecent",
            )
            for figure, text in _STORAGE.items()
        }
        self._pending: TallyCounter[tuple[str, int, str]] = TallyCounter()
        self._due: asyncio.TimerHandle | None = None

    def answered(self, route: str, status: int, cache: str) -> None:
        """Count an answer. It is told to Prometheus within a second: its counters take a lock each time."""
        self._pending[route, status, cache] += 1
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(_TOLD_WITHIN_SECONDS, self._tell)

    def holds(self, backend: str, figures: Mapping[str, float]) -> None:
        """What a backend of the configuration holds and how it is; keys are those of STORAGE_FIGURES."""
        for figure, value in figures.items():
            self._storage[figure].labels(backend).set(value)

    def _tell(self) -> None:
        self._due = None
        for (route, status, cache), count in self._pending.items():
            self._requests.labels(route, str(status), cache).inc(count)
        self._pending.clear()

    def written(self, *, stream_is_live: bool) -> bytes:
        """All of them in Prometheus' text format; of all workers, when there are several."""
        self._tell()
        self._stream.set(int(stream_is_live))
        if _MULTIPROCESS not in os.environ:
            return generate_latest(self.registry)
        everybody = CollectorRegistry()
        MultiProcessCollector(everybody)  # type: ignore[no-untyped-call]
        return generate_latest(everybody)


class Operations:
    """`/healthz`, `/readyz`, `/metrics`. `missing()` names what is not there now, None when all is; `look()` looks at the storage."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        missing: Callable[[], Awaitable[str | None]],
        stream_is_live: Callable[[], bool],
        look: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._metrics = metrics
        self._look = look
        self._missing = missing
        self._stream_is_live = stream_is_live

    async def handle(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        """The answer for `healthz`, `readyz` or `metrics`. Raises NotReady."""
        if name == "metrics":
            if self._look is not None:
                await self._look()
            body = self._metrics.written(stream_is_live=self._stream_is_live())
            return _text(body, _METRICS_TYPE)
        if name == "readyz" and (missing := await self._missing()) is not None:
            raise NotReady(f"matrix-pypi: not ready: {missing}")
        return _text(b"ok\n", "text/plain; charset=utf-8")


def _text(body: bytes, content_type: str) -> web.Response:
    headers = {"Content-Type": content_type, "Cache-Control": "no-store", "Server": SERVER}
    return web.Response(body=body, headers=headers)
