"""Every bound of the core, once: its value, its unit, and where it comes from."""

from __future__ import annotations

from typing import Final

MAX_PAYLOAD_BYTES: Final = (
    16_384  # a statement; with base64 and an envelope it stays far below a Matrix event's 65,536 bytes
)
MAX_ATTESTATION_BYTES: Final = 5_120  # two of them fit into an accusation, which is a statement itself
MAX_JSON_DEPTH: Final = 32  # containers inside one another, the outermost counted
MAX_INTEGER: Final = 2**53 - 1  # what every JSON reader keeps exact, and what Matrix allows
MAX_FILE_BYTES: Final = 5 * 2**30  # no index takes larger files
MAX_TEXT_CHARACTERS: Final = 255  # names of organisations, indexes, origins, users
MAX_REASON_CHARACTERS: Final = 500  # an operator's or maintainer's own words
MAX_URL_CHARACTERS: Final = 2_048
MAX_REVIEW_ITEMS: Final = 100
MAX_MANIFEST_SIGNATURES: Final = 16  # old and new root keys together
MAX_MANIFEST_KEYS: Final = 64
MAX_DELEGATIONS: Final = 100
MAX_PEER_ADDRESSES: Final = 16
MAX_MANIFEST_SECONDS: Final = 90 * 86_400  # a manifest lives so long at most, then its keys count no more
MAX_INDEX_VIEW_SECONDS: Final = 72 * 3_600  # a view of an index lives so long at most

MAX_NOTE_BYTES: Final = 65_536  # a checkpoint is some hundred bytes; an event could not carry more
MAX_NOTE_SIGNATURES: Final = 64
MAX_HEAD_BYTES: Final = 2_048  # with its log's own lines alone: two of them must fit into an accusation
MAX_LOG_SIZE: Final = 2**63 - 1  # leaves
MAX_LEAF_LINE_BYTES: Final = 65_536  # an envelope with all its signatures stays below 32 KiB

MAX_PAGE_BYTES: Final = 64 * 2**20  # a project page, decoded
MAX_PAGE_FILES: Final = 100_000  # the largest project known lists about 12,000
MAX_PAGE_EXTRA_DEPTH: Final = 16  # of unknown values that pass through
MAX_PAGE_TEXT_CHARACTERS: Final = 4_096  # a yank reason, a requires-python
