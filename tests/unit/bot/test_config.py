"""The bot's configuration: every key has its comment in the example, and what cannot work is refused when it is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from pypi_simple import PYPI_SIMPLE_ENDPOINT  # up here: urllib3 tries a socket when it is imported

from index_frontend import config as frontend_config
from matrix_pypi_bot import config
from matrix_pypi_bot.config import HomeserverSettings, IndexSettings, Settings
from matrix_pypi_bot.core.cooldown import Exemption
from matrix_pypi_bot.core.policy import Denial, Versions
from matrix_pypi_bot.policy_settings import DeniedFile
from matrix_pypi_bot.process.settings import ConfigurationProblem
from matrix_pypi_bot.wire.names import ProjectName
from tests.support.settings import keys_in_example, keys_of

MINIMAL = """\
homeserver: {address: http://127.0.0.1:8008, server_name: example.org}
appservice: {as_token_file: a, hs_token_file: h}
database: {url: "sqlite:x.db"}
organisation: {name: orga, root_key_file: r, mirror_key_file: m}
api: {token_file: t, operator_token_file: o}
"""


def load(tmp_path: Path, text: str = MINIMAL, **environ: str) -> Settings:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    return config.load(file, environ)


def refusal(tmp_path: Path, **environ: str) -> str:
    with pytest.raises(ConfigurationProblem) as caught:
        load(tmp_path, **{f"MATRIX_PYPI__{key}": value for key, value in environ.items()})
    return caught.value.detail


def test_the_example_holds_every_key_and_no_other() -> None:
    assert keys_in_example(config.EXAMPLE) == keys_of(Settings)


def test_the_example_is_a_configuration_that_shows_the_defaults() -> None:
    example = config.load(config.EXAMPLE, {})
    assert [example.announce, example.index, example.policy, example.provenance, example.rooms, example.logging] == [
        config.AnnounceSettings(),
        IndexSettings(),
        config.PolicySettings(),
        config.ProvenanceSettings(),
        config.RoomsSettings(),
        config.LoggingSettings(),
    ]
    assert (example.homeserver, example.bot_mxid, example.appservice.public_url) == (
        HomeserverSettings(
            address=config.HttpUrl("https://matrix.example.org"), server_name=config.ServerName("example.org")
        ),
        "@pypi:example.org",
        "http://127.0.0.1:29331",
    )


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"KUBO_ADDRS": "[/ip4/192.0.2.1/tcp/4001]"}, "kubo_peer names it"),
        ({"KUBO_PEER": "12D3KooWExample"}, "set gateway or log"),
        ({"GATEWAY": "mirror.example.org"}, "expected a URL"),
    ],
)
def test_half_an_announcement_is_refused(tmp_path: Path, keys: dict[str, str], says: str) -> None:
    assert says in refusal(tmp_path, **{f"ANNOUNCE__{key}": value for key, value in keys.items()})


def test_each_process_leaves_exactly_the_other_ones_sections_alone() -> None:
    ours = {key.partition(".")[0] for key in keys_of(Settings)}
    theirs = {key.partition(".")[0] for key in keys_of(frontend_config.Settings)}
    assert (set(config.FRONTEND_SECTIONS), set(frontend_config.BOT_SECTIONS)) == (theirs - ours, ours - theirs)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert (settings.appservice.as_token_file, settings.database.url) == (tmp_path / "a", f"sqlite:{tmp_path}/x.db")


def test_a_private_index_is_not_attested_unless_asked_for(tmp_path: Path) -> None:
    def attests(**environ: str) -> tuple[str, bool]:
        index = load(tmp_path, **environ).index
        return index.endpoint, index.attests

    private = {"MATRIX_PYPI__INDEX__URL": "https://index.example/simple"}
    assert attests() == (PYPI_SIMPLE_ENDPOINT, True)
    assert attests(**private) == ("https://index.example/simple/", False)
    assert attests(**private, MATRIX_PYPI__INDEX__ATTEST="true") == ("https://index.example/simple/", True)
    assert attests(MATRIX_PYPI__INDEX__ATTEST="false") == (PYPI_SIMPLE_ENDPOINT, False)


def test_denied_files_are_normalised(tmp_path: Path) -> None:
    deny = "[{project: Evil_Project, reason: bad}, {project: a, file: a-1.tar.gz, reason: bad}]"
    found = load(tmp_path, MATRIX_PYPI__POLICY__DENY=deny).policy.deny
    assert found == (
        DeniedFile(project="Evil_Project", reason="bad"),
        DeniedFile(project="a", file="a-1.tar.gz", reason="bad"),
    )
    assert [(one.project_name, one.file_name) for one in found] == [("evil-project", None), ("a", "a-1.tar.gz")]


def test_policies_are_read_as_they_are_decided_by(tmp_path: Path) -> None:
    policy = load(
        tmp_path,
        MATRIX_PYPI__POLICY__DENY="[{project: A_b, versions: '<2, >=1', until: 2025-12-31, reason: bad}]",
        MATRIX_PYPI__POLICY__COOLDOWN_EXEMPT="[{project: A_b, versions: '==3', until: '2026-01-01T01:00:00+01:00', reason: good}]",
        MATRIX_PYPI__POLICY__RESERVED="[Acme_*, Own.Name]",
        MATRIX_PYPI__POLICY__ALLOW_ONLY="['*-stubs']",
    ).policy
    start_of_2026_ms, project = 1_767_225_600_000, ProjectName("a-b")
    assert policy.deny[0].denial() == Denial(
        project=project, versions=Versions("<2,>=1"), until_ms=start_of_2026_ms, reason="bad"
    )
    assert policy.cooldown_exempt[0].exemption() == Exemption(
        project=project, versions=Versions("==3"), until_ms=start_of_2026_ms, reason="good"
    )
    assert (policy.reserved, policy.allow_only) == (("acme-*", "own-name"), ("*-stubs",))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("HOMESERVER__SERVER_NAME", "https://example.org", "expected a server name such as example.org"),
        ("HOMESERVER__ADDRESS", "example.org", "expected a URL"),
        ("APPSERVICE__BOT_LOCALPART", "PyPI", "expected str matching regex"),
        ("APPSERVICE__MAX_BODY_BYTES", "1048576", "expected int >= 16777216"),
        ("APPSERVICE__PORT", "29330", "are the same address"),
        ("ORGANISATION__NAME", "Orga Inc", "expected str matching regex"),
        ("PUBLIC__LISTEN", "127.0.0.1:29330", "an address of its own"),
        ("PUBLIC__LISTEN", "127.0.0.1:29331", "an address of its own"),
        ("API__LISTEN", "0.0.0.0:29330", "set allow_other_machines: true"),
        ("API__OPERATOR_TOKEN_FILE", "t", "are the same file"),
        ("POLICY__OFFLINE", "ack", "expected one of acked, kofn, self"),
        ("POLICY__DENY", "[{project: a b, reason: x}]", "is not a project name"),
        ("POLICY__DENY", "[{project: a, file: ../a.whl, reason: x}]", "is not a safe file name"),
        ("POLICY__DENY", "[{project: a, sha256: ABC, reason: x}]", "expected str matching regex"),
        ("POLICY__DENY", "[{project: a, reason: ''}]", "expected str of length >= 1"),
        ("POLICY__DENY", "[{project: a, versions: '2.x', reason: x}]", "expected versions such as >=2,<2.3"),
        ("POLICY__DENY", "[{project: a, until: 2026-02-30, reason: x}]", "expected a date such as 2026-12-31"),
        ("POLICY__DENY", "[{project: a, until: '2026-01-01T00:00:00', reason: x}]", "or a time such as"),
        ("POLICY__COOLDOWN_EXEMPT", "[{project: a}]", "the key reason is missing"),
        ("POLICY__COOLDOWN_EXEMPT", "[{project: a b, reason: x}]", "is not a project name"),
        ("POLICY__RESERVED", "['*']", "a pattern that every project matches"),
        ("POLICY__RESERVED", "['a b']", "is not a project name"),
        ("POLICY__ALLOW_ONLY", "['a?*']", "or a pattern such as acme-*"),
        ("INDEX__FRESH_SECONDS", "-1", "expected float >= 0.0"),
        ("INDEX__URL", "https://user:password@index.example/", "secrets do not belong"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, key: str, value: str, says: str) -> None:
    assert says in refusal(tmp_path, **{key: value})


def test_an_address_that_other_machines_reach_must_be_meant(tmp_path: Path) -> None:
    environ = {"MATRIX_PYPI__API__LISTEN": "0.0.0.0:29330", "MATRIX_PYPI__API__ALLOW_OTHER_MACHINES": "true"}
    assert load(tmp_path, **environ).api.listen == "0.0.0.0:29330"


def test_an_address_of_provenance_that_clients_would_not_take_is_refused(tmp_path: Path) -> None:
    assert "https" in refusal(tmp_path, PROVENANCE__SERVED_AT="http://pypi.example.org")
    assert load(tmp_path, MATRIX_PYPI__PROVENANCE__SERVED_AT="https://pypi.example.org").provenance.served_at
