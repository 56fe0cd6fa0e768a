"""How a local stack is doing: what stack.json says that there is, asked one by one. Loopback, bounded, nothing is changed."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from matrix_pypi_bot.devstack.home import Home
from matrix_pypi_bot.devstack.probes import answer
from matrix_pypi_bot.process.command_line import NeededIsMissing
from matrix_pypi_bot.process.secret_files import SecretProblem, read_secret
from matrix_pypi_bot.wire.messages import API, Figures
from matrix_pypi_bot.wire.problems import clean_line

STORAGE: Final = "matrix_pypi_frontend_storage_"
_UP: Final = {1.0: "ok", 0.5: "degraded"}
_START_IT: Final = "start one with matrix-pypi up"
_OK: Final = 200


class ProcessStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A process: `alive` when there is one with its id, `ready` when it says so, else `detail` is what it says."""

    name: str
    url: str
    pid: int | None
    alive: bool
    ready: bool
    detail: str = ""


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """What a storage backend holds, as far as it tells."""

    backend: str
    health: str
    files: int | None = None
    bytes: int | None = None
    limit_bytes: int | None = None
    pinned_files: int | None = None
    uncopied_files: int | None = None


class OrgStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One organisation. `figures` are the bot's, None when it does not tell them."""

    name: str
    server_name: str
    simple: str
    processes: tuple[ProcessStatus, ...]
    holdings: tuple[Holding, ...]
    figures: Figures | None

    @property
    def is_ready(self) -> bool:
        """Whether every process is."""
        return all(process.ready for process in self.processes)


class StackStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A stack: where its data are, what it mirrors, who is in it."""

    home: str
    upstream: str
    orgs: tuple[OrgStatus, ...]


def look(folder: Path) -> StackStatus:
    """The stack of `folder`. Raises NeededIsMissing when none runs there."""
    home = Home(folder.expanduser().absolute())
    told = home.read(home.stack_file.name)
    if told is None:
        raise NeededIsMissing(f"no local stack is running in {home.folder}", hint=_START_IT)
    try:
        with ThreadPoolExecutor(len(told["orgs"]) or 1) as threads:
            orgs = tuple(threads.map(_org, told["orgs"]))
        stack = StackStatus(home=str(told["home"]), upstream=str(told["upstream"]), orgs=orgs)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise NeededIsMissing(f"{home.stack_file} is damaged: {error!r}", hint="restart matrix-pypi up") from error
    if not any(process.alive for org in orgs for process in org.processes):
        raise NeededIsMissing(f"the stack in {home.folder} does not run any more", hint=_START_IT)
    return stack


def _org(told: dict[str, Any]) -> OrgStatus:
    token = _token(Path(told["bot_token_file"]))
    asked = {
        "homeserver": f"{told['homeserver']}/health",
        "bot": f"{told['bot']}/readyz",
        "frontend": f"{told['frontend']}/readyz",
    }
    if told.get("kubo"):
        asked["kubo"] = ""  # its RPC wants a token of its own; how it is the frontend tells
    holdings = _holdings(str(told["frontend"]))
    processes = tuple(_process(name, url, told, holdings) for name, url in asked.items())
    return OrgStatus(
        name=str(told["name"]),
        server_name=str(told["server_name"]),
        simple=str(told["simple"]),
        processes=processes,
        holdings=holdings,
        figures=_figures(str(told["bot"]), token),
    )


def _process(name: str, url: str, told: dict[str, Any], holdings: tuple[Holding, ...]) -> ProcessStatus:
    pid = told["pids"].get(name)
    where = str(told[name])
    if not url:
        ready = any(one.backend == name and one.health == "ok" for one in holdings)
        return ProcessStatus(name=name, url=where, pid=pid, alive=_lives(pid), ready=ready)
    status, body = _get(url)
    detail = "" if status == _OK else _said(body) if status else "does not answer"
    return ProcessStatus(name=name, url=where, pid=pid, alive=_lives(pid), ready=status == _OK, detail=detail)


def _holdings(frontend: str) -> tuple[Holding, ...]:
    """From the frontend's metrics."""
    from prometheus_client.parser import text_string_to_metric_families

    status, body = _get(f"{frontend}/metrics")
    if status != _OK:
        return ()
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(body.decode(errors="replace")):
        for sample in family.samples:
            if sample.name.startswith(STORAGE) and "backend" in sample.labels:
                backend = found.setdefault(sample.labels["backend"], {})
                backend[sample.name.removeprefix(STORAGE)] = sample.value
    return tuple(_holding(name, values) for name, values in found.items())


def _holding(name: str, values: dict[str, float]) -> Holding:
    counts = {
        key: int(values[key])
        for key in ("files", "bytes", "limit_bytes", "pinned_files", "uncopied_files")
        if key in values
    }
    return Holding(backend=name, health=_UP.get(values.get("up", 0.0), "down"), **counts)


def _figures(bot: str, token: str) -> Figures | None:
    status, body = _get(f"{bot}{API}/figures", token)
    try:
        return msgspec.json.decode(body, type=Figures) if status == _OK else None
    except msgspec.DecodeError:
        return None


def _get(url: str, token: str = "") -> tuple[int, bytes]:
    parts = urlsplit(url)
    return answer(parts.hostname or "", parts.port or 80, parts.path, token=token)


def _said(body: bytes) -> str:
    """The line in an answer that is not 200: a problem's detail, or which part is missing."""
    try:
        told = json.loads(body)
        missing = ", ".join(key for key, value in told.items() if value is False and key != "ready")
        return clean_line(str(told.get("detail") or (f"waits for: {missing}" if missing else "not ready")), 200)
    except (ValueError, AttributeError):
        return "not ready"


def _lives(pid: int | None) -> bool:
    if not pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _token(file: Path) -> str:
    try:
        return read_secret(file)
    except SecretProblem:
        return ""
