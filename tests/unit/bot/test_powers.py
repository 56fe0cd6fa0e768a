"""Who may speak in a room: read from its state, whatever that holds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_pypi_bot.services.gaps import AGAIN_SECONDS, LATE_SECONDS, QUIET_SECONDS, Gaps
from matrix_pypi_bot.services.powers import grants, membership, shuts_out

BOT, PEER = "@pypi:own.example", "@pypi:peer.example"


def state(levels: Any, *, creator: str = BOT, added: Any = (), peer: Any = "join") -> list[dict[str, Any]]:
    return [
        {"type": "m.room.create", "state_key": "", "sender": creator, "content": {"additional_creators": list(added)}},
        {"type": "m.room.power_levels", "state_key": "", "content": levels},
        {"type": "m.room.member", "state_key": PEER, "content": {"membership": peer}},
    ]


def acl(content: Any) -> list[dict[str, Any]]:
    return [{"type": "m.room.server_acl", "state_key": "", "content": content}]


@pytest.mark.parametrize(
    ("room", "granted"),
    [
        (state({"users": {"@x:y": 50}, "ban": 50}), {"users": {"@x:y": 50, PEER: 25}, "ban": 50}),
        (state({}), {"users": {PEER: 25}}),
        (state({"users": {PEER: 25}}), None),
        (state({"users": {PEER: 10}}), {"users": {PEER: 25}}),
        (state({"users_default": 25}), None),
        (state({}, added=[PEER]), None),
        (state({}, peer="leave"), None),
        (state({}, peer={}), None),
        (state({}, creator="@x:y"), None),
        (state({}, creator="@x:y", added=[BOT]), {"users": {PEER: 25}}),
        (state({"users": {BOT: 100}}, creator="@x:y"), {"users": {BOT: 100, PEER: 25}}),
        (state({"users": {BOT: 50}}, creator="@x:y"), None),
        (state({"users": {BOT: 50}, "events": {"m.room.power_levels": 50}}, creator="@x:y"), {
            "users": {BOT: 50, PEER: 25}, "events": {"m.room.power_levels": 50},
        }),
        (state("nonsense"), {"users": {PEER: 25}}),
        (state({"users": "nonsense"}), {"users": {PEER: 25}}),
    ],
)  # fmt: skip
def test_who_joined_may_attest_where_we_have_a_say(room: list[dict[str, Any]], granted: dict[str, Any] | None) -> None:
    assert grants(room, bot=BOT, users=[PEER, BOT]) == granted


@pytest.mark.parametrize(
    ("content", "server", "out"),
    [
        ({"allow": ["*"]}, "own.example:8448", False),
        ({"allow": ["*"], "deny": ["own.example"]}, "own.example:8448", True),
        ({"allow": ["*"], "deny": ["OWN.*"]}, "own.example", True),
        ({"allow": ["*"], "deny": ["o?n.example"]}, "own.example", True),
        ({"allow": ["other.example"]}, "own.example", True),
        ({}, "own.example", True),
        ("nonsense", "own.example", True),
        ({"allow": 5, "deny": [5]}, "own.example", True),
        ({"allow": ["*"], "allow_ip_literals": False}, "127.0.0.1:8448", True),
        ({"allow": ["*"], "allow_ip_literals": False}, "[::1]:8448", True),
        ({"allow": ["*"], "allow_ip_literals": False}, "own.example", False),
        ({"allow": ["*"], "deny": ["[o]wn.example"]}, "own.example", False),
        ({"allow": ["*"], "deny": ["*" * 2_000 + "x"]}, "own.example", False),
    ],
)
def test_an_acl_shuts_out_whom_it_denies_and_whom_it_does_not_allow(content: Any, server: str, out: bool) -> None:
    assert shuts_out(acl(content), server) is out


def test_without_an_acl_nobody_is_shut_out() -> None:
    assert not shuts_out(state({}), "own.example")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_types = st.sampled_from(["m.room.create", "m.room.power_levels", "m.room.member", "m.room.server_acl"])
_events = st.fixed_dictionaries(
    {"type": _types, "state_key": st.sampled_from(["", PEER]), "content": _json, "sender": _json}
)


@given(st.lists(_events, max_size=6))
def test_no_state_however_odd_makes_it_fail(events: list[dict[str, Any]]) -> None:
    grants(events, bot=BOT, users=[PEER])
    shuts_out(events, "own.example")
    assert isinstance(membership(events, PEER), str)


def test_the_first_word_of_a_server_after_a_silence_has_the_room_read() -> None:
    gaps = Gaps()
    times = [0.0, 1.0, QUIET_SECONDS, 2 * QUIET_SECONDS + 1]
    assert [gaps.heard("room", "peer", now=now, late_seconds=0) for now in times] == [True, False, False, True]
    assert gaps.heard("room", "other", now=times[-1], late_seconds=0)
    gaps.reset()
    assert gaps.heard("room", "peer", now=times[-1], late_seconds=0)


def test_late_events_have_it_read_but_not_at_the_rate_of_who_sends_them() -> None:
    gaps = Gaps()
    late = LATE_SECONDS + 1
    assert gaps.heard("room", "peer", now=0, late_seconds=0)
    times = [1.0, AGAIN_SECONDS + 1, AGAIN_SECONDS + 2]
    assert [gaps.heard("room", "peer", now=now, late_seconds=late) for now in times] == [False, True, False]
