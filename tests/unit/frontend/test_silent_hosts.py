"""When a file host is left alone, and for how long."""

from __future__ import annotations

from index_frontend.silent_hosts import FAILURES, KNOWN_HOSTS, PAUSE_SECONDS, SilentHosts
from matrix_pypi_bot.process.outbound import Origin

HERE, THERE = Origin("https://files.example:443"), Origin("https://other.example:443")


def silent(hosts: SilentHosts, times: int = FAILURES, now: float = 0) -> None:
    for _ in range(times):
        assert hosts.allows(HERE, now)
        hosts.failed(HERE, now, now)


def test_a_host_is_left_alone_after_several_failures_in_a_row_and_no_other_one_is() -> None:
    hosts = SilentHosts()
    silent(hosts)
    assert (hosts.allows(HERE, 1), hosts.allows(THERE, 1)) == (False, True)


def test_an_answer_between_the_failures_makes_them_start_anew() -> None:
    hosts = SilentHosts()
    silent(hosts, FAILURES - 1)
    hosts.answered(HERE, -1)
    silent(hosts, FAILURES - 1)
    assert hosts.allows(HERE, 1)


def test_connections_that_came_to_nothing_while_others_were_answered_do_not_count() -> None:
    hosts = SilentHosts()
    hosts.answered(HERE, 1)
    for _ in range(10):
        hosts.failed(HERE, 0, 3)
    assert hosts.allows(HERE, 3)


def test_when_the_pause_ends_one_finds_out_for_all() -> None:
    hosts = SilentHosts()
    silent(hosts)
    again = PAUSE_SECONDS
    assert [hosts.allows(HERE, again) for _ in range(3)] == [True, False, False]
    hosts.failed(HERE, again, again + 3)
    assert not hosts.allows(HERE, again + PAUSE_SECONDS)
    assert hosts.allows(HERE, again + 3 + PAUSE_SECONDS)
    hosts.answered(HERE, again + 4 + PAUSE_SECONDS)
    assert [hosts.allows(HERE, again + 4 + PAUSE_SECONDS) for _ in range(3)] == [True] * 3


def test_one_who_was_let_through_and_never_came_back_does_not_close_it_for_good() -> None:
    hosts = SilentHosts()
    silent(hosts)
    assert hosts.allows(HERE, PAUSE_SECONDS)
    assert hosts.allows(HERE, 2 * PAUSE_SECONDS)


def test_however_many_hosts_there_are_the_memory_is_bounded() -> None:
    hosts = SilentHosts()
    for number in range(2 * KNOWN_HOSTS):
        hosts.failed(Origin(f"https://{number}.example:443"), 0, 0)
    assert len(hosts._hosts) <= KNOWN_HOSTS
