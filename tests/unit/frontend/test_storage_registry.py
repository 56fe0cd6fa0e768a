"""Plug-ins: found by name, loaded when named, and what is wrong is said with its place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from index_frontend import config
from index_frontend.storage.api import Misconfigured
from index_frontend.storage.registry import make_backend, make_backends, read_section
from matrix_pypi_bot.process.setting_types import HttpUrl
from matrix_pypi_bot.process.settings import ConfigurationProblem, Section
from tests.support.backends import DictBackend, plugin

HERE = __name__
PLUGINS = (plugin("dict", f"{HERE}:make"), plugin("broken", f"{HERE}_absent:make"), plugin("old", f"{HERE}:Old"))


class DictSettings(Section, frozen=True, kw_only=True):
    folder: Path
    url: HttpUrl | None = None
    limit: int = 5


def make(name: str, section: Mapping[str, Any]) -> DictBackend:
    """What an entry point names."""
    settings = read_section(DictSettings, section, backend=name)
    backend = DictBackend(name)
    backend.calls.append(str(settings.folder))
    return backend


class Old(DictBackend):
    """Made for a version of the interface that is not this one."""

    api_version = 7


def test_a_named_plugin_makes_a_checked_backend_of_its_section() -> None:
    made = make_backends({"office": {"type": "dict", "folder": "/srv"}}, PLUGINS)["office"]
    assert isinstance(made.backend, DictBackend)
    assert (made.name, made.backend.calls) == ("office", ["/srv"])


def test_a_plugin_that_nobody_names_is_not_loaded() -> None:
    assert make_backends({}, PLUGINS) == {}


@pytest.mark.parametrize(
    ("section", "key", "says", "hint"),
    [
        ({"folder": "/srv"}, "type", "the key type is missing", "there are: broken, dict, old"),
        ({"type": "dikt"}, "type", "no storage plug-in is called dikt", "did you mean dict?"),
        ({"type": "broken"}, "type", "cannot be loaded: ModuleNotFoundError", ""),
        ({"type": "old"}, "type", "made for version 7", "install another"),
        ({"type": "dict"}, "", "missing: folder", ""),
        ({"type": "dict", "folder": "/srv", "limti": 3}, "limti", "unknown key limti", "did you mean limit?"),
        ({"type": "dict", "folder": "/srv", "limit": "x"}, "limit", "limit: expected int, got str", ""),
        ({"type": "dict", "folder": "/srv", "url": "x"}, "url", "expected a URL", ""),
    ],
)
def test_what_is_wrong_is_said_with_its_key(section: dict[str, Any], key: str, says: str, hint: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        make_backend("office", section, PLUGINS)
    assert (caught.value.backend, caught.value.key) == ("office", key)
    assert says in caught.value.detail
    assert hint in caught.value.hint


def test_two_plugins_of_one_name_are_refused() -> None:
    with pytest.raises(Misconfigured, match="more than one storage plug-in is called dict"):
        make_backend("office", {"type": "dict"}, (*PLUGINS, plugin("dict", "elsewhere:make")))


def test_a_backend_that_is_wrong_is_told_with_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "frontend.yaml"
    start = "oracle: {url: 'unix:bot.sock', token_file: token}\nstorage: {folder: files}\nbackends:\n"
    file.write_text(f"{start}  office:\n    type: nothing-like-it\n")
    with pytest.raises(ConfigurationProblem) as caught:
        config.load(file, {})
    assert caught.value.detail == (
        f"{file}, line 5: backends.office.type: no storage plug-in is called nothing-like-it"
    )
    file.write_text(f"{start}  file:\n    type: memory\n")
    with pytest.raises(ConfigurationProblem, match=r"line 4: backends\.file: that is the name of the store"):
        config.load(file, {})
    file.write_text(f"{start}  Office One: {{}}\n")
    with pytest.raises(ConfigurationProblem, match="backends"):
        config.load(file, {})


def test_every_key_of_a_backend_can_be_overridden_and_its_paths_are_relative_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index_frontend.storage.registry.installed", lambda: PLUGINS)
    file = tmp_path / "frontend.yaml"
    file.write_text("oracle: {url: 'unix:bot.sock', token_file: token}\nstorage: {folder: files}\nbackends:\n")
    environ = {
        "MATRIX_PYPI__BACKENDS__OFFICE__TYPE": "dict",
        "MATRIX_PYPI__BACKENDS__OFFICE__FOLDER": "share",
        "MATRIX_PYPI__BACKENDS__OFFICE__LIMIT": "7",
    }
    assert config.load(file, environ).backends == {
        "office": {"type": "dict", "folder": str(tmp_path / "share"), "limit": 7}
    }
