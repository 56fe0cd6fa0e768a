"""The whole stack as a newcomer runs it: `matrix-pypi up` as a subprocess, steered by what stack.json says and by signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from tests.support.dists import Dist
from tests.support.http_client import Reply, ask
from tests.support.matrix import MatrixUser
from tests.support.waiting import wait_until

START_SECONDS = 120  # a busy machine; on an idle one it is a tenth of that
STOP_SECONDS = 10  # the contract's
LOG_TAIL_BYTES = 6000
Process = Literal["homeserver", "bot", "frontend"]
PROCESSES: tuple[Process, ...] = ("homeserver", "bot", "frontend")


@dataclass(frozen=True, slots=True)
class Org:
    """One organisation of a running stack, as stack.json describes it."""

    told: dict[str, Any]

    @property
    def simple(self) -> str:
        """The index URL for installers."""
        return str(self.told["simple"])

    @property
    def frontend(self) -> str:
        """The frontend's origin."""
        return str(self.told["frontend"])

    @property
    def server_name(self) -> str:
        """The homeserver's Matrix name."""
        return str(self.told["server_name"])

    @property
    def name(self) -> str:
        """Its name in statements."""
        return str(self.told["name"])

    @property
    def bot(self) -> str:
        """The Matrix user that speaks for it."""
        return str(self.told["bot_mxid"])

    @property
    def pids(self) -> dict[Process, int]:
        """The processes that run now."""
        return dict(self.told["pids"])

    def secret(self, key: str) -> str:
        """What the file holds that stack.json names under `key`."""
        return Path(self.told[key]).read_text().strip()

    def alias(self, project: str) -> str:
        """The alias of a project's room."""
        return f"#pypi_{project}:{self.server_name}"

    def ready(self) -> bool:
        """Whether every part says that it is ready."""
        return all(
            map(
                _answers, (f"{self.told['homeserver']}/health", f"{self.told['bot']}/readyz", f"{self.frontend}/readyz")
            )
        )


class Stack:
    """A stack with its data in `home`. Use it as a context manager; it starts and stops as often as a test wants."""

    def __init__(self, home: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.home = home
        self.port = _free_port()
        self._arguments = arguments
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
    def org(self) -> Org:
        """The one organisation, as stack.json describes it now."""
        return Org(json.loads((self.home / "stack.json").read_text())["orgs"][0])

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

    def kill(self, name: Process) -> None:
        """SIGKILLs one process; returns at once."""
        os.kill(self.org.pids[name], signal.SIGKILL)

    def kill_and_wait(self, name: Process) -> None:
        """SIGKILLs one process and returns when another does its work and everything is ready again."""
        before = self.org.pids[name]
        os.kill(before, signal.SIGKILL)
        self.wait_until_ready(replaced={name: before})

    def wait_until_ready(self, *, replaced: dict[Process, int] | None = None) -> None:
        """Returns when every part is ready and none of the `replaced` pids is in use any more."""

        def ready() -> bool:
            org = self.org
            return all(org.pids[name] != pid for name, pid in (replaced or {}).items()) and org.ready()

        wait_until(ready, "the stack is ready again", timeout_seconds=START_SECONDS)

    def logs(self) -> str:
        """The ends of everything it printed and logged, for the report of a failed test."""
        files = [self._output, *sorted(self.home.rglob("*.log"))]
        return "\n".join(f"--- {file} ---\n{_tail(file)}" for file in files if file.is_file())

    # What clients see of it ----------------------------------------------------------------------------------------------

    def page(self, project: str, **headers: str) -> Reply:
        """The project's page as JSON, unless `headers` say otherwise."""
        return ask(f"{self.org.simple}{project}/", **({"Accept": "application/vnd.pypi.simple.v1+json"} | headers))

    def file(self, dist: Dist, method: str = "GET", **headers: str) -> Reply:
        """A file, at the path where PyPI has it."""
        return self.get(dist.path, method, **headers)

    def get(self, path: str, method: str = "GET", **headers: str) -> Reply:
        """Any path of the frontend."""
        return ask(self.org.frontend + path, method, **headers)

    def page_once(self, project: str, is_so: Callable[[Reply], bool], what: str) -> Reply:
        """The page as soon as a fresh look at the upstream makes `is_so` true of it; `what` says what that means.

        A fresh look can be asked for once in some seconds, so this asks until it is granted.
        """

        def look() -> Reply | None:
            page = self.page(project, Cache_Control="no-cache")
            return page if is_so(page) else None

        return wait_until(look, f"the page of {project} {what}")

    def stale_page(self, project: str) -> Reply:
        """The page once the stack has noticed that the upstream is away."""
        return self.page_once(project, is_stale, "is stale")

    def withdrawn(self, path: str) -> Reply:
        """The refusal of `path` once every worker of the frontend refuses it, for which a withdrawal has one second."""
        return self.everywhere(path, lambda reply: reply.status != 200, "refuses")

    def everywhere(self, path: str, is_so: Callable[[Reply], bool], does: str) -> Reply:
        """The answer to `path` once `is_so` is true of every worker's; they hear of a change within one second."""

        def replied() -> Reply | None:
            replies = [self.get(path) for _ in range(8)]  # each a new connection, to whichever worker takes it
            return replies[-1] if all(map(is_so, replies)) else None

        return wait_until(replied, f"every worker {does} {path}", timeout_seconds=1)

    def matrix_user(self, localpart: str) -> MatrixUser:
        """A new user of the stack's homeserver, who is not the bot."""
        org = self.org
        return MatrixUser.register(org.told["homeserver"], org.secret("registration_secret_file"), localpart)

    def _is_up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"`matrix-pypi up` ended with {self._process.returncode}\n{self.logs()}")
        return (self.home / "stack.json").exists()


def is_stale(page: Reply) -> bool:
    """Whether the last attempt to refresh the page failed."""
    return page.headers.get("x-matrix-pypi-cache") == "STALE"


def _answers(url: str) -> bool:
    try:
        return ask(url, "GET", 5).status == 200
    except OSError:
        return False


def _kill_group(leader: int) -> bool:
    """Whether there was anybody left to kill."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _tail(file: Path) -> str:
    return file.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
