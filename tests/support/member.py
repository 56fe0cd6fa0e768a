"""One organisation of a running stack: what stack.json says of it, what its clients see of it, and its processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.support.dists import Dist
from tests.support.http_client import Reply, ask
from tests.support.matrix import MatrixUser
from tests.support.waiting import wait_until

START_SECONDS = 120  # a busy machine; on an idle one it is a tenth of that
Process = Literal["homeserver", "bot", "frontend"]
PROCESSES: tuple[Process, ...] = ("homeserver", "bot", "frontend")
CONFIGS: dict[Process, str] = {"homeserver": "homeserver.yaml", "bot": "config.yaml", "frontend": "frontend.yaml"}


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


class Member:
    """An organisation by its name, as it is now: its processes may be killed and come back."""

    def __init__(self, home: Path, name: str) -> None:
        self.home = home
        self.name = name

    @property
    def org(self) -> Org:
        """It, as stack.json describes it now."""
        orgs = json.loads((self.home / "stack.json").read_text())["orgs"]
        return next(Org(told) for told in orgs if told["name"] == self.name)

    def kill(self, name: Process) -> None:
        """SIGKILLs one process; returns at once."""
        os.kill(self.org.pids[name], signal.SIGKILL)

    def kill_and_wait(self, name: Process) -> None:
        """SIGKILLs one process and returns when another does its work and everything is ready again."""
        before = self.org.pids[name]
        os.kill(before, signal.SIGKILL)
        self.wait_until_ready(replaced={name: before})

    @contextlib.contextmanager
    def down(self, name: Process) -> Iterator[None]:
        """One process is killed and cannot start again while this is entered; everything is ready again afterwards."""
        config = Path(self.org.told["config_file"]).parent / CONFIGS[name]
        aside = config.with_name(f"{config.name}.aside")
        before = self.org.pids[name]
        config.rename(aside)
        try:
            os.kill(before, signal.SIGKILL)
            yield
        finally:
            aside.rename(config)
            self.wait_until_ready(replaced={name: before})

    def wait_until_ready(self, *, replaced: dict[Process, int] | None = None) -> None:
        """Returns when every part is ready and none of the `replaced` pids is in use any more."""

        def ready() -> bool:
            org = self.org
            return all(org.pids[name] != pid for name, pid in (replaced or {}).items()) and org.ready()

        wait_until(ready, f"{self.name} is ready again", timeout_seconds=START_SECONDS)

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


def is_stale(page: Reply) -> bool:
    """Whether the last attempt to refresh the page failed."""
    return page.headers.get("x-matrix-pypi-cache") == "STALE"


def _answers(url: str) -> bool:
    try:
        return ask(url, "GET", 5).status == 200
    except OSError:
        return False
