"""The frontend as a process, beside a bot that says what the test says: start, several workers, death, stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from index_frontend.pages.negotiate import JSON
from matrix_pypi_bot.process.outbound import origin_of
from matrix_pypi_bot.wire.messages import Change
from tests.support.bot_pages import file_entry
from tests.support.bot_server import TOKEN, serving
from tests.support.dists import wheel
from tests.support.file_side import serve_decision
from tests.support.http_client import Reply, ask
from tests.support.scripted_bot import ScriptedBot
from tests.support.upstream import Upstream

ENTRY = file_entry("mxa-1.0-py3-none-any.whl")


class Beating(ScriptedBot):
    """Says hello to everybody who follows its changes, then keeps silent."""

    async def changes(self, after: int | None) -> AsyncIterator[Change]:
        """See BotLink."""
        yield Change(seq=1, heartbeat=True)
        await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class Running:
    """A frontend's process."""

    process: asyncio.subprocess.Process
    port: int
    log: Path

    async def get(self, path: str, **headers: str) -> Reply:
        """The answer to one request."""
        return await asyncio.to_thread(ask, f"http://127.0.0.1:{self.port}{path}", "GET", **headers)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Returns when `condition()` holds."""
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.02)

    def workers(self) -> set[int]:
        """The processes that serve."""
        found = set()
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                if int(parent) == self.process.pid:
                    found.add(int(entry.name))
            except (OSError, IndexError):
                continue
        return found


@asynccontextmanager
async def frontend(
    folder: Path, *, workers: int, taken_port: int | None = None, bot: ScriptedBot | None = None
) -> AsyncIterator[Running]:
    """A frontend that is ready, or has ended because its port is taken."""
    if bot is None:
        bot = Beating()
        bot.publish("mxa", [ENTRY], revision="r1")
    async with serving(bot, socket_path=str(folder / "bot.sock")):
        port = taken_port or _free_port()
        (folder / "token").write_text(TOKEN + "\n")
        (folder / "frontend.yaml").write_text(
            f"oracle: {{url: 'unix:bot.sock', token_file: token}}\n"
            f"storage: {{folder: files}}\nlisten: {{port: {port}}}\nworkers: {workers}\n"
        )
        with (folder / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "index_frontend", "run", "-c", str(folder / "frontend.yaml"), stderr=log
            )
        running = Running(process, port, folder / "log")
        try:
            await (process.wait() if taken_port else _ready(running))
            yield running
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


@pytest.mark.parametrize("workers", [1, 2])
async def test_it_serves_over_a_unix_socket_to_the_bot_and_stops_when_told(tmp_path: Path, workers: int) -> None:
    async with frontend(tmp_path, workers=workers) as running:
        page = await running.get("/simple/mxa/", Accept=JSON)
        assert (page.status, page.json["files"][0]["filename"]) == (200, ENTRY["filename"])
        counted = b'matrix_pypi_frontend_requests_total{cache="MISS",route="simple",status="200"} 1.0'
        async with asyncio.timeout(10):  # workers tell one another within a second
            while counted not in (await running.get("/metrics")).body:
                await asyncio.sleep(0.05)
        running.process.terminate()
        async with asyncio.timeout(8):
            assert await running.process.wait() == 0
        await running.until(lambda: not running.workers())
    assert "Traceback" not in running.log.read_text()


async def test_a_file_comes_from_upstream_once_for_all_workers_and_is_reported(tmp_path: Path) -> None:
    dist = wheel("mxb", payload_bytes=300_000)
    with Upstream() as upstream:
        upstream.publish(dist)
        url = f"{upstream.files_origin}{dist.path}"
        entry = file_entry(
            dist.filename,
            dist.content,
            _path=dist.path,
            _url=url,
            **{"core-metadata": {"sha256": dist.metadata_sha256}},
        )
        bot = Beating()
        bot.publish("mxb", [entry], revision="r1", opened_origins=[origin_of(url)])
        bot.decisions[dist.filename] = serve_decision(upstream, dist)  # for the worker that has not seen the page
        async with frontend(tmp_path, workers=2, bot=bot) as running:
            page = await running.get("/simple/mxb/", Accept=JSON)
            assert page.json["files"][0]["url"] == f"../..{dist.path}"
            replies = await asyncio.gather(*(running.get(dist.path) for _ in range(20)))
            assert {reply.body for reply in replies} == {dist.content}
            assert (await running.get(f"{dist.path}.metadata")).body == dist.metadata
            assert upstream.hits("GET", dist) == 1
            await running.until(lambda: bool(bot.stored_reports))
            assert {(report.file, report.sha256) for report in bot.stored_reports} == {(dist.filename, dist.sha256)}
            upstream.off()
            assert (await running.get(dist.path)).headers["x-matrix-pypi-source"] == "cache"


async def test_a_worker_that_dies_is_followed_by_another(tmp_path: Path) -> None:
    async with frontend(tmp_path, workers=2) as running:
        await running.until(lambda: len(running.workers()) == 2)
        before = running.workers()
        os.kill(victim := min(before), signal.SIGKILL)
        await running.until(lambda: len(running.workers() - before) == 1)
        await _ready(running)
        assert victim not in running.workers()
        assert "worker died" in running.log.read_text()


async def test_workers_do_not_outlive_the_process_that_watches_them(tmp_path: Path) -> None:
    async with frontend(tmp_path, workers=2) as running:
        await running.until(lambda: len(running.workers()) == 2)
        workers = running.workers()
        running.process.kill()
        await running.until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_port_that_is_taken_is_said_in_one_line(tmp_path: Path, workers: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with frontend(tmp_path, workers=workers, taken_port=port) as running:
            assert running.process.returncode == 4
    told = running.log.read_text()
    assert f"error: cannot listen on 127.0.0.1:{port}: it is taken" in told
    assert "Traceback" not in told


async def _ready(running: Running) -> None:
    """Returns when it says so or has ended."""
    async with asyncio.timeout(30):
        while running.process.returncode is None:
            try:
                if (await running.get("/readyz")).status == 200:
                    return
            except OSError:
                pass
            await asyncio.sleep(0.05)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
