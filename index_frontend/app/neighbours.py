"""Who else may have a file's blocks: the peers of the configuration, backends that give blocks, and gateways that the bot names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from index_frontend.blocks import Blocks, Gateways, Kind, Neighbour
from index_frontend.config import Settings
from index_frontend.storage.api import Capability
from index_frontend.storage.gateway import GatewayBackend
from index_frontend.storage.verified import Verified
from matrix_pypi_bot import __version__
from matrix_pypi_bot.process.lifecycle import Lifecycle
from matrix_pypi_bot.process.outbound import Origin
from matrix_pypi_bot.wire.messages import Observed


async def enter_blocks(
    life: Lifecycle,
    settings: Settings,
    backends: Mapping[str, Verified],
    report: Callable[[Observed], Awaitable[None]],
) -> Blocks:
    """The peers, open until `life` ends, those of `backends` that give blocks, and room for those that files will name."""

    def gateway(name: str, url: str, opened: frozenset[Origin] | None = None) -> Verified:
        upstream = settings.upstream
        return Verified(
            GatewayBackend(
                name,
                url,
                opened=opened,
                user_agent=f"matrix-pypi/{__version__}",
                connect_timeout_seconds=upstream.connect_timeout_seconds,
                read_timeout_seconds=upstream.read_timeout_seconds,
                proxy=upstream.proxy,
            )
        )

    neighbours: list[Neighbour] = []
    for told in settings.peers:
        peer = gateway(told.name, told.gateway)
        life.on_stop(f"peer {peer.name}", peer.close)
        await peer.open()
        neighbours.append(Neighbour(peer, "peer"))
    for name, backend in backends.items():
        if Capability.BLOCKS in backend.capabilities:
            kind: Kind = "kubo" if settings.backends[name].get("type") == "kubo" else "peer"
            neighbours.append(Neighbour(backend, kind))
    named = Gateways(gateway, known=frozenset(peer.gateway for peer in settings.peers))
    life.on_stop("peers that files named", named.close)
    return Blocks(neighbours, report, named)
