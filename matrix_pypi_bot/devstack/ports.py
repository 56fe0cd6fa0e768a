"""Ports of a local stack: chosen once, kept, and looked at before anything starts."""

from __future__ import annotations

import errno
import secrets
import socket
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, fields
from typing import Final, TypeVar

import msgspec

from matrix_pypi_bot.devstack.home import Home
from matrix_pypi_bot.process.command_line import NeededIsMissing

LOOPBACK: Final = "127.0.0.1"
# Below what systems hand out for outgoing connections (32768 and up on Linux): a kept port is then still free at the next start.
_LOWEST, _HIGHEST = 18_000, 31_999

Probe = Callable[[str, int], OSError | None]
P = TypeVar("P", "OrgPorts", "PublicPorts", "KuboPorts")


@dataclass(frozen=True, slots=True, kw_only=True)
class OrgPorts:
    """The ports of one organisation, all on 127.0.0.1. The homeserver's name holds `federation`."""

    federation: int
    client: int
    appservice: int
    api: int

    @property
    def server_name(self) -> str:
        """The homeserver's name."""
        return f"localhost:{self.federation}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicPorts:
    """The port of the bot's public pages, on 127.0.0.1. Kept apart, because older stacks have kept the others without it."""

    public: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KuboPorts:
    """The ports of an organisation's Kubo node, all on 127.0.0.1."""

    rpc: int
    gateway: int
    swarm: int


def cannot_listen(host: str, port: int) -> OSError | None:
    """What the system says to listening there; None when it can be done."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that linger are no listener
            probe.bind((host, port))
            probe.listen(1)
    except OSError as error:
        return error
    return None


def kept_ports(home: Home, org: str, *, avoid: Collection[int], probe: Probe = cannot_listen) -> OrgPorts:
    """The ports of `org`: those kept in `home`, else free ones, chosen now and kept."""
    return _kept(home, org, OrgPorts, avoid, probe)


def kept_public_ports(home: Home, org: str, *, avoid: Collection[int], probe: Probe = cannot_listen) -> PublicPorts:
    """That of its public pages, likewise."""
    return _kept(home, f"{org}.public", PublicPorts, avoid, probe)


def kept_kubo_ports(home: Home, org: str, *, avoid: Collection[int], probe: Probe = cannot_listen) -> KuboPorts:
    """Those of its Kubo node, likewise."""
    return _kept(home, f"{org}.kubo", KuboPorts, avoid, probe)


def _kept(home: Home, name: str, kind: type[P], avoid: Collection[int], probe: Probe) -> P:
    kept = home.read("ports.json") or {}
    if name in kept:
        try:
            return msgspec.convert(kept[name], kind)
        except msgspec.ValidationError as error:
            # Never chosen anew: the homeserver's database is bound to its name, and its name holds a port.
            raise NeededIsMissing(
                f"{home.folder}/ports.json is damaged: {error}",
                hint="restore it, or start another stack with --home DIR",
            ) from error
    taken = {*avoid}
    chosen = {}
    for field in fields(kind):
        chosen[field.name] = _free_port(taken, probe)
        taken.add(chosen[field.name])
    ports = kind(**chosen)
    home.write("ports.json", {**kept, name: asdict(ports)})
    return ports


def check_frontend(host: str, port: int, *, probe: Probe = cannot_listen) -> None:
    """Raises NeededIsMissing, with another port to take, when the frontend cannot listen there."""
    error = probe(host, port)
    if error is None:
        return
    where = f"port {port} on {host}"
    if error.errno == errno.EADDRINUSE:
        free = next((other for other in range(port + 1, min(port + 100, 65_536)) if probe(host, other) is None), None)
        hint = f"stop what listens there, or take another port: --port {free or 'N'}"
        raise NeededIsMissing(f"{where} is taken", hint=hint)
    if error.errno == errno.EACCES:
        raise NeededIsMissing(f"{where} is reserved for the administrator", hint="take a port above 1023: --port 8080")
    raise NeededIsMissing(f"cannot listen on {where}: {error.strerror or error}", hint="look at --host and --port")


def check_kept(
    ports: OrgPorts | PublicPorts | KuboPorts, home: Home, *, frontend: int, probe: Probe = cannot_listen
) -> None:
    """Raises NeededIsMissing when one of the kept ports has been taken by somebody else, or was asked for as the `frontend`'s."""
    for name, port in asdict(ports).items():
        purpose = f"port {port} on {LOOPBACK}, which this stack uses for {name}"
        if port == frontend:
            raise NeededIsMissing(f"{purpose}, cannot be the frontend's too", hint="take another: --port 8080")
        if probe(LOOPBACK, port) is not None:
            raise NeededIsMissing(
                f"{purpose}, is taken",
                hint=f"stop what listens there, or start another stack with --home DIR (the ports are in {home.folder}/ports.json)",
            )


def _free_port(taken: Collection[int], probe: Probe) -> int:
    """The first free port from a random one on, so that two stacks started at once do not look at the same."""
    count = _HIGHEST - _LOWEST + 1
    first = secrets.randbelow(count)
    for offset in range(count):
        port = _LOWEST + (first + offset) % count
        if port not in taken and probe(LOOPBACK, port) is None:
            return port
    raise NeededIsMissing(f"no free port between {_LOWEST} and {_HIGHEST} on {LOOPBACK}")
