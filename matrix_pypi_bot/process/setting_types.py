"""Kinds of values that settings of both processes have: numbers with bounds, addresses that were checked when they were read.

A class with `from_setting(text, folder)` is made from a string in the file; its ValueError becomes the complaint, with key and line.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Final, Self
from urllib.parse import SplitResult, quote, urlsplit

from msgspec import Meta

Port = Annotated[int, Meta(ge=1, le=65535)]
Seconds = Annotated[float, Meta(ge=0, le=366 * 86_400)]
TimeoutSeconds = Annotated[float, Meta(gt=0, le=3_600)]
Bytes = Annotated[int, Meta(ge=0, le=1 << 50)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Workers = Annotated[int, Meta(ge=1, le=256)]

UNIX: Final = "unix:"


class HttpUrl(str):
    """An absolute http or https URL with a host, without user, password, query or fragment, e.g. `https://matrix.example.org`."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, text: str, folder: Path) -> Self:
        """`text`, checked."""
        parts = _split(text)
        if parts.scheme not in ("http", "https") or not parts.hostname or not text.isascii() or not text.isprintable():
            raise ValueError(f"expected a URL such as https://matrix.example.org, got {text!r}")
        if parts.username is not None or parts.password is not None:
            raise ValueError("a URL with a user name or password in it: secrets do not belong into a configuration")
        if parts.query or parts.fragment or " " in text:
            raise ValueError(f"expected a URL without query, fragment and space, got {text!r}")
        return cls(text)


class ListenAddress(str):
    """Where a process listens: `127.0.0.1:29330`, `[::1]:29330`, or `unix:/run/matrix-pypi/bot.sock` (made absolute)."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, text: str, folder: Path) -> Self:
        """`text`, checked."""
        if text.startswith(UNIX):
            return cls(_unix(text, folder))
        parts = _split(f"//{text}")
        try:
            complete = bool(parts.hostname) and parts.port is not None and parts.port > 0
        except ValueError:
            complete = False
        if not complete or parts.netloc != text or "@" in text:
            raise ValueError(f"expected host:port or unix:/path, got {text!r}")
        return cls(text)

    @property
    def socket_path(self) -> str | None:
        """The path of the unix socket, None for a TCP address."""
        return self.removeprefix(UNIX) if self.startswith(UNIX) else None

    @property
    def host(self) -> str:
        """The host of a TCP address, without brackets; empty for a unix socket."""
        return "" if self.socket_path else _split(f"//{self}").hostname or ""

    @property
    def port(self) -> int:
        """The port of a TCP address; 0 for a unix socket."""
        return 0 if self.socket_path else _split(f"//{self}").port or 0

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.socket_path is not None or is_loopback(self.host)


class ServiceUrl(str):
    """Where another process of ours answers: `http://127.0.0.1:29330`, or `unix:/run/matrix-pypi/bot.sock` (made absolute)."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, text: str, folder: Path) -> Self:
        """`text`, checked."""
        if text.startswith(UNIX):
            return cls(_unix(text, folder))
        return cls(HttpUrl.from_setting(text, folder).rstrip("/"))

    @property
    def socket_path(self) -> str | None:
        """The path of the unix socket, None for a URL."""
        return self.removeprefix(UNIX) if self.startswith(UNIX) else None

    @property
    def base_url(self) -> str:
        """What request paths are appended to; over a unix socket the host in it means nothing."""
        return "http://localhost" if self.socket_path else str(self)


class DatabaseUrl(str):
    """`sqlite:/abs/file.db` (a relative file is made absolute), `postgres://user@host/name` or `postgresql://…`."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, text: str, folder: Path) -> Self:
        """`text`, checked."""
        scheme, _, rest = text.partition(":")
        # `sqlite:///abs` is how others write it, `sqlite:rel` and `sqlite:/abs` is how the database library does; `//rel` is neither.
        if scheme == "sqlite" and rest.strip("/") and (rest.startswith("///") or not rest.startswith("//")):
            file = f"/{rest.lstrip('/')}" if rest.startswith("/") else rest
            return cls(f"sqlite:{quote(str(folder / Path(file).expanduser()))}")
        if scheme in ("postgres", "postgresql") and rest.startswith("//") and _split(text).path.strip("/"):
            return cls(text)
        raise ValueError("expected sqlite:<file> or postgres://<user>@<host>/<database>")


def is_loopback(host: str) -> bool:
    """Whether `host` is `localhost` or a loopback address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _split(text: str) -> SplitResult:
    """`urlsplit`, with a port that is a number. Raises ValueError."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"{text!r} is not an address: {error}") from error
    return parts


def _unix(text: str, folder: Path) -> str:
    path = text.removeprefix(UNIX)
    if not path or "\0" in path:
        raise ValueError(f"expected unix:/path, got {text!r}")
    return f"{UNIX}{folder / Path(path).expanduser()}"
