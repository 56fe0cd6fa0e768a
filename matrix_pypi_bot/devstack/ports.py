"""Ports of a local stack: chosen once, kept, and looked at before anything starts."""

from __future__ import annotations

import errno
import secrets
import socket
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, TypeVar

import msgspec

from matrix_pypi_bot.devstack.home import Home
from matrix_pypi_bot.process.command_line import NeededIsMissing

LOOPBACK: Final = "127.0.0.1"
MAX_PORT: Final = 65_535
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
    kept: dict[str, Any] = home.read("ports.json") or {}
    if name in kept:
        try:
            return msgspec.convert(kept[name], kind)
        except msgspec.ValidationError as error:
            # Never chosen anew: the homeserver's database is bound to its name, and its name holds a port.
            raise NeededIsMissing(
                f"{home.folder}/ports.json is damaged: {error}",
                hint="restore it, or start another stack with --home DIR",
            ) from error
    # Those of other organisations are free while the stack is down, and must be when it is up.
    taken = {*avoid, *(port for ports in kept.values() if isinstance(ports, dict) for port in ports.values())}
    chosen = {}
    for field in fields(kind):
        chosen[field.name] = _free_port(taken, probe)
        taken.add(chosen[field.name])
    ports = kind(**chosen)
    home.write("ports.json", {**kept, name: asdict(ports)})
    return ports


def check_frontends(host: str, ports: range, *, probe: Probe = cannot_listen) -> None:
    """Raises NeededIsMissing, with another port to take, when the frontends cannot listen there."""
    if ports[-1] > MAX_PORT:
        raise NeededIsMissing(
            f"there are no {len(ports)} ports from {ports[0]} on", hint="take a lower one: --port 8080"
        )
    for port in ports:
        error = probe(host, port)
        if error is not None:
            raise _cannot_have(host, port, error, hint=f"--port {_other_port(host, port, len(ports), probe) or 'N'}")


def _cannot_have(host: str, port: int, error: OSError, *, hint: str) -> NeededIsMissing:
    where = f"port {port} on {host}"
    if error.errno == errno.EADDRINUSE:
        return NeededIsMissing(f"{where} is taken", hint=f"stop what listens there, or take another port: {hint}")
    if error.errno == errno.EACCES:
        return NeededIsMissing(f"{where} is reserved for the administrator", hint="take a port above 1023: --port 8080")
    return NeededIsMissing(f"cannot listen on {where}: {error.strerror or error}", hint="look at --host and --port")


def _other_port(host: str, taken: int, count: int, probe: Probe) -> int | None:
    """The next port after `taken` from which on `count` are free; None when none of the next hundred is."""
    free = 0
    for port in range(taken + 1, min(taken + 100, MAX_PORT + 1)):
        free = free + 1 if probe(host, port) is None else 0
        if free == count:
            return port - count + 1
    return None


def check_kept(
    ports: OrgPorts | PublicPorts | KuboPorts, home: Home, *, frontends: range, probe: Probe = cannot_listen
) -> None:
    """Raises NeededIsMissing when one of the kept ports has been taken by somebody else, or was asked for as a frontend's."""
    for name, port in asdict(ports).items():
        purpose = f"port {port} on {LOOPBACK}, which this stack uses for {name}"
        if port in frontends:
            raise NeededIsMissing(f"{purpose}, cannot be a frontend's too", hint="take another: --port 8080")
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
