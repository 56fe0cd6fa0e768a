"""Gateways that nobody configured here: those of other organisations, whose addresses the bot tells with a file. A few, as needed."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from index_frontend.blocks.neighbour import Neighbour
from index_frontend.ports import Wanted
from index_frontend.storage.api import StorageBackend
from matrix_pypi_bot.process.outbound import ForbiddenAddress, Origin, origin_of

log = logging.getLogger(__name__)

MAX_GATEWAYS: Final = 32
"""So many are known at once, each with its connections and with what is known of it; who was not asked for longest has to go."""

Make = Callable[[str, str, frozenset[Origin]], StorageBackend]
"""A backend that checks what it gives, from its name, the gateway's address, and the origins that may be http or private."""


class Gateways:
    """Neighbours by address, made when a file names them. `known` are addresses of neighbours that are there already."""

    def __init__(self, make: Make, *, known: frozenset[str] = frozenset(), most: int = MAX_GATEWAYS) -> None:
        self._make = make
        self._known = frozenset(url.rstrip("/") for url in known)
        self._most = most
        self._held: OrderedDict[tuple[str, bool], tuple[StorageBackend, Neighbour]] = OrderedDict()

    @property
    def held(self) -> tuple[Neighbour, ...]:
        """Those that were asked lately."""
        return tuple(neighbour for _, neighbour in self._held.values())

    def can_be_asked(self, wanted: Wanted) -> bool:
        """Whether one of those that the file names is worth asking now. Without I/O."""
        return any((held := self._held.get(key)) is None or held[1].is_usable for key in self._keys(wanted))

    async def named(self, wanted: Wanted) -> tuple[Neighbour, ...]:
        """The neighbours that the file names, in its order."""
        found = []
        for key in self._keys(wanted)[: self._most]:
            held = self._held.get(key) or await self._enter(key)
            self._held.move_to_end(key)
            found.append(held[1])
        while len(self._held) > self._most:
            _, (backend, _) = self._held.popitem(last=False)
            await backend.close()
        return tuple(found)

    async def close(self) -> None:
        """Closes all of them."""
        while self._held:
            _, (backend, _) = self._held.popitem()
            await backend.close()

    def _keys(self, wanted: Wanted) -> list[tuple[str, bool]]:
        """(address, whether the operator opened it) of those that may be asked: https, or opened. Names are resolved later."""
        keys: dict[tuple[str, bool], None] = {}
        for url in wanted.peers:
            address = url.rstrip("/")
            try:
                origin = origin_of(address)
            except ForbiddenAddress:
                continue
            is_opened = origin in wanted.peer_origins
            if address not in self._known and (is_opened or origin.startswith("https:")):
                keys[address, is_opened] = None
        return list(keys)

    async def _enter(self, key: tuple[str, bool]) -> tuple[StorageBackend, Neighbour]:
        address, is_opened = key
        origin = origin_of(address)
        backend = self._make(origin, address, frozenset({origin}) if is_opened else frozenset())
        await backend.open()
        if (meanwhile := self._held.get(key)) is not None:  # by another file
            await backend.close()
            return meanwhile
        log.info("peer is asked for blocks", extra={"gateway": origin, "opened": is_opened})
        self._held[key] = (backend, Neighbour(backend, "peer"))
        return self._held[key]
