"""Several organisations in one local stack, without their processes: who is there, where, and whom they pin."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from matrix_pypi_bot import config
from matrix_pypi_bot.core.keyring import PinnedOrg
from matrix_pypi_bot.core.signers import SigningKey
from matrix_pypi_bot.devstack import preparing
from matrix_pypi_bot.devstack.home import ORGS, Home
from matrix_pypi_bot.devstack.overrides import environment_of
from matrix_pypi_bot.devstack.ports import check_frontends, kept_ports
from matrix_pypi_bot.devstack.preparing import Options, Prepared, database_of, prepare
from matrix_pypi_bot.devstack.processes import part_names, parts, ready_lines, stack_json, starting
from matrix_pypi_bot.process.command_line import NeededIsMissing
from matrix_pypi_bot.process.settings import ConfigurationProblem
from matrix_pypi_bot.trust_file import load_trust

UPSTREAM = "http://index.example/simple"


@pytest.fixture(autouse=True)
def every_port_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of the system."""

    def kept(name: str) -> None:
        real = getattr(preparing, name)
        monkeypatch.setattr(preparing, name, lambda *given, **named: real(*given, **named, probe=lambda *_: None))

    for name in ("check_frontends", "check_kept", "kept_ports", "kept_public_ports", "kept_kubo_ports"):
        kept(name)


def stack_of(home: Path, orgs: int | None, environ: dict[str, str] | None = None, **changes: object) -> Prepared:
    """A prepared stack, whose folder is free again."""
    known: dict[str, Any] = {"host": "127.0.0.1", "port": 8080, "upstream": UPSTREAM, "database": None, "orgs": orgs}
    prepared = prepare(Options(home=home, **(known | changes)), environ or {})
    os.close(prepared.lock)
    return prepared


def lives(prepared: Prepared) -> None:
    """Its homeservers have run."""
    for org in prepared.orgs:
        org.plan.home.homeserver_database.touch()


def pins(prepared: Prepared, org: str) -> dict[str, Any]:
    """What the trust file of `org` says."""
    return dict(YAML(typ="safe", pure=True).load((prepared.home.org(org).trust).read_text())["orgs"])


# ---- who is there ---------------------------------------------------------------------------------------------------


def test_a_new_folder_gets_one_organisation_and_an_old_one_keeps_those_it_has(tmp_path: Path) -> None:
    assert [org.plan.name for org in stack_of(tmp_path, None).orgs] == ["orga"]
    lives(stack_of(tmp_path, 3))
    assert [org.plan.name for org in stack_of(tmp_path, None).orgs] == ["orga", "orgb", "orgc"]


def test_organisations_are_added_beside_those_that_are_there(tmp_path: Path) -> None:
    alone = stack_of(tmp_path, 1)
    lives(alone)
    before = {file: file.read_bytes() for file in (tmp_path / "orga" / "secrets").iterdir()}
    grown = stack_of(tmp_path, 3)
    assert grown.orgs[0].plan.ports == alone.orgs[0].plan.ports
    assert {file: file.read_bytes() for file in before} == before
    assert [*pins(grown, "orga")] == ["orgb", "orgc"]


@pytest.mark.parametrize("orgs", [1, 2])
def test_fewer_than_there_are_is_an_error_that_says_how_many(tmp_path: Path, orgs: int) -> None:
    lives(stack_of(tmp_path, 3))
    with pytest.raises(
        ConfigurationProblem, match=f"holds 3 organisations .orga, orgb, orgc.*--orgs {orgs} is fewer"
    ) as caught:
        stack_of(tmp_path, orgs)
    assert caught.value.hint.startswith("give --orgs 3, or")


def test_organisations_that_never_ran_bind_nobody(tmp_path: Path) -> None:
    stack_of(tmp_path, 3)
    assert Home(tmp_path).held_orgs() == ()
    assert len(stack_of(tmp_path, 1).orgs) == 1


# ---- where ----------------------------------------------------------------------------------------------------------


def test_no_two_share_a_port(tmp_path: Path) -> None:
    plans = [org.plan for org in stack_of(tmp_path, 26).orgs]
    kept = [port for ports in json.loads((tmp_path / "ports.json").read_text()).values() for port in ports.values()]
    frontends = [plan.frontend_port for plan in plans]
    assert (len(kept), len({*kept, *frontends}), frontends) == (26 * 5, 26 * 6, [*range(8080, 8106)])
    assert tuple(plan.name for plan in plans) == ORGS


def test_a_port_that_another_organisation_keeps_is_not_chosen(tmp_path: Path) -> None:
    kept = {"orga": {"federation": 1, "client": 2, "appservice": 3, "api": 4}, "orga.public": {"public": 18_005}}
    (tmp_path / "ports.json").write_text(json.dumps(kept))
    free = {18_005, 18_006, 18_007, 18_008, 18_009}
    chosen = kept_ports(
        Home(tmp_path), "orgb", avoid=(), probe=lambda _, port: None if port in free else OSError(errno.EADDRINUSE, "")
    )
    assert {chosen.federation, chosen.client, chosen.appservice, chosen.api} == free - {18_005}


def test_frontends_that_find_no_room_are_offered_as_many_ports_in_a_row(tmp_path: Path) -> None:
    taken = {8081, 8084, 8086}
    with pytest.raises(NeededIsMissing, match=r"port 8081 on 127\.0\.0\.1 is taken") as caught:
        check_frontends(
            "127.0.0.1",
            range(8080, 8083),
            probe=lambda _, port: OSError(errno.EADDRINUSE, "") if port in taken else None,
        )
    assert caught.value.hint.endswith("--port 8087")
    with pytest.raises(NeededIsMissing, match="there are no 3 ports from 65534 on"):
        stack_of(tmp_path, 3, port=65_534)


def test_stack_json_tells_of_each(tmp_path: Path) -> None:
    prepared = stack_of(tmp_path, 2)
    pids = {name: number for number, name in enumerate(part_names(prepared))}
    told = stack_json(prepared, trust_rooms={"orga": "!a", "orgb": "!b"}, pids=pids)
    assert [(org["name"], org["trust_room"], org["frontend"], org["pids"]) for org in told["orgs"]] == [
        ("orga", "!a", "http://127.0.0.1:8080", {"homeserver": 0, "bot": 2, "frontend": 4}),
        ("orgb", "!b", "http://127.0.0.1:8081", {"homeserver": 1, "bot": 3, "frontend": 5}),
    ]
    assert told["ca_file"] == str(tmp_path / "tls" / "ca.crt")
    assert len({org["server_name"] for org in told["orgs"]}) == 2


def test_processes_are_called_as_their_logs_are(tmp_path: Path) -> None:
    prepared = stack_of(tmp_path, 2)
    found = [part for org in prepared.orgs for part in parts(prepared, org).values()]
    assert [part.name for part in found] == [part.log.stem for part in found]
    assert (len({part.mark for part in found}), {part.name for part in found}) == (6, {*part_names(prepared)})


def test_the_lines_for_a_person_name_every_index_and_every_homeserver(tmp_path: Path) -> None:
    prepared = stack_of(tmp_path, 2)
    lines = ready_lines(prepared, 1)
    assert [line for line in lines if line.startswith("ready")] == ["ready after 1.0 s: http://127.0.0.1:8080/simple/"]
    for org in prepared.orgs:
        (line,) = [line for line in lines if line.startswith(f"  {org.plan.name} ")]
        assert f"{org.plan.frontend_url}/simple/" in line
        assert f"#pypi_PACKAGE:{org.plan.ports.server_name}" in line
    assert starting(prepared) == "starting 2 organisations"
    assert starting(stack_of(tmp_path / "one", 1)) == "starting homeserver, bot and frontend"


@pytest.mark.parametrize(
    ("url", "second"),
    [
        ("postgres://u@h/mpypi", "postgres://u@h/mpypi_orgb"),
        ("postgres://u:p@h:5432/mpypi?sslmode=require", "postgres://u:p@h:5432/mpypi_orgb?sslmode=require"),
    ],
)
def test_each_bot_has_a_database_of_its_own(tmp_path: Path, url: str, second: str) -> None:
    assert [org.settings.database.url for org in stack_of(tmp_path, 2, database=url).orgs] == [url, second]
    assert database_of(url, "orgb") == second


IPFS = """#!/bin/sh
echo '{"Identity": {"PeerID": "node-of-'$(basename $(dirname $IPFS_PATH))'"}}' >"$IPFS_PATH/config"
touch "$IPFS_PATH/version"
"""


def test_kubo_nodes_of_one_stack_share_a_network_and_stay_connected(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "ipfs"
    program.parent.mkdir()
    program.write_text(IPFS)
    program.chmod(0o755)
    environ = {"PATH": str(program.parent)}
    nodes = [org.plan.kubo for org in stack_of(tmp_path / "home", 3, environ, kubo=True).orgs]
    told = [json.loads((node.folder / "config").read_bytes()) for node in nodes if node is not None]
    addresses = {
        node["Identity"]["PeerID"]: {"ID": node["Identity"]["PeerID"], "Addrs": node["Addresses"]["Swarm"]}
        for node in told
    }
    assert [*addresses] == ["node-of-orga", "node-of-orgb", "node-of-orgc"]
    for node in told:
        own = node["Identity"]["PeerID"]
        assert node["Peering"]["Peers"] == [address for name, address in addresses.items() if name != own]
    assert len({(node.folder / "swarm.key").read_text() for node in nodes if node is not None}) == 1


# ---- whom they pin --------------------------------------------------------------------------------------------------


def test_each_pins_all_the_others_by_their_root_keys_logs_and_users(tmp_path: Path) -> None:
    prepared = stack_of(tmp_path, 3)
    known = {
        org.plan.name: PinnedOrg(
            name=org.plan.name,
            roots=(SigningKey(bytes.fromhex(org.plan.home.secret("root_key").read_text())).public,),
            threshold=1,
            roles=frozenset({"mirror", "watcher"}),
            log_url=f"http://127.0.0.1:{org.plan.frontend_port}/log/v1",
            gateway=f"http://127.0.0.1:{org.plan.frontend_port}",
            user=org.settings.bot_mxid,
        )
        for org in prepared.orgs
    }
    for org in prepared.orgs:
        name, file = org.plan.name, org.settings.trust.file
        assert file is not None
        assert load_trust(file, own=name).orgs == tuple(pin for other, pin in known.items() if other != name)


def test_one_organisation_pins_nobody(tmp_path: Path) -> None:
    alone = stack_of(tmp_path, 1).orgs[0]
    assert (alone.settings.trust.file, alone.plan.home.trust.exists()) == (None, False)


def test_one_may_pin_others_than_the_rest(tmp_path: Path) -> None:
    a, b = stack_of(tmp_path, 2, {"MATRIX_PYPI__ORGB__TRUST__FILE": "/elsewhere/trust.yaml"}).orgs
    assert (a.settings.trust.file, b.settings.trust.file) == (a.plan.home.trust, Path("/elsewhere/trust.yaml"))


def test_one_may_keep_its_statements_in_another_database(tmp_path: Path) -> None:
    a, b = stack_of(tmp_path, 2, {"MATRIX_PYPI__ORGB__DATABASE__URL": "postgres://u@h/mpypi"}).orgs
    assert (a.settings.database.url.startswith("sqlite:"), b.settings.database.url) == (True, "postgres://u@h/mpypi")


# ---- what one is told -----------------------------------------------------------------------------------------------


def test_one_organisation_may_be_told_something_else(tmp_path: Path) -> None:
    environ = {
        "MATRIX_PYPI__INDEX__FRESH_SECONDS": "7",
        "MATRIX_PYPI__ORGB__INDEX__FRESH_SECONDS": "8",
        "MATRIX_PYPI__ORGB__INDEX__URL": "http://elsewhere.example/simple/",
        "PATH": "/bin",
    }
    a, b = stack_of(tmp_path, 2, environ).orgs
    assert [
        (org.settings.index.fresh_seconds, org.settings.index.endpoint, org.settings.index.attests) for org in (a, b)
    ] == [
        (7, f"{UPSTREAM}/", True),
        (8, "http://elsewhere.example/simple/", True),
    ]
    assert a.environment == {"MATRIX_PYPI__INDEX__FRESH_SECONDS": "7", "PATH": "/bin"}
    assert environment_of("orgb", ("orga", "orgb"), environ) == b.environment


@pytest.mark.parametrize(
    "variable", ["ORGB__API__LISTEN", "DATABASE__URL", "INDEX__URL", "ORGB__INDEX__ATTEST", "TRUST__FILE"]
)
def test_what_the_stack_has_placed_cannot_be_moved_for_one_either(tmp_path: Path, variable: str) -> None:
    with pytest.raises(ConfigurationProblem, match=f"MATRIX_PYPI__{variable} overrides what"):
        stack_of(tmp_path, 2, {f"MATRIX_PYPI__{variable}": "x"})


def test_an_override_for_an_organisation_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationProblem, match="MATRIX_PYPI__ORGC__INDEX__FRESH_SECONDS overrides no key"):
        stack_of(tmp_path, 2, {"MATRIX_PYPI__ORGC__INDEX__FRESH_SECONDS": "1"})


def test_every_configuration_is_one_that_the_bot_accepts(tmp_path: Path) -> None:
    for org in stack_of(tmp_path, 3).orgs:
        told = config.load(org.plan.home.config, {})
        assert (told.organisation.name, told.announce.gateway) == (org.plan.name, org.plan.frontend_url)
    alone = config.load(stack_of(tmp_path / "alone", 1).orgs[0].plan.home.config, {})
    assert alone.announce == config.AnnounceSettings()
