"""The trusted root: the operator's file, opened without the libraries where nobody configured one, and its age."""

from __future__ import annotations

import importlib.util
import logging
from importlib.resources import files
from pathlib import Path
from typing import Final
from urllib.parse import quote

from matrix_pypi_bot.ports import Verifier
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

log = logging.getLogger(__name__)

HINT: Final = "install matrix-pypi[provenance], or take provenance.trusted_root_file out of the configuration"
_PUBLIC_SIGSTORE: Final = "https://tuf-repo-cdn.sigstore.dev"
_DAY_MS: Final = 86_400_000


def has_libraries() -> bool:
    """Whether the extra `provenance` is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("sigstore", "pypi_attestations"))


def open_verifier(root_file: Path | None) -> Verifier | None:
    """The verifier under this root; None without one. Raises Problem (CONFIGURATION) when it cannot be used."""
    if root_file is None:
        return None
    if not has_libraries():
        raise Problem(f"{root_file} cannot be used without sigstore", hint=HINT, code=ProblemCode.CONFIGURATION)
    from matrix_pypi_bot.adapters.provenance.verify import SigstoreVerifier  # half a second's worth of libraries

    return SigstoreVerifier(root_file)


def shipped_root() -> bytes:
    """The root of the public Sigstore that came with the installed library. Raises Problem (CONFIGURATION) without one."""
    if not has_libraries():
        raise Problem("no trusted root came with this program", hint=HINT, code=ProblemCode.CONFIGURATION)
    return files("sigstore").joinpath("_store", quote(_PUBLIC_SIGSTORE, safe=""), "trusted_root.json").read_bytes()


def age_days(root_file: Path, now_ms: int) -> float:
    """Days since the file was written; 0 when that cannot be told."""
    try:
        return max(0.0, (now_ms - root_file.stat().st_mtime_ns / 1_000_000) / _DAY_MS)
    except OSError:
        return 0.0


def warn_of_age(root_file: Path, now_ms: int, *, max_days: float) -> None:
    """Says so when the file is older than `max_days`: Sigstore never does, and what is signed in newer logs cannot be judged."""
    if (days := age_days(root_file, now_ms)) > max_days:
        what = {"file": str(root_file), "days": int(days), "hint": "write it anew: matrix-pypi trusted-root"}
        log.warning("trusted root is old alarm", extra=what)
