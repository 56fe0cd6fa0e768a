"""The whole stack as a newcomer runs it: `matrix-pypi up` as a subprocess, steered by what stack.json says and by signals."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.member import START_SECONDS, Member
from tests.support.waiting import wait_until

STOP_SECONDS = 10  # the contract's
LOG_TAIL_BYTES = 6000


class Stack(Member):
    """A stack with its data in `home`. Use it as a context manager; it starts and stops as often as a test wants.

    It is its first organisation as well, for most have one.
    """

    def __init__(self, home: Path, *arguments: str, orgs: int = 1, environment: dict[str, str] | None = None) -> None:
        super().__init__(home, "orga")
        self.port = _free_ports(orgs)
        self._arguments = ("--orgs", str(orgs), *arguments) if orgs > 1 else arguments
        self._environment = os.environ | (environment or {})
        self._output = home.with_name(f"{home.name}.output")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._process is not None:
            self.stop()

    @property
    def members(self) -> tuple[Member, ...]:
        """Every organisation that runs in it."""
        orgs = json.loads((self.home / "stack.json").read_text())["orgs"]
        return tuple(Member(self.home, org["name"]) for org in orgs)

    def member(self, name: str) -> Member:
        """The organisation of that name."""
        return next(member for member in self.members if member.name == name)

    def start(self) -> None:
        """Returns when stack.json is there: every part was ready then. Raises AssertionError with the logs when it ends before."""
        # One of an earlier start says nothing about this one.
        (self.home / "stack.json").unlink(missing_ok=True)
        program = Path(sys.executable).with_name("matrix-pypi")
        command = [str(program), "up", "--home", str(self.home), "--port", str(self.port)]
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [*command, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
                start_new_session=True,
            )
        wait_until(self._is_up, f"`matrix-pypi up` is ready in {self.home}", timeout_seconds=START_SECONDS)

    def stop(self) -> int:
        """The exit code after SIGTERM. Raises AssertionError when it takes too long or leaves a child behind; nobody survives."""
        assert self._process is not None
        process, self._process = self._process, None
        process.terminate()
        try:
            code = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            _kill_group(process.pid)
            process.wait()
            raise AssertionError(f"`matrix-pypi up` did not stop within {STOP_SECONDS} s\n{self.logs()}") from None
        assert not _kill_group(process.pid), f"`matrix-pypi up` left a child behind\n{self.logs()}"
        return code

    def logs(self) -> str:
        """The ends of everything it printed and logged, for the report of a failed test."""
        files = [self._output, *sorted(self.home.rglob("*.log"))]
        return "\n".join(f"--- {file} ---\n{_tail(file)}" for file in files if file.is_file())

    def _is_up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"`matrix-pypi up` ended with {self._process.returncode}\n{self.logs()}")
        return (self.home / "stack.json").exists()


def _kill_group(leader: int) -> bool:
    """Whether there was anybody left to kill."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _tail(file: Path) -> str:
    return file.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")


def _free_ports(count: int) -> int:
    """The first of `count` free ports in a row.

    They lie below those that the system hands out for outgoing connections: it is some time until the frontends listen there.
    """
    while True:
        first = random.randrange(10_000, 18_000 - count)
        with contextlib.ExitStack() as probes, contextlib.suppress(OSError):
            for port in range(first, first + count):
                probes.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
