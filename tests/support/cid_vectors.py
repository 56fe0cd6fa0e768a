"""The published CID vectors, and the data that they are about."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CIDS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "conformance" / "vectors" / "cid_vectors.json").read_text()
)
BLOCK_BYTES = 1 << 20


def counted(size: int) -> Iterator[bytes]:
    """The vectors' own data: sha256 of a counter, in blocks of 1 MiB."""
    for start in range(0, size, BLOCK_BYTES):
        numbers = range(start // 32, (min(start + BLOCK_BYTES, size) + 31) // 32)
        block = b"".join(hashlib.sha256(b"matrix-pypi-cid-vector" + n.to_bytes(8, "big")).digest() for n in numbers)
        yield block[: size - start]
