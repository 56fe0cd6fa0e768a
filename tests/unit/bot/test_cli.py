"""The command lines: what they print, what they write, and the exit code a script sees."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

import index_frontend.cli
import matrix_pypi_bot.cli
from matrix_pypi_bot import config
from matrix_pypi_bot.cli.bot_client import BotClient, NotKnown
from matrix_pypi_bot.core.events import Checked, check_envelope
from matrix_pypi_bot.core.signers import PinnedKey, SigningKey
from matrix_pypi_bot.core.statements.attestation import Attestation
from matrix_pypi_bot.process.command_line import ExitCode, NeededIsMissing, exit_code_of
from matrix_pypi_bot.services.relay import read_blob
from matrix_pypi_bot.trust_file import load_trust
from matrix_pypi_bot.wire.cids import CidBuilder
from matrix_pypi_bot.wire.messages import (
    DelegationTold,
    Evidence,
    Explanation,
    FileDecision,
    KeyDelegation,
    KeysTold,
    Override,
    OverrideDone,
    Relayed,
    decode_as,
    encode,
)
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

ROOT = Path(__file__).parents[3]
WHEEL = "flask-3.1.3-py3-none-any.whl"
SERVES = FileDecision(action="serve+attest", http=200, rule="R8")
REFUSES = FileDecision(action="refuse", http=403, rule="R3", reason="matrix-pypi: R3 the digest changed upstream")


def run(*arguments: str | Path, frontend: bool = False) -> Result:
    main = index_frontend.cli.main if frontend else matrix_pypi_bot.cli.main
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def bot_config(tmp_path: Path) -> Path:
    """A copy of the example, in a folder of its own."""
    file = tmp_path / "config.yaml"
    file.write_text(config.EXAMPLE.read_text())
    return file


class FakeBot:
    """Answers what it was given; remembers what it was asked, and with which token."""

    def __init__(self, answers: dict[str, msgspec.Struct]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str, str]] = []
        self.bodies: list[bytes] = []

    def ask(self, client: BotClient, method: str, path: str, body: bytes | None = None) -> bytes:
        self.asked.append((method, path, client.token))
        self.bodies += [body] if body else []
        if path not in self.answers:
            raise NotKnown(f"nothing is known of {path}")
        return encode(self.answers[path])


@pytest.fixture
def bot(monkeypatch: pytest.MonkeyPatch, bot_config: Path) -> FakeBot:
    """The bot of `bot_config`, with both tokens made."""
    explanation = Explanation(
        project="flask",
        state="live",
        view_age_seconds=12.3,
        serial=25,
        room="#pypi_flask:example.org",
        files={WHEEL: REFUSES},
        evidence={
            WHEEL: (
                Evidence(kind="upstream", sha256="b" * 64, detail="named now"),
                Evidence(
                    kind="attestation", sha256="a" * 64, detail="[red]orga", at="2026-11-22", statement_id="c" * 64
                ),
            )
        },
    )
    done = OverrideDone(statement_id="d" * 64, scope="file", project="flask", file=WHEEL, decisions={WHEEL: SERVES})
    fake = FakeBot(
        {
            f"/internal/v1/explain/flask/{WHEEL}": explanation,
            "/internal/v1/explain/flask": explanation,
            "/internal/v1/overrides": done,
        }
    )
    config.ensure_api_tokens(config.load(bot_config, {}))
    secrets = bot_config.parent / "secrets"
    (secrets / "api_token").write_text("reader\n")
    (secrets / "operator_token").write_text("operator\n")
    monkeypatch.setattr(BotClient, "ask", lambda client, *rest: fake.ask(client, *rest))
    return fake


# ---- what every command does ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("frontend", [False, True])
def test_every_command_listed_can_be_asked_for_its_help(frontend: bool) -> None:
    main = index_frontend.cli.main if frontend else matrix_pypi_bot.cli.main
    listing = run("--help", frontend=frontend).output
    for name in main.list_commands(None):  # type: ignore[arg-type]
        assert f"  {name}" in listing
        assert run(name, "--help", frontend=frontend).exit_code == 0


def test_the_list_of_commands_imports_nothing_that_is_slow() -> None:
    slow = ["rich", "mautrix", "aiohttp", "cryptography", "ruamel.yaml", "pypi_simple", "asyncio"]
    script = (
        "import sys; from matrix_pypi_bot.cli import main\n"
        "try: main(['--help'])\n"
        f"except SystemExit: print([name for name in {slow} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (Problem("x", code=ProblemCode.CONFIGURATION), ExitCode.CONFIGURATION),
        (Problem("x", code=ProblemCode.UNAUTHORISED), ExitCode.CONFIGURATION),
        (Problem("x", code=ProblemCode.INVALID_NAME), ExitCode.USAGE),
        (Problem("x", code=ProblemCode.REFUSED), ExitCode.NO),
        (Problem("x", code=ProblemCode.NOT_FOUND), ExitCode.NO),
        (Problem("x", code=ProblemCode.UPSTREAM_AWAY), ExitCode.UNREACHABLE),
        (NeededIsMissing("x"), ExitCode.UNREACHABLE),
    ],
)
def test_a_script_sees_what_kind_of_problem_it_was(problem: Problem, code: ExitCode) -> None:
    assert exit_code_of(problem) is code


def test_a_problem_is_two_lines_and_no_traceback(tmp_path: Path) -> None:
    found = run("check-config", "-c", tmp_path / "no.yaml")
    assert (found.exit_code, found.output.splitlines()) == (
        3,
        [
            f"error: there is no configuration file {tmp_path}/no.yaml",
            f"hint: start from a copy of {config.EXAMPLE}",
        ],
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["bot"],
        ["registration", "-c", "x"],
        ["up", "--orgs", "0"],
        ["up", "--orgs", "27"],
        ["up", "--storage", "tape"],
        ["up", "--port", "0"],
        ["up", "--upstream", "index.example"],
        ["up", "--database", "mysql://x/y"],
        ["keys", "new-org"],
        ["keys", "show", "-c", "a", "--folder", "b"],
        ["quarantine", "flask"],
        ["quarantine", "flask", "--reason", " "],
        ["quarantine", "flask", "--reason", "x" * 201],
        ["approve", WHEEL, "--reason", "x", "--sha256", "ABC"],
        ["quarantine", "not a name", "--reason", "x"],
        ["explain", "../etc/passwd?"],
    ],
)
def test_wrong_usage_is_2_before_anything_happens(arguments: list[str], bot: FakeBot, bot_config: Path) -> None:
    asks = arguments[0] in ("quarantine", "approve", "explain")
    found = run(*arguments, *(["-c", bot_config] if asks else []))
    assert (found.exit_code, bot.asked) == (2, [])


# ---- setting up -----------------------------------------------------------------------------------------------------


def test_the_registration_in_the_repository_is_the_one_that_the_example_makes() -> None:
    token = "made by `matrix-pypi registration`"
    made = config.registration(config.load(config.EXAMPLE, {}), as_token=token, hs_token=token)
    assert (ROOT / "registration.yaml.example").read_text() == made


def test_a_registration_is_written_with_tokens_that_stay(bot_config: Path) -> None:
    from ruamel.yaml import YAML

    output = bot_config.parent / "registration.yaml"
    assert run("registration", "-c", bot_config, "-o", output).exit_code == 0
    first = output.read_text()
    assert run("registration", "-c", bot_config, "-o", output).exit_code == 0
    secrets = bot_config.parent / "secrets"
    tokens = {name: (secrets / name).read_text().strip() for name in ("as_token", "hs_token")}
    assert YAML(typ="safe", pure=True).load(first) == {
        "id": "matrix-pypi",
        "url": "http://127.0.0.1:29331",
        **tokens,
        "sender_localpart": "pypi",
        "rate_limited": False,
        "receive_ephemeral": False,
        "protocols": [],
        "namespaces": {
            "users": [{"exclusive": True, "regex": r"^@pypi:example\.org$"}],
            "aliases": [{"exclusive": True, "regex": r"^#pypi([-_].*)?:example\.org$"}],
            "rooms": [],
        },
    }
    assert (output.read_text(), len(set(tokens.values())), stat.S_IMODE(output.stat().st_mode)) == (first, 2, 0o600)
    assert {file.name for file in secrets.iterdir()} == {
        "as_token",
        "hs_token",
        "api_token",
        "operator_token",
        "log_key",
    }


def test_keys_are_made_once_and_shown_without_their_secret(bot_config: Path) -> None:
    made = run("keys", "new-org", "-c", bot_config)
    again = run("keys", "new-org", "-c", bot_config)
    seed = (bot_config.parent / "secrets" / "root_key").read_text().strip()
    shown = run("keys", "show", "--folder", bot_config.parent / "secrets")
    assert [made.exit_code, again.exit_code, shown.exit_code] == [0, 0, 0]
    assert [line.split()[0] for line in again.output.splitlines() if not line.startswith(" ")] == ["kept"] * 3
    assert (len(bytes.fromhex(seed)), seed in made.output + again.output + shown.output) == (32, False)
    assert "root public key  ed25519:" in shown.output


@pytest.mark.parametrize("which", ["mirror", "log", "root"])
def test_a_key_is_replaced_and_the_old_one_is_kept_under_its_id(bot_config: Path, which: str) -> None:
    run("keys", "new-org", "-c", bot_config)
    secrets = bot_config.parent / "secrets"
    before = {file.name: file.read_text() for file in secrets.iterdir()}
    done = run("keys", "rotate", which, "-c", bot_config)
    after = {file.name: file.read_text() for file in secrets.iterdir()}
    (kept,) = after.keys() - before.keys()
    assert (done.exit_code, after.pop(kept), kept.startswith(f"{which}_key.")) == (0, before[f"{which}_key"], True)
    assert {name for name in before if after[name] != before[name]} == {f"{which}_key"}
    assert stat.S_IMODE((secrets / f"{which}_key").stat().st_mode) == 0o600
    then = str(secrets / kept) if which == "root" else f"keys revoke {kept.removeprefix(f'{which}_key.')}"
    assert then in done.output.partition("restart the bot")[2]
    assert not {seed.strip() for seed in (*before.values(), *after.values())} & set(done.output.split())


def test_a_maintainers_key_is_made_once_with_the_lines_that_name_it(tmp_path: Path) -> None:
    file = tmp_path / "keys" / "maintainer"
    made = run("keys", "new-maintainer", file, "--project", "mxa")
    again = run("keys", "new-maintainer", file)
    public = SigningKey(bytes.fromhex(file.read_text())).public.hex()
    assert [made.exit_code, again.exit_code, stat.S_IMODE(file.stat().st_mode)] == [0, 0, 0o600]
    assert (made.output.splitlines()[0], again.output.splitlines()[0]) == (f"made {file}", f"kept {file}")
    lines = made.output.partition("For the trust.yaml of others:\n")[2]
    trust = tmp_path / "trust.yaml"
    trust.write_text(lines)
    assert load_trust(trust, own="").maintainers == {"mxa": frozenset({public})}
    assert file.read_text().strip() not in made.output + again.output


def test_the_lines_that_pin_the_organisation_can_be_pasted(bot_config: Path, tmp_path: Path) -> None:
    run("keys", "new-org", "-c", bot_config)
    shown = run("keys", "show", "-c", bot_config)
    trust = tmp_path / "trust.yaml"
    trust.write_text(shown.output.partition("For the trust.yaml of others:\n")[2])
    (pinned,) = load_trust(trust, own="").orgs
    seed = bytes.fromhex((bot_config.parent / "secrets" / "root_key").read_text())
    assert (pinned.name, pinned.roots, pinned.user) == ("example", (SigningKey(seed).public,), "@pypi:example.org")


@pytest.mark.parametrize(("command", "delegated"), [("delegate", True), ("undelegate", False)])
def test_an_operator_delegates_a_project_to_a_maintainer(
    command: str, delegated: bool, bot: FakeBot, bot_config: Path
) -> None:
    told = KeysTold(
        org="example", version=3, expires="2026-12-01T00:00:00Z", roots=("a" * 64,), keys=(),
        delegations=(DelegationTold(project="mx-a", key="b" * 64),),
    )  # fmt: skip
    bot.answers["/internal/v1/keys/delegations"] = told
    found = run("keys", command, "Mx_A", f"ed25519:{'b' * 64}", "-c", bot_config)
    assert (found.exit_code, bot.asked) == (0, [("POST", "/internal/v1/keys/delegations", "operator")])
    order = KeyDelegation(project="mx-a", key=f"ed25519:{'b' * 64}", delegated=delegated)
    assert decode_as(KeyDelegation, bot.bodies[0]) == order
    assert found.output.splitlines()[-1] == f"  ed25519:{'b' * 64}  maintainer of mx-a"


def test_a_key_that_cannot_be_replaced_stays_and_one_line_says_so(
    bot_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    assert run("keys", "new-org", "-c", bot_config).exit_code == 0
    before = run("keys", "show", "-c", bot_config).stdout
    monkeypatch.setattr(os, "link", refuse)
    done = run("keys", "rotate", "mirror", "-c", bot_config)
    assert (done.exit_code, "Read-only file system" in done.stderr, "Traceback" in done.stderr) == (3, True, False)
    assert run("keys", "show", "-c", bot_config).stdout == before


def test_a_configuration_is_right_when_all_its_secrets_are_there(bot_config: Path) -> None:
    before = run("check-config", "-c", bot_config)
    run("keys", "new-org", "-c", bot_config)
    between = run("check-config", "-c", bot_config)
    run("registration", "-c", bot_config, "-o", bot_config.parent / "registration.yaml")
    after = run("check-config", "-c", bot_config)
    assert [before.exit_code, between.exit_code, after.exit_code] == [3, 3, 0]
    assert "keys new-org" in before.output
    assert "registration" in between.output
    assert "@pypi:example.org for the organisation example" in after.output


def test_what_policy_is_in_force_is_told_and_what_of_it_has_ended(bot_config: Path) -> None:
    run("keys", "new-org", "-c", bot_config)
    run("registration", "-c", bot_config, "-o", bot_config.parent / "registration.yaml")
    entries = "[{project: a, reason: r, until: 2020-01-01}, {project: b, reason: r, until: 2999-01-01}]"
    policy = f'policy:\n  reserved: ["Acme_*"]\n  cooldown_seconds: 60\n  deny: {entries}\n'
    text = re.sub(r"(?m)^policy:\n(  .*\n|\n)*", "", bot_config.read_text())
    bot_config.write_text(text + policy)
    told = run("check-config", "-c", bot_config)
    assert "policy      cooldown 60 s, 2 denied, reserved: acme-*, deny[0] (a) has ended and can go\n" in told.output
    bot_config.write_text(text + policy.replace("2999-01-01", "some day"))
    wrong = run("check-config", "-c", bot_config)
    assert (wrong.exit_code, "policy.deny[1].until: expected a date such as 2026-12-31" in wrong.output) == (3, True)


def test_the_frontends_configuration_is_right_when_its_token_is_there(tmp_path: Path) -> None:
    file = tmp_path / "frontend.yaml"
    file.write_text("oracle: {url: 'http://127.0.0.1:1', token_file: token}\nstorage: {folder: files}\n")
    assert run("check-config", "-c", file, frontend=True).exit_code == 3
    (tmp_path / "token").write_text("x")
    assert run("check-config", "-c", file, frontend=True).exit_code == 0


# ---- asking the bot -------------------------------------------------------------------------------------------------


def test_a_file_is_explained_with_its_rule_and_its_evidence(bot: FakeBot, bot_config: Path) -> None:
    found = run("explain", WHEEL, "-c", bot_config)
    assert bot.asked == [("GET", f"/internal/v1/explain/flask/{WHEEL}", "reader")]
    assert (found.exit_code, [line.rstrip() for line in found.output.splitlines()]) == (
        0,
        [
            "flask  upstream live, page 12 s old, serial 25, room #pypi_flask:example.org",
            "",
            f"{WHEEL}  refuse R3",
            "  matrix-pypi: R3 the digest changed upstream",
            "  upstream     bbbbbbbbbbbbbbbb  named now",
            "  attestation  aaaaaaaaaaaaaaaa  [red]orga 2026-11-22 (cccccccccccccccc)",
        ],
    )


def test_a_project_is_explained_under_any_spelling(bot: FakeBot, bot_config: Path) -> None:
    found = run("explain", "Flask", "-c", bot_config, "--json")
    assert (bot.asked, json.loads(found.output)["files"][WHEEL]["rule"]) == (
        [("GET", "/internal/v1/explain/flask", "reader")],
        "R3",
    )


def test_the_project_of_a_file_is_guessed_until_the_bot_knows_one(bot: FakeBot, bot_config: Path) -> None:
    found = run("explain", "other-thing-1.0.tar.gz", "-c", bot_config)
    assert (found.exit_code, [path.split("/")[4] for _, path, _ in bot.asked]) == (1, ["other-thing", "other"])


@pytest.mark.parametrize("action", ["approve", "quarantine", "release"])
def test_an_operator_decides_with_his_own_token(action: str, bot: FakeBot, bot_config: Path) -> None:
    found = run(action, WHEEL, "--reason", "incident 42", "-c", bot_config)
    assert (found.exit_code, bot.asked, decode_as(Override, bot.bodies[0])) == (
        0,
        [("POST", "/internal/v1/overrides", "operator")],
        Override(action=action, target=WHEEL, reason="incident 42"),  # type: ignore[arg-type]
    )
    assert found.output.splitlines() == [f"{action}: {WHEEL} (statement {'d' * 64})", f"  serve+attest R8  {WHEEL}"]


def test_an_approval_may_name_its_digest(bot: FakeBot, bot_config: Path) -> None:
    run("approve", WHEEL, "--reason", "x", "--sha256", "e" * 64, "-c", bot_config)
    assert decode_as(Override, bot.bodies[0]).sha256 == "e" * 64


def test_the_bot_of_a_local_stack_is_found_by_its_folder(bot: FakeBot, bot_config: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "stack.json").write_text(json.dumps({"orgs": [{"config_file": str(bot_config)}]}))
    assert run("explain", "flask", "--home", home).exit_code == 0


@pytest.mark.parametrize(("content", "code"), [(None, 4), ("", 3), ("[]", 3), ('{"orgs": []}', 3)])
def test_a_folder_without_a_running_stack_is_said_to_be_one(content: str | None, code: int, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "stack.json").write_text(content)
    found = run("explain", "flask", "--home", tmp_path)
    assert (found.exit_code, "matrix-pypi up" in found.output) == (code, True)


# ---- what maintainers sign ------------------------------------------------------------------------------------------


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A maintainer's key file."""
    file = tmp_path / "maintainer_key"
    assert run("keys", "new-maintainer", file).exit_code == 0
    return file


@pytest.fixture
def wheels(tmp_path: Path) -> list[Path]:
    """Two files, the second larger than a block."""
    files = [tmp_path / "dist" / name for name in (WHEEL, "flask-3.1.3.tar.gz")]
    files[0].parent.mkdir()
    files[0].write_bytes(b"small")
    files[1].write_bytes(b"x" * (1 << 21))
    return files


def attestation_in(line: str, key: Path) -> Checked:
    """The statement in a line that `attest` printed, as a mirror that knows the key checks it."""
    public = SigningKey(bytes.fromhex(key.read_text())).public
    known = PinnedKey(public=public, org="maint", roles=frozenset({"maintainer"}), projects=frozenset({"flask"}))
    return check_envelope(read_blob(line.removeprefix("!pypi attest ")), {known.keyid: known})


def test_a_maintainer_signs_what_he_built_for_the_room(key: Path, wheels: list[Path]) -> None:
    done = run("attest", *wheels, "--key", key)
    assert (done.exit_code, len(done.stdout.splitlines())) == (0, 2)
    for line, file in zip(done.stdout.splitlines(), wheels, strict=True):
        statement = attestation_in(line, key).statement
        told, data = statement.predicate, file.read_bytes()
        assert isinstance(told, Attestation)
        builder = CidBuilder()
        builder.update(data)
        assert (statement.subject.name, statement.subject.sha256) == (file.name, hashlib.sha256(data).hexdigest())
        assert (told.project, told.version, told.size, told.cid, told.source.kind, told.index) == (
            "flask", "3.1.3", len(data), builder.finish(), "build", "pypi",
        )  # fmt: skip
        assert f"{file.name}  sha256 {statement.subject.sha256}" in done.stderr


def test_a_second_digest_under_one_name_is_never_signed(key: Path, wheels: list[Path]) -> None:
    first = run("attest", wheels[0], "--key", key)
    again = run("attest", wheels[0], "--key", key)
    wheels[0].write_bytes(b"rebuilt")
    rebuilt = run("attest", *reversed(wheels), "--key", key)
    assert [first.exit_code, again.exit_code, rebuilt.exit_code] == [0, 0, 1]
    assert (rebuilt.stdout, "signed with another digest" in rebuilt.stderr) == ("", True)
    notes = key.with_name("maintainer_key.signed").read_text().splitlines()
    assert notes == [f"{hashlib.sha256(b'small').hexdigest()}  {WHEEL}"]


def test_statements_are_sent_to_the_bot_by_its_operator(
    key: Path, wheels: list[Path], bot: FakeBot, bot_config: Path
) -> None:
    bot.answers["/internal/v1/statements"] = Relayed(statement_id="e" * 64, project="flask", file=WHEEL, new=True)
    done = run("attest", wheels[0], "--key", key, "--send", "-c", bot_config)
    assert (done.exit_code, bot.asked) == (0, [("POST", "/internal/v1/statements", "operator")])
    assert attestation_in(bot.bodies[0].decode(), key).statement.subject.name == WHEEL
    assert done.output.splitlines() == [f"{WHEEL}: published, statement {'e' * 64}"]


@pytest.mark.parametrize(
    ("name", "content"), [("flask.exe", b"x"), ("flask-3.1.3-py3-none-any.whl", b""), ("x.whl", None)]
)
def test_what_cannot_be_attested_is_not_signed(key: Path, tmp_path: Path, name: str, content: bytes | None) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    assert run("attest", file, "--key", key).exit_code == 2
    assert not key.with_name("maintainer_key.signed").exists()


def test_without_a_key_nothing_is_signed(tmp_path: Path, wheels: list[Path]) -> None:
    done = run("attest", wheels[0], "--key", tmp_path / "nothing")
    assert (done.exit_code, "keys new-maintainer" in done.stderr) == (3, True)
