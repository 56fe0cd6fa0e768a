"""The frontend's settings: one class a section of the configuration file, commented key by key in `example-config.yaml`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, field, structs

from index_frontend.storage.api import Misconfigured
from index_frontend.storage.registry import make_backends
from matrix_pypi_bot.process.logs import LoggingSettings
from matrix_pypi_bot.process.setting_types import (
    Bytes,
    HttpUrl,
    Port,
    Seconds,
    ServiceUrl,
    TimeoutSeconds,
    Workers,
)
from matrix_pypi_bot.process.settings import ConfigurationProblem, Section, load_settings, place_of

EXAMPLE: Final = Path(__file__).with_name("example-config.yaml")
BOT_SECTIONS: Final = (
    "announce",
    "homeserver",
    "appservice",
    "database",
    "organisation",
    "index",
    "policy",
    "rooms",
    "trust",
    "log",
    "provenance",
    "public",
    "api",
)
EMBEDDED: Final = "file"
"""What the store in `storage.folder` is called among the backends."""

BackendName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9]*([-_][a-z0-9]+)*$", max_length=40)]
_PATH_KEYS: Final = ("folder", "path", "file")


class ListenSettings(Section, frozen=True, kw_only=True):
    """Where installers connect. With `allowed_hosts`, requests whose `Host` is none of these (port apart) are refused."""

    host: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    port: Port = 8080
    allowed_hosts: tuple[Annotated[str, Meta(min_length=1)], ...] = ()


class OracleSettings(Section, frozen=True, kw_only=True):
    """The bot; `public_url` is where its public pages are, which are asked for without the token. `on_oracle_down` is what happens
    when it has been away for longer than `max_stale_seconds`.
    """

    url: ServiceUrl
    token_file: Path
    public_url: ServiceUrl = ServiceUrl("http://127.0.0.1:29332")
    max_stale_seconds: Seconds = 300
    on_oracle_down: Literal["refuse", "serve"] = "refuse"


class StorageSettings(Section, frozen=True, kw_only=True):
    """Where files are kept, and how much of the disk. `memory_bytes` bounds the finished pages held in memory, per worker.

    What was used longest ago is evicted when files take more than `max_bytes`, or when less than `min_free_bytes` or `min_free_inodes`
    of the disk are free (at most a 20th and a 100th of a small disk); 0: no floor. Everything is hashed again at
    `scrub_bytes_per_second`; 0: never.
    """

    folder: Path
    memory_bytes: Bytes = 64 << 20
    max_bytes: Bytes | None = None
    min_free_bytes: Bytes = 1 << 30
    min_free_inodes: Bytes = 10_000
    scrub_bytes_per_second: Bytes = 4 << 20


class UpstreamSettings(Section, frozen=True, kw_only=True):
    """How files are fetched. `read_timeout_seconds` bounds a silence, not a transfer. Upstream is asked for a file with a known CID
    when peers have not begun to send it after `peer_head_start_seconds`.
    """

    connect_timeout_seconds: TimeoutSeconds = 3
    read_timeout_seconds: TimeoutSeconds = 10
    max_file_bytes: Annotated[int, Meta(ge=1, le=1 << 50)] = 5 << 30
    proxy: HttpUrl | None = None
    peer_head_start_seconds: Seconds = 0.15


class PeerSettings(Section, frozen=True, kw_only=True):
    """Another mirror: what it is called here, and the address of its trustless gateway, without `/ipfs/`."""

    name: BackendName
    gateway: HttpUrl


class Settings(Section, frozen=True, kw_only=True):
    """Everything the frontend can be told. `peers` are other mirrors, `backends` other stores by their names: what a section of
    these holds is its plug-in's affair.
    """

    oracle: OracleSettings
    storage: StorageSettings
    listen: ListenSettings = field(default_factory=ListenSettings)
    upstream: UpstreamSettings = field(default_factory=UpstreamSettings)
    peers: tuple[PeerSettings, ...] = ()
    backends: dict[BackendName, dict[str, Any]] = field(default_factory=dict)
    workers: Workers = 1
    logging: LoggingSettings = field(default_factory=LoggingSettings)


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings in `path` with the overrides of `environ`; plug-ins have looked at theirs. Raises ConfigurationProblem."""
    settings = load_settings(path, Settings, environ=environ, foreign_sections=BOT_SECTIONS, example=EXAMPLE)
    backends = {name: _with_paths(section, path.parent.absolute()) for name, section in settings.backends.items()}
    names = [peer.name for peer in settings.peers]
    if len(set(names)) < len(names):
        raise ConfigurationProblem(f"{place_of(path, ('peers',))}: two peers have the same name")
    if EMBEDDED in backends:
        where = place_of(path, ("backends", EMBEDDED))
        raise ConfigurationProblem(
            f"{where}: that is the name of the store in storage.folder", hint="take another name"
        )
    try:
        make_backends(backends)
    except Misconfigured as problem:
        where = place_of(path, ("backends", problem.backend, *filter(None, (problem.key,))))
        raise ConfigurationProblem(f"{where}: {problem.detail.partition(': ')[2]}", hint=problem.hint) from problem
    return structs.replace(settings, backends=backends)


def _with_paths(section: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Paths in a plug-in's section made absolute: values of `folder`, `path`, `file`, and of keys that end in `_` and one of these."""
    return {
        key: str(folder / Path(value).expanduser())
        if isinstance(value, str) and value and str(key).rpartition("_")[2] in _PATH_KEYS
        else value
        for key, value in section.items()
    }
