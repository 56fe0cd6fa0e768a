"""The system components that some tests need and no package index has: which are here, and what to say when one is not."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from matrix_pypi_bot.devstack.kubo import find_binary
from tests.support.npm import npm_folder

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")


def postgres_binaries() -> Path | None:
    """The folder with `initdb` and `pg_ctl`: the newest that Debian's packages installed, else what PATH has."""
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    if packaged:
        return packaged[-1].parent
    return Path(on_path).resolve().parent if on_path else None


def _docker_answers() -> bool:
    client = shutil.which("docker")
    return client is not None and subprocess.run([client, "info"], capture_output=True, check=False).returncode == 0


COMPONENTS: dict[str, Callable[[], bool]] = {
    "PostgreSQL": lambda: postgres_binaries() is not None,
    "Kubo": lambda: find_binary() is not None,
    "npm clients": lambda: npm_folder() is not None,
    "Chromium": lambda: any(map(shutil.which, CHROMIUM_NAMES)),
    "Docker": _docker_answers,
}


@cache
def has(component: str) -> bool:
    """Whether it is here."""
    return COMPONENTS[component]()


def require(component: str) -> None:
    """Skips the test, with a reason that names the component, when it is not here."""
    if not has(component):
        pytest.skip(f"{component} was not found on this machine")


def skipped_line() -> str:
    """`skipped components: Kubo, Docker`, or nothing when everything is here."""
    missing = [name for name in COMPONENTS if not has(name)]
    return f"skipped components: {', '.join(missing)}" if missing else ""
