"""The processes of an organisation, and what is told of them: `stack.json`, and the lines that say that all is ready."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final

from matrix_pypi_bot.devstack.children import Part
from matrix_pypi_bot.devstack.kubo import PROBE_PATH, KuboNode
from matrix_pypi_bot.devstack.ports import LOOPBACK
from matrix_pypi_bot.devstack.preparing import Prepared, PreparedOrg
from matrix_pypi_bot.devstack.probes import is_ready

PROCESSES: Final = ("kubo", "homeserver", "bot", "frontend")
"""In the order in which they start."""


def part_name(prepared: Prepared, org: PreparedOrg, process: str) -> str:
    """What a process is called: `bot`; where there are several organisations `orgb-bot`, as its log is."""
    return process if len(prepared.orgs) == 1 else f"{org.plan.name}-{process}"


def part_names(prepared: Prepared) -> tuple[str, ...]:
    """The names of all processes, in the order in which they start."""
    return tuple(
        part_name(prepared, org, process)
        for process in PROCESSES
        for org in prepared.orgs
        if process != "kubo" or org.plan.kubo is not None
    )


def parts(prepared: Prepared, org: PreparedOrg) -> dict[str, Part]:
    """The processes of an organisation, in the order in which they start."""
    home, plan = prepared.home, org.plan
    ports = plan.ports

    def part(process: str, module: str, arguments: tuple[str, ...], probe: tuple[str, int, str]) -> Part:
        # -P: a folder of ours must not hide a module of the same name.
        what = ("-P", "-m", module, *arguments)
        return Part(
            name=part_name(prepared, org, process),
            command=(sys.executable, *what),
            folder=plan.home.folder,
            log=home.log(plan.name, process),
            ready=lambda: is_ready(*probe),
            mark=" ".join(what),
            environment=org.environment,
        )

    node = plan.kubo
    return ({} if node is None else {"kubo": _kubo_part(prepared, org, node)}) | {
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


def _kubo_part(prepared: Prepared, org: PreparedOrg, node: KuboNode) -> Part:
    return Part(
        name=part_name(prepared, org, "kubo"),
        command=node.command,
        folder=node.folder,
        log=prepared.home.log(org.plan.name, "kubo"),
        ready=lambda: is_ready(LOOPBACK, node.ports.gateway, PROBE_PATH),
        mark=node.mark,
        environment={**org.environment, **node.environment},
    )


def stack_json(prepared: Prepared, *, trust_rooms: Mapping[str, str], pids: Mapping[str, int]) -> dict[str, Any]:
    """What `stack.json` holds; every path in it is absolute. `pids` by name of part, `trust_rooms` by name of organisation."""
    first = prepared.orgs[0]
    return {
        "version": 1,
        "home": str(prepared.home.folder),
        "ca_file": str(first.plan.tls.authority),
        "upstream": first.settings.index.endpoint,
        "orgs": [
            _told(
                org,
                trust_room=trust_rooms[org.plan.name],
                pids={
                    process: pids[name] for process in PROCESSES if (name := part_name(prepared, org, process)) in pids
                },
            )
            for org in prepared.orgs
        ],
    }


def _told(org: PreparedOrg, *, trust_room: str, pids: Mapping[str, int]) -> dict[str, Any]:
    plan, settings = org.plan, org.settings
    server = plan.ports.server_name
    return {
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


def starting(prepared: Prepared) -> str:
    """What a person is told first."""
    *names, last = part_names(prepared)
    several = f"starting {len(prepared.orgs)} organisations"
    return several if len(prepared.orgs) > 1 else f"starting {', '.join(names)} and {last}"


def ready_lines(prepared: Prepared, seconds: float) -> list[str]:
    """What a newcomer types next. The first begins with `ready`."""
    first = prepared.orgs[0].plan
    simple = f"{first.frontend_url}/simple/"
    return [
        f"ready after {seconds:.1f} s: {simple}",
        f"  pip     pip install --index-url {simple} --trusted-host {first.frontend_address} PACKAGE",
        "          (--trusted-host: without it pip keeps no cache of its own for a plain-http index)",
        f"  uv      uv pip install --default-index {simple} PACKAGE",
        f"  poetry  poetry source add --priority=primary matrix-pypi {simple}",
        *_where(prepared),
        f"  logs    {prepared.home.folder / 'logs'}",
        "Ctrl-C stops everything; the data stay.",
    ]


def _where(prepared: Prepared) -> list[str]:
    """The homeserver; of several organisations a line each, with its index."""
    plans = [org.plan for org in prepared.orgs]
    matrix = [f"{plan.homeserver_url}, rooms #pypi_PACKAGE:{plan.ports.server_name}" for plan in plans]
    if len(plans) == 1:
        return [f"  Matrix  {matrix[0]}"]
    return [
        f"  {plan.name}    {plan.frontend_url}/simple/  Matrix {where}"
        for plan, where in zip(plans, matrix, strict=True)
    ]
