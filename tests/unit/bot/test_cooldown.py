"""The cooldown: which time a file's age counts from, and when it is over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_pypi_bot.core.cooldown import TOLERANCE_MS, Cooldown, Exemption, Sight, is_back_dated
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.policy import Versions
from matrix_pypi_bot.wire.names import FileName, ProjectName

MXA = ProjectName("mxa")
FILE = FileName("mxa-1.0-py3-none-any.whl")
NOW_MS = 1_767_225_600_000
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
THREE_DAYS = Cooldown(seconds=3 * 86_400)


def ends(upload_time: str | None, sight: Sight, cooldown: Cooldown = THREE_DAYS) -> int | None:
    """When the file's cooldown is over, None when it is."""
    watch = cooldown.watch(MXA, NOW_MS)
    assert watch is not None
    cooling = watch.of(FILE, upload_time, sight)
    return None if cooling is None else cooling.ends_ms


def ago(milliseconds: int) -> str:
    return str(Instant.of_ms(NOW_MS - milliseconds))


def test_a_files_age_counts_from_its_upload() -> None:
    seen = Sight(NOW_MS)
    assert ends(ago(3 * DAY_MS), seen) is None
    assert ends(ago(3 * DAY_MS - 1000), seen) == NOW_MS + 1000
    assert ends(ago(0), seen) == NOW_MS + 3 * DAY_MS


def test_times_with_an_offset_are_the_times_that_they_are() -> None:
    assert ends("2025-12-29T01:00:00+02:00", Sight(NOW_MS)) is None
    assert ends("2025-12-28T23:00:00-02:00", Sight(NOW_MS)) == NOW_MS + HOUR_MS


@pytest.mark.parametrize("told", [None, "2026-02-31T00:00:00Z", "9999-12-31T23:59:59-23:59"])
def test_without_a_time_that_can_be_one_the_first_sight_counts(told: str | None) -> None:
    assert ends(told, Sight(NOW_MS - DAY_MS)) == NOW_MS + 2 * DAY_MS
    assert ends(told, Sight(NOW_MS - 3 * DAY_MS)) is None


def test_a_file_is_not_younger_than_the_moment_it_was_seen() -> None:
    assert ends(ago(-365 * DAY_MS), Sight(NOW_MS - 2 * DAY_MS)) == NOW_MS + DAY_MS


def test_a_file_is_no_older_than_a_page_that_lacked_it() -> None:
    sight = Sight(at_ms=NOW_MS, lacked_ms=NOW_MS - HOUR_MS)
    assert ends(ago(30 * DAY_MS), sight) == NOW_MS + 3 * DAY_MS
    assert is_back_dated(ago(30 * DAY_MS), sight)


def test_caches_and_clocks_may_be_an_hour_behind() -> None:
    sight = Sight(at_ms=NOW_MS, lacked_ms=NOW_MS)
    assert not is_back_dated(ago(TOLERANCE_MS), sight)
    assert is_back_dated(ago(TOLERANCE_MS + 1000), sight)
    assert not is_back_dated(None, sight)
    assert not is_back_dated(ago(30 * DAY_MS), Sight(at_ms=NOW_MS))


def test_exempt_versions_need_not_wait_while_the_exemption_lasts() -> None:
    def exempt(versions: str | None, until_ms: int | None, project: str = MXA) -> bool:
        found = None if versions is None else Versions.parse(versions)
        exemption = Exemption(project=ProjectName(project), reason="r", versions=found, until_ms=until_ms)
        return ends(ago(0), Sight(NOW_MS), Cooldown(seconds=60, exemptions=(exemption,))) is None

    assert exempt(None, None)
    assert exempt(">=1,<2", NOW_MS + 1)
    assert not exempt(">=2", None)
    assert not exempt(None, NOW_MS)
    assert not exempt(None, None, project="mxb")


def test_a_file_whose_name_tells_no_version_is_not_exempt_with_any() -> None:
    cooldown = Cooldown(seconds=60, exemptions=(Exemption(project=MXA, reason="r", versions=Versions.parse(">=0")),))
    watch = cooldown.watch(MXA, NOW_MS)
    assert watch is not None
    assert watch.of(FileName("mxa-1.0-py2.7.egg"), ago(0), Sight(NOW_MS)) is not None


def test_no_cooldown_is_none() -> None:
    assert Cooldown().watch(MXA, NOW_MS) is None


@given(st.integers(0, 10 * DAY_MS), st.integers(0, 10 * DAY_MS), st.none() | st.integers(0, 10 * DAY_MS))
def test_nobody_waits_longer_than_from_the_first_sight(
    uploaded_ago: int, seen_ago: int, lacked_ago: int | None
) -> None:
    sight = Sight(NOW_MS - seen_ago, None if lacked_ago is None else NOW_MS - lacked_ago)
    end = ends(ago(uploaded_ago), sight)
    assert end is None or NOW_MS < end <= sight.at_ms + 3 * DAY_MS
