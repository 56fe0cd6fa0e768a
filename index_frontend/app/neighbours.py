"""Who else may have a file's blocks: the peers of the configuration, and backends that give blocks."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from index_frontend.blocks import Blocks, Kind, Neighbour
from index_frontend.config import Settings
from index_frontend.storage.api import BackendProblem, Capability
from index_frontend.storage.gateway import GatewayBackend
from index_frontend.storage.registry import make_backends
from index_frontend.storage.verified import Verified
from matrix_pypi_bot import __version__
from matrix_pypi_bot.process.lifecycle import Lifecycle
from matrix_pypi_bot.wire.messages import Observed

log = logging.getLogger(__name__)


async def enter_blocks(
    life: Lifecycle, settings: Settings, report: Callable[[Observed], Awaitable[None]]
) -> Blocks | None:
    """All of them, open until `life` ends; None when there are none. Raises Misconfigured."""
    found: list[tuple[Verified, Kind]] = [(peer, "peer") for peer in _peers(settings)]
    for name, backend in make_backends(settings.backends).items():
        if Capability.BLOCKS in backend.capabilities:
            found.append((backend, "kubo" if settings.backends[name].get("type") == "kubo" else "peer"))
    neighbours: list[Neighbour] = []
    for backend, kind in found:
        life.on_stop(f"backend {backend.name}", backend.close)
        try:
            await backend.open()
        except BackendProblem as problem:
            log.warning("backend is not used", extra={"backend": backend.name, "cause": problem.detail})
        else:
            neighbours.append(Neighbour(backend, kind))
    return Blocks(neighbours, report) if neighbours else None


def _peers(settings: Settings) -> list[Verified]:
    upstream = settings.upstream
    return [
        Verified(
            GatewayBackend(
                peer.name,
                peer.gateway,
                user_agent=f"matrix-pypi/{__version__}",
                connect_timeout_seconds=upstream.connect_timeout_seconds,
                read_timeout_seconds=upstream.read_timeout_seconds,
                proxy=upstream.proxy,
            )
        )
        for peer in settings.peers
    ]
