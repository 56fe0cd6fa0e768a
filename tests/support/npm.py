"""IPFS software from npm that others wrote: where `.ci/npm/install` put it, and how tests run it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).parents[2] / ".ci" / "npm"
SECONDS = 120


@cache
def npm_folder() -> Path | None:
    """The folder with `node_modules`, None when it was not installed or there is no Node.js."""
    digest = hashlib.sha256()
    for path in (SOURCES / "package.json", *sorted(SOURCES.glob("*.mjs"))):
        digest.update(path.read_bytes())
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache_home / "matrix-pypi" / "npm" / digest.hexdigest()
    return folder if shutil.which("node") and folder.is_dir() else None


def helia_cat(gateway: str, cid: str, span: tuple[int, int] | None = None) -> bytes:
    """A file, or `span` (start, stop) of it, as Helia gets it from the gateway at the origin `gateway`. Raises CalledProcessError."""
    part = [] if span is None else [str(span[0]), str(span[1] - span[0])]
    return _node("helia_cat.mjs", gateway, cid, *part)


def ipfs_car(*arguments: str) -> str:
    """What `ipfs-car` prints. Raises CalledProcessError."""
    return _node("node_modules/ipfs-car/bin.js", *arguments).decode()


def _node(script: str, *arguments: str) -> bytes:
    folder = npm_folder()
    assert folder is not None, "run .ci/npm/install first"
    command = ["node", str(folder / script), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=SECONDS).stdout
