"""Unit tests open no socket: whoever tries is told so."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import NoReturn

import pytest


@pytest.fixture(scope="package", autouse=True)
def no_sockets() -> Iterator[None]:
    """Nobody connects or binds in here. asyncio's own self-pipe is a socketpair, which does neither."""

    def refuse(*arguments: object) -> NoReturn:
        pytest.fail(f"a unit test opened a socket: {arguments[1:]}")

    with pytest.MonkeyPatch.context() as patch:
        for method in ("connect", "connect_ex", "bind"):
            patch.setattr(socket.socket, method, refuse)
        yield
