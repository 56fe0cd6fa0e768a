"""A project that real poetry locks and installs, with the stack as its only source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.support.installers import Environment, Outcome, client_python, outcome_of

VERSION = "2.5.1"


@dataclass(frozen=True, slots=True)
class PoetryProject:
    """A project in `environment`'s folder. It installs into the environment, as into one that its user had activated."""

    environment: Environment

    @classmethod
    def of(cls, index_url: str, *, environment: Environment) -> PoetryProject:
        """A project that needs nothing yet, with the source that README.md says to add."""
        lines = ["[project]", 'name = "mx-app"', 'version = "1.0"', 'requires-python = ">=3.11"', "dependencies = []"]
        project = cls(environment)
        (environment.folder / "pyproject.toml").write_text(
            "\n".join([*lines, "[tool.poetry]", "package-mode = false", ""])
        )
        added = project.run("source", "add", "--priority=primary", "matrix-pypi", index_url)
        assert added.returncode == 0, added.output
        return project

    @property
    def lock_file(self) -> Path:
        """Its poetry.lock."""
        return self.environment.folder / "poetry.lock"

    def run(self, *command: str) -> Outcome:
        """`poetry …`."""
        options = ["--no-interaction", "--no-ansi"]
        where = {"VIRTUAL_ENV": str(self.environment.folder / "venv")}
        return outcome_of(
            [str(client_python("poetry", VERSION)), "-m", "poetry", *command, *options], self.environment, where
        )
