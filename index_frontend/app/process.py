"""COMPOSITION ROOT: the only place that knows all parts of the frontend."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Final

from index_frontend.app.holdings import Holdings, enter_backends, enter_embedded
from index_frontend.app.neighbours import enter_blocks
from index_frontend.app.readiness import Readiness
from index_frontend.app.serving import GRACE_SECONDS, listening
from index_frontend.blocks import Blocks
from index_frontend.config import EMBEDDED, Settings
from index_frontend.fill import Copier, Fills, PeerFiles, Race, Reporter, WheelMetadata
from index_frontend.handlers import Dispatcher
from index_frontend.handlers.files import FileHandler
from index_frontend.handlers.index import PageHandler
from index_frontend.handlers.ipfs import GatewayHandler
from index_frontend.handlers.operations import Metrics, Operations
from index_frontend.handlers.passing import Passing
from index_frontend.handlers.provenance import ProvenanceHandler
from index_frontend.handlers.public import PublicHandler
from index_frontend.handlers.root import RootHandler
from index_frontend.handlers.trust import TrustHandler
from index_frontend.oracle import BotOracle, HttpBot, PublicPages
from index_frontend.shelf import Shelf
from index_frontend.storage.api import Capability
from index_frontend.storage.filestore import FileStore, Limits, open_filestore
from index_frontend.storage.filestore.scrub import Scrub
from index_frontend.storage.registry import COPIES
from index_frontend.upstream import UpstreamSource
from matrix_pypi_bot import __version__
from matrix_pypi_bot.process.lifecycle import Lifecycle
from matrix_pypi_bot.process.outbound import Outbound
from matrix_pypi_bot.process.secret_files import read_secret
from matrix_pypi_bot.wire.messages import Change

log = logging.getLogger(__name__)

TOKEN_HINT: Final = "it is the bot's api.token_file; the bot makes it when it starts"  # noqa: S105 - no secret


async def serve(settings: Settings, *, shares_port: bool = False) -> None:
    """Serve until cancelled. Raises Problem when a part cannot begin, whatever a background task raised when one ends."""
    async with Lifecycle() as life:
        copiers: list[Copier] = []
        oracle = await _enter_oracle(life, settings, copiers)
        kept = settings.storage
        limits = Limits(kept.max_bytes, kept.min_free_bytes, kept.min_free_inodes)
        store = await life.enter("store", open_filestore(kept.folder, limits=limits))
        reporter = Reporter(store, oracle)
        embedded, backends = await enter_embedded(life, settings, store), await enter_backends(life, settings)
        for name, backend in backends.items():
            if Capability.PUT in backend.capabilities and settings.backends[name].get(COPIES, True):
                copiers.append(Copier(store, embedded, backend, oracle))
        blocks = await enter_blocks(life, settings, backends, oracle.report_observed)
        fills = _fills(life, settings, store, oracle, reporter, blocks)
        # Half of the bound is for documents as the bot sent them, half for what was made of them.
        shelf, root = Shelf(settings.storage.memory_bytes // 2), RootHandler(oracle)
        life.on_stop("shelf", shelf.close)
        life.on_stop("root index", root.close)
        bot_pages = settings.oracle.public_url
        public = PublicPages(bot_pages.base_url, socket_path=bot_pages.socket_path)
        life.on_stop("public pages", public.close)
        passing = Passing(public)
        metrics = Metrics()
        left = {copier.backend: partial(store.left_to_copy, copier.backend) for copier in copiers}
        holdings = Holdings({EMBEDDED: embedded, **backends}, metrics, left)
        readiness = Readiness(oracle.pulse, store)
        dispatcher = Dispatcher(
            pages=PageHandler(oracle, shelf),
            root=root,
            blocks=GatewayHandler(oracle, store),
            public=PublicHandler(passing),
            trust=TrustHandler(passing),
            provenance=ProvenanceHandler(passing),
            files=FileHandler(oracle, store, fills, max_file_bytes=settings.upstream.max_file_bytes, blocks=blocks),
            operations=Operations(
                metrics,
                missing=readiness.missing,
                stream_is_live=lambda: oracle.pulse.is_live,
                look=holdings.look,
            ),
            metrics=metrics,
            allowed_hosts=settings.listen.allowed_hosts,
        )
        life.task("change stream", oracle.follow())
        life.task("reports", reporter.run())
        for copier in copiers:
            life.task(f"copies in {copier.backend}", copier.run())
        life.task("scrub", Scrub(store, bytes_per_second=kept.scrub_bytes_per_second, repair=blocks.repair).run())
        address = settings.listen
        listener = listening(dispatcher, address.host, address.port, shared=shares_port)
        port = await life.enter("http", listener, stop_seconds=2 * GRACE_SECONDS + 0.5)
        log.info("serving", extra={"host": address.host, "port": port})
        await life.forever()


async def _enter_oracle(life: Lifecycle, settings: Settings, copiers: Sequence[Copier]) -> BotOracle:
    def on_change(change: Change) -> None:
        for copier in copiers:
            copier.hear(change)

    url = settings.oracle.url
    link = HttpBot(url.base_url, read_secret(settings.oracle.token_file, hint=TOKEN_HINT), socket_path=url.socket_path)
    life.on_stop("bot link", link.close)
    oracle = BotOracle(
        link,
        max_stale_seconds=settings.oracle.max_stale_seconds,
        serve_when_down=settings.oracle.on_oracle_down == "serve",
        memory_bytes=settings.storage.memory_bytes // 2,
        on_change=on_change,
    )
    life.on_stop("oracle", oracle.close)
    return oracle


def _fills(
    life: Lifecycle,
    settings: Settings,
    store: FileStore,
    oracle: BotOracle,
    reporter: Reporter,
    blocks: Blocks,
) -> Fills:
    upstream = settings.upstream
    outbound = Outbound(
        user_agent=f"matrix-pypi/{__version__}",
        connect_timeout_seconds=upstream.connect_timeout_seconds,
        read_timeout_seconds=upstream.read_timeout_seconds,
        proxy=upstream.proxy,
    )
    life.on_stop("outbound", outbound.close)
    peers = PeerFiles(blocks, max_file_bytes=upstream.max_file_bytes)
    source = Race(peers, UpstreamSource(outbound), upstream.peer_head_start_seconds)
    # A wheel that is here has its METADATA in it: nobody need be asked.
    fills = Fills(store, [WheelMetadata(store), source], oracle, reporter)
    life.on_stop("fills", fills.close)
    return fills
