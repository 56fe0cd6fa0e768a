"""Everything of a local stack that can be known, checked and written before a process starts."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from matrix_pypi_bot import config
from matrix_pypi_bot.devstack.children import stop_leftovers
from matrix_pypi_bot.devstack.configs import OrgPlan, make_secrets, write_configs
from matrix_pypi_bot.devstack.home import ORGS, Home
from matrix_pypi_bot.devstack.kubo import KuboNode, node_of
from matrix_pypi_bot.devstack.overrides import environment_of, refuse_overrides
from matrix_pypi_bot.devstack.pinning import write_trust
from matrix_pypi_bot.devstack.ports import (
    check_frontends,
    check_kept,
    kept_kubo_ports,
    kept_ports,
    kept_public_ports,
)
from matrix_pypi_bot.devstack.tls import ensure_tls
from matrix_pypi_bot.process.command_line import NeededIsMissing
from matrix_pypi_bot.process.secret_files import read_secret, write_private
from matrix_pypi_bot.process.settings import ConfigurationProblem


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `up` was asked for. `port` is the first frontend's.

    `upstream` and `database` None: the bot's default, a SQLite file in `home`; `kubo`: with nodes; `orgs` None: as many
    organisations as `home` holds, one in a new one.
    """

    home: Path
    host: str
    port: int
    upstream: str | None
    database: str | None
    kubo: bool = False
    orgs: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedOrg:
    """One organisation: its plan, its bot's settings, and the environment of its processes."""

    plan: OrgPlan
    settings: config.Settings
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The stack: at least one organisation."""

    home: Home
    orgs: tuple[PreparedOrg, ...]
    lock: int

    @property
    def frontend_host(self) -> str:
        """Where the frontends listen."""
        return self.orgs[0].plan.frontend_host

    @property
    def frontend_ports(self) -> range:
        """One each."""
        first = self.orgs[0].plan.frontend_port
        return range(first, first + len(self.orgs))


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
    names = _names(home, options.orgs)
    frontends = range(options.port, options.port + len(names))
    check_frontends(options.host, frontends)
    plans = [_plan(home, name, options, frontends, environ) for name in names]
    for plan in plans:
        refuse_overrides(plan, environ)
    for plan in plans:
        make_secrets(plan)
    orgs = tuple(_written(plan, plans, environment_of(plan.name, names, environ)) for plan in plans)
    _prepare_nodes([plan.kubo for plan in plans if plan.kubo is not None])
    return Prepared(home=home, orgs=orgs, lock=lock)


def _names(home: Home, asked: int | None) -> tuple[str, ...]:
    """The organisations to start. Raises ConfigurationProblem when the folder holds more: the others would miss them."""
    held = home.held_orgs()
    if asked is not None and asked < len(held):
        raise ConfigurationProblem(
            f"{home.folder} holds {len(held)} organisations ({', '.join(held)}), which pin one another; --orgs {asked} is fewer",
            hint=f"give --orgs {len(held)}, or start another stack with --home DIR",
        )
    return ORGS[: asked or len(held) or 1]


def _plan(home: Home, name: str, options: Options, frontends: range, environ: Mapping[str, str]) -> OrgPlan:
    """Where everything of an organisation is."""
    number = ORGS.index(name)
    ports = kept_ports(home, name, avoid=frontends)
    check_kept(ports, home, frontends=frontends)
    public = kept_public_ports(home, name, avoid=(*frontends, *asdict(ports).values()))
    check_kept(public, home, frontends=frontends)
    node = _node(home, name, frontends, environ) if options.kubo else None
    return OrgPlan(
        name=name,
        home=home.org(name),
        ports=ports,
        public=public,
        tls=ensure_tls(home.tls),
        frontend_host=options.host,
        frontend_port=options.port + number,
        upstream=options.upstream,
        database=options.database if options.database is None or number == 0 else database_of(options.database, name),
        kubo=node,
        pins=len(frontends) > 1,
    )


def database_of(url: str, org: str) -> str:
    """The database of an organisation that is not the first: `postgres://u@h/mpypi` has `postgres://u@h/mpypi_orgb` beside it."""
    parts = urlsplit(url)
    return parts._replace(path=f"{parts.path.rstrip('/')}_{org}").geturl()


def _node(home: Home, org: str, frontends: range, environ: Mapping[str, str]) -> KuboNode:
    ports = kept_kubo_ports(home, org, avoid=frontends)
    check_kept(ports, home, frontends=frontends)
    return node_of(home, org, ports, environ)


def _prepare_nodes(nodes: list[KuboNode]) -> None:
    for node in nodes:
        node.prepare()
    if len(nodes) > 1:
        for node in nodes:
            node.introduce(other for other in nodes if other is not node)


def _written(plan: OrgPlan, plans: list[OrgPlan], environment: Mapping[str, str]) -> PreparedOrg:
    """The organisation with its files. Its secrets are there, and those of the others."""
    write_configs(plan)
    if plan.pins:
        write_trust(plan, [other for other in plans if other is not plan])
    settings = config.load(plan.home.config, environment)
    config.ensure_appservice_tokens(settings)
    config.ensure_api_tokens(settings)
    config.ensure_log_key(settings)
    appservice = settings.appservice
    tokens = {"as_token": read_secret(appservice.as_token_file), "hs_token": read_secret(appservice.hs_token_file)}
    write_private(plan.home.registration, config.registration(settings, **tokens))
    return PreparedOrg(plan=plan, settings=settings, environment=environment)


def _say(line: str) -> None:
    print(line, flush=True)
