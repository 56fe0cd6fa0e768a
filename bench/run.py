"""The project's own benchmarks: each figure is a ratio against something measured in the same run.

    python bench/run.py [NAME ...]          our own, all or by name
    python bench/run.py --peers DIR [...]   the comparison with other proxies that lives in DIR; what follows goes to it

Machines are shared and noisy: A and B take turns, and the median of the round-by-round ratios is printed with its spread.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import platformdirs

ROUNDS = 7
HERE = Path(__file__).resolve().parent


def ratio(
    name: str, ours: Callable[[], object], theirs: Callable[[], object], *, goal: str, rounds: int = ROUNDS
) -> None:
    """Prints how many times as fast `ours` is as `theirs`: median over the rounds, and the range."""
    found = [_seconds(theirs) / _seconds(ours) for _ in range(rounds)]
    print(
        f"{name:<58} {statistics.median(found):6.2f}  ({min(found):.2f} to {max(found):.2f})  goal {goal}", flush=True
    )


def _seconds(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def compare_with_peers(folder: Path, rest: list[str]) -> int:
    """Runs the comparison of `folder` with this project added; its venvs and data stay in the platform's cache folder."""
    program = Path(sys.executable).parent
    up = f"{program}/matrix-pypi up --home {{state}} --port {{port}} --upstream {{upstream}}/simple/"
    command = [
        sys.executable,
        str(folder / "run.py"),
        "--work",
        str(platformdirs.user_cache_path("matrix-pypi") / "bench"),
        "--uv",
        str(program / "uv"),
        "--add",
        f"matrix-pypi|/simple/|env MATRIX_PYPI__INDEX__FRESH_SECONDS={{ttl}} {up}",
        *rest,
    ]
    return subprocess.run(command, check=False).returncode


def main() -> int:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, metavar="DIR", help="folder of the comparison with other proxies")
    arguments, rest = parser.parse_known_args()
    if arguments.peers:
        return compare_with_peers(arguments.peers.resolve(), rest)
    sys.path.insert(0, str(HERE))
    import own  # type: ignore[import-not-found]

    return own.run(rest, ratio)


if __name__ == "__main__":
    raise SystemExit(main())
