"""Kubo nodes for tests: closed, on loopback, thrown away afterwards; their configuration is that of `matrix-pypi up --storage kubo`."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from matrix_pypi_bot.devstack.kubo import PROBE_PATH, KuboNode, find_binary
from matrix_pypi_bot.devstack.ports import KuboPorts
from tests.support.http_client import ask
from tests.support.waiting import wait_until

START_SECONDS = 60
STOP_SECONDS = 20


@dataclass(slots=True)
class Kubo:
    """A node that can be started and stopped as often as a test wants; its repository stays."""

    node: KuboNode
    _process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.node.prepare()
        self.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()

    @property
    def gateway(self) -> str:
        """The origin of its trustless gateway, which fetches nothing."""
        return f"http://127.0.0.1:{self.node.ports.gateway}"

    def settings(self, **more: Any) -> dict[str, Any]:
        """The section of a configuration that uses it."""
        return {"url": self.node.url, "token_file": str(self.node.token_file), **more}

    def start(self) -> None:
        """Returns when it answers."""
        with (self.node.folder / "test.log").open("ab") as log:
            environment = {**os.environ, **self.node.environment}
            command = self.node.command
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        wait_until(self._answers, f"Kubo answers at {self.gateway}", timeout_seconds=START_SECONDS)

    def stop(self) -> None:
        """Returns when it has ended. Does nothing when it does not run."""
        if self._process is not None:
            process, self._process = self._process, None
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def cli(self, *arguments: str, data: bytes | None = None) -> bytes:
        """What `ipfs ARGUMENTS` prints, as its operator runs it. Raises AssertionError when it fails."""
        api = f"--api=/ip4/127.0.0.1/tcp/{self.node.ports.rpc}"
        token = f"--api-auth=bearer:{self.node.token_file.read_text().strip()}"
        environment = {**os.environ, **self.node.environment}
        command = [str(self.node.binary), api, token, *arguments]
        done = subprocess.run(command, input=data, capture_output=True, env=environment, timeout=120, check=False)
        assert done.returncode == 0, f"ipfs {' '.join(arguments)}: {done.stderr.decode(errors='replace')}"
        return done.stdout

    def log(self) -> str:
        """What it wrote."""
        return (self.node.folder / "test.log").read_text(errors="replace")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"Kubo ended with {self._process.returncode}\n{self.log()}"
        try:
            return ask(f"{self.gateway}{PROBE_PATH}", "GET", 5).status == 200
        except OSError:
            return False


@contextmanager
def nodes(folder: Path, count: int = 1) -> Iterator[list[Kubo]]:
    """Running nodes that share one swarm key and know nothing of one another."""
    binary = find_binary()
    assert binary is not None
    with ExitStack() as stack:
        yield [stack.enter_context(_node(binary, folder, number)) for number in range(count)]


def _node(binary: Path, folder: Path, number: int) -> Kubo:
    own = folder / f"kubo-{number}"
    shutil.rmtree(own, ignore_errors=True)
    rpc, gateway, swarm = _free_ports(3)
    return Kubo(
        KuboNode(
            binary=binary,
            folder=own / "repository",
            ports=KuboPorts(rpc=rpc, gateway=gateway, swarm=swarm),
            token_file=own / "token",
            swarm_key_file=folder / "swarm.key",
        )
    )


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
