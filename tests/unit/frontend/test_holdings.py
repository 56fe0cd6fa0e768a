"""What /metrics says about the storage backends."""

from __future__ import annotations

from contextlib import AsyncExitStack

from prometheus_client.parser import text_string_to_metric_families

from index_frontend.app.holdings import LOOK_SECONDS, Holdings
from index_frontend.handlers.operations import Metrics
from index_frontend.storage.api import Health, Unavailable, Usage
from index_frontend.storage.verified import Verified
from tests.support.backends import DictBackend, ReadOnlyBackend


class Counted(DictBackend):
    """With a limit and pins."""

    looks = 0

    async def usage(self) -> Usage:
        self.looks += 1
        return Usage(bytes=3, files=1, limit_bytes=10, pinned_files=0)


class Ill(DictBackend):
    """Degraded, and does not tell how much it holds."""

    async def health(self) -> Health:
        return Health(state="degraded")

    async def usage(self) -> Usage:
        raise Unavailable("busy", backend=self.name)


def told(metrics: Metrics) -> dict[tuple[str, str], float]:
    """Value by figure and backend."""
    text = metrics.written(stream_is_live=True).decode()
    return {
        (sample.name.removeprefix("matrix_pypi_frontend_storage_"), sample.labels["backend"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "backend" in sample.labels
    }


async def seven() -> int:
    """So many are not copied yet."""
    return 7


async def test_each_backend_is_told_as_far_as_it_is_known_and_not_asked_too_often() -> None:
    now = [0.0]
    counted = Counted()
    async with AsyncExitStack() as stack:
        backends = {"a": Verified(counted), "b": Verified(Ill()), "c": Verified(ReadOnlyBackend())}
        for backend in backends.values():
            await backend.open()
            stack.push_async_callback(backend.close)
        backends["d"] = Verified(DictBackend())  # never opened
        metrics = Metrics()
        holdings = Holdings(backends, metrics, {"b": seven}, clock=lambda: now[0])
        await holdings.look()
        await holdings.look()
        assert counted.looks == 1
        now[0] += LOOK_SECONDS
        await holdings.look()
        assert counted.looks == 2
        assert told(metrics) == {
            ("up", "a"): 1.0,
            ("bytes", "a"): 3.0,
            ("files", "a"): 1.0,
            ("pinned_files", "a"): 0.0,
            ("limit_bytes", "a"): 10.0,
            ("up", "b"): 0.5,
            ("uncopied_files", "b"): 7.0,
            ("up", "c"): 1.0,
            ("up", "d"): 0.0,
        }
