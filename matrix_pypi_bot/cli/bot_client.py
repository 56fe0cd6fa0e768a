"""The command line's side of the bot's internal API: find the bot, ask, and turn what goes wrong into a Problem."""

from __future__ import annotations

import http.client
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from matrix_pypi_bot.config import Settings, load
from matrix_pypi_bot.devstack.home import Home, default_home
from matrix_pypi_bot.process.command_line import NeededIsMissing
from matrix_pypi_bot.process.secret_files import read_secret
from matrix_pypi_bot.process.setting_types import ListenAddress
from matrix_pypi_bot.process.settings import ConfigurationProblem
from matrix_pypi_bot.wire.problems import Problem, ProblemCode, clean_line

TIMEOUT_SECONDS: Final = 30.0
MAX_ANSWER_BYTES: Final = 64 << 20
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # to connect to, when the bot listens everywhere


class NotKnown(Problem):
    """The bot answered that it does not know the name."""

    code = ProblemCode.NOT_FOUND


@dataclass(frozen=True, slots=True)
class BotClient:
    """Asks one bot, one request a connection."""

    address: ListenAddress
    token: str

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """The answer's body. Raises NeededIsMissing when nobody answers, NotKnown for 404, Problem for every other refusal."""
        connection = _Connection(self.address)
        try:
            connection.request(method, path, body, {"Authorization": f"Bearer {self.token}"})
            answer = connection.getresponse()
            data = answer.read(MAX_ANSWER_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            raise NeededIsMissing(
                f"the bot does not answer at {self.address}: {clean_line(str(error)) or type(error).__name__}",
                hint="is it running? matrix-pypi up, or matrix-pypi bot -c config.yaml",
            ) from error
        finally:
            connection.close()
        if len(data) > MAX_ANSWER_BYTES:
            raise Problem(f"the bot's answer is larger than {MAX_ANSWER_BYTES} bytes")
        if answer.status >= http.client.BAD_REQUEST:
            raise _refusal(answer.status, answer.reason, data)
        return data


def find_bot(config: Path | None, home: Path | None, *, operator: bool = False) -> BotClient:
    """The bot of `config`, else of the local stack in `home`, else of the default local stack; with the operator's token or not."""
    settings = find_settings(config, home)
    file = settings.api.operator_token_file if operator else settings.api.token_file
    return BotClient(settings.api.listen, read_secret(file, hint="the bot makes it when it starts"))


def find_settings(config: Path | None, home: Path | None) -> Settings:
    """The settings in `config`, else those of the local stack's first bot."""
    return load(config or config_in_stack(home))


def config_in_stack(home: Path | None, org: str | None = None) -> Path:
    """The configuration of the bot of `org` in the running local stack; None: of the first. Raises a Problem when there is none."""
    files = {str(told.get("name")): Path(str(told["config_file"])) for told in read_stack(home)}
    if org is None:
        return next(iter(files.values()))
    if org not in files:
        raise NeededIsMissing(f"the local stack has no {clean_line(org, 60)}", hint=f"it has {', '.join(files)}")
    return files[org]


def read_stack(home: Path | None) -> list[dict[str, object]]:
    """The organisations of the local stack that runs in `home` (default: that of plain `up`), one at least, as stack.json tells them.

    Raises NeededIsMissing when none runs, ConfigurationProblem when that cannot be read.
    """
    stack = Home(home or default_home())
    try:
        orgs = json.loads(stack.stack_file.read_bytes())["orgs"]
        if [str(org["config_file"]) for org in orgs]:
            return list(orgs)
    except FileNotFoundError as error:
        raise NeededIsMissing(
            f"no local stack is running in {stack.folder}", hint="start one with matrix-pypi up, or name a bot with -c"
        ) from error
    except (OSError, ValueError, LookupError, TypeError):
        pass
    raise ConfigurationProblem(f"cannot read {stack.stack_file}", hint="restart matrix-pypi up")


class _Connection(http.client.HTTPConnection):
    """HTTP over TCP or over a unix socket."""

    def __init__(self, address: ListenAddress) -> None:
        host = _WILDCARDS.get(address.host, address.host)
        super().__init__(host or "localhost", address.port or None, timeout=TIMEOUT_SECONDS)
        self._socket_path = address.socket_path

    def connect(self) -> None:
        if self._socket_path is None:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_SECONDS)
        self.sock.connect(self._socket_path)


_CODES: Final[dict[int, ProblemCode]] = {
    400: ProblemCode.BAD_REQUEST,
    401: ProblemCode.UNAUTHORISED,
    403: ProblemCode.REFUSED,
    502: ProblemCode.UPSTREAM_WRONG,
    503: ProblemCode.UPSTREAM_AWAY,
}


def _refusal(status: int, reason: str, data: bytes) -> Problem:
    """What the bot's RFC 9457 body says, or the status line."""
    try:
        body = json.loads(data)
        detail = clean_line(str(body.get("detail") or body["title"]))
    except (ValueError, LookupError, TypeError, AttributeError):
        detail = clean_line(f"the bot answered {status} {reason}")
    if status == http.client.NOT_FOUND:
        return NotKnown(detail)
    hint = "the token file is not the running bot's" if status == http.client.UNAUTHORIZED else ""
    return Problem(detail, hint=hint, code=_CODES.get(status, ProblemCode.INTERNAL))
