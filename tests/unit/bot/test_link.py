"""The link to the homeserver: waited for, made again, and told in words what is wrong with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from matrix_pypi_bot.services.homeserver import HomeserverAway, HomeserverRefused
from matrix_pypi_bot.services.link import Link, Misregistered
from matrix_pypi_bot.wire.problems import Problem
from tests.support.homeserver import BOT


class Line:
    """`HomeserverLink` that says what a test wants said, and a link that listens to it."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.user_id = BOT
        self.failures: dict[str, Problem] = {}
        self.link = Link(self, bot_mxid=BOT, on_up=self.on_up, heartbeat_seconds=0)

    async def answers(self) -> None:
        self.call("answers")

    async def introduce(self) -> str:
        self.call("introduce")
        return self.user_id

    async def set_name(self) -> None:
        self.call("set_name")

    async def ping(self) -> None:
        self.call("ping")

    async def on_up(self) -> None:
        self.call("on_up")

    def call(self, what: str) -> None:
        self.calls.append(what)
        if what in self.failures:
            raise self.failures[what]

    async def run_until(self, *conditions: Callable[[], object]) -> None:
        """Runs the link until the first condition holds, then until the second, ..."""
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            running = group.create_task(self.link.run())
            for condition in conditions:
                while not condition():
                    await asyncio.sleep(0)
            running.cancel()


async def test_a_homeserver_that_is_not_there_yet_is_waited_for() -> None:
    line = Line()
    line.failures["answers"] = HomeserverAway("connection refused", unreachable=True)

    def come() -> bool:
        del line.failures["answers"]
        return True

    await line.run_until(lambda: len(line.calls) > 3, come, lambda: line.link.ready)
    assert [call for call in line.calls if call != "answers"] == ["introduce", "set_name", "ping", "on_up"]


async def test_who_comes_back_is_told_who_we_are_pinged_and_welcomed_again() -> None:
    line = Line()

    def go() -> bool:
        line.failures["answers"] = HomeserverAway("connection refused", unreachable=True)
        return True

    def come() -> bool:
        line.calls.clear()
        line.failures.clear()
        return True

    link = line.link
    await line.run_until(lambda: link.ready, go, lambda: not link.ready, come, lambda: link.ready)
    assert [call for call in line.calls if call != "answers"] == ["introduce", "set_name", "ping", "on_up"]


async def test_a_transaction_that_was_refused_is_asked_for_again() -> None:
    line = Line()

    def refuse() -> bool:
        line.calls.clear()
        line.link.ping_again()
        return True

    await line.run_until(lambda: line.link.ready, refuse, lambda: "ping" in line.calls)
    assert set(line.calls) == {"answers", "ping"}


@pytest.mark.parametrize(
    ("refusal", "told"),
    [
        (HomeserverRefused(401, "M_UNKNOWN_TOKEN", "no", what="x"), "as_token"),
        (HomeserverRefused(400, "M_EXCLUSIVE", "no", what="x"), "does not let this appservice be @pypi:hs.example"),
        (HomeserverRefused(403, "M_FORBIDDEN", "no", what="x"), "does not let this appservice be @pypi:hs.example"),
    ],
)
async def test_who_does_not_know_us_ends_the_bot(refusal: HomeserverRefused, told: str) -> None:
    line = Line()
    line.failures["introduce"] = refusal
    with pytest.raises(Misregistered, match=told) as raised:
        await line.link.run()
    assert "matrix-pypi registration" in raised.value.hint


async def test_who_takes_us_for_somebody_else_ends_the_bot() -> None:
    line = Line()
    line.user_id = "@other:hs.example"
    with pytest.raises(Misregistered, match=r"it says that we are @other:hs\.example"):
        await line.link.run()


async def test_a_rate_limit_says_nothing_about_who_we_are() -> None:
    line = Line()
    line.failures["introduce"] = HomeserverRefused(429, "M_LIMIT_EXCEEDED", "slowly", what="x")

    def relax() -> bool:
        line.failures.clear()
        return True

    await line.run_until(lambda: len(line.calls) > 5, relax, lambda: line.link.ready)


async def test_who_knew_us_once_and_does_not_any_more_is_asked_on_and_on(caplog: pytest.LogCaptureFixture) -> None:
    line = Line()

    def forget() -> bool:
        line.failures["answers"] = HomeserverAway("restarting")
        return True

    def come_back_changed() -> bool:
        del line.failures["answers"]
        line.failures["introduce"] = HomeserverRefused(401, "M_UNKNOWN_TOKEN", "no", what="x")
        return True

    def mend() -> bool:
        line.failures.clear()
        return True

    ready = [lambda: line.link.ready, lambda: not line.link.ready, lambda: line.link.ready]
    told = "homeserver does not accept us any more"
    await line.run_until(ready[0], forget, ready[1], come_back_changed, lambda: told in caplog.messages, mend, ready[2])


@pytest.mark.parametrize(
    ("errcode", "advice"),
    [
        ("M_CONNECTION_FAILED", "appservice.url"),
        ("M_CONNECTION_TIMEOUT", "too slow"),
        ("M_BAD_STATUS", "hs_token"),
        ("M_URL_NOT_SET", "set appservice.url"),
        ("M_FORBIDDEN", "appservice.id"),
        ("M_SOMETHING", "homeserver's log"),
    ],
)
async def test_who_cannot_reach_us_is_no_reason_to_end_and_told_once_with_what_to_do(
    errcode: str, advice: str, caplog: pytest.LogCaptureFixture
) -> None:
    line = Line()
    line.failures["ping"] = HomeserverRefused(502, errcode, "no", what="ping")
    await line.run_until(lambda: line.calls.count("ping") > 5)
    [record] = [record for record in caplog.records if record.message == "homeserver does not reach us"]
    assert advice in record.hint  # type: ignore[attr-defined]
    assert not line.link.ready


async def test_a_homeserver_too_old_for_pings_is_one_all_the_same() -> None:
    line = Line()
    line.failures["ping"] = HomeserverRefused(404, "M_UNRECOGNIZED", "what?", what="ping")
    await line.run_until(lambda: line.link.ready)


async def test_rooms_of_our_own_that_cannot_be_had_yet_are_asked_for_at_every_heartbeat(
    caplog: pytest.LogCaptureFixture,
) -> None:
    line = Line()
    line.failures["on_up"] = Problem("rooms.max_created_per_minute are made already")

    def relax() -> bool:
        assert not line.link.ready
        line.failures.clear()
        return True

    await line.run_until(lambda: line.calls.count("on_up") > 3, relax, lambda: line.link.ready)
    assert caplog.messages == ["own rooms must wait"]
