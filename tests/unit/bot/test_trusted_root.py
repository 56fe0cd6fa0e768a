"""The operator's root file: written by a command, looked at before the bot starts, and warned about when it is old."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import matrix_pypi_bot.cli
from matrix_pypi_bot.adapters.provenance import root
from matrix_pypi_bot.config import EXAMPLE
from tests.support.fake_sigstore import FakeSigstore

DAY_MS = 86_400_000


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(matrix_pypi_bot.cli.main, [str(argument) for argument in arguments])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The example with every secret it needs."""
    file = tmp_path / "config.yaml"
    file.write_text(EXAMPLE.read_text())
    run("keys", "new-org", "-c", file)
    run("registration", "-c", file, "-o", tmp_path / "registration.yaml")
    return file


def check(config: Path, named: str) -> Result:
    config.write_text(
        config.read_text().replace("# trusted_root_file: trusted_root.json", f"trusted_root_file: {named}")
    )
    return run("check-config", "-c", config)


def test_the_command_writes_the_root_that_the_bot_then_verifies_by(config: Path) -> None:
    file = config.with_name("trusted_root.json")
    written = run("trusted-root", file)
    assert (written.exit_code, file.read_bytes()) == (0, root.shipped_root())
    checked = check(config, "trusted_root.json")
    assert checked.exit_code == 0
    assert f"provenance  verified under {file}\n" in checked.output


def test_without_a_root_it_is_said_that_nothing_is_verified(config: Path) -> None:
    checked = run("check-config", "-c", config)
    assert (checked.exit_code, "passed on, not verified" in checked.output) == (0, True)


def test_a_root_that_cannot_be_used_is_a_wrong_configuration(config: Path) -> None:
    assert check(config, "missing.json").exit_code == 3


def test_an_old_root_is_warned_about(config: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = config.with_name("old.json")
    file.write_bytes(FakeSigstore().trusted_root())
    os.utime(file, (1_600_000_000, 1_600_000_000))
    assert "WARNING: written" in check(config, "old.json").output
    at_ms = 1_600_000_000_000
    assert root.age_days(file, at_ms + 3 * DAY_MS) == 3
    for days in (180, 181):
        root.warn_of_age(file, at_ms + days * DAY_MS, max_days=180)
    assert caplog.messages == ["trusted root is old alarm"]
    assert root.age_days(config.with_name("nowhere"), at_ms) == 0


def test_without_the_extra_a_root_is_refused_and_nothing_else(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run("check-config", "-c", config).exit_code == 0
    refused = check(config, "trusted_root.json")
    assert (refused.exit_code, "matrix-pypi[provenance]" in refused.output) == (3, True)
    assert run("trusted-root", config.with_name("x.json")).exit_code == 3
