"""Secrets live in files of their own, readable by their owner alone; a configuration only names them."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import secrets
from pathlib import Path
from typing import Final

from matrix_pypi_bot.wire.problems import Problem, ProblemCode

MAX_SECRET_BYTES: Final = 4096
OWNER_ONLY: Final = 0o600


class SecretProblem(Problem):
    """A secret's file that cannot be used."""

    code = ProblemCode.CONFIGURATION


def read_secret(path: Path, *, hint: str = "") -> str:
    """The one line in `path`, without the space around it.

    Raises SecretProblem when the file is missing, unreadable, empty, longer than 4 KiB or has several lines. The text of the
    problem names the file, never what is in it.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SECRET_BYTES + 1)
    except FileNotFoundError as error:
        raise SecretProblem(
            f"the secret file {path} does not exist", hint=hint or "create it with mode 0600"
        ) from error
    except OSError as error:
        raise SecretProblem(f"cannot read the secret file {path}: {error.strerror}", hint=hint) from error
    text = data.decode("ascii", errors="replace").strip()
    if not text:
        raise SecretProblem(f"the secret file {path} is empty", hint=hint or "write the secret into it, or delete it")
    if len(data) > MAX_SECRET_BYTES or not text.isprintable() or not text.isascii():
        raise SecretProblem(f"the secret file {path} does not hold one line of printable ASCII", hint=hint)
    return text


def read_seed(path: Path, *, hint: str = "") -> bytes:
    """The 32-byte Ed25519 seed that `path` holds as 64 hexadecimal digits. Raises SecretProblem."""
    text = read_secret(path, hint=hint)
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise SecretProblem(f"the key file {path} does not hold 64 lower-case hexadecimal digits", hint=hint)
    return bytes.fromhex(text)


def put_away_seeds(path: Path) -> list[bytes]:
    """The seeds of former keys that lie beside the key file `path`, each as `<its name>.<16 hex digits>`. Raises SecretProblem."""
    with contextlib.suppress(OSError):
        beside = sorted(path.parent.glob(f"{glob.escape(path.name)}.*"))
        return [read_seed(one) for one in beside if re.fullmatch(r"\.[0-9a-f]{16}", one.suffix)]
    return []


def put_away_name(path: Path, keyid: str) -> Path:
    """Where the former key of that id lies."""
    return path.with_name(f"{path.name}.{keyid[:16]}")


def new_token() -> str:
    """A bearer token nobody can guess: 256 random bits."""
    return secrets.token_urlsafe(32)


def new_seed() -> str:
    """A new Ed25519 seed as 64 hexadecimal digits."""
    return secrets.token_hex(32)


def write_private(path: Path, text: str) -> None:
    """Put `text` into `path` with mode 0600, whole or not at all; what was there is replaced."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        _write_new(part, text)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def create_secret(path: Path, secret: str) -> bool:
    """Put `secret` and a line end into the new file `path` (0600). False, and nothing done, when something is there already.

    Raises SecretProblem when nothing is there and it cannot be made.
    """
    # Looked at first: a folder that may only be read, as a service is often given it, is right when nothing is missing in it.
    if os.path.lexists(path):
        return False
    try:
        return _create_new(path, f"{secret}\n")
    except OSError as error:
        raise SecretProblem(
            f"cannot make the secret file {path}: {error.strerror}", hint="make it as a user who may write there"
        ) from error


def _create_new(path: Path, text: str) -> bool:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        _write_new(part, text)
        # A hard link is the one way to give a finished file its name without replacing what has that name.
        os.link(part, path)
    except FileExistsError:
        return False
    finally:
        part.unlink(missing_ok=True)
    return True


def _write_new(path: Path, text: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()  # left by a process of the same number that was killed
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
