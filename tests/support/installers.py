"""Real pip and uv, run as a user runs them: into an empty environment, with no cache and nothing of this machine's configuration.

`poetry.py` does the same for poetry.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

import platformdirs

OLDEST_PIP, NEWEST_PIP = "23.2", "26.3"
TIMEOUT_SECONDS = 120
BIN = Path(sys.executable).parent
# What a set-up step may need of the machine to reach the default index; an install under test gets none of it.
MACHINE_ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("VIRTUAL_ENV", "UV_"))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run came to. `packages` is what the environment holds then, `{"mx-a": "1.0"}`; `output` is stdout and stderr."""

    returncode: int
    output: str
    packages: dict[str, str]

    @property
    def one_line(self) -> str:
        """The output with its line breaks gone: installers wrap what they quote."""
        return " ".join(self.output.split())


@dataclass(frozen=True, slots=True)
class Environment:
    """An empty environment with no pip of its own, in a folder of its own."""

    folder: Path

    @classmethod
    def empty(cls, folder: Path) -> Environment:
        """Made in `folder`, which nobody else uses."""
        environment = cls(folder)
        _uv("venv", "--quiet", "--python", sys.executable, str(folder / "venv"), env=environment.variables())
        return environment

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "venv/bin/python"

    def variables(self) -> dict[str, str]:
        """All that an installer gets to see of the environment: a home of its own and no configuration."""
        home = self.folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        return {
            "HOME": str(home),
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "PIP_CONFIG_FILE": os.devnull,
            "UV_NO_CONFIG": "1",
            "UV_PYTHON_DOWNLOADS": "never",
            "NO_COLOR": "1",
            "COLUMNS": "1000",
        }

    def packages(self) -> dict[str, str]:
        """What is installed in it, by name."""
        (libraries,) = self.folder.glob("venv/lib/python*/site-packages")
        return {found.name: found.version for found in distributions(path=[str(libraries)])}


@dataclass(frozen=True, slots=True)
class Pip:
    """pip of one version, kept in the user's cache between sessions; it installs into environments that have no pip."""

    version: str

    @property
    def name(self) -> str:
        """E.g. `pip-23.2`."""
        return f"pip-{self.version}"

    def install(self, index_url: str, *requirements: str, environment: Environment) -> Outcome:
        """`pip install --index-url … <requirements>`."""
        options = ["--isolated", "--no-input", "--no-cache-dir", "--disable-pip-version-check"]
        command = [*self._command(environment), "install", *options, "--index-url", index_url, *requirements]
        return outcome_of(command, environment)

    def _command(self, environment: Environment) -> list[str]:
        return [str(client_python("pip", self.version)), "-m", "pip", "--python", str(environment.python)]


@dataclass(frozen=True, slots=True)
class Uv:
    """uv as the project's own environment has it."""

    name: str = "uv"

    def install(self, index_url: str, *requirements: str, environment: Environment) -> Outcome:
        """`uv pip install --index-url … <requirements>`."""
        options = ["--no-cache", "--python", str(environment.python), "--index-url", index_url]
        return outcome_of([str(BIN / "uv"), "pip", "install", *options, *requirements], environment)


Installer = Pip | Uv
INSTALLERS: tuple[Installer, ...] = (Pip(OLDEST_PIP), Pip(NEWEST_PIP), Uv())


@dataclass(frozen=True, slots=True)
class UvProject:
    """A project with a uv lock file, in `environment`'s folder."""

    environment: Environment

    @classmethod
    def depending_on(cls, *requirements: str, environment: Environment) -> UvProject:
        """A project that needs `requirements` and is not itself a package."""
        lines = ["[project]", 'name = "mx-app"', 'version = "1.0"', 'requires-python = ">=3.11"']
        lines.append(f"dependencies = [{', '.join(repr(requirement) for requirement in requirements)}]")
        project = cls(environment)
        (project.folder / "pyproject.toml").write_text("\n".join(lines) + "\n")
        return project

    @property
    def folder(self) -> Path:
        """Where pyproject.toml and uv.lock are."""
        return self.environment.folder

    @property
    def lock_file(self) -> Path:
        """Its uv.lock."""
        return self.folder / "uv.lock"

    def lock(self, index_url: str) -> Outcome:
        """`uv lock` against an index."""
        return self._run("lock", "--default-index", index_url)

    def sync_frozen(self, index_url: str) -> Outcome:
        """`uv sync --frozen`: installs what the lock file says without asking an index for any page."""
        return self._run("sync", "--frozen", "--default-index", index_url)

    def _run(self, *command: str) -> Outcome:
        options = ["--no-cache", "--python", sys.executable, "--project", str(self.folder)]
        where = {"UV_PROJECT_ENVIRONMENT": str(self.folder / "venv")}
        return outcome_of([str(BIN / "uv"), *command, *options], self.environment, where)


def client_python(client: str, version: str) -> Path:
    """The interpreter of a cached environment that holds that client, made from the default index at its first use."""
    home = (
        platformdirs.user_cache_path("matrix-pypi") / "test-clients" / f"{client}-{version}-py{sys.version_info.minor}"
    )
    if not home.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=home.parent))
        try:
            _uv("venv", "--quiet", "--allow-existing", "--relocatable", "--python", sys.executable, str(made))
            _uv("pip", "install", "--quiet", "--python", str(made), f"{client}=={version}")
            _publish(made, home)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return home / "bin/python"


def _publish(made: Path, home: Path) -> None:
    """Puts the folder in its place whole; another session may have been quicker, and then its folder stays."""
    try:
        made.rename(home)
    except OSError:
        if not home.exists():
            raise


def _uv(*command: str, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        [str(BIN / "uv"), *command], env=env or MACHINE_ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def outcome_of(command: list[str], environment: Environment, more: dict[str, str] | None = None) -> Outcome:
    """What a command comes to that sees nothing of this machine's environment but `more`."""
    done = subprocess.run(
        command,
        env=environment.variables() | (more or {}),
        cwd=environment.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    return Outcome(returncode=done.returncode, output=done.stdout, packages=environment.packages())
