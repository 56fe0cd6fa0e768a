"""`matrix-pypi up`: one organisation's homeserver, bot and frontend as processes of this machine, kept running until told to stop."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from matrix_pypi_bot import config
from matrix_pypi_bot.devstack.children import Part, stop_leftovers
from matrix_pypi_bot.devstack.configs import OrgPlan, refuse_overrides, write_configs
from matrix_pypi_bot.devstack.home import Home
from matrix_pypi_bot.devstack.kubo import PROBE_PATH, KuboNode, node_of
from matrix_pypi_bot.devstack.ports import (
    LOOPBACK,
    check_frontend,
    check_kept,
    kept_kubo_ports,
    kept_ports,
    kept_public_ports,
)
from matrix_pypi_bot.devstack.probes import is_ready, room_of_alias
from matrix_pypi_bot.devstack.progress import Progress
from matrix_pypi_bot.devstack.signals import Signals
from matrix_pypi_bot.devstack.supervisor import Stopped, Supervisor
from matrix_pypi_bot.devstack.tls import ensure_tls
from matrix_pypi_bot.process.command_line import NeededIsMissing
from matrix_pypi_bot.process.secret_files import read_secret, write_private

ORG: Final = "orga"
START_SECONDS: Final = 180.0  # a slow disk and a busy machine; 5 s are usual
PARTS: Final = ("homeserver", "bot", "frontend")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `up` was asked for. `upstream` and `database` None: the bot's default, a SQLite file in `home`; `kubo`: with a node."""

    home: Path
    host: str
    port: int
    upstream: str | None
    database: str | None
    kubo: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the processes, in the order in which they start."""
        return ("kubo", *PARTS) if self.kubo else PARTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Everything that can be known and checked before a process starts."""

    home: Home
    plan: OrgPlan
    settings: config.Settings
    lock: int


def prepare(options: Options, environ: Mapping[str, str] = os.environ) -> Prepared:
    """Take the folder, look at the ports, write the configurations. Starts nothing.

    Raises NeededIsMissing (folder in use, port taken, no homeserver installed, no Kubo) or ConfigurationProblem.
    """
    if importlib.util.find_spec("synapse") is None:
        raise NeededIsMissing(
            "the homeserver (Synapse) is not installed for this Python",
            hint="in a checkout: make setup; elsewhere: pip install 'matrix-pypi[devstack]'",
        )
    home = Home(options.home.expanduser().absolute())
    lock = home.lock()
    home.stack_file.unlink(missing_ok=True)
    with contextlib.suppress(NeededIsMissing):  # damaged: then there is nobody to look for
        stop_leftovers(home.read("pids.json"), say=_say)
    check_frontend(options.host, options.port)
    ports = kept_ports(home, ORG, avoid=(options.port,))
    check_kept(ports, home, frontend=options.port)
    public = kept_public_ports(home, ORG, avoid=(options.port, *asdict(ports).values()))
    check_kept(public, home, frontend=options.port)
    taken = (options.port, *asdict(ports).values(), *asdict(public).values())
    node = _kubo(home, options, taken, environ) if options.kubo else None
    plan = OrgPlan(
        name=ORG,
        home=home.org(ORG),
        ports=ports,
        public=public,
        tls=ensure_tls(home.tls),
        frontend_host=options.host,
        frontend_port=options.port,
        upstream=options.upstream,
        database=options.database,
        kubo=node,
    )
    refuse_overrides(plan, environ)
    write_configs(plan)
    if node is not None:
        node.prepare()
    settings = config.load(plan.home.config, environ)
    config.ensure_appservice_tokens(settings)
    config.ensure_api_tokens(settings)
    config.ensure_log_key(settings)
    appservice = settings.appservice
    tokens = {"as_token": read_secret(appservice.as_token_file), "hs_token": read_secret(appservice.hs_token_file)}
    write_private(plan.home.registration, config.registration(settings, **tokens))
    return Prepared(home=home, plan=plan, settings=settings, lock=lock)


def _kubo(home: Home, options: Options, taken: Collection[int], environ: Mapping[str, str]) -> KuboNode:
    ports = kept_kubo_ports(home, ORG, avoid=taken)
    check_kept(ports, home, frontend=options.port)
    return node_of(home, ORG, ports, environ)


def parts(prepared: Prepared) -> dict[str, Part]:
    """The processes, by name, in the order in which they start."""
    home, plan = prepared.home, prepared.plan
    ports = plan.ports

    def part(name: str, module: str, arguments: tuple[str, ...], probe: tuple[str, int, str]) -> Part:
        # -P: a folder of ours must not hide a module of the same name.
        what = ("-P", "-m", module, *arguments)
        return Part(
            name=name,
            command=(sys.executable, *what),
            folder=plan.home.folder,
            log=home.log(plan.name, name),
            ready=lambda: is_ready(*probe),
            mark=" ".join(what),
        )

    node = plan.kubo
    return ({} if node is None else {"kubo": _kubo_part(home, plan, node)}) | {
        "homeserver": part(
            "homeserver",
            "synapse.app.homeserver",
            ("-c", str(plan.home.homeserver_config)),
            (LOOPBACK, ports.client, "/health"),
        ),
        "bot": part("bot", "matrix_pypi_bot", ("bot", "-c", str(plan.home.config)), (LOOPBACK, ports.api, "/readyz")),
        "frontend": part(
            "frontend",
            "index_frontend",
            ("run", "-c", str(plan.home.frontend_config)),
            (plan.frontend_address, plan.frontend_port, "/readyz"),
        ),
    }


def _kubo_part(home: Home, plan: OrgPlan, node: KuboNode) -> Part:
    return Part(
        name="kubo",
        command=node.command,
        folder=node.folder,
        log=home.log(plan.name, "kubo"),
        ready=lambda: is_ready(LOOPBACK, node.ports.gateway, PROBE_PATH),
        mark=node.mark,
        environment=node.environment,
    )


def stack_json(prepared: Prepared, *, trust_room: str, pids: Mapping[str, int]) -> dict[str, Any]:
    """What `stack.json` holds; every path in it is absolute."""
    plan, settings = prepared.plan, prepared.settings
    server = plan.ports.server_name
    org = {
        "name": plan.name,
        "server_name": server,
        "homeserver": plan.homeserver_url,
        "registration_secret_file": str(plan.home.secret("registration_secret")),
        "as_token_file": str(settings.appservice.as_token_file),
        "bot_mxid": settings.bot_mxid,
        "bot": plan.bot_url,
        "bot_token_file": str(settings.api.token_file),
        "frontend": plan.frontend_url,
        "simple": f"{plan.frontend_url}/simple/",
        "trust_room": trust_room,
        "space": f"#pypi:{server}",
        "root_key_file": str(settings.organisation.root_key_file),
        "mirror_key_file": str(settings.organisation.mirror_key_file),
        "config_file": str(plan.home.config),
        "frontend_config_file": str(plan.home.frontend_config),
        "log": f"{plan.frontend_url}/log/v1/",
        "kubo": None if plan.kubo is None else plan.kubo.url,
        "kubo_token_file": None if plan.kubo is None else str(plan.kubo.token_file),
        "pids": dict(pids),
    }
    return {
        "version": 1,
        "home": str(prepared.home.folder),
        "ca_file": str(plan.tls.authority),
        "upstream": settings.index.endpoint,
        "orgs": [org],
    }


class Stack:
    """A prepared stack that runs."""

    def __init__(self, prepared: Prepared, progress: Progress, signals: Signals) -> None:
        self._prepared = prepared
        self._progress = progress
        self._parts = parts(prepared)
        self._supervisor = Supervisor(signals, say=progress.say, changed=self._pids_changed)
        self._trust_room: str | None = None

    def run(self) -> None:
        """Start, say `ready`, watch. Returns after a signal, when all children have ended; raises what kept it from starting."""
        try:
            self._start()
            self._progress.done()
            for line in ready_lines(self._prepared.plan, self._prepared.home, self._progress.seconds):
                self._progress.say(line)
            self._supervisor.watch()
        except Stopped:
            self._progress.done()
            self._progress.say("stopping")
        finally:
            self._supervisor.stop()
            self._prepared.home.write("pids.json", [])

    def _start(self) -> None:
        *names, last = self._parts
        self._progress.say(f"starting {', '.join(names)} and {last} in {self._prepared.home.folder}")
        first = [name for name in self._parts if name != "frontend"]
        for name in first:
            self._supervisor.start(self._parts[name])
        self._wait(*first)
        # Once more: another stack may have been starting on the same port, and its answers would be taken for those of ours.
        check_frontend(self._prepared.plan.frontend_host, self._prepared.plan.frontend_port)
        # Last: whoever finds its port open finds everything else working.
        self._supervisor.start(self._parts["frontend"])
        self._find_trust_room()  # already, while the frontend starts: the homeserver's first answer is slow
        self._wait("frontend", also=self._find_trust_room)
        self._write_stack_file()

    def _wait(self, *names: str, also: Any = lambda: True) -> None:
        not_started = {*self._parts} - {*self._supervisor.pids}
        self._supervisor.wait_ready(
            names,
            timeout_seconds=START_SECONDS,
            tick=lambda waiting: self._progress.waiting_for(waiting | not_started),
            also=also,
        )

    def _find_trust_room(self) -> bool:
        if self._trust_room is None:
            plan = self._prepared.plan
            token = read_secret(self._prepared.settings.appservice.as_token_file)
            alias = f"#pypi-trust:{plan.ports.server_name}"
            self._trust_room = room_of_alias(LOOPBACK, plan.ports.client, alias, token=token)
        return self._trust_room is not None

    def _pids_changed(self) -> None:
        pids = self._supervisor.pids
        marks = {part.name: part.mark for part in self._supervisor.parts}
        self._prepared.home.write(
            "pids.json", [{"name": name, "pid": pid, "mark": marks[name]} for name, pid in pids.items()]
        )
        if self._prepared.home.stack_file.exists():
            self._write_stack_file()

    def _write_stack_file(self) -> None:
        assert self._trust_room is not None
        content = stack_json(self._prepared, trust_room=self._trust_room, pids=self._supervisor.pids)
        self._prepared.home.write(self._prepared.home.stack_file.name, content)


def ready_lines(plan: OrgPlan, home: Home, seconds: float) -> list[str]:
    """What a newcomer types next. The first begins with `ready`."""
    simple = f"{plan.frontend_url}/simple/"
    return [
        f"ready after {seconds:.1f} s: {simple}",
        f"  pip     pip install --index-url {simple} --trusted-host {plan.frontend_address} PACKAGE",
        "          (--trusted-host: without it pip keeps no cache of its own for a plain-http index)",
        f"  uv      uv pip install --default-index {simple} PACKAGE",
        f"  poetry  poetry source add --priority=primary matrix-pypi {simple}",
        f"  Matrix  {plan.homeserver_url}, rooms #pypi_PACKAGE:{plan.ports.server_name}",
        f"  logs    {home.folder / 'logs'}",
        "Ctrl-C stops everything; the data stay.",
    ]


def _say(line: str) -> None:
    print(line, flush=True)
