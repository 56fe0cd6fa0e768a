from __future__ import annotations

import asyncio
import socket

import pytest


def test_a_unit_test_that_connects_or_binds_fails() -> None:
    with socket.socket() as probe:
        for attempt in (probe.connect, probe.connect_ex, probe.bind):
            with pytest.raises(pytest.fail.Exception, match="opened a socket"):
                attempt(("127.0.0.1", 0))


async def test_an_event_loop_needs_no_socket() -> None:
    with pytest.raises(pytest.fail.Exception):
        await asyncio.open_connection("127.0.0.1", 9)
