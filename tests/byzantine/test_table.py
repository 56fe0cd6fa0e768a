"""The promised cells of the table, a few seeds each. `make simulate` plays hundreds, and the cells in which nothing is promised."""

from __future__ import annotations

import pytest

from tests.byzantine.campaign import CONDITIONS, ONLINE, POLICIES, Condition, Policy, is_promised, play

SEEDS = range(3)
CELLS = [(policy, condition) for policy in POLICIES for condition in CONDITIONS if is_promised(policy, condition)]


@pytest.mark.parametrize(
    ("policy", "condition"), CELLS, ids=[f"{policy.name}; {where.name}" for policy, where in CELLS]
)
def test_where_it_is_promised_nothing_false_is_served(policy: Policy, condition: Condition) -> None:
    runs = [play(policy, condition, seed) for seed in SEEDS]
    assert [run.seed for run in runs if run.frauds] == []
    assert all(run.served for run in runs)


def test_where_nothing_is_promised_the_same_liars_do_get_through() -> None:
    """Else the table says nothing about anybody's policy."""
    loose, lost = POLICIES[0], next(where for where in CONDITIONS if where.liars == 3 and where is not ONLINE)
    assert any(play(loose, lost, seed).frauds for seed in range(10))


def test_the_same_seed_is_the_same_run() -> None:
    policy, condition = CELLS[0]
    assert play(policy, condition, 7) == play(policy, condition, 7)
