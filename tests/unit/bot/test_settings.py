"""A configuration is read once: right into frozen settings, or refused with where, what and what to do instead."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_pypi_bot.process.secret_files import SecretProblem, create_secret, read_secret, write_private
from matrix_pypi_bot.process.setting_types import (
    DatabaseUrl,
    HttpUrl,
    ListenAddress,
    Port,
    Seconds,
    ServiceUrl,
    is_loopback,
)
from matrix_pypi_bot.process.settings import ConfigurationProblem, Section, load_settings


class Cache(Section, frozen=True, kw_only=True):
    folder: Path = Path("/var/cache")
    fresh_seconds: Seconds = 600
    mode: Literal["refuse", "serve"] = "refuse"
    proxy: HttpUrl | None = None
    note: str | None = None


class Rule(Section, frozen=True, kw_only=True):
    project: str
    reason: str = ""


class Everything(Section, frozen=True, kw_only=True):
    listen: ListenAddress
    port: Port = 80
    verbose: bool = False
    cache: Cache = msgspec.field(default_factory=Cache)
    deny: tuple[Rule, ...] = ()


def load(tmp_path: Path, text: str, **environ: str) -> Everything:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    return load_settings(file, Everything, environ=environ, foreign_sections=("storage", "cache"))


def refusal(tmp_path: Path, text: str, **environ: str) -> tuple[str, str]:
    """The detail and the hint, with the folder cut away."""
    with pytest.raises(ConfigurationProblem) as caught:
        load(tmp_path, text, **environ)
    return caught.value.detail.replace(f"{tmp_path}/", ""), caught.value.hint


LISTEN = "listen: 127.0.0.1:1\n"


def test_what_is_not_said_has_its_default(tmp_path: Path) -> None:
    assert load(tmp_path, LISTEN) == Everything(listen=ListenAddress("127.0.0.1:1"))


def test_everything_can_be_said(tmp_path: Path) -> None:
    text = """
        listen: "[::1]:29330"
        port: 8080
        verbose: true
        cache: {folder: files, fresh_seconds: 2, mode: serve, proxy: "http://proxy.example:3128", note: x}
        deny:
          - {project: a, reason: b}
          - project: c
    """
    assert load(tmp_path, text) == Everything(
        listen=ListenAddress("[::1]:29330"),
        port=8080,
        verbose=True,
        cache=Cache(
            folder=tmp_path / "files",
            fresh_seconds=2,
            mode="serve",
            proxy=HttpUrl("http://proxy.example:3128"),
            note="x",
        ),
        deny=(Rule(project="a", reason="b"), Rule(project="c")),
    )


def test_a_section_whose_keys_are_all_commented_out_is_the_default_section(tmp_path: Path) -> None:
    assert load(tmp_path, f"{LISTEN}cache:\n  # mode: serve\n").cache == Cache()


@pytest.mark.parametrize(
    ("text", "detail", "hint"),
    [
        (
            f"{LISTEN}cache:\n  fresh_secs: 1\n",
            "config.yaml, line 3: cache.fresh_secs: unknown key",
            "did you mean fresh_seconds?",
        ),
        (f"{LISTEN}chache: {{}}\n", "config.yaml, line 2: chache: unknown key", "did you mean cache?"),
        (
            f"{LISTEN}xyzzy: 1\n",
            "config.yaml, line 2: xyzzy: unknown key",
            "known here: cache, deny, listen, port, verbose",
        ),
        (f"{LISTEN}1: 1\n", "config.yaml, line 2: 1: unknown key", "known here: cache, deny, listen, port, verbose"),
        (
            f"{LISTEN}deny:\n- project: a\n  raeson: b\n",
            "config.yaml, line 4: deny[0].raeson: unknown key",
            "did you mean reason?",
        ),
        (f"{LISTEN}port: eighty\n", "config.yaml, line 2: port: expected int, got str", ""),
        (f"{LISTEN}port: 0\n", "config.yaml, line 2: port: expected int >= 1", ""),
        (f"{LISTEN}port: 80.5\n", "config.yaml, line 2: port: expected int, got float", ""),
        (f"{LISTEN}verbose: yes\n", "config.yaml, line 2: verbose: expected bool, got str", ""),
        (f"{LISTEN}cache: 5\n", "config.yaml, line 2: cache: expected a section with keys, got int", ""),
        (f"{LISTEN}cache:\n  folder: 5\n", "config.yaml, line 3: cache.folder: expected a string, got 5", ""),
        (f"{LISTEN}cache:\n  folder: ''\n", "config.yaml, line 3: cache.folder: expected a path", ""),
        (
            f"{LISTEN}cache:\n  mode: sereve\n",
            "config.yaml, line 3: cache.mode: expected one of refuse, serve, got 'sereve'",
            "did you mean serve?",
        ),
        (
            f"{LISTEN}cache:\n  proxy: proxy:80\n",
            "config.yaml, line 3: cache.proxy: expected a URL such as https://matrix.example.org, got 'proxy:80'",
            "",
        ),
        (f"{LISTEN}deny:\n- project: a\n- reason: b\n", "config.yaml, line 4: deny[1]: the key project is missing", ""),
        ("port: 80\n", "config.yaml: the key listen is missing", ""),
        ("", "config.yaml: the key listen is missing", ""),
        ("- listen\n", "config.yaml is not a mapping of sections", ""),
        (f"{LISTEN}port: [\n", "config.yaml, line 3: expected the node content, but found '<stream end>'", ""),
        (
            f"{LISTEN}port: !!python/object/apply:os.abort []\n",
            "config.yaml, line 2: could not determine a constructor for the tag 'tag:yaml.org,2002:python/object/apply:os.abort'",
            "",
        ),
        ("listen: nowhere\n", "config.yaml, line 1: listen: expected host:port or unix:/path, got 'nowhere'", ""),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, detail: str, hint: str) -> None:
    assert refusal(tmp_path, text) == (detail, hint)


def test_the_same_key_twice_is_refused(tmp_path: Path) -> None:
    detail, _ = refusal(tmp_path, "listen: 127.0.0.1:1\nport: 1\nport: 2\n")
    assert detail.startswith('config.yaml, line 3: found duplicate key "port"')


def test_a_file_that_is_not_there_points_to_the_example(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationProblem) as caught:
        load_settings(tmp_path / "no.yaml", Everything, environ={}, example=Path("/example.yaml"))
    assert (caught.value.detail, caught.value.hint) == (
        f"there is no configuration file {tmp_path}/no.yaml",
        "start from a copy of /example.yaml",
    )


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a: \0", b"#" * (2 << 20), b"[" * 3_000, b"*a"])
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigurationProblem):
        load_settings(file, Everything, environ={})


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationProblem, match="cannot read"):
        load_settings(tmp_path, Everything, environ={})


# ---- environment ----------------------------------------------------------------------------------------------------


def test_the_environment_overrides_every_kind_of_key(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        f"{LISTEN}cache: {{mode: refuse, note: 'old', proxy: 'http://old.example'}}\n",
        MATRIX_PYPI__LISTEN="unix:bot.sock",
        MATRIX_PYPI__PORT="81",
        MATRIX_PYPI__VERBOSE="true",
        MATRIX_PYPI__CACHE__MODE="serve",
        MATRIX_PYPI__CACHE__FRESH_SECONDS="0.5",
        MATRIX_PYPI__CACHE__FOLDER="files",
        MATRIX_PYPI__CACHE__NOTE="123",
        MATRIX_PYPI__CACHE__PROXY="",
        MATRIX_PYPI__DENY="[{project: a}]",
        MATRIX_PYPI_UNRELATED="x",
        PATH="/bin",
    )
    assert settings == Everything(
        listen=ListenAddress(f"unix:{tmp_path}/bot.sock"),
        port=81,
        verbose=True,
        cache=Cache(folder=tmp_path / "files", fresh_seconds=0.5, mode="serve", note="123"),
        deny=(Rule(project="a"),),
    )


def test_overrides_of_the_other_process_are_left_alone_but_its_name_does_not_hide_ours(tmp_path: Path) -> None:
    settings = load(tmp_path, LISTEN, MATRIX_PYPI__STORAGE__FOLDER="/x", MATRIX_PYPI__CACHE__MODE="serve")
    assert settings.cache.mode == "serve"


@pytest.mark.parametrize(
    ("variable", "value", "detail", "hint"),
    [
        (
            "MATRIX_PYPI__CACHE__FRESH_SECS",
            "1",
            "the environment variable MATRIX_PYPI__CACHE__FRESH_SECS overrides no key",
            "did you mean MATRIX_PYPI__CACHE__FRESH_SECONDS?",
        ),
        (
            "MATRIX_PYPI__CASHE__MODE",
            "serve",
            "the environment variable MATRIX_PYPI__CASHE__MODE overrides no key",
            "did you mean MATRIX_PYPI__CACHE?",
        ),
        ("MATRIX_PYPI__PORT__X", "1", "the environment variable MATRIX_PYPI__PORT__X overrides no key", ""),
        (
            "MATRIX_PYPI__",
            "1",
            "the environment variable MATRIX_PYPI__ overrides no key",
            "known here: " + ", ".join(f"MATRIX_PYPI__{key}" for key in ("CACHE", "DENY", "LISTEN", "PORT", "VERBOSE")),
        ),
        (
            "MATRIX_PYPI__CACHE",
            "{}",
            "the environment variable MATRIX_PYPI__CACHE names a section: add __ and the key",
            "",
        ),
        ("MATRIX_PYPI__PORT", "eighty", "the environment variable MATRIX_PYPI__PORT: expected int, got str", ""),
        ("MATRIX_PYPI__PORT", "", "the environment variable MATRIX_PYPI__PORT: expected int, got str", ""),
        (
            "MATRIX_PYPI__CACHE__MODE",
            "never",
            "the environment variable MATRIX_PYPI__CACHE__MODE: expected one of refuse, serve, got 'never'",
            "known here: refuse, serve",
        ),
        (
            "MATRIX_PYPI__DENY",
            "[{reason: x}]",
            "the environment variable MATRIX_PYPI__DENY: the key project is missing",
            "",
        ),
        ("MATRIX_PYPI__DENY", "[", "the environment variable MATRIX_PYPI__DENY: expected array, got str", ""),
    ],
)
def test_an_override_that_says_nothing_is_refused(
    tmp_path: Path, variable: str, value: str, detail: str, hint: str
) -> None:
    assert refusal(tmp_path, LISTEN, **{variable: value}) == (detail, hint)


@given(key=st.text(max_size=20), value=st.text(max_size=20))
def test_no_environment_ever_makes_anything_but_settings_or_a_complaint(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    file.write_text(LISTEN)
    try:
        load_settings(file, Everything, environ={f"MATRIX_PYPI__{key}": value})
    except ConfigurationProblem as problem:
        assert problem.hint.isprintable()


@given(text=st.text(max_size=200))
def test_no_file_ever_makes_anything_but_settings_or_a_complaint(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationProblem):
        load_settings(file, Everything, environ={})


# ---- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("127.0.0.1:29330", (None, "127.0.0.1", 29330, True)),
        ("localhost:1", (None, "localhost", 1, True)),
        ("[::1]:80", (None, "::1", 80, True)),
        ("0.0.0.0:80", (None, "0.0.0.0", 80, False)),
        ("unix:/run/x", ("/run/x", "", 0, True)),
        ("unix:x", ("/etc/x", "", 0, True)),
    ],
)
def test_a_listen_address_knows_its_parts(text: str, parts: tuple[str | None, str, int, bool]) -> None:
    address = ListenAddress.from_setting(text, Path("/etc"))
    assert (address.socket_path, address.host, address.port, address.is_local) == parts


@pytest.mark.parametrize(
    "text", ["", "80", ":80", "host", "host:", "host:0", "host:99999", "host:x", "u@host:1", "host:1/", "unix:", "[::1", "::1:8"]
)  # fmt: skip
def test_what_is_no_listen_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|not an address"):
        ListenAddress.from_setting(text, Path("/"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.org",
        "ftp://a",
        "https://",
        "https://u:p@a",
        "https://a/?b",
        "https://a/#b",
        "https://a b",
        "https://ä",
        "https://a:x",
        "http://[::1",
        "https://a\n",
    ],
)
def test_what_is_no_http_url_is_refused_and_secrets_in_it_are_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|secrets|not an address") as caught:
        HttpUrl.from_setting(text, Path("/"))
    assert "u:p" not in str(caught.value)


def test_a_service_is_reached_by_url_or_by_socket() -> None:
    tcp = ServiceUrl.from_setting("http://127.0.0.1:29330/", Path("/etc"))
    unix = ServiceUrl.from_setting("unix:bot.sock", Path("/etc"))
    assert [(one.base_url, one.socket_path) for one in (tcp, unix)] == [
        ("http://127.0.0.1:29330", None),
        ("http://localhost", "/etc/bot.sock"),
    ]


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("sqlite:a.db", "sqlite:/etc/a.db"),
        ("sqlite:/a b?.db", "sqlite:/a%20b%3F.db"),
        ("sqlite:////a.db", "sqlite:/a.db"),
        ("sqlite:///a.db", "sqlite:/a.db"),
        ("postgres://u@h/db", "postgres://u@h/db"),
        ("postgresql://u:p@h:5432/db", "postgresql://u:p@h:5432/db"),
    ],
)
def test_a_database_is_a_file_or_a_server(text: str, url: str) -> None:
    assert DatabaseUrl.from_setting(text, Path("/etc")) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sqlite",
        "sqlite:",
        "sqlite:///",
        "sqlite://a.db",
        "mysql://h/db",
        "postgres:db",
        "postgres://h",
        "postgres://h/",
    ],
)
def test_other_databases_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected sqlite"):
        DatabaseUrl.from_setting(text, Path("/etc"))


def test_loopback_is_what_only_this_machine_reaches() -> None:
    assert [is_loopback(host) for host in ("127.1.2.3", "::1", "localhost", "0.0.0.0", "::", "example.org")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip


# ---- secrets --------------------------------------------------------------------------------------------------------


def test_a_secret_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "secrets" / "token"
    assert create_secret(file, "first")
    assert not create_secret(file, "second")
    assert read_secret(file) == "first"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert list(file.parent.iterdir()) == [file]


def test_a_secret_that_is_there_needs_no_folder_that_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")

    def read_only(*_: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for call in ("open", "link", "mkdir", "unlink"):
        monkeypatch.setattr(os, call, read_only)
    assert not create_secret(file, "second")
    with pytest.raises(SecretProblem, match=r"cannot make the secret file .*/other: Read-only file system"):
        create_secret(tmp_path / "other", "third")


def test_a_secret_below_something_that_is_no_folder_is_a_clear_refusal(tmp_path: Path) -> None:
    (tmp_path / "secrets").write_text("")
    with pytest.raises(SecretProblem, match=r"cannot make the secret file .*/secrets/token: File exists"):
        create_secret(tmp_path / "secrets" / "token", "first")


def test_a_private_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "registration.yaml"
    file.write_text("old")
    file.chmod(0o644)
    write_private(file, "new")
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode), list(tmp_path.iterdir())) == ("new", 0o600, [file])


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"a\nb\n", "does not hold one line"),
        (b"a\0b", "does not hold one line"),
        (b"\xff", "does not hold one line"),
        (b"a" * 5000, "does not hold one line"),
    ],
)
def test_a_secret_that_cannot_be_used_is_refused_without_repeating_it(
    tmp_path: Path, content: bytes | None, detail: str
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SecretProblem) as caught:
        read_secret(file, hint="run the command")
    assert (detail in caught.value.detail, caught.value.hint) == (True, "run the command")
    assert "aaa" not in caught.value.detail
