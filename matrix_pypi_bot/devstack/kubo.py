"""A Kubo node of a local stack: closed to everybody but the nodes that hold its swarm key, and to everybody without its token.

A node out of the box binds to every address, announces what it has, and dials strangers; here it does none of that.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from matrix_pypi_bot.devstack.home import Home
from matrix_pypi_bot.devstack.ports import LOOPBACK, KuboPorts
from matrix_pypi_bot.process.command_line import NeededIsMissing
from matrix_pypi_bot.process.secret_files import create_secret, new_token, read_secret, write_private
from matrix_pypi_bot.wire.problems import clean_line

PROFILE: Final = "unixfs-v1-2025"
PROBE_PATH: Final = "/ipfs/bafkqaaa?format=raw"
"""What a gateway answers whatever it holds: the CID is its own content, and that is empty."""
COMMANDS: Final = (
    "version", "id", "add", "cat", "block", "dag/import", "dag/export", "pin", "repo/stat", "repo/gc", "swarm/peers",
    "swarm/peering", "swarm/connect",
)  # fmt: skip
"""What a token opens; a whole RPC can read files, change the configuration and export keys."""
HOW_TO_GET: Final = "put Kubo's `ipfs` (0.40 or newer) on PATH; in a checkout with Go, .ci/kubo/build makes one"
_INIT_SECONDS: Final = 60.0

Tree = dict[str, Any]


def find_binary(environ: Mapping[str, str] = os.environ) -> Path | None:
    """`ipfs` on PATH, else the newest that `.ci/kubo/build` made; None when there is neither."""
    on_path = shutil.which("ipfs", path=environ.get("PATH"))
    if on_path:
        return Path(on_path).absolute()
    cache = Path(environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "/nonexistent")) / ".cache")
    built = [file for file in cache.glob("matrix-pypi/kubo/*/ipfs") if os.access(file, os.X_OK)]
    return max(built, key=lambda file: file.stat().st_mtime, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class KuboNode:
    """A node: its program, its repository, its ports, and the files of its two secrets."""

    binary: Path
    folder: Path
    ports: KuboPorts
    token_file: Path
    swarm_key_file: Path

    @property
    def url(self) -> str:
        """Its RPC."""
        return f"http://{LOOPBACK}:{self.ports.rpc}"

    @property
    def command(self) -> tuple[str, ...]:
        """What starts it."""
        return (str(self.binary), self.mark, "daemon", "--migrate=true")

    @property
    def mark(self) -> str:
        """The part of its command by which it is known."""
        return f"--repo-dir={self.folder}"

    @property
    def environment(self) -> dict[str, str]:
        """What its process is told beside. With the last it refuses to run without a swarm key."""
        return {"IPFS_PATH": str(self.folder), "IPFS_TELEMETRY": "off", "LIBP2P_FORCE_PNET": "1"}

    @property
    def address(self) -> Tree:
        """Where the other nodes find it, as Kubo's `Peering.Peers` names it; once it is prepared."""
        config = json.loads((self.folder / "config").read_bytes())
        return {"ID": config["Identity"]["PeerID"], "Addrs": [f"/ip4/{LOOPBACK}/tcp/{self.ports.swarm}"]}

    def prepare(self) -> None:
        """Make its secrets and its repository unless they are there, and write its configuration anew. Raises NeededIsMissing."""
        create_secret(self.token_file, new_token())
        create_secret(self.swarm_key_file, f"/key/swarm/psk/1.0.0/\n/base16/\n{secrets.token_hex(32)}")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        config = self.folder / "config"
        whole = (config, self.folder / "version")  # Kubo writes that one last: without it, it was killed meanwhile
        if not all(file.exists() for file in whole):
            config.unlink(missing_ok=True)
            self._initialise()
        try:
            tree = json.loads(config.read_bytes())
        except (OSError, ValueError) as error:
            raise NeededIsMissing(
                f"{config} is damaged: {error}", hint="move that folder away and start again"
            ) from error
        _merge(tree, closed(self.ports, read_secret(self.token_file)))
        write_private(config, json.dumps(tree, indent=2))
        write_private(self.folder / "swarm.key", self.swarm_key_file.read_text())

    def introduce(self, others: Iterable[KuboNode]) -> None:
        """Have it stay connected with the `others`, when all are prepared."""
        config = self.folder / "config"
        tree = json.loads(config.read_bytes())
        _merge(tree, {"Peering": {"Peers": [other.address for other in others]}})
        write_private(config, json.dumps(tree, indent=2))

    def _initialise(self) -> None:
        command = [str(self.binary), self.mark, "init", f"--profile={PROFILE}"]
        try:
            done = subprocess.run(
                command,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_INIT_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NeededIsMissing(f"{self.binary} cannot be run: {error}", hint=HOW_TO_GET) from error
        if done.returncode:
            told = clean_line((done.stderr or done.stdout).decode(errors="replace"))
            raise NeededIsMissing(f"{self.binary} makes no node with the profile {PROFILE}: {told}", hint=HOW_TO_GET)


def node_of(home: Home, org: str, ports: KuboPorts, environ: Mapping[str, str] = os.environ) -> KuboNode:
    """The node of an organisation; those of one stack share a swarm key. Raises NeededIsMissing when there is no program."""
    binary = find_binary(environ)
    if binary is None:
        raise NeededIsMissing("--storage kubo needs Kubo, and there is no ipfs on PATH", hint=HOW_TO_GET)
    return KuboNode(
        binary=binary,
        folder=home.org(org).kubo,
        ports=ports,
        token_file=home.org(org).secret("kubo_token"),
        swarm_key_file=home.swarm_key,
    )


def closed(ports: KuboPorts, token: str) -> Tree:
    """The configuration of a node that listens on loopback, dials only whom it is told to, and fetches for nobody."""
    off = {"Enabled": False}
    return {
        "Addresses": {
            "Swarm": [f"/ip4/{LOOPBACK}/tcp/{ports.swarm}"],
            "API": f"/ip4/{LOOPBACK}/tcp/{ports.rpc}",
            "Gateway": f"/ip4/{LOOPBACK}/tcp/{ports.gateway}",
            "Announce": [], "AppendAnnounce": [], "NoAnnounce": [],
        },
        "API": {
            "Authorizations": {
                "matrix-pypi": {
                    "AuthSecret": f"bearer:{token}",
                    "AllowedPaths": [f"/api/v0/{command}" for command in COMMANDS],
                }
            }
        },
        "Bootstrap": [],
        "AutoConf": off,
        "AutoTLS": off,
        "DNS": {"Resolvers": {}},
        "Discovery": {"MDNS": off},
        "Gateway": {"NoFetch": True, "DeserializedResponses": False},
        "HTTPRetrieval": off,
        "Ipns": {"DelegatedPublishers": []},
        "Provide": off,
        "Routing": {"Type": "none", "DelegatedRouters": []},
        "Swarm": {
            "DisableNatPortMap": True,
            "RelayClient": off,
            "RelayService": off,
            "Transports": {
                "Network": dict.fromkeys(("QUIC", "WebTransport", "WebRTCDirect", "Websocket", "Relay"), False)
            },
            "ConnMgr": {"LowWater": 50, "HighWater": 100},
            "ResourceMgr": {"MaxMemory": "1GiB"},
        },
    }  # fmt: skip


def _merge(tree: Tree, ours: Tree) -> None:
    """Put `ours` into `tree`; only mappings that hold something are looked into."""
    for key, value in ours.items():
        if isinstance(value, dict) and value and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value
