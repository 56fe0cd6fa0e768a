"""Why an event, an envelope or a statement does not count: the first check that failed, by its code in the contract."""

from __future__ import annotations

import enum


class Code(enum.StrEnum):
    """The codes in the order in which they are checked (`E_SIZE` falls inside the envelope's own checks)."""

    EVENT = "E_EVENT"
    REDACTED_OR_EMPTY = "E_REDACTED_OR_EMPTY"
    ENVELOPE = "E_ENVELOPE"
    SIZE = "E_SIZE"
    KEY_UNKNOWN = "E_KEY_UNKNOWN"
    SIG = "E_SIG"
    JSON = "E_JSON"
    TYPE = "E_TYPE"
    SUBJECT = "E_SUBJECT"
    FIELDS = "E_FIELDS"
    FILENAME = "E_FILENAME"
    NAME_MISMATCH = "E_NAME_MISMATCH"
    SIGNER_MISMATCH = "E_SIGNER_MISMATCH"
    ROLE = "E_ROLE"
    CID = "E_CID"
    CID_DIGEST = "F_CID_DIGEST"
    HINT = "E_HINT"
    WRONG_ROOM = "E_WRONG_ROOM"
    STATE_KEY = "E_STATE_KEY"


class Rejected(Exception):
    """The input does not count. `detail` says what was found; it may quote the input, so clean it before printing."""

    def __init__(self, code: Code, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail
