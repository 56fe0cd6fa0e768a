"""Real homeservers: Synapse on free loopback ports, with our appservice registered, to be stopped, killed and started again."""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from matrix_pypi_bot.adapters.matrix.side import MatrixSettings
from matrix_pypi_bot.devstack.tls import Tls, ensure_tls
from tests.support.matrix import MatrixUser
from tests.support.waiting import wait_until

START_SECONDS = 90
REGISTRATION_SECRET = "let-me-in"

_CONFIG = """\
server_name: "{name}"
public_baseurl: "{address}/"
pid_file: {home}/homeserver.pid
listeners:
  - {{port: {port}, type: http, tls: false, bind_addresses: ['127.0.0.1'], resources: [{{names: [client]}}]}}
{federation_listener}
database: {{name: sqlite3, args: {{database: {home}/homeserver.db}}}}
log_config: {home}/log.yaml
media_store_path: {home}/media
signing_key_path: {home}/signing.key
trusted_key_servers: []
suppress_key_server_warning: true
registration_shared_secret: "{secret}"
macaroon_secret_key: "macaroon"
form_secret: "form"
report_stats: false
app_service_config_files: [{home}/registration.yaml]
room_list_publication_rules: [{{user_id: "@pypi:*", alias: "#pypi*", action: allow}}]
bcrypt_rounds: 4
presence: {{enabled: false}}
rc_message: &plenty {{per_second: 10000, burst_count: 10000}}
rc_registration: *plenty
rc_login: {{address: *plenty, account: *plenty, failed_attempts: *plenty}}
rc_joins: {{local: *plenty, remote: *plenty}}
rc_joins_per_room: *plenty
rc_invites: {{per_room: *plenty, per_user: *plenty, per_issuer: *plenty}}
{federation}
"""
# Servers that find each other again within seconds; the integers are milliseconds.
_FEDERATION = """tls_certificate_path: {tls.certificate}
tls_private_key_path: {tls.key}
federation_custom_ca_list: [{tls.authority}]
ip_range_blacklist: []
rc_federation: {{window_size: 1000, sleep_limit: 100000, sleep_delay: 1, reject_limit: 100000, concurrent: 100}}
federation_rr_transactions_per_room_per_second: 1000
federation:
  min_retry_backoff: 500
  max_short_retry_delay: 1s
  max_long_retry_delay: 2s
  destination_min_retry_interval: 500
  destination_retry_multiplier: 1.1
  destination_max_retry_interval: 3s
"""
_FEDERATION_LISTENER = (
    "  - {{port: {port}, type: http, tls: true, bind_addresses: ['127.0.0.1'], resources: [{{names: [federation]}}]}}"
)
_REGISTRATION = """\
id: matrix-pypi
url: http://127.0.0.1:{appservice_port}
as_token: {as_token}
hs_token: {hs_token}
sender_localpart: pypi
rate_limited: false
namespaces:
  users: [{{exclusive: true, regex: '@pypi:{escaped}'}}]
  aliases: [{{exclusive: true, regex: '#pypi([-_].*)?:{escaped}'}}]
  rooms: []
"""
_LOGGING = """\
version: 1
formatters: {{line: {{format: '%(asctime)s %(levelname)s %(name)s %(message)s'}}}}
handlers: {{file: {{class: logging.FileHandler, filename: {home}/homeserver.log, formatter: line}}}}
root: {{level: INFO, handlers: [file]}}
disable_existing_loggers: false
"""


class Synapse:
    """A homeserver with its data in `home`. Its appservice is expected on `appservice_port`, which stays the same.

    With certificates it federates, under the name `localhost:<another port>`.
    """

    def __init__(self, home: Path, tls: Tls | None = None) -> None:
        self.home = home
        self.port, self.appservice_port = free_port(), free_port()
        federation_port = self.port if tls is None else free_port()
        self.name = f"localhost:{federation_port}"
        self.address = f"http://127.0.0.1:{self.port}"
        self.as_token, self.hs_token = secrets.token_hex(16), secrets.token_hex(16)
        self._process: subprocess.Popen[bytes] | None = None
        texts = {"homeserver.yaml": _CONFIG, "registration.yaml": _REGISTRATION, "log.yaml": _LOGGING}
        for file, text in texts.items():
            (home / file).write_text(
                text.format(
                    home=home,
                    name=self.name,
                    escaped=self.name.replace(".", "\\."),
                    address=self.address,
                    port=self.port,
                    secret=REGISTRATION_SECRET,
                    appservice_port=self.appservice_port,
                    as_token=self.as_token,
                    hs_token=self.hs_token,
                    federation="" if tls is None else _FEDERATION.format(tls=tls),
                    federation_listener="" if tls is None else _FEDERATION_LISTENER.format(port=federation_port),
                )
            )

    @property
    def bot(self) -> MatrixUser:
        """The appservice's own user, as another client of it would act."""
        return MatrixUser(self.address, f"@pypi:{self.name}", self.as_token)

    def user(self, localpart: str) -> MatrixUser:
        """A new user who has nothing to do with us."""
        return MatrixUser.register(self.address, REGISTRATION_SECRET, f"{localpart}-{secrets.token_hex(4)}")

    def settings(self) -> MatrixSettings:
        """What the bot must be told to be this homeserver's appservice."""
        return MatrixSettings(
            address=self.address,
            server_name=self.name,
            host="127.0.0.1",
            port=self.appservice_port,
            id="matrix-pypi",
            bot_localpart="pypi",
            as_token=self.as_token,
            hs_token=self.hs_token,
            max_body_bytes=32 << 20,
            max_created_per_minute=600,
            reconcile_seconds=3_600,
            heartbeat_seconds=0.2,
        )

    def start(self) -> None:
        """Returns when it answers."""
        command = [sys.executable, "-m", "synapse.app.homeserver", "-c", str(self.home / "homeserver.yaml")]
        environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
        if not (self.home / "signing.key").exists():
            subprocess.run([*command, "--generate-keys"], check=True, capture_output=True, env=environment)
        with (self.home / "output.log").open("ab") as output:
            self._process = subprocess.Popen(
                command, cwd=self.home, stdout=output, stderr=output, env=environment, start_new_session=True
            )
        wait_until(self._healthy, "Synapse answers", timeout_seconds=START_SECONDS)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Returns when the process is gone; SIGKILL is how it dies in a power cut."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(START_SECONDS)
            self._process = None

    def _healthy(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.home / "output.log").read_text()[-4_000:]
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        return False


@contextlib.contextmanager
def running_synapse() -> Iterator[Synapse]:
    """A started homeserver with nothing in it, gone on leaving."""
    with tempfile.TemporaryDirectory(prefix="matrix-pypi-synapse-") as folder:
        synapse = Synapse(Path(folder))
        try:
            synapse.start()
            yield synapse
        finally:
            synapse.stop(signal.SIGKILL)


@contextlib.contextmanager
def federating_synapses(number: int) -> Iterator[tuple[Synapse, ...]]:
    """So many started homeservers that federate, gone on leaving."""
    with tempfile.TemporaryDirectory(prefix="matrix-pypi-federation-") as folder:
        homes = [Path(folder) / f"hs{n}" for n in range(number)]
        for home in homes:
            home.mkdir()
        tls = ensure_tls(Path(folder))
        synapses = tuple(Synapse(home, tls) for home in homes)
        try:
            with ThreadPoolExecutor(number) as pool:
                list(pool.map(Synapse.start, synapses))
            yield synapses
        finally:
            for synapse in synapses:
                synapse.stop(signal.SIGKILL)


def free_port() -> int:
    """A loopback port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
