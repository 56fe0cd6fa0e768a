"""Pauses grow with every failure in a row, and with nothing else."""

from __future__ import annotations

from matrix_pypi_bot.services.pauses import Pauses

ROOM = "project:flask"


def test_each_failure_after_a_pause_doubles_it_up_to_the_longest() -> None:
    pauses, now, seconds = Pauses(first_seconds=1, longest_seconds=5), 0.0, []
    for _ in range(5):
        seconds.append(pauses.failed(ROOM, now))
        now += seconds[-1]
    assert seconds == [1, 2, 4, 5, 5]


def test_what_fails_during_a_pause_does_not_lengthen_it() -> None:
    pauses = Pauses(first_seconds=1, longest_seconds=60)
    assert [pauses.failed(ROOM, now) for now in (0.0, 0.25, 0.5)] == [1, 0.75, 0.5]
    assert pauses.failed(ROOM, 1.0) == 2


def test_after_a_success_the_next_failure_is_a_first_one() -> None:
    pauses = Pauses(first_seconds=1, longest_seconds=60)
    pauses.failed(ROOM, 0.0)
    pauses.succeeded(ROOM)
    assert pauses.failed(ROOM, 10.0) == 1
