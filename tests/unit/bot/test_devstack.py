"""The local stack without its real processes: ports, secrets, files, and the watch over children, with small children."""

from __future__ import annotations

import base64
import errno
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from ruamel.yaml import YAML

from index_frontend import config as frontend_config
from matrix_pypi_bot import config
from matrix_pypi_bot.adapters.provenance.root import shipped_root
from matrix_pypi_bot.devstack import preparing, processes, stack, supervisor
from matrix_pypi_bot.devstack.children import Part, command_of, spawn, stop_leftovers
from matrix_pypi_bot.devstack.configs import OrgPlan, make_secrets, to_yaml, write_configs
from matrix_pypi_bot.devstack.home import Home
from matrix_pypi_bot.devstack.kubo import find_binary
from matrix_pypi_bot.devstack.overrides import refuse_overrides
from matrix_pypi_bot.devstack.ports import KuboPorts, OrgPorts, PublicPorts, check_frontends, check_kept, kept_ports
from matrix_pypi_bot.devstack.progress import Progress
from matrix_pypi_bot.devstack.signals import Signals
from matrix_pypi_bot.devstack.supervisor import Stopped, Supervisor
from matrix_pypi_bot.devstack.tls import Tls, ensure_tls
from matrix_pypi_bot.process.command_line import NeededIsMissing
from matrix_pypi_bot.process.settings import ConfigurationProblem
from matrix_pypi_bot.wire.problems import Problem
from tests.support.waiting import wait_until

PORTS = OrgPorts(federation=18448, client=18081, appservice=18091, api=29330)
KUBO_PORTS = KuboPorts(rpc=20001, gateway=20002, swarm=20003)


def probe_of(taken: set[int]) -> object:
    """A probe for which the ports in `taken` are taken."""
    return lambda _, port: OSError(errno.EADDRINUSE, "in use") if port in taken else None


def written(plan: OrgPlan) -> None:
    make_secrets(plan)
    write_configs(plan)


def plan_in(folder: Path, **changes: object) -> OrgPlan:
    home = Home(folder)
    known: dict[str, object] = {
        "name": "orga",
        "home": home.org("orga"),
        "ports": PORTS,
        "public": PublicPorts(public=29332),
        "tls": Tls(authority=folder / "ca.crt", certificate=folder / "s.crt", key=folder / "s.key"),
        "frontend_host": "127.0.0.1",
        "frontend_port": 8080,
        "upstream": None,
        "database": None,
    }
    return OrgPlan(**(known | changes))  # type: ignore[arg-type]


# ---- ports ----------------------------------------------------------------------------------------------------------


def test_ports_are_chosen_once_and_kept(tmp_path: Path) -> None:
    home = Home(tmp_path)
    first = kept_ports(home, "orga", avoid=(), probe=probe_of(set()))  # type: ignore[arg-type]
    again = kept_ports(home, "orga", avoid=(), probe=probe_of({*range(65536)}))  # type: ignore[arg-type]
    other = kept_ports(home, "orgb", avoid=(), probe=probe_of(set()))  # type: ignore[arg-type]
    numbers = [first.federation, first.client, first.appservice, first.api]
    assert (again, len({*numbers}), all(18_000 <= port < 32_000 for port in numbers)) == (first, 4, True)
    assert kept_ports(home, "orgb", avoid=(), probe=probe_of(set())) == other  # type: ignore[arg-type]
    assert first.server_name == f"localhost:{first.federation}"


def test_a_chosen_port_is_free_and_is_not_the_frontends(tmp_path: Path) -> None:
    avoid = {*range(18_000, 31_000)}
    chosen = kept_ports(Home(tmp_path), "orga", avoid=avoid, probe=probe_of({*range(31_000, 31_900)}))  # type: ignore[arg-type]
    assert chosen.client in range(31_900, 32_000)


@pytest.mark.parametrize("content", ["", "{", '{"orga": 5}', '{"orga": {"client": 1}}', '{"orga": {"api": "y"}}'])
def test_kept_ports_that_cannot_be_read_are_never_replaced_because_a_name_holds_one(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / "ports.json").write_text(content)
    with pytest.raises(NeededIsMissing, match="is damaged"):
        kept_ports(Home(tmp_path), "orga", avoid=(), probe=probe_of(set()))  # type: ignore[arg-type]
    assert (tmp_path / "ports.json").read_text() == content


@pytest.mark.parametrize(
    ("problem", "detail", "hint"),
    [
        (
            errno.EADDRINUSE,
            "port 8080 on 127.0.0.1 is taken",
            "stop what listens there, or take another port: --port 8082",
        ),
        (
            errno.EACCES,
            "port 8080 on 127.0.0.1 is reserved for the administrator",
            "take a port above 1023: --port 8080",
        ),
        (errno.EADDRNOTAVAIL, "cannot listen on port 8080 on 127.0.0.1: told", "look at --host and --port"),
    ],
)
def test_a_port_that_cannot_be_had_comes_with_what_to_do(problem: int, detail: str, hint: str) -> None:
    with pytest.raises(NeededIsMissing) as caught:
        check_frontends(
            "127.0.0.1", range(8080, 8081), probe=lambda _, port: OSError(problem, "told") if port < 8082 else None
        )
    assert (caught.value.detail, caught.value.hint) == (detail, hint)


def test_a_kept_port_that_somebody_took_is_named_with_its_purpose(tmp_path: Path) -> None:
    with pytest.raises(NeededIsMissing, match=r"port 29330 on 127.0.0.1, which this stack uses for api, is taken"):
        check_kept(PORTS, Home(tmp_path), frontends=range(8080, 8081), probe=probe_of({29330}))  # type: ignore[arg-type]
    with pytest.raises(NeededIsMissing, match=r"uses for api, cannot be a frontend's too"):
        check_kept(PORTS, Home(tmp_path), frontends=range(29330, 29331), probe=probe_of(set()))  # type: ignore[arg-type]


# ---- the folder -----------------------------------------------------------------------------------------------------


def test_two_stacks_never_share_a_folder(tmp_path: Path) -> None:
    home = Home(tmp_path / "new" / "home")
    lock = home.lock()
    with pytest.raises(NeededIsMissing, match=f"process {os.getpid()}"):
        home.lock()
    os.close(lock)
    os.close(home.lock())
    assert stat.S_IMODE(home.folder.stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_used_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NeededIsMissing, match="cannot use the folder"):
        Home(tmp_path / "file").lock()


def test_a_log_that_has_grown_large_is_put_aside(tmp_path: Path) -> None:
    log = Home(tmp_path).log("orga", "bot")
    log.touch()
    os.truncate(log, 21 << 20)
    assert Home(tmp_path).log("orga", "bot") == tmp_path / "logs" / "orga-bot.log"
    assert [file.name for file in log.parent.iterdir()] == ["orga-bot.log.1"]


def test_the_certificate_is_for_this_machine_and_signed_by_our_own_authority(tmp_path: Path) -> None:
    tls = ensure_tls(tmp_path)
    authority, server = (x509.load_pem_x509_certificate(file.read_bytes()) for file in (tls.authority, tls.certificate))
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    before = tls.certificate.read_bytes()
    assert ensure_tls(tmp_path).certificate.read_bytes() == before
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}


# ---- configurations -------------------------------------------------------------------------------------------------


def test_both_configurations_are_ones_that_the_processes_accept(tmp_path: Path) -> None:
    plan = plan_in(tmp_path, upstream="http://index.example:99/simple")
    written(plan)
    bot, frontend = config.load(plan.home.config, {}), frontend_config.load(plan.home.frontend_config, {})
    assert (bot.homeserver.server_name, bot.bot_mxid, bot.index.endpoint, bot.index.attests, bot.database.url) == (
        "localhost:18448",
        "@pypi:localhost:18448",
        "http://index.example:99/simple/",
        True,
        f"sqlite:{tmp_path}/orga/bot.db",
    )
    assert (frontend.oracle.url, frontend.oracle.token_file, frontend.listen.port) == (
        f"http://{bot.api.listen}",
        bot.api.token_file,
        8080,
    )
    assert (frontend.oracle.public_url, bot.log.checkpoint_seconds) == (f"http://{bot.public.listen}", 5)


def test_provenance_is_verified_under_the_root_that_came_with_it_unless_another_is_there(tmp_path: Path) -> None:
    plan = plan_in(tmp_path)
    written(plan)
    assert config.load(plan.home.config, {}).provenance.trusted_root_file == plan.home.trusted_root
    assert plan.home.trusted_root.read_bytes() == shipped_root()
    plan.home.trusted_root.write_bytes(b"another")
    written(plan)
    assert plan.home.trusted_root.read_bytes() == b"another"


def test_the_upstream_is_the_default_one_unless_another_was_asked_for(tmp_path: Path) -> None:
    plan = plan_in(tmp_path, database="postgres://u@h/db")
    written(plan)
    bot = config.load(plan.home.config, {"MATRIX_PYPI__INDEX__FRESH_SECONDS": "2"})
    assert (bot.index, bot.index.attests, bot.database.url) == (
        config.IndexSettings(fresh_seconds=2),
        True,
        "postgres://u@h/db",
    )


def test_databases_are_private_also_in_a_home_that_everybody_can_read(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "orga").mkdir(mode=0o755)
    written(plan_in(tmp_path))
    assert stat.S_IMODE((tmp_path / "orga").stat().st_mode) == 0o700


def test_secrets_survive_and_stand_in_no_configuration(tmp_path: Path) -> None:
    plan = plan_in(tmp_path)
    written(plan)
    folder = tmp_path / "orga" / "secrets"
    secrets = {file.name: file.read_text() for file in folder.iterdir()}
    written(plan)
    assert {file.name: file.read_text() for file in folder.iterdir()} == secrets
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    texts = [file.read_text() for file in (tmp_path / "orga").glob("*.yaml")]
    assert len(texts) == 4
    assert not [name for name, secret in secrets.items() if any(secret.strip() in text for text in texts)]


def test_the_homeservers_signing_key_has_the_form_that_synapse_reads(tmp_path: Path) -> None:
    written(plan_in(tmp_path))
    algorithm, version, seed = (tmp_path / "orga/secrets/homeserver_signing_key").read_text().split()
    assert (algorithm, version[:2], len(base64.b64decode(f"{seed}="))) == ("ed25519", "a_", 32)


def test_yaml_holds_whatever_a_path_may_hold() -> None:
    tree = {"a": "x: y # z", "b": {"ä": "ü\n", "list": [1, None, {"x": True}]}, "c": {}, "d": None, "e": 'quote"'}
    assert YAML(typ="safe", pure=True).load(to_yaml(tree)) == tree


@pytest.mark.parametrize(
    "variable", ["API__LISTEN", "LISTEN__PORT", "ORGANISATION__NAME", "STORAGE__FOLDER", "DATABASE__URL"]
)
def test_the_environment_cannot_move_what_the_stack_has_placed(tmp_path: Path, variable: str) -> None:
    with pytest.raises(ConfigurationProblem, match=f"MATRIX_PYPI__{variable} overrides what"):
        refuse_overrides(plan_in(tmp_path), {f"MATRIX_PYPI__{variable}": "x"})


def test_the_environment_can_change_everything_else(tmp_path: Path) -> None:
    names = (
        "INDEX__FRESH_SECONDS",
        "INDEX__URL",
        "POLICY__OFFLINE",
        "ORACLE__MAX_STALE_SECONDS",
        "LOGGING__LEVEL",
        "WORKERS",
    )
    refuse_overrides(plan_in(tmp_path), {f"MATRIX_PYPI__{name}": "x" for name in names})


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::", "http://[::1]:8080"),
        ("::1", "http://[::1]:8080"),
        ("pypi.example", "http://pypi.example:8080"),
    ],
)
def test_the_address_that_is_printed_can_be_connected_to(tmp_path: Path, host: str, url: str) -> None:
    assert plan_in(tmp_path, frontend_host=host).frontend_url == url


# ---- preparing ------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of the system about ports."""
    monkeypatch.setattr(preparing, "check_frontends", lambda *_: None)
    monkeypatch.setattr(preparing, "check_kept", lambda *_, **__: None)
    monkeypatch.setattr(preparing, "kept_ports", lambda *_, **__: PORTS)
    monkeypatch.setattr(preparing, "kept_public_ports", lambda *_, **__: PublicPorts(public=29332))


def options(home: Path, **changes: object) -> preparing.Options:
    known: dict[str, object] = {"home": home, "host": "127.0.0.1", "port": 8080, "upstream": None, "database": None}
    return preparing.Options(**(known | changes))  # type: ignore[arg-type]


@pytest.mark.usefixtures("no_ports")
def test_stack_json_says_where_everything_is(tmp_path: Path) -> None:
    prepared = preparing.prepare(options(tmp_path, upstream="http://index.example/simple"), {})
    os.close(prepared.lock)
    folder = tmp_path / "orga"
    assert processes.stack_json(
        prepared, trust_rooms={"orga": "!room"}, pids={"homeserver": 1, "bot": 2, "frontend": 3}
    ) == {
        "version": 1,
        "home": str(tmp_path),
        "ca_file": str(tmp_path / "tls/ca.crt"),
        "upstream": "http://index.example/simple/",
        "orgs": [
            {
                "name": "orga",
                "server_name": "localhost:18448",
                "homeserver": "http://127.0.0.1:18081",
                "registration_secret_file": str(folder / "secrets/registration_secret"),
                "as_token_file": str(folder / "secrets/as_token"),
                "bot_mxid": "@pypi:localhost:18448",
                "bot": "http://127.0.0.1:29330",
                "bot_token_file": str(folder / "secrets/api_token"),
                "frontend": "http://127.0.0.1:8080",
                "simple": "http://127.0.0.1:8080/simple/",
                "trust_room": "!room",
                "space": "#pypi:localhost:18448",
                "root_key_file": str(folder / "secrets/root_key"),
                "mirror_key_file": str(folder / "secrets/mirror_key"),
                "config_file": str(folder / "config.yaml"),
                "frontend_config_file": str(folder / "frontend.yaml"),
                "log": "http://127.0.0.1:8080/log/v1/",
                "kubo": None,
                "kubo_token_file": None,
                "pids": {"homeserver": 1, "bot": 2, "frontend": 3},
            }
        ],
    }
    assert all(
        Path(value).exists()
        for key, value in processes.stack_json(prepared, trust_rooms={"orga": ""}, pids={})["orgs"][0].items()
        if key.endswith("_file") and value
    )


@pytest.fixture
def ipfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that makes a configuration as Kubo's `init` does, and can do nothing else."""
    program = tmp_path / "bin" / "ipfs"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\ncase "$*" in *"init --profile=unixfs-v1-2025") echo "{\\"Identity\\": {\\"PeerID\\": \\"x\\"},'
        ' \\"API\\": {}, \\"Swarm\\": {\\"ConnMgr\\": {\\"GracePeriod\\": \\"20s\\"}}}"'
        ' >"$IPFS_PATH/config"; touch "$IPFS_PATH/version";;'
        " *) exit 1;; esac\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(preparing, "kept_kubo_ports", lambda *_, **__: KUBO_PORTS)
    return program


@pytest.mark.usefixtures("no_ports")
def test_a_kubo_node_is_closed_and_the_frontend_is_told_of_it(tmp_path: Path, ipfs: Path) -> None:
    prepared = preparing.prepare(
        options(tmp_path, kubo=True, upstream="http://index.example/simple"), {"PATH": str(ipfs.parent)}
    )
    os.close(prepared.lock)
    told = json.loads((tmp_path / "orga/kubo/config").read_bytes())
    token = (tmp_path / "orga/secrets/kubo_token").read_text().strip()
    assert told["Identity"] == {"PeerID": "x"}
    assert (told["Swarm"]["ConnMgr"], told["Bootstrap"], told["Routing"]["Type"], told["Addresses"]["API"]) == (
        {"GracePeriod": "20s", "LowWater": 50, "HighWater": 100},
        [],
        "none",
        "/ip4/127.0.0.1/tcp/20001",
    )
    ((secret, paths),) = ((who["AuthSecret"], who["AllowedPaths"]) for who in told["API"]["Authorizations"].values())
    assert (secret, "/api/v0/config" in paths, "/api/v0/dag/import" in paths) == (f"bearer:{token}", False, True)
    assert (tmp_path / "orga/kubo/swarm.key").read_text() == (tmp_path / "swarm.key").read_text()
    assert (tmp_path / "swarm.key").read_text().splitlines()[:2] == ["/key/swarm/psk/1.0.0/", "/base16/"]
    section = {"type": "kubo", "url": "http://127.0.0.1:20001", "token_file": str(tmp_path / "orga/secrets/kubo_token")}
    assert frontend_config.load(prepared.orgs[0].plan.home.frontend_config, {}).backends == {"kubo": section}
    (org,) = processes.stack_json(prepared, trust_rooms={"orga": ""}, pids={})["orgs"]
    assert (org["kubo"], org["kubo_token_file"]) == (section["url"], section["token_file"])
    part = processes.parts(prepared, prepared.orgs[0])["kubo"]
    assert (part.command[:3], part.environment["LIBP2P_FORCE_PNET"], part.mark in part.command) == (
        (str(ipfs), f"--repo-dir={tmp_path}/orga/kubo", "daemon"),
        "1",
        True,
    )


@pytest.mark.usefixtures("no_ports")
def test_a_kubo_node_keeps_its_secrets(tmp_path: Path, ipfs: Path) -> None:
    files = [tmp_path / "orga/secrets/kubo_token", tmp_path / "swarm.key", tmp_path / "orga/kubo/config"]
    kept = []
    for _ in range(2):
        os.close(preparing.prepare(options(tmp_path, kubo=True), {"PATH": str(ipfs.parent)}).lock)
        kept.append([file.read_text() for file in files])
    assert kept[0] == kept[1]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


@pytest.mark.usefixtures("no_ports", "ipfs")
def test_without_kubo_it_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(NeededIsMissing, match="no ipfs on PATH") as caught:
        preparing.prepare(options(tmp_path, kubo=True), {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)})
    assert ".ci/kubo/build" in caught.value.hint


@pytest.mark.usefixtures("no_ports")
def test_an_ipfs_that_makes_no_such_node_is_refused(tmp_path: Path, ipfs: Path) -> None:
    ipfs.write_text("#!/bin/sh\necho 'invalid configuration profile' >&2\nexit 1\n")
    for _ in range(2):  # nothing half made is taken for a node the second time
        with pytest.raises(NeededIsMissing, match="invalid configuration profile"):
            preparing.prepare(options(tmp_path / "home", kubo=True), {"PATH": str(ipfs.parent)})
        lock = tmp_path / "home/lock"
        lock.unlink()


@pytest.mark.usefixtures("no_ports")
def test_a_node_that_was_killed_while_it_was_made_is_made_anew(tmp_path: Path, ipfs: Path) -> None:
    folder = tmp_path / "orga/kubo"
    folder.mkdir(parents=True)
    (folder / "config").write_text('{"Identity": {"PeerID": "of the ')
    os.close(preparing.prepare(options(tmp_path, kubo=True), {"PATH": str(ipfs.parent)}).lock)
    assert json.loads((folder / "config").read_bytes())["Identity"] == {"PeerID": "x"}


@pytest.mark.usefixtures("no_ports")
def test_a_built_kubo_is_found_in_the_cache(tmp_path: Path) -> None:
    built = tmp_path / "matrix-pypi/kubo/0123/ipfs"
    built.parent.mkdir(parents=True)
    assert find_binary({"PATH": "", "XDG_CACHE_HOME": str(tmp_path)}) is None
    built.write_text("")
    built.chmod(0o755)
    assert find_binary({"PATH": "", "XDG_CACHE_HOME": str(tmp_path)}) == built


@pytest.mark.usefixtures("no_ports")
def test_the_stack_json_of_the_last_time_is_gone_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text("{}")
    os.close(preparing.prepare(options(tmp_path), {}).lock)
    assert not (tmp_path / "stack.json").exists()


@pytest.mark.usefixtures("no_ports")
def test_an_environment_that_no_process_would_accept_starts_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationProblem, match="MATRIX_PYPI__INDEX__FRESH_SECS overrides no key"):
        preparing.prepare(options(tmp_path), {"MATRIX_PYPI__INDEX__FRESH_SECS": "2"})


def test_without_a_homeserver_installed_it_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(NeededIsMissing, match="Synapse") as caught:
        preparing.prepare(options(tmp_path), {})
    assert "make setup" in caught.value.hint


@pytest.mark.usefixtures("no_ports")
def test_what_is_printed_when_it_is_ready_begins_with_ready_once(tmp_path: Path) -> None:
    prepared = preparing.prepare(options(tmp_path), {})
    os.close(prepared.lock)
    lines = processes.ready_lines(prepared, 3.21)
    assert [line for line in lines if line.startswith("ready")] == ["ready after 3.2 s: http://127.0.0.1:8080/simple/"]
    assert "pip install --index-url http://127.0.0.1:8080/simple/ --trusted-host 127.0.0.1 PACKAGE" in lines[1]


# ---- children -------------------------------------------------------------------------------------------------------

SLEEPER = "import time\ntime.sleep(600)"


class World:
    """A supervisor with children that are small scripts; a child is ready when the file of its name is there."""

    def __init__(self, folder: Path, signals: Signals) -> None:
        self.folder = folder
        self.signals = signals
        self.lines: list[str] = []
        self.pids: list[dict[str, int]] = []
        self.supervisor = Supervisor(
            signals, say=self.lines.append, changed=lambda: self.pids.append(self.supervisor.pids)
        )

    def part(self, name: str, script: str = SLEEPER) -> Part:
        ready = self.folder / f"{name}.ready"
        opening = f"import pathlib, sys, signal\npathlib.Path({str(ready)!r}).touch()\n"
        return Part(
            name=name,
            command=(sys.executable, "-S", "-c", opening + script),
            folder=self.folder,
            log=self.folder / f"{name}.log",
            ready=ready.exists,
            mark=str(ready),
        )

    def start(self, *parts: Part) -> None:
        for part in parts:
            self.supervisor.start(part)
        self.wait_ready(*(part.name for part in parts))

    def wait_ready(self, *names: str, timeout_seconds: float = 30) -> None:
        self.supervisor.wait_ready(names, timeout_seconds=timeout_seconds, tick=lambda _: None, also=lambda: True)

    def watch_until(self, told: str) -> None:
        """Watch until a line that holds `told` was said; then the signal comes."""

        def say(line: str) -> None:
            self.lines.append(line)
            if told in line:
                os.kill(os.getpid(), signal.SIGTERM)

        self.supervisor._say = say
        with pytest.raises(Stopped):
            self.supervisor.watch()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Everything that it started is gone afterwards."""
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_SECONDS", 0.05)
    with Signals() as signals:
        world = World(tmp_path, signals)
        yield world
        world.supervisor.stop()
        assert not any(command_of(pid) for pid in world.supervisor.pids.values())


def test_children_start_in_order_and_are_stopped_in_reverse(world: World) -> None:
    says = "def end(*_):\n open('order','a').write(sys.argv[0] and NAME)\n sys.exit()\nsignal.signal(signal.SIGTERM, end)\n"
    ready = "pathlib.Path(NAME + '.armed').touch()\n"
    for name in ("a", "b", "c"):
        world.start(world.part(name, f"NAME={name!r}\n{says}{ready}{SLEEPER}"))
    wait_until(lambda: len([*world.folder.glob("*.armed")]) == 3, "all handle SIGTERM")
    world.supervisor.stop()
    assert (world.folder / "order").read_text() == "cba"


def test_a_child_that_dies_is_started_again_with_growing_pauses(world: World) -> None:
    world.start(world.part("bot"))
    first = world.supervisor.pids["bot"]
    os.kill(first, signal.SIGKILL)
    world.watch_until("is back")
    assert world.lines[0] == f"bot was killed by SIGKILL; starting it again in 0.05 s (log: {world.folder}/bot.log)"
    assert world.lines[1].startswith("bot is back after ")
    assert world.pids == [{"bot": first}, {"bot": world.supervisor.pids["bot"]}]
    child = world.supervisor._children[0]
    assert [round(child.died(), 2) for _ in range(12)][-4:] == [25.6, 30.0, 30.0, 30.0]


def test_a_child_that_lived_long_starts_with_the_short_pause_again(world: World) -> None:
    world.start(world.part("bot"))
    child = world.supervisor._children[0]
    child.died()
    child.died()
    child.started -= supervisor.STEADY_SECONDS + 1
    assert child.died() == supervisor.FIRST_PAUSE_SECONDS
    child.again_at = None


def test_a_signal_ends_the_watch_at_once(world: World) -> None:
    world.start(world.part("bot"))
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(Stopped):
        world.supervisor.watch()


@pytest.mark.parametrize("code", [2, 3, 4])
def test_a_child_that_says_it_cannot_start_ends_the_start_with_its_words(world: World, code: int) -> None:
    world.supervisor.start(
        world.part("bot", f"(pathlib.Path('bot.ready')).unlink()\nprint('error: no key')\nsys.exit({code})")
    )
    with pytest.raises(Problem) as caught:
        world.wait_ready("bot")
        world.supervisor.wait_ready(["never"], timeout_seconds=30, tick=lambda _: None, also=lambda: False)
    assert f"bot ended with exit code {code} while starting" in caught.value.detail
    assert caught.value.detail.endswith("error: no key")
    assert isinstance(caught.value, NeededIsMissing) == (code != 3)


def test_a_child_that_keeps_dying_ends_the_start(world: World) -> None:
    world.supervisor.start(world.part("bot", "pathlib.Path('bot.ready').unlink()\nsys.exit(1)"))
    with pytest.raises(NeededIsMissing, match="exit code 1 while starting"):
        world.supervisor.wait_ready(["bot"], timeout_seconds=30, tick=lambda _: None, also=lambda: False)
    assert len(world.lines) == supervisor.MAX_DEATHS_AT_START - 1


@pytest.mark.usefixtures("no_ports")
def test_a_port_that_another_stack_took_meanwhile_is_never_called_ready(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = preparing.prepare(options(tmp_path), {})
    os.close(prepared.lock)
    names = processes.part_names(prepared)
    monkeypatch.setattr(stack, "parts", lambda *_: {name: world.part(name) for name in names})
    taken = probe_of({8080})
    monkeypatch.setattr(stack, "check_frontends", lambda host, ports: check_frontends(host, ports, probe=taken))  # type: ignore[arg-type]
    with pytest.raises(NeededIsMissing, match=r"port 8080 on 127\.0\.0\.1 is taken"):
        stack.Stack(prepared, Progress(names), world.signals).run()
    assert not (tmp_path / "stack.json").exists()
    assert Home(tmp_path).read("pids.json") == []


def test_a_child_that_is_never_ready_ends_the_start_and_its_log_is_named(world: World) -> None:
    part = Part(
        name="bot", command=(sys.executable, "-S", "-c", SLEEPER), folder=world.folder,
        log=world.folder / "bot.log", ready=lambda: False, mark="x",
    )  # fmt: skip
    world.supervisor.start(part)
    with pytest.raises(NeededIsMissing, match="bot not ready after 0 s") as caught:
        world.wait_ready("bot", timeout_seconds=0)
    assert caught.value.hint == f"the reason is in {world.folder}/bot.log"


def test_a_child_that_does_not_stop_is_killed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STOP_SECONDS", 0.1)
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\npathlib.Path('deaf').touch()\n"
    world.start(world.part("bot", deaf + SLEEPER))
    wait_until((world.folder / "deaf").exists, "it ignores SIGTERM")
    world.supervisor.stop()
    assert world.lines == ["bot does not stop: killed"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux")
def test_a_child_ends_when_its_parent_is_killed(world: World) -> None:
    script = (
        "import sys, time; from pathlib import Path; from matrix_pypi_bot.devstack.children import Part, spawn\n"
        f"part = Part(name='x', command=(sys.executable, '-S', '-c', {SLEEPER!r}), "
        "folder=Path('.'), log=Path('x.log'), ready=bool, mark='')\n"
        "print(spawn(part).pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=world.folder, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        wait_until(lambda: "sleep" in command_of(pid), "the child runs")
        parent.kill()
    wait_until(lambda: not command_of(pid), "the child is gone")


def test_leftovers_are_stopped_and_strangers_with_their_number_are_not(world: World) -> None:
    ours, stranger = spawn(world.part("ours")), spawn(world.part("stranger"))
    wait_until(lambda: {f.name for f in world.folder.glob("*.ready")} == {"ours.ready", "stranger.ready"}, "both run")
    records = [
        {"name": "bot", "pid": ours.pid, "mark": str(world.folder / "ours.ready")},
        {"name": "frontend", "pid": stranger.pid, "mark": "another command"},
        {"name": "homeserver", "pid": 2**22 + 1, "mark": "x"},
        {"name": "x", "pid": "1", "mark": "x"},
        {"pid": 1},
        5,
    ]
    said: list[str] = []
    stop_leftovers(records, say=said.append, stop_seconds=0.2)
    assert (said, ours.wait(5), stranger.poll()) == (
        [f"stopping bot (process {ours.pid}), left over from an earlier start"],
        -signal.SIGTERM,
        None,
    )
    stranger.kill()
    stranger.wait()


@pytest.mark.parametrize("records", [None, {}, "x", [], [{}]])
def test_records_that_say_nothing_stop_nothing(records: object) -> None:
    stop_leftovers(records, say=lambda _: pytest.fail("nothing to say"))


def test_the_progress_of_a_start_is_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(("homeserver", "bot")) as progress:
        progress.waiting_for({"homeserver", "bot"})
        progress.waiting_for({"bot"})
        progress.say("a\x1b[31mline")
        progress.waiting_for(set())
    told = [line.split(" after")[0] for line in capsys.readouterr().out.splitlines()]
    assert told == ["  homeserver   answers", "a [31mline", "  bot          answers"]


def test_the_end_of_a_process_reads_like_a_sentence() -> None:
    ended = [
        subprocess.run([sys.executable, "-S", "-c", f"import os; {how}"], check=False)
        for how in ("os._exit(7)", "os.abort()")
    ]
    assert [supervisor.describe_end(process) for process in ended] == [  # type: ignore[arg-type]
        "ended with exit code 7",
        "was killed by SIGABRT",
    ]


def test_a_reader_that_goes_away_does_not_end_the_stack() -> None:
    script = (
        "import sys; from matrix_pypi_bot.devstack.progress import Progress; progress = Progress(())\n"
        "sys.stdin.read()\n"
        "for _ in range(3): progress.say('bot is back')\n"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, errors = process.communicate(b"", timeout=30)
    assert (process.returncode, errors) == (0, b"")


def test_what_nohup_started_does_not_stop_when_the_terminal_goes() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not signals.stop
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
