"""A private PostgreSQL cluster on a free loopback port, in a folder of its own, gone when the tests are."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import psycopg2  # type: ignore[import-untyped]

# The machine does not crash here, the server does: what was committed must be out of its memory, and need not be on a disk.
SETTINGS = {"fsync": "off", "full_page_writes": "off", "listen_addresses": "127.0.0.1"}


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running server that trusts everybody on loopback."""

    port: int
    _numbers: Iterator[int]
    _control: Callable[..., None]

    @contextmanager
    def away(self) -> Iterator[None]:
        """Crashed meanwhile: connections are cut, then refused. What was committed is there when it is up again, on the same port."""
        self._control("-m", "immediate", "stop")
        try:
            yield
        finally:
            self._control("start")

    @contextmanager
    def fresh_database(self, name: str | None = None) -> Iterator[str]:
        """The URL of an empty database (UTF8, locale C, as Synapse wants it), dropped on leaving."""
        name = name or f"fresh_{next(self._numbers)}"
        self._execute(f"CREATE DATABASE {name} ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
        try:
            yield f"postgres://postgres@127.0.0.1:{self.port}/{name}"
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        with closing(
            psycopg2.connect(host="127.0.0.1", port=self.port, user="postgres", dbname="postgres")
        ) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)


@contextmanager
def cluster(binaries: Path) -> Iterator[Cluster]:
    """Starts a server from `binaries` and stops it on leaving. As root it runs as another user, since it refuses root."""
    home = Path(tempfile.mkdtemp(prefix="matrix-pypi-pg-"))
    identity = _unprivileged(home)
    data, port = home / "data", _free_port()
    options = " ".join([f"-p {port}", f"-k {home}", *(f"-c {name}={value}" for name, value in SETTINGS.items())])
    control = partial(_run, binaries / "pg_ctl", "-D", data, "-w", "-l", home / "log", "-o", options, **identity)
    try:
        _run(binaries / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", **identity)
        control("start")
        try:
            yield Cluster(port, count(1), control)
        finally:
            control("-m", "immediate", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _unprivileged(home: Path) -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    known = {account.pw_name: account for account in pwd.getpwall()}
    account = known.get("postgres") or known["nobody"]
    os.chown(home, account.pw_uid, account.pw_gid)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _run(*command: object, **identity: Any) -> None:
    # The server inherits what pg_ctl has open: a pipe would keep this process waiting for the server's end.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            [str(part) for part in command], stdout=output, stderr=output, cwd="/", check=False, **identity
        )
        output.seek(0)
        assert done.returncode == 0, output.read().decode(errors="replace")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
