"""The configuration files of a local stack, written anew at every start from kept ports and kept secrets."""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass
from typing import Any, Final

from matrix_pypi_bot.adapters.provenance.root import has_libraries, shipped_root
from matrix_pypi_bot.devstack.home import OrgHome
from matrix_pypi_bot.devstack.kubo import KuboNode
from matrix_pypi_bot.devstack.ports import LOOPBACK, OrgPorts, PublicPorts
from matrix_pypi_bot.devstack.tls import Tls
from matrix_pypi_bot.process.secret_files import create_secret, new_seed, new_token, write_private

BOT_LOCALPART: Final = "pypi"
CHECKPOINT_SECONDS: Final = 5  # whoever tries things out does not want to wait ten minutes
PULL_SECONDS: Final = 5  # nor a minute
_HEADER: Final = (
    "# Written by `matrix-pypi up` at every start: changes here are lost. Override keys by the environment instead.\n"
)
_GENEROUS: Final = {"per_second": 10_000, "burst_count": 10_000}

Tree = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class OrgPlan:
    """One organisation of the stack: its name, its place, its ports and where its frontend listens.

    `kubo` None: it has no node; `pins`: there are others, and its `trust.yaml` names them.
    """

    name: str
    home: OrgHome
    ports: OrgPorts
    public: PublicPorts
    tls: Tls
    frontend_host: str
    frontend_port: int
    upstream: str | None
    database: str | None
    kubo: KuboNode | None = None
    pins: bool = False

    @property
    def frontend_address(self) -> str:
        """The host to connect to: a frontend that listens everywhere is found on this machine."""
        return {"0.0.0.0": LOOPBACK, "::": "::1"}.get(self.frontend_host, self.frontend_host)  # noqa: S104

    @property
    def frontend_url(self) -> str:
        """Where installers find the frontend, without a slash at the end."""
        host = self.frontend_address
        return f"http://{f'[{host}]' if ':' in host else host}:{self.frontend_port}"

    @property
    def homeserver_url(self) -> str:
        """The homeserver's client and admin API."""
        return f"http://{LOOPBACK}:{self.ports.client}"

    @property
    def bot_url(self) -> str:
        """The bot's internal API."""
        return f"http://{LOOPBACK}:{self.ports.api}"

    @property
    def public_url(self) -> str:
        """The bot's public pages."""
        return f"http://{LOOPBACK}:{self.public.public}"


def bot_tree(plan: OrgPlan) -> Tree:
    """What the bot is told beside its defaults."""
    secret = plan.home.secret
    index: Tree = {} if plan.upstream is None else {"index": {"url": plan.upstream, "attest": True}}
    return {
        "homeserver": {"address": plan.homeserver_url, "server_name": plan.ports.server_name},
        "appservice": {
            "host": LOOPBACK,
            "port": plan.ports.appservice,
            "bot_localpart": BOT_LOCALPART,
            "as_token_file": str(secret("as_token")),
            "hs_token_file": str(secret("hs_token")),
        },
        "database": {"url": plan.database or f"sqlite:{plan.home.folder / 'bot.db'}"},
        "organisation": {
            "name": plan.name,
            "root_key_file": str(secret("root_key")),
            "mirror_key_file": str(secret("mirror_key")),
        },
        "api": {
            "listen": f"{LOOPBACK}:{plan.ports.api}",
            "token_file": str(secret("api_token")),
            "operator_token_file": str(secret("operator_token")),
        },
        "public": {"listen": f"{LOOPBACK}:{plan.public.public}"},
        "log": {"checkpoint_seconds": CHECKPOINT_SECONDS, "pull_seconds": PULL_SECONDS},
        **({"provenance": {"trusted_root_file": str(plan.home.trusted_root)}} if has_libraries() else {}),
        **(_of_several(plan) if plan.pins else {}),
        **index,
    }


def _of_several(plan: OrgPlan) -> Tree:
    """What the bot is told of the others: whom it pins, and what they are told of it."""
    return {"trust": {"file": str(plan.home.trust)}, "announce": {"gateway": plan.frontend_url}}


def frontend_tree(plan: OrgPlan) -> Tree:
    """What the frontend is told beside its defaults."""
    node = plan.kubo
    backends: Tree = (
        {} if node is None else {"kubo": {"type": "kubo", "url": node.url, "token_file": str(node.token_file)}}
    )
    return {
        "listen": {"host": plan.frontend_host, "port": plan.frontend_port},
        "oracle": {
            "url": plan.bot_url,
            "token_file": str(plan.home.secret("api_token")),
            "public_url": plan.public_url,
        },
        "storage": {"folder": str(plan.home.folder / "files")},
        **({"backends": backends} if backends else {}),
    }


def homeserver_tree(plan: OrgPlan) -> Tree:
    """Synapse's configuration: loopback only, our certificate authority, no limits that tests and benchmarks would run into."""
    folder, secret = plan.home.folder, plan.home.secret
    limits: Tree = {f"rc_{name}": _GENEROUS for name in ("message", "registration", "joins_per_room")}
    limits["rc_login"] = dict.fromkeys(("address", "account", "failed_attempts"), _GENEROUS)
    limits["rc_joins"] = dict.fromkeys(("local", "remote"), _GENEROUS)
    limits["rc_invites"] = dict.fromkeys(("per_room", "per_user", "per_issuer"), _GENEROUS)
    limits["rc_federation"] = {
        "window_size": 1000, "sleep_limit": 100_000, "sleep_delay": 1, "reject_limit": 100_000, "concurrent": 100,
    }  # fmt: skip
    return {
        "server_name": plan.ports.server_name,
        "public_baseurl": f"{plan.homeserver_url}/",
        "pid_file": str(folder / "homeserver.pid"),
        "listeners": [
            _listener(plan.ports.federation, "federation", tls=True),
            _listener(plan.ports.client, "client", tls=False),
        ],
        "tls_certificate_path": str(plan.tls.certificate),
        "tls_private_key_path": str(plan.tls.key),
        "federation_custom_ca_list": [str(plan.tls.authority)],
        "ip_range_blacklist": [],  # the default forbids loopback, also between homeservers
        "trusted_key_servers": [],
        "suppress_key_server_warning": True,
        "database": {"name": "sqlite3", "args": {"database": str(plan.home.homeserver_database)}},
        "log_config": str(folder / "homeserver-log.yaml"),
        "media_store_path": str(folder / "media"),
        "signing_key_path": str(secret("homeserver_signing_key")),
        "registration_shared_secret_path": str(secret("registration_secret")),
        "macaroon_secret_key_path": str(secret("macaroon_secret")),
        "form_secret_path": str(secret("form_secret")),
        "enable_registration": False,
        "report_stats": False,
        "app_service_config_files": [str(plan.home.registration)],
        "bcrypt_rounds": 4,
        "presence": {"enabled": False},
        "redaction_retention_period": None,  # a mirror keeps what was redacted, as evidence
        "allow_public_rooms_over_federation": True,
        "allow_public_rooms_without_auth": True,
        "room_list_publication_rules": [
            {"user_id": f"@{BOT_LOCALPART}:*", "alias": f"#{BOT_LOCALPART}*", "action": "allow"}
        ],
        **limits,
        "federation_rr_transactions_per_room_per_second": 1000,
        # A homeserver that was away is found again within seconds; the defaults are minutes to days.
        "federation": {
            "min_retry_backoff": 500, "max_short_retry_delay": "1s", "max_long_retry_delay": "2s",
            "destination_min_retry_interval": 500, "destination_retry_multiplier": 1.1,
            "destination_max_retry_interval": "3s",
        },
    }  # fmt: skip


def homeserver_log_tree() -> Tree:
    """Synapse's logging: warnings and what it served, to the log that its output goes to."""
    return {
        "version": 1,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(request)s %(message)s"}},
        "handlers": {"output": {"class": "logging.StreamHandler", "formatter": "line"}},
        "loggers": {"synapse.storage.SQL": {"level": "WARNING"}},
        "root": {"level": "INFO", "handlers": ["output"]},
        "disable_existing_loggers": False,
    }


def make_secrets(plan: OrgPlan) -> None:
    """Make the secrets of `plan` that are not there yet (all but the tokens that the bot makes)."""
    secret = plan.home.secret
    # Databases in it hold tokens, and are made by programs that leave their mode to the umask; --home may be a folder for everyone.
    plan.home.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    plan.home.folder.chmod(0o700)
    for name in ("root_key", "mirror_key"):
        create_secret(secret(name), new_seed())
    for name in ("registration_secret", "macaroon_secret", "form_secret"):
        create_secret(secret(name), new_token())
    # The format of Synapse's `--generate-keys`, which would cost a second start of Synapse: algorithm, version, unpadded base64.
    seed = base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    create_secret(secret("homeserver_signing_key"), f"ed25519 a_{secrets.token_hex(2)} {seed}")


def write_configs(plan: OrgPlan) -> None:
    """Write the configurations of `plan`, whose secrets are there."""
    if (
        has_libraries() and not plan.home.trusted_root.exists()
    ):  # one that is there is the operator's, whoever put it there
        plan.home.trusted_root.write_bytes(shipped_root())
    for file, tree in (
        (plan.home.config, bot_tree(plan)),
        (plan.home.frontend_config, frontend_tree(plan)),
        (plan.home.homeserver_config, homeserver_tree(plan)),
        (plan.home.folder / "homeserver-log.yaml", homeserver_log_tree()),
    ):
        write_private(file, to_yaml(tree))


def to_yaml(tree: Tree, *, header: str = _HEADER) -> str:
    """`tree` as YAML: a key a line down to the second level, JSON (which YAML contains) below."""
    lines = [header]
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            lines.append(f"{key}:\n")
            lines += [f"  {name}: {json.dumps(item, ensure_ascii=False)}\n" for name, item in value.items()]
        else:
            lines.append(f"{key}: {json.dumps(value, ensure_ascii=False)}\n")
    return "".join(lines)


def _listener(port: int, resource: str, *, tls: bool) -> Tree:
    return {
        "port": port, "type": "http", "tls": tls, "bind_addresses": [LOOPBACK], "resources": [{"names": [resource]}],
    }  # fmt: skip
