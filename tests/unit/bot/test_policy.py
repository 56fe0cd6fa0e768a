"""The deny list: a denial matches when everything it names matches."""

from __future__ import annotations

import pytest

from matrix_pypi_bot.core.policy import Denial, DenyList
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName, ProjectName

EVIL, GOOD = ProjectName("evil"), ProjectName("good")
FILE, OTHER = FileName("evil-1.0.zip"), FileName("evil-2.0.zip")
A, B = Sha256("a" * 64), Sha256("b" * 64)


@pytest.mark.parametrize(
    ("denial", "matching"),
    [
        (Denial(project=EVIL), {(EVIL, None), (EVIL, FILE), (EVIL, OTHER)}),
        (Denial(file=FILE), {(EVIL, FILE), (GOOD, FILE)}),
        (Denial(project=EVIL, file=FILE), {(EVIL, FILE)}),
        (Denial(sha256=A), {(EVIL, FILE), (EVIL, OTHER), (GOOD, FILE), (EVIL, None)}),
        (Denial(project=GOOD, sha256=A), {(GOOD, FILE)}),
        (Denial(sha256=B), set()),
    ],
)
def test_a_denial_matches_what_it_names(denial: Denial, matching: set[tuple[ProjectName, FileName | None]]) -> None:
    deny = DenyList([Denial(file=FileName("other-1.zip")), denial])
    asked = [(EVIL, None), (EVIL, FILE), (EVIL, OTHER), (GOOD, FILE)]
    assert {(project, file) for project, file in asked if deny.match(project, file, [A])} == matching


def test_the_reason_comes_with_the_denial() -> None:
    denial = Denial(project=EVIL, reason="typosquat")
    assert DenyList([denial]).match(EVIL, FILE) is denial
    assert DenyList().match(EVIL, FILE) is None


def test_a_denial_of_everything_is_a_mistake() -> None:
    with pytest.raises(ValueError):
        Denial(reason="all")
