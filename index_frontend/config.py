"""The frontend's settings: one class a section of the configuration file, commented key by key in `example-config.yaml`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from msgspec import Meta, field

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
from matrix_pypi_bot.process.settings import Section, load_settings

EXAMPLE: Final = Path(__file__).with_name("example-config.yaml")
BOT_SECTIONS: Final = ("homeserver", "appservice", "database", "organisation", "index", "policy", "rooms", "api")


class ListenSettings(Section, frozen=True, kw_only=True):
    """Where installers connect. With `allowed_hosts`, requests whose `Host` is none of these (port apart) are refused."""

    host: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    port: Port = 8080
    allowed_hosts: tuple[Annotated[str, Meta(min_length=1)], ...] = ()


class OracleSettings(Section, frozen=True, kw_only=True):
    """The bot. `on_oracle_down` is what happens when it has been away for longer than `max_stale_seconds`."""

    url: ServiceUrl
    token_file: Path
    max_stale_seconds: Seconds = 300
    on_oracle_down: Literal["refuse", "serve"] = "refuse"


class StorageSettings(Section, frozen=True, kw_only=True):
    """Where files are kept. `memory_bytes` bounds the finished pages held in memory, per worker."""

    folder: Path
    memory_bytes: Bytes = 64 << 20


class UpstreamSettings(Section, frozen=True, kw_only=True):
    """How files are fetched. `read_timeout_seconds` bounds a silence, not a transfer."""

    connect_timeout_seconds: TimeoutSeconds = 3
    read_timeout_seconds: TimeoutSeconds = 10
    max_file_bytes: Annotated[int, Meta(ge=1, le=1 << 50)] = 5 << 30
    proxy: HttpUrl | None = None


class Settings(Section, frozen=True, kw_only=True):
    """Everything the frontend can be told."""

    oracle: OracleSettings
    storage: StorageSettings
    listen: ListenSettings = field(default_factory=ListenSettings)
    upstream: UpstreamSettings = field(default_factory=UpstreamSettings)
    workers: Workers = 1
    logging: LoggingSettings = field(default_factory=LoggingSettings)


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings in `path` with the overrides of `environ`. Raises ConfigurationProblem."""
    return load_settings(path, Settings, environ=environ, foreign_sections=BOT_SECTIONS, example=EXAMPLE)
