"""Who else may have a file's blocks: the peers of the configuration, and backends that give blocks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from index_frontend.blocks import Blocks, Kind, Neighbour
from index_frontend.config import Settings
from index_frontend.storage.api import Capability
from index_frontend.storage.gateway import GatewayBackend
from index_frontend.storage.verified import Verified
from matrix_pypi_bot import __version__
from matrix_pypi_bot.process.lifecycle import Lifecycle
from matrix_pypi_bot.wire.messages import Observed


async def enter_blocks(
    life: Lifecycle,
    settings: Settings,
    backends: Mapping[str, Verified],
    report: Callable[[Observed], Awaitable[None]],
) -> Blocks | None:
    """The peers, open until `life` ends, and those of `backends` that give blocks; None when there are none."""
    neighbours: list[Neighbour] = []
    for peer in _peers(settings):
        life.on_stop(f"peer {peer.name}", peer.close)
        await peer.open()
        neighbours.append(Neighbour(peer, "peer"))
    for name, backend in backends.items():
        if Capability.BLOCKS in backend.capabilities:
            kind: Kind = "kubo" if settings.backends[name].get("type") == "kubo" else "peer"
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
