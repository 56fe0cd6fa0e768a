"""What the bot's services need of the outside, and what must be true when a call returns."""

from matrix_pypi_bot.ports.database import Ledger, Mail, Store, StoreAway, Transaction, Views
from matrix_pypi_bot.ports.log import HeadRow, Log
from matrix_pypi_bot.ports.outside import Absent, Away, Clock, FetchedPage, Index, NotModified, Postman, Wrong
from matrix_pypi_bot.ports.provenance import Document, Documents, NotProvenance, Proofs, Verifier
from matrix_pypi_bot.ports.rows import (
    PROJECT_ROOM,
    SPACE_ROOM,
    TRUST_ROOM,
    Accepted,
    Backlog,
    EnvelopeRow,
    InboxRow,
    OutboxRow,
    OverrideRow,
    RoomRow,
    VerdictRow,
    ViewRow,
    others_room,
)

__all__ = [
    "PROJECT_ROOM",
    "SPACE_ROOM",
    "TRUST_ROOM",
    "Absent",
    "Accepted",
    "Away",
    "Backlog",
    "Clock",
    "Document",
    "Documents",
    "EnvelopeRow",
    "FetchedPage",
    "HeadRow",
    "InboxRow",
    "Index",
    "Ledger",
    "Log",
    "Mail",
    "NotModified",
    "NotProvenance",
    "OutboxRow",
    "OverrideRow",
    "Postman",
    "Proofs",
    "RoomRow",
    "Store",
    "StoreAway",
    "Transaction",
    "VerdictRow",
    "Verifier",
    "ViewRow",
    "Views",
    "Wrong",
    "others_room",
]
