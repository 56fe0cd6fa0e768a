"""The bot's settings: one class a section of the configuration file, commented key by key in `example-config.yaml`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from msgspec import Meta, field

from matrix_pypi_bot.policy_settings import DeniedFile, ExemptProject, NamePattern
from matrix_pypi_bot.process.logs import LoggingSettings
from matrix_pypi_bot.process.secret_files import create_secret, new_seed, new_token, read_secret, read_seed
from matrix_pypi_bot.process.setting_types import (
    Bytes,
    Count,
    DatabaseUrl,
    HttpUrl,
    ListenAddress,
    Port,
    Seconds,
    TimeoutSeconds,
)
from matrix_pypi_bot.process.settings import ConfigurationProblem, Section, load_settings

EXAMPLE: Final = Path(__file__).with_name("example-config.yaml")
FRONTEND_SECTIONS: Final = ("backends", "listen", "oracle", "peers", "storage", "upstream", "workers")
MIN_BODY_BYTES: Final = 16 << 20  # a transaction is up to 100 events of 64 KiB and as many ephemeral ones

_SERVER_NAME: Final = re.compile(r"([A-Za-z0-9.-]{1,230}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?", re.ASCII)


class ServerName(str):
    """A homeserver's name, the part of user ids after the first colon, e.g. `example.org` or `localhost:8448`."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, text: str, folder: Path) -> Self:
        """`text`, checked against the grammar of the Matrix specification, Appendices, "Server Name"."""
        if not _SERVER_NAME.fullmatch(text):
            raise ValueError(f"expected a server name such as example.org (no https://, no slash), got {text!r}")
        return cls(text)


class HomeserverSettings(Section, frozen=True, kw_only=True):
    """The homeserver that this appservice belongs to."""

    address: HttpUrl
    server_name: ServerName


class AppserviceSettings(Section, frozen=True, kw_only=True):
    """Where the homeserver delivers events, and who we are there. `url` None: `http://<host>:<port>`."""

    host: str = "127.0.0.1"
    port: Port = 29331
    url: HttpUrl | None = None
    id: Annotated[str, Meta(pattern="^[A-Za-z0-9._-]{1,64}$")] = "matrix-pypi"
    bot_localpart: Annotated[str, Meta(pattern="^[a-z0-9._=/+-]{1,100}$")] = "pypi"
    as_token_file: Path
    hs_token_file: Path
    max_body_bytes: Annotated[int, Meta(ge=MIN_BODY_BYTES, le=1 << 30)] = 2 * MIN_BODY_BYTES

    @property
    def public_url(self) -> str:
        """The address that stands in the registration."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.url or f"http://{host}:{self.port}"


class DatabaseSettings(Section, frozen=True, kw_only=True):
    """Where the ledger and everything else is kept."""

    url: DatabaseUrl


class OrganisationSettings(Section, frozen=True, kw_only=True):
    """Who signs. `name` stands in every statement (`signer.org`) and can never be changed; the files hold Ed25519 seeds."""

    name: Annotated[str, Meta(pattern="^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]
    root_key_file: Path
    mirror_key_file: Path
    log_key_file: Path | None = None

    @property
    def log_key(self) -> Path:
        """The file of the log's key; unless another is named, `log_key` beside the mirror key."""
        return self.log_key_file or self.mirror_key_file.with_name("log_key")


class IndexSettings(Section, frozen=True, kw_only=True):
    """The upstream index. `url` None: the public one; `attest` None: only the public one is attested (see `attests`)."""

    name: Annotated[str, Meta(pattern="^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$")] = "pypi"
    url: HttpUrl | None = None
    attest: bool | None = None
    fresh_seconds: Seconds = 600
    retry_seconds: Seconds = 5
    page_timeout_seconds: TimeoutSeconds = 10
    max_page_bytes: Bytes = 64 << 20
    negative_seconds: Seconds = 60
    refresh_served_seconds: Seconds = 3600

    @property
    def endpoint(self) -> str:
        """The index's address with a slash at the end, e.g. `https://index.example/simple/`."""
        if self.url is None:
            from pypi_simple import PYPI_SIMPLE_ENDPOINT  # imports half a second's worth of libraries

            return PYPI_SIMPLE_ENDPOINT.rstrip("/") + "/"
        return self.url.rstrip("/") + "/"

    @property
    def attests(self) -> bool:
        """Whether statements about this index's files are signed and published: not a private one's, unless asked for."""
        return self.url is None if self.attest is None else self.attest


class PolicySettings(Section, frozen=True, kw_only=True):
    """What is served. `offline` is the mode of `decide()` while upstream is away; `removed_upstream` rule R9 or R10.

    `publisher_change` is rule R6, or only an alarm.
    """

    offline: Literal["self", "acked", "kofn"] = "acked"
    quorum: Count = 2
    acks_missing_allowed: Annotated[int, Meta(ge=0, le=1_000)] = 0
    removed_upstream: Literal["refuse", "keep"] = "refuse"
    publisher_change: Literal["quarantine", "warn"] = "quarantine"
    deny: tuple[DeniedFile, ...] = ()
    allow_only: tuple[NamePattern, ...] = ()
    reserved: tuple[NamePattern, ...] = ()
    cooldown_seconds: Seconds = 0
    cooldown_exempt: tuple[ExemptProject, ...] = ()


class ProvenanceSettings(Section, frozen=True, kw_only=True):
    """Provenance (PEP 740). Without `trusted_root_file` it is passed on and not verified.

    `served_at` is the frontend's address as clients see it, for addresses of provenance that are absolute.
    """

    trusted_root_file: Path | None = None
    root_age_days: Annotated[int, Meta(ge=1, le=36_500)] = 180
    fetch_timeout_seconds: TimeoutSeconds = 4
    retry_seconds: Seconds = 60
    served_at: HttpUrl | None = None

    def __post_init__(self) -> None:
        """Clients take no address of provenance that is not https."""
        if self.served_at is not None and not self.served_at.startswith("https://"):
            raise ValueError(f"served_at is an https address, not {self.served_at}")


class TrustSettings(Section, frozen=True, kw_only=True):
    """Whom this organisation believes: a file of its own (`trust_file`). None: nobody but itself."""

    file: Path | None = None


class RoomsSettings(Section, frozen=True, kw_only=True):
    """The rooms of projects."""

    layout: Literal["moderated"] = "moderated"
    max_created_per_minute: Count = 30
    reconcile_seconds: TimeoutSeconds = 3600


class LogSettings(Section, frozen=True, kw_only=True):
    """The transparency log of this organisation's statements, and pulling those of the organisations that are pinned."""

    checkpoint_seconds: Annotated[float, Meta(ge=1, le=86_400)] = 600
    pull_seconds: Annotated[float, Meta(ge=1, le=86_400)] = 60
    max_statements_per_day: Count = 200_000
    max_bytes_per_day: Bytes = 512 << 20


class AnnounceSettings(Section, frozen=True, kw_only=True):
    """What others are told: where they find this organisation's files by their blocks, its log, its Kubo node. Nothing by default."""

    gateway: HttpUrl | None = None
    log: HttpUrl | None = None
    kubo_peer: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    kubo_addrs: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=255)], ...], Meta(max_length=16)] = ()

    def __post_init__(self) -> None:
        """Half a word would be announced as if it were whole, or not at all."""
        if self.kubo_addrs and self.kubo_peer is None:
            raise ValueError("kubo_addrs are addresses of a node: kubo_peer names it")
        if self.kubo_peer is not None and self.gateway is None and self.log is None:
            raise ValueError("a Kubo node is announced beside a log: set gateway or log")


class PublicSettings(Section, frozen=True, kw_only=True):
    """The listener of pages for everybody. It knows no token, and nothing that is not public."""

    listen: ListenAddress = ListenAddress("127.0.0.1:29332")


class ApiSettings(Section, frozen=True, kw_only=True):
    """The internal API that frontends and the command line use."""

    listen: ListenAddress = ListenAddress("127.0.0.1:29330")
    allow_other_machines: bool = False
    token_file: Path
    operator_token_file: Path

    def __post_init__(self) -> None:
        """An address that other machines reach must be meant."""
        if not self.listen.is_local and not self.allow_other_machines:
            raise ValueError(
                f"listen {self.listen} can be reached from other machines, and the API is plain http: "
                "use 127.0.0.1 or unix:/path, or set allow_other_machines: true"
            )


class Settings(Section, frozen=True, kw_only=True):
    """Everything the bot can be told."""

    homeserver: HomeserverSettings
    appservice: AppserviceSettings
    database: DatabaseSettings
    organisation: OrganisationSettings
    api: ApiSettings
    index: IndexSettings = field(default_factory=IndexSettings)
    policy: PolicySettings = field(default_factory=PolicySettings)
    provenance: ProvenanceSettings = field(default_factory=ProvenanceSettings)
    trust: TrustSettings = field(default_factory=TrustSettings)
    rooms: RoomsSettings = field(default_factory=RoomsSettings)
    log: LogSettings = field(default_factory=LogSettings)
    announce: AnnounceSettings = field(default_factory=AnnounceSettings)
    public: PublicSettings = field(default_factory=PublicSettings)
    logging: LoggingSettings = field(default_factory=LoggingSettings)

    @property
    def bot_mxid(self) -> str:
        """The bot's user id, e.g. `@pypi:example.org`."""
        return f"@{self.appservice.bot_localpart}:{self.homeserver.server_name}"


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings in `path` with the overrides of `environ`. Raises ConfigurationProblem."""
    settings = load_settings(path, Settings, environ=environ, foreign_sections=FRONTEND_SECTIONS, example=EXAMPLE)
    api, appservice = settings.api, settings.appservice
    if api.listen.port == appservice.port and api.listen.host == appservice.host:
        raise ConfigurationProblem(f"{path}: api.listen and appservice.port are the same address {api.listen}")
    if settings.public.listen in (api.listen, f"{appservice.host}:{appservice.port}"):
        raise ConfigurationProblem(f"{path}: public.listen must be an address of its own, not {settings.public.listen}")
    if api.token_file == api.operator_token_file:
        raise ConfigurationProblem(
            f"{path}: api.token_file and api.operator_token_file are the same file",
            hint="every frontend knows the first; the second lets operators approve and quarantine",
        )
    return settings


def ensure_appservice_tokens(settings: Settings) -> None:
    """Make the tokens that the homeserver and the bot know each other by, where there are none."""
    create_secret(settings.appservice.as_token_file, new_token())
    create_secret(settings.appservice.hs_token_file, new_token())


def ensure_api_tokens(settings: Settings) -> None:
    """Make the tokens of the internal API, where there are none."""
    create_secret(settings.api.token_file, new_token())
    create_secret(settings.api.operator_token_file, new_token())


def ensure_log_key(settings: Settings) -> None:
    """Make the key of the log, where there is none: one that nobody has relied on yet needs no ceremony."""
    create_secret(settings.organisation.log_key, new_seed())


def read_secrets(settings: Settings) -> None:
    """Read every secret that must be there before the bot starts. Raises SecretProblem for the first that cannot be used."""
    for file in (settings.organisation.root_key_file, settings.organisation.mirror_key_file):
        read_seed(file, hint="matrix-pypi keys new-org -c <this configuration> makes it")
    for file in (settings.appservice.as_token_file, settings.appservice.hs_token_file):
        read_secret(file, hint="matrix-pypi registration -c <this configuration> -o registration.yaml makes it")


def registration(settings: Settings, *, as_token: str, hs_token: str) -> str:
    """The text of the appservice registration, commented YAML.

    The namespaces are exclusive: only the bot may be @<bot_localpart> and own the aliases of projects, Space and trust room.
    """
    server = re.escape(settings.homeserver.server_name)
    values = {
        "id": settings.appservice.id,
        "url": settings.appservice.public_url,
        "as_token": as_token,
        "hs_token": hs_token,
        "localpart": settings.appservice.bot_localpart,
        "user": f"^@{re.escape(settings.appservice.bot_localpart)}:{server}$",
        "alias": f"^#pypi([-_].*)?:{server}$",
    }
    return _REGISTRATION.format_map({name: json.dumps(value) for name, value in values.items()})


_REGISTRATION: Final = """\
# Matrix-PyPI: appservice registration, written by `matrix-pypi registration`.
# Keep it readable by the homeserver alone: who has these tokens is the bot, or the homeserver.

id: {id}
# Where the homeserver delivers events (appservice.url in the bot's configuration).
url: {url}
as_token: {as_token}
hs_token: {hs_token}
sender_localpart: {localpart}
# The bot attests many files in a row; it paces itself, one sender a room.
rate_limited: false
# Typing, receipts and presence are none of its business.
receive_ephemeral: false
protocols: []
namespaces:
  users:
    - exclusive: true
      regex: {user}
  aliases:
    # #pypi (the Space), #pypi-trust, #pypi_<project>
    - exclusive: true
      regex: {alias}
  rooms: []
"""
