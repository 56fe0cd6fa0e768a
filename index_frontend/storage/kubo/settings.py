"""What the configuration says about a Kubo node."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from index_frontend.storage.api import Misconfigured
from matrix_pypi_bot.process.secret_files import SecretProblem, read_secret
from matrix_pypi_bot.process.setting_types import Bytes, Seconds, ServiceUrl, TimeoutSeconds
from matrix_pypi_bot.process.settings import Section

Peer = Annotated[str, Meta(pattern=r"^/[!-~]{1,500}/p2p/[A-Za-z0-9]{40,80}$")]
"""Where another node is and who it is, e.g. `/ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…`."""


class KuboSettings(Section, frozen=True, kw_only=True):
    """A node and how to speak with it.

    `url` is that of its RPC API, `http://…` or `unix:/path`; `token_file` holds the bearer token that its `API.Authorizations` names.
    `private` keeps what is stored from being announced to a public network. `silence_timeout_seconds` bounds a silence, not a transfer.
    `fetch_timeout_seconds` is how long its network is asked for a block that it does not have; 0: never. `max_bytes` is how large its
    repository may become by what is stored here.
    """

    url: ServiceUrl
    token_file: Path | None = None
    network: Literal["private", "public"] = "private"
    peers: tuple[Peer, ...] = ()
    connect_timeout_seconds: TimeoutSeconds = 5
    silence_timeout_seconds: TimeoutSeconds = 60
    fetch_timeout_seconds: Seconds = 10
    max_bytes: Bytes | None = None

    def token(self, backend: str) -> str | None:
        """The bearer token; None when the node asks for none. Raises Misconfigured."""
        if self.token_file is None:
            return None
        try:
            return read_secret(self.token_file)
        except SecretProblem as problem:
            raise Misconfigured(problem.detail, backend=backend, key="token_file", hint=problem.hint) from problem
