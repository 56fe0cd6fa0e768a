"""The deny list: a denial matches when everything it names matches."""

from __future__ import annotations

import pytest

from matrix_pypi_bot.core.policy import Denial, DenyList, NameRules, Versions, parse_pattern
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


def test_versions_are_told_by_the_names_of_files() -> None:
    versions = Versions.parse(">=1,<2")
    held = {
        name: versions.hold(EVIL, FileName(name))
        for name in ("evil-1.5.zip", "evil-1.5rc1-py3-none-any.whl", "evil-2.0.tar.gz", "evil-1.0.egg", "good-1.0.zip")
    }
    assert list(held.values()) == [True, True, False, None, None]


@pytest.mark.parametrize("text", [">>1", "1.0", "", "~", ">=1,,, <"])
def test_what_is_no_specifier_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Versions.parse(text)


def test_a_denial_of_versions_meets_those_alone_and_what_tells_none() -> None:
    deny = DenyList([Denial(project=EVIL, versions=Versions.parse("==1.*"))])
    names = ("evil-1.5.zip", "evil-2.0.zip", "evil-9.egg")
    assert [deny.match(EVIL, FileName(name)) is not None for name in names] == [True, False, True]
    assert deny.match(EVIL, None) is None, "the project itself is not denied"


def test_a_denial_ends() -> None:
    deny = DenyList([Denial(project=EVIL, until_ms=1_000, reason="for a while")])
    assert [deny.match(EVIL, None, at_ms=at) is not None for at in (0, 999, 1_000)] == [True, True, False]
    assert Denial(project=EVIL, until_ms=1_000, reason="for a while").told == "for a while, until 1970-01-01T00:00:01Z"


def test_a_list_says_which_projects_it_is_about() -> None:
    assert DenyList([Denial(project=EVIL)]).concerns(EVIL)
    assert not DenyList([Denial(project=EVIL)]).concerns(GOOD)
    assert DenyList([Denial(sha256=A)]).concerns(GOOD)


def test_reserved_names_and_names_that_are_not_allowed_are_refused() -> None:
    def refused(rules: NameRules, *names: str) -> list[str]:
        return [name for name in names if rules.refusal(ProjectName(name)) is not None]

    acme = ("acme", "acme-a", "acme-b-c", "acmes", "my-acme-x", "flask")
    assert refused(NameRules(), *acme) == []
    assert refused(NameRules(reserved=(parse_pattern("Acme_*"),)), *acme) == ["acme-a", "acme-b-c"]
    assert refused(NameRules(reserved=("*acme*",)), *acme) == list(acme[:-1])
    assert refused(NameRules(allow_only=("flask", "acme-*")), *acme) == ["acme", "acmes", "my-acme-x"]
    assert refused(NameRules(allow_only=("acme-*",), reserved=("acme-a",)), "acme-a", "acme-b-c") == ["acme-a"]


@pytest.mark.parametrize("text", ["", "*", "**", "-*", "a b", "a*b c", "*" * 300, "a?", "[a]*", "\u0131*"])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_pattern(text)


def test_patterns_are_normalised_as_names_are() -> None:
    assert [parse_pattern(text) for text in ("My_Pkg", "My.Pkg-*", "*_x")] == ["my-pkg", "my-pkg-*", "*-x"]
