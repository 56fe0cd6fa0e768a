"""Filling the store: one fetch an object over all clients and worker processes, let out as far as it may be while it comes in."""

from index_frontend.fill.copier import Copier
from index_frontend.fill.fills import Asker, Fills
from index_frontend.fill.flight import Flight
from index_frontend.fill.peer_files import PeerFiles
from index_frontend.fill.race import Race
from index_frontend.fill.reporter import Reporter
from index_frontend.fill.through import Through, through
from index_frontend.fill.transfer import SMALL_BYTES, Transfer
from index_frontend.fill.wheel_metadata import WheelMetadata

__all__ = [
    "SMALL_BYTES",
    "Asker",
    "Copier",
    "Fills",
    "Flight",
    "PeerFiles",
    "Race",
    "Reporter",
    "Through",
    "Transfer",
    "WheelMetadata",
    "through",
]
