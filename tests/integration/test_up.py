"""`matrix-pypi up` as its users meet it: it starts, it stays, it stops, it says what is in its way."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.http_client import ask
from tests.support.member import PROCESSES, START_SECONDS, Process
from tests.support.stack import Stack
from tests.support.upstream import Upstream
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

COMMAND = str(Path(sys.executable).with_name("matrix-pypi"))


def up(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`up` where it is expected to end by itself."""
    command = [COMMAND, "up", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS, check=False)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack on an upstream that nobody asks."""
    with Upstream() as upstream:
        with Stack(tmp_path_factory.mktemp("up") / "home", "--upstream", upstream.url) as running:
            yield running


def test_stack_json_is_complete_and_true(stack: Stack) -> None:
    told = json.loads((stack.home / "stack.json").read_text())
    (org,) = told["orgs"]
    assert (told.keys(), org.keys()) == (
        {"version", "home", "ca_file", "upstream", "orgs"},
        {
            "name", "server_name", "homeserver", "registration_secret_file", "as_token_file", "bot_mxid", "bot",
            "bot_token_file", "frontend", "simple", "trust_room", "space", "root_key_file", "mirror_key_file",
            "config_file", "frontend_config_file", "log", "kubo", "kubo_token_file", "pids",
        },
    )  # fmt: skip
    files = [Path(value) for key, value in org.items() if key.endswith("_file") and value is not None]
    assert all(file.is_absolute() and stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    assert [len(bytes.fromhex(Path(org[key]).read_text())) for key in ("root_key_file", "mirror_key_file")] == [32, 32]
    assert (org["trust_room"][0], org["frontend"]) == ("!", f"http://127.0.0.1:{stack.port}")
    assert stack.org.ready()
    joined = ask(
        f"{org['homeserver']}/_matrix/client/v3/joined_rooms",
        Authorization=f"Bearer {stack.org.secret('as_token_file')}",
    )
    assert org["trust_room"] in json.loads(joined.body)["joined_rooms"]


def test_one_line_begins_with_ready_and_one_is_for_pip(stack: Stack) -> None:
    lines = stack.home.with_name("home.output").read_text().splitlines()
    assert [line.endswith(stack.org.simple) for line in lines if line.startswith("ready")] == [True]
    assert [f"--index-url {stack.org.simple}" in line for line in lines if "pip install --index-url" in line] == [True]


def test_children_stay_in_its_group_and_session(stack: Stack) -> None:
    leader = int((stack.home / "lock").read_text())
    assert {(os.getpgid(pid), os.getsid(pid)) for pid in stack.org.pids.values()} == {(leader, leader)}


@pytest.mark.parametrize("name", PROCESSES)
def test_a_child_that_is_killed_is_started_again_and_stack_json_follows(stack: Stack, name: Process) -> None:
    before = stack.org.pids
    stack.kill_and_wait(name)
    assert {other for other, pid in stack.org.pids.items() if pid != before[other]} == {name}
    assert f"{name} was killed by SIGKILL; starting it again in " in stack.home.with_name("home.output").read_text()


def test_a_second_start_in_the_same_folder_is_refused(stack: Stack) -> None:
    found = up("--home", stack.home, "--port", "1024")
    assert (found.returncode, found.stdout) == (4, "")
    assert f"is using {stack.home}" in found.stderr
    assert stack.org.ready()


def test_a_port_that_is_taken_is_reported_before_anything_starts(stack: Stack, tmp_path: Path) -> None:
    found = up("--home", tmp_path / "other", "--port", str(stack.port))
    assert (found.returncode, found.stdout, found.stderr.splitlines()[0]) == (
        4,
        "",
        f"error: port {stack.port} on 127.0.0.1 is taken",
    )
    assert "--port " in found.stderr
    assert not (tmp_path / "other" / "pids.json").exists()


def test_a_wrong_override_is_a_configuration_error_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MATRIX_PYPI__INDEX__FRESH_SECS", "2")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    found = up("--home", tmp_path / "home", "--port", str(port))
    assert (found.returncode, "did you mean MATRIX_PYPI__INDEX__FRESH_SECONDS?" in found.stderr) == (3, True)


def test_data_survive_a_stop_and_a_start(stack: Stack) -> None:
    before, keys = (
        stack.org.told,
        [stack.org.secret(key) for key in ("root_key_file", "as_token_file", "bot_token_file")],
    )
    children = stack.org.pids
    assert stack.stop() == 0  # within 10 s, and nobody is left: `stop` looks
    assert not any(map(alive, children.values()))
    (stack.home / "stack.json").unlink()
    stack.start()
    after = stack.org.told
    assert [stack.org.secret(key) for key in ("root_key_file", "as_token_file", "bot_token_file")] == keys
    assert after | {"pids": 0} == before | {"pids": 0}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux")
def test_when_it_is_killed_its_children_end_and_the_next_start_works(stack: Stack) -> None:
    assert stack._process is not None
    children = stack.org.pids
    stack._process.kill()
    stack._process.wait()
    wait_until(lambda: not any(map(alive, children.values())), "the children have ended", timeout_seconds=15)
    (stack.home / "stack.json").unlink()
    stack.start()
    assert stack.org.ready()


def test_no_wait_leaves_it_running_in_the_background(stack: Stack) -> None:
    stack.stop()
    told = stack.home / "stack.json"
    arguments = ["--home", stack.home, "--port", str(stack.port), "--no-wait"]
    try:
        found = up(*arguments)
        leader = int((stack.home / "lock").read_text())
        assert (found.returncode, f"kill {leader}" in found.stdout) == (0, True)
        wait_until(told.exists, "it is ready", timeout_seconds=START_SECONDS)
        assert stack.org.ready()
        os.kill(leader, signal.SIGTERM)
        wait_until(lambda: not alive(leader), "it has ended", timeout_seconds=10)
        assert not any(map(alive, stack.org.pids.values()))
    finally:
        told.unlink(missing_ok=True)
        stack.start()
