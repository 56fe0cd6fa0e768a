"""The frontend's configuration: every key has its comment in the example, and the defaults are the documented ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from index_frontend import config
from index_frontend.config import ListenSettings, OracleSettings, Settings, StorageSettings, UpstreamSettings
from matrix_pypi_bot.process.setting_types import ServiceUrl
from matrix_pypi_bot.process.settings import ConfigurationProblem
from tests.support.settings import keys_in_example, keys_of


def test_the_example_holds_every_key_and_no_other() -> None:
    assert keys_in_example(config.EXAMPLE) == keys_of(Settings)


def test_the_example_is_a_configuration_that_shows_the_defaults() -> None:
    folder = config.EXAMPLE.parent
    assert config.load(config.EXAMPLE, {}) == Settings(
        oracle=OracleSettings(url=ServiceUrl("http://127.0.0.1:29330"), token_file=folder / "secrets/api_token"),
        storage=StorageSettings(folder=folder / "files"),
    )


def test_the_defaults_are_the_documented_ones() -> None:
    assert (ListenSettings(), UpstreamSettings()) == (
        ListenSettings(host="127.0.0.1", port=8080, allowed_hosts=()),
        UpstreamSettings(connect_timeout_seconds=3, read_timeout_seconds=10, max_file_bytes=5_368_709_120, proxy=None),
    )


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("MATRIX_PYPI__WORKERS", "0", "MATRIX_PYPI__WORKERS: expected int >= 1"),
        ("MATRIX_PYPI__LISTEN__PORT", "65536", "expected int <= 65535"),
        ("MATRIX_PYPI__ORACLE__URL", "127.0.0.1:29330", "expected a URL"),
        ("MATRIX_PYPI__ORACLE__ON_ORACLE_DOWN", "panic", "expected one of refuse, serve"),
        ("MATRIX_PYPI__LISTEN__ALLOWED_HOSTS", "localhost", "expected array, got str"),
        ("MATRIX_PYPI__STORAGE__FOLDRE", "x", "overrides no key"),
    ],
)
def test_what_cannot_work_is_refused(variable: str, value: str, says: str) -> None:
    with pytest.raises(ConfigurationProblem) as caught:
        config.load(config.EXAMPLE, {variable: value})
    assert says in caught.value.detail


def test_the_bots_overrides_do_not_disturb_the_frontend() -> None:
    environ = {"MATRIX_PYPI__INDEX__FRESH_SECONDS": "2", "MATRIX_PYPI__WORKERS": "3"}
    assert config.load(config.EXAMPLE, environ).workers == 3


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    file = tmp_path / "frontend.yaml"
    file.write_text("oracle: {url: 'unix:bot.sock', token_file: token}\nstorage: {folder: files}\n")
    settings = config.load(file, {})
    assert (settings.oracle.url.socket_path, settings.oracle.token_file, settings.storage.folder) == (
        f"{tmp_path}/bot.sock",
        tmp_path / "token",
        tmp_path / "files",
    )
