"""`matrix-pypi status`: what a stack's processes say, and what is made of silence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from matrix_pypi_bot.cli import main
from matrix_pypi_bot.devstack import status
from matrix_pypi_bot.process.command_line import readable_size

METRICS = b"""\
# TYPE matrix_pypi_frontend_storage_up gauge
matrix_pypi_frontend_storage_up{backend="file"} 1.0
matrix_pypi_frontend_storage_up{backend="office"} 0.5
matrix_pypi_frontend_storage_up{backend="away"} 0.0
# TYPE matrix_pypi_frontend_storage_bytes gauge
matrix_pypi_frontend_storage_bytes{backend="file"} 1.5e+09
matrix_pypi_frontend_storage_bytes{backend="office"} 1024.0
# TYPE matrix_pypi_frontend_storage_files gauge
matrix_pypi_frontend_storage_files{backend="file"} 1200.0
matrix_pypi_frontend_storage_files{backend="office"} 300.0
# TYPE matrix_pypi_frontend_storage_limit_bytes gauge
matrix_pypi_frontend_storage_limit_bytes{backend="office"} 2048.0
# TYPE matrix_pypi_frontend_storage_uncopied_files gauge
matrix_pypi_frontend_storage_uncopied_files{backend="office"} 900.0
"""
PEERS = [
    {"org": "orgb", "gateway": "http://127.0.0.1:8081", "configured": True, "announced_until": None},
    {"org": "orgc", "gateway": "https://c.example", "configured": False, "announced_until": "2026-12-01T00:00:00Z"},
    {"org": "orgd", "gateway": None, "configured": False, "announced_until": None},
]
FIGURES = {"log_leaves": 7, "rooms": 5, "unread": 0, "unreadable": 0, "queued": 3, "aside": 0, "peers": PEERS}
Answers = dict[str, tuple[int, bytes]]
WELL: Answers = {
    "/health": (200, b"OK"),
    "/readyz": (200, b"{}"),
    "/metrics": (200, METRICS),
    "/internal/v1/figures": (200, json.dumps(FIGURES).encode()),
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs the command over a stack that gives these answers; without any there is no stack."""

    def go(answers: Answers | None, *arguments: str, pid: int = os.getpid()) -> Result:
        if answers is not None:
            (tmp_path / "token").write_text("secret")
            (tmp_path / "token").chmod(0o600)
            org: dict[str, Any] = {
                "name": "orga",
                "server_name": "localhost:1",
                "homeserver": "http://127.0.0.1:2",
                "bot": "http://127.0.0.1:3",
                "bot_token_file": str(tmp_path / "token"),
                "frontend": "http://127.0.0.1:4",
                "simple": "http://127.0.0.1:4/simple/",
                "kubo": None,
                "pids": {"homeserver": pid, "bot": pid, "frontend": pid},
            }
            told = {"version": 1, "home": str(tmp_path), "upstream": "https://index.example/simple/", "orgs": [org]}
            (tmp_path / "stack.json").write_text(json.dumps(told))
        replies = answers or {}
        monkeypatch.setattr(status, "answer", lambda host, port, path, *, token="": replies.get(path, (0, b"")))
        return CliRunner().invoke(main, ["status", "--home", str(tmp_path), *arguments], env={"COLUMNS": "150"})

    return go


def test_everything_is_told_for_programs(run: Callable[..., Result], tmp_path: Path) -> None:
    done = run(WELL, "--json")
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    (org,) = told.pop("orgs")
    assert told == {"home": str(tmp_path), "upstream": "https://index.example/simple/"}
    assert [(one["name"], one["alive"], one["ready"]) for one in org["processes"]] == [
        ("homeserver", True, True),
        ("bot", True, True),
        ("frontend", True, True),
    ]
    unknown = {"files": None, "bytes": None, "limit_bytes": None, "pinned_files": None, "uncopied_files": None}
    assert org["holdings"] == [
        {**unknown, "backend": "file", "health": "ok", "files": 1200, "bytes": 1_500_000_000},
        {
            "backend": "office",
            "health": "degraded",
            "files": 300,
            "bytes": 1024,
            "limit_bytes": 2048,
            "pinned_files": None,
            "uncopied_files": 900,
        },
        {**unknown, "backend": "away", "health": "down"},
    ]
    assert org["figures"] == FIGURES


def test_everything_is_told_for_people(run: Callable[..., Result]) -> None:
    lines = [" ".join(line.split()) for line in run(WELL).stdout.splitlines()]
    assert "orga localhost:1 http://127.0.0.1:4/simple/" in lines
    assert f"bot ready process {os.getpid()} http://127.0.0.1:3" in lines
    assert "file ok 1,200 1.4 GiB" in lines
    assert "office degraded 300 900 1.0 KiB 2.0 KiB" in lines
    assert "7 statements logged, 5 rooms; to send: 3, to read: 0" in lines
    assert "peer orgb http://127.0.0.1:8081 as configured" in lines
    assert "peer orgc https://c.example announced until 2026-12-01T00:00:00Z" in lines
    assert "peer orgd no gateway known announced nothing" in lines


def test_what_is_not_ready_is_named_and_the_answer_is_no(run: Callable[..., Result]) -> None:
    problem = json.dumps({"detail": "matrix-pypi: not ready: the bot has not been heard yet"}).encode()
    done = run({**WELL, "/readyz": (503, problem), "/internal/v1/figures": (200, b"?")})
    assert (done.exit_code, "the bot has not been heard yet" in done.stdout) == (1, True)
    silent = run({"/health": (200, b"OK")})
    assert (silent.exit_code, "does not answer" in silent.stdout) == (1, True)


def test_no_stack_is_exit_code_four(run: Callable[..., Result]) -> None:
    done = run(None)
    assert (done.exit_code, "no local stack is running" in done.stderr) == (4, True)
    gone = run({}, pid=2**22 + 1)
    assert (gone.exit_code, "does not run any more" in gone.stderr) == (4, True)


@pytest.mark.parametrize("damage", ["[]", '{"orgs": [{}]}', "{"])
def test_a_damaged_description_is_said(run: Callable[..., Result], tmp_path: Path, damage: str) -> None:
    (tmp_path / "stack.json").write_text(damage)
    done = run(None)
    assert (done.exit_code, "damaged" in done.stderr) == (4, True)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 << 40, "5.0 TiB"), (1 << 60, "1048576.0 TiB")],
)
def test_sizes_are_readable(count: int, text: str) -> None:
    assert readable_size(count) == text
