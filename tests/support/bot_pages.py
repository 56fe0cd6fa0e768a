"""Finished project documents as the bot sends them, for tests of the frontend."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b, sha256
from typing import Any

SERVE = {"action": "serve+attest", "http": 200, "rule": "R8", "reason": ""}


def file_entry(name: str, content: bytes | None = None, **more: Any) -> dict[str, Any]:
    """One entry of `files`, private keys included; `more` overrides and adds keys (`_` in front stays)."""
    content = name.encode() if content is None else content
    address = blake2b(content, digest_size=32).hexdigest()
    path = f"/packages/{address[:2]}/{address[2:4]}/{address[4:]}/{name}"
    entry = {
        "filename": name,
        "url": f"../..{path}",
        "hashes": {"sha256": sha256(content).hexdigest()},
        "size": len(content),
        "_path": path,
        "_url": f"https://files.example{path}",
        "_decision": SERVE,
    }
    return entry | more


def page(
    project: str,
    files: Sequence[dict[str, Any]] = (),
    *,
    revision: str = "r1",
    seq: int = 1,
    meta: dict[str, Any] | None = None,
    opened_origins: Sequence[str] = (),
    **more: Any,
) -> bytes:
    """The document; `more` adds keys at the top."""
    view: dict[str, Any] = {
        "state": "live",
        "age_seconds": 0.0,
        "fresh_seconds": 60.0,
        "revision": revision,
        "seq": seq,
    }
    view["opened_origins"] = list(opened_origins)
    document = {
        "meta": {"api-version": "1.4"} if meta is None else meta,
        "name": project,
        "versions": ["1.0"],
        "files": list(files),
        "_view": view,
    }
    return json.dumps(document | more).encode()
