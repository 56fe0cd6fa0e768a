"""What the commands of `matrix-pypi-index storage` do: open backends, go through files, show how far it is.

Each tells whether all went well.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from index_frontend.cli.backends import backends_in, maker, opened_well
from index_frontend.storage import moving
from index_frontend.storage.api import Capability, Health, Stat, Usage
from index_frontend.storage.archive import Told
from index_frontend.storage.moving import CAR_SUFFIX, Moved
from index_frontend.storage.registry import make_backends
from index_frontend.storage.verified import Verified, opened
from matrix_pypi_bot.process.command_line import readable_size
from matrix_pypi_bot.wire.problems import Problem

_STYLES = {"done": "green", "was there": "dim", "refused": "bold red"}


async def list_backends(config: Path, *, as_json: bool) -> bool:
    """A row a backend. Well when none is down."""
    sections = backends_in(config)
    backends = make_backends(sections)
    standings = await asyncio.gather(*(_standing(backend) for backend in backends.values()))
    if as_json:
        for (name, backend), (health, usage) in zip(backends.items(), standings, strict=True):
            can = sorted(capability.value for capability in backend.capabilities)
            row = {"name": name, "type": sections[name]["type"], "health": health, "usage": usage, "capabilities": can}
            click.echo(msgspec.json.encode(row))
        return all(health.state != "down" for health, _ in standings)
    table = Table("backend", "type", "health", "files", "held", "limit", "detail", box=None, pad_edge=False)
    for (name, _), (health, usage) in zip(backends.items(), standings, strict=True):
        files = "" if usage is None or usage.files is None else f"{usage.files:,}"
        limit = "" if usage is None or usage.limit_bytes is None else readable_size(usage.limit_bytes)
        held = "" if usage is None else readable_size(usage.bytes)
        colour = {"ok": "green", "degraded": "yellow", "down": "red"}[health.state]
        state = f"[{colour}]{health.state}[/]"
        table.add_row(name, sections[name]["type"], state, files, held, limit, Text(health.detail))  # no markup of ours
    Console().print(table)
    return all(health.state != "down" for health, _ in standings)


async def _standing(backend: Verified) -> tuple[Health, Usage | None]:
    try:
        async with opened(backend):
            health, usage = await backend.health(), None
            if health.state != "down" and Capability.USAGE in backend.capabilities:
                usage = await backend.usage()
            return health, usage
    except Problem as problem:
        return Health(state="down", detail=problem.detail), None


async def list_files(config: Path, name: str, *, as_json: bool) -> bool:
    """A line a file, as it is found."""
    async with _backends(config, name) as (backend,):
        async for stat in moving.find(backend, ()):
            content = stat.content
            if as_json:
                click.echo(msgspec.json.encode(stat))
            else:
                click.echo(f"{content.sha256}  {content.cid}  {content.size:>12}  {stat.pin or ''}".rstrip())
    return True


async def export_files(config: Path, name: str, files: Sequence[str], folder: Path) -> bool:
    """An archive a file."""
    folder.mkdir(parents=True, exist_ok=True)
    async with _backends(config, name) as (backend,):
        return await _each(backend, files, "exporting", lambda stat, told: moving.export(backend, stat, folder, told))


async def import_files(config: Path, name: str, cars: Sequence[Path]) -> bool:
    """The files of each archive."""
    paths = [path for car in cars for path in (_archives_in(car) if car.is_dir() else [car])]
    async with _backends(config, name) as (backend,):
        with Work("importing", 3 * sum(path.stat().st_size for path in paths)) as work:
            for path in paths:
                async for moved in moving.import_car(backend, path, work.told):
                    work.moved(moved)
    return work.is_well


def _archives_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"*{CAR_SUFFIX}") if path.is_file())


async def copy_files(config: Path, source: str, target: str, files: Sequence[str], *, pins: bool) -> bool:
    """From one to the other."""
    async with _backends(config, source, target) as (giver, taker):
        return await _each(giver, files, "copying", lambda stat, told: moving.copy(giver, taker, stat, told, pins=pins))


async def pin_files(config: Path, name: str, files: Sequence[str], pin: str | None) -> bool:
    """Pinned under `pin`, or not any more."""
    async with _backends(config, name) as (backend,):

        async def one(stat: Stat, told: Told) -> Moved:
            told(stat.content.size)
            if stat.pin == pin:
                return Moved(stat.content.cid, stat.content.size, "was there")
            await (backend.unpin(stat.content) if pin is None else backend.pin(stat.content, pin))
            return Moved(stat.content.cid, stat.content.size, "done")

        return await _each(backend, files, "pinning" if pin else "unpinning", one)


async def delete_files(config: Path, name: str, files: Sequence[str]) -> bool:
    """What is pinned is refused."""
    async with _backends(config, name) as (backend,):

        async def one(stat: Stat, told: Told) -> Moved:
            told(stat.content.size)
            gone = stat.pin is None and await backend.delete(stat.content)
            said = "" if gone else f"it is pinned: {stat.pin}" if stat.pin else "it stays"
            return Moved(stat.content.cid, stat.content.size, "done" if gone else "refused", said)

        return await _each(backend, files, "deleting", one)


async def scrub_files(config: Path, name: str, files: Sequence[str], repair: str | None) -> bool:
    """Well when all are right, or have been made so."""
    async with _backends(config, name, *([repair] if repair else [])) as (backend, *others):
        other = others[0] if others else None
        return await _each(backend, files, "scrubbing", lambda stat, told: moving.scrub(backend, stat, told, other))


async def _each(
    backend: Verified,
    files: Sequence[str],
    verb: str,
    one: Callable[[Stat, Told], Awaitable[Moved]],
) -> bool:
    total = None
    if not files and Capability.USAGE in backend.capabilities:
        total = (await backend.usage()).bytes
    with Work(verb, total) as work:
        async for stat in moving.find(backend, files):
            work.moved(await one(stat, work.told))
    return work.is_well


@asynccontextmanager
async def _backends(config: Path, *names: str) -> AsyncIterator[list[Verified]]:
    """Open, and none of them down. Raises NeededIsMissing."""
    async with AsyncExitStack() as stack:
        found = []
        for make in [maker(config, name) for name in names]:
            backend = await opened_well(make())
            stack.push_async_callback(backend.close)
            found.append(backend)
        yield found


class Work:
    """A bar on standard error while it lasts, a line on standard output for what was done or refused, and a sum."""

    def __init__(self, verb: str, total_bytes: int | None) -> None:
        self._verb = verb
        self._counts: Counter[str] = Counter()
        self._bytes = 0
        self._console = Console(stderr=True)
        columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()]
        self._progress = Progress(*columns, TimeRemainingColumn(), console=self._console, transient=True)
        self._task = self._progress.add_task(verb, total=total_bytes)

    def __enter__(self) -> Self:
        """The bar is there, where there is a terminal."""
        if self._console.is_terminal:
            self._progress.start()
        return self

    def told(self, count: int) -> None:
        """So many bytes more. From any thread."""
        self._progress.advance(self._task, count)

    def moved(self, moved: Moved) -> None:
        """A file is through."""
        self._counts[moved.result] += 1
        self._bytes += moved.size if moved.result == "done" else 0
        if moved.result != "was there":
            click.echo(f"{moved.result:<8} {moved.name}  {moved.size}  {moved.detail}".rstrip())

    @property
    def is_well(self) -> bool:
        """Nothing was refused."""
        return not self._counts["refused"]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The sum, however it ends."""
        if self._console.is_terminal:
            self._progress.stop()
        told = ", ".join(f"[{_STYLES[result]}]{count} {result}[/]" for result, count in self._counts.items())
        how = "broken off: " if error is not None else ""
        self._console.print(f"{self._verb}: {how}{told or 'no files'}; {readable_size(self._bytes)}", highlight=False)
