"""The folder of a local stack: where everything is, who is using it, and what of it survives a restart.

```
DIR/  stack.json ports.json pids.json lock   tls/   logs/<org>-<process>.log   swarm.key
      <org>/  config.yaml frontend.yaml homeserver.yaml registration.yaml trust.yaml
             bot.db homeserver.db media/ files/ kubo/   secrets/
```
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from matrix_pypi_bot.process.command_line import NeededIsMissing
from matrix_pypi_bot.process.secret_files import write_private

ORGS: Final = tuple(f"org{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")
"""The names of a stack's organisations, in the order in which they come."""
MAX_LOG_BYTES: Final = 20 << 20  # a log larger than this is put aside when the stack starts


def default_home() -> Path:
    """The platform's folder for our data, e.g. `~/.local/share/matrix-pypi`."""
    import platformdirs

    return platformdirs.user_data_path("matrix-pypi", appauthor=False)


@dataclass(frozen=True, slots=True)
class OrgHome:
    """The files of one organisation."""

    folder: Path

    def secret(self, name: str) -> Path:
        """The file of a secret."""
        return self.folder / "secrets" / name

    @property
    def config(self) -> Path:
        """The bot's configuration."""
        return self.folder / "config.yaml"

    @property
    def frontend_config(self) -> Path:
        """The frontend's configuration."""
        return self.folder / "frontend.yaml"

    @property
    def homeserver_config(self) -> Path:
        """Synapse's configuration."""
        return self.folder / "homeserver.yaml"

    @property
    def registration(self) -> Path:
        """The appservice registration."""
        return self.folder / "registration.yaml"

    @property
    def trusted_root(self) -> Path:
        """The root under which it verifies provenance."""
        return self.folder / "trusted_root.json"

    @property
    def homeserver_database(self) -> Path:
        """Synapse's database. Once it is there, the organisation has a name that others may have seen."""
        return self.folder / "homeserver.db"

    @property
    def trust(self) -> Path:
        """Whom it pins."""
        return self.folder / "trust.yaml"

    @property
    def kubo(self) -> Path:
        """The repository of its Kubo node."""
        return self.folder / "kubo"


@dataclass(frozen=True, slots=True)
class Home:
    """The folder itself; absolute."""

    folder: Path

    @property
    def stack_file(self) -> Path:
        """What others read to find the running stack; complete, or not there."""
        return self.folder / "stack.json"

    @property
    def tls(self) -> Path:
        """The certificate authority and the homeservers' certificate."""
        return self.folder / "tls"

    @property
    def swarm_key(self) -> Path:
        """Who holds it is in the private network of the stack's Kubo nodes."""
        return self.folder / "swarm.key"

    def org(self, name: str) -> OrgHome:
        """The files of one organisation."""
        return OrgHome(self.folder / name)

    def held_orgs(self) -> tuple[str, ...]:
        """The organisations that have run here: never a part of a stack is started, for the others would miss it."""
        lived = [number for number, name in enumerate(ORGS, 1) if self.org(name).homeserver_database.exists()]
        return ORGS[: max(lived, default=0)]

    def log(self, org: str, process: str) -> Path:
        """Where a process' output goes. One that has grown large is put aside as `….1`."""
        file = self.folder / "logs" / f"{org}-{process}.log"
        file.parent.mkdir(mode=0o700, exist_ok=True)
        if file.exists() and file.stat().st_size > MAX_LOG_BYTES:
            file.replace(file.with_name(f"{file.name}.1"))
        return file

    def read(self, name: str) -> Any:
        """What `write` put there; None when there is nothing. Raises NeededIsMissing when it cannot be read."""
        file = self.folder / name
        try:
            return json.loads(file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise NeededIsMissing(
                f"{file} is damaged: {error}", hint="restore it, or start another stack with --home DIR"
            ) from error

    def write(self, name: str, value: object) -> None:
        """Keep `value` as JSON under `name`: whole or not at all."""
        write_private(self.folder / name, json.dumps(value, indent=1) + "\n")

    def lock(self) -> int:
        """A lock that lasts as long as this process and those forked from it. Raises NeededIsMissing when another has it.

        Returns the lock's file descriptor, which must stay open.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise NeededIsMissing(
                f"cannot use the folder {self.folder}: {error.strerror}", hint="choose another with --home"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 20).decode(errors="replace").strip() or "?"
            os.close(descriptor)
            raise NeededIsMissing(
                f"another matrix-pypi up (process {holder}) is using {self.folder}",
                hint=f"stop it with: kill {holder}; or start a second stack with --home DIR --port N",
            ) from error
        sign_lock(descriptor)
        return descriptor


def sign_lock(descriptor: int) -> None:
    """Write into the lock who holds it."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
