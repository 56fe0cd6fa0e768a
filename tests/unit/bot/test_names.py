"""Names: what may enter, and how projects, files, paths and rooms follow from one another."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.utils import canonicalize_name

from matrix_pypi_bot.wire import names
from matrix_pypi_bot.wire.names import (
    FileName,
    FilePath,
    InvalidName,
    ProjectName,
    address_of_url,
    candidate_projects,
    file_path,
    is_attestable,
    normalise_project,
    parse_file_name,
    parse_file_path,
    parse_project,
    project_and_version,
    project_of_alias,
    room_alias,
)

ADDRESS = "ab" * 32
PATH = f"/packages/ab/ab/{'ab' * 30}/"
JUNK = [
    "",
    "-",
    ".",
    "_",
    "a-",
    "-a",
    "a\n",
    "a b",
    "é",
    "\u212a",
    "reque\u017fts",
    "a%2d",
    "a/b",
    "a\0",
    "\u0661",
    "a" * 215,
]
SERVER = "org.example"


@pytest.mark.parametrize("text", JUNK)
def test_junk_is_no_project(text: str) -> None:
    with pytest.raises(InvalidName):
        normalise_project(text)
    with pytest.raises(InvalidName):
        parse_project(text)


@pytest.mark.parametrize("text", ["Flask", "a.b", "a_b", "a--b"])
def test_only_a_normalised_name_is_taken_as_it_is(text: str) -> None:
    with pytest.raises(InvalidName):
        parse_project(text)
    assert parse_project(normalise_project(text)) == canonicalize_name(text)


@given(st.from_regex(re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}[A-Za-z0-9]", re.ASCII), fullmatch=True))
def test_names_are_normalised_as_the_standard_says(text: str) -> None:
    assert parse_project(normalise_project(text)) == re.sub(r"[-_.]+", "-", text).lower() == canonicalize_name(text)


@given(st.text())
def test_any_text_is_a_name_or_refused(text: str) -> None:
    for parse in (parse_project, normalise_project, parse_file_name, parse_file_path):
        try:
            parse(text)
        except InvalidName as error:
            assert error.detail.isascii()


@pytest.mark.parametrize("name", ["a-1.whl", "a-1.tar.Z", "A-1.ZIP", "a-1.egg", "a-1.win32.exe", "a+b!c-1.tar.bz2"])
def test_distributions_are_listed(name: str) -> None:
    assert parse_file_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "a-1.asc",
        ".whl",
        "..whl",
        "a..whl",
        "a/b.whl",
        "a\\b.whl",
        "a.whl\n",
        "a\0.whl",
        "a%2d1.whl",
        "\u202ea.whl",
        "a" * 252 + ".whl",
    ],
)
def test_other_names_are_not(name: str) -> None:
    with pytest.raises(InvalidName):
        parse_file_name(name)


def test_statements_are_made_about_wheels_and_sdists_of_bounded_names() -> None:
    longest = "a" * 230 + "-1.0.zip"
    assert is_attestable(longest)
    attestable = {
        name: is_attestable(name) for name in ("a" + longest, "a-1.egg", "a-1.ZIP", "a..whl", "é.whl", "a.whl\n")
    }
    assert not any(attestable.values())


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Zope.Interface-5.0.0.tar.gz", ("zope-interface", "5.0.0")),
        ("a_b-1.0-1-py3-none-any.whl", ("a-b", "1.0")),
        ("a-1.0.RC1.zip", ("a", "1.0rc1")),
        ("torch-2.0+cpu-cp311-cp311-linux_x86_64.whl", ("torch", "2.0+cpu")),
    ],
)
def test_a_file_tells_its_project_and_version(name: str, told: tuple[str, str]) -> None:
    assert project_and_version(parse_file_name(name)) == told


@pytest.mark.parametrize(
    "name", ["a-1.0.egg", "a.zip", "a-x.zip", "foo_-1.0.tar.gz", "a-1.0-any.whl", "a__b-1-py3-none-any.whl"]
)
def test_a_name_that_tells_neither_is_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        project_and_version(parse_file_name(name))


def test_a_wheel_with_thousands_of_tags_costs_nothing() -> None:
    tags = "-".join(".".join(letter * 35) for letter in "abc")
    started = time.process_time()
    with pytest.raises(InvalidName):
        project_and_version(parse_file_name(f"a-1-{tags}.whl"))
    assert time.process_time() - started < 0.01


@pytest.mark.parametrize(
    ("name", "projects"),
    [
        ("Flask-3.0.0.tar.gz", ("flask",)),
        ("a-b-1.0-py2.7.egg", ("a-b", "a-b-1-0", "a")),
        ("pywin32-221.win32-py2.7.exe", ("pywin32", "pywin32-221-win32")),
        ("a_b-1.0-py3-none-any.whl", ("a-b", "a-b-1-0-py3-none", "a-b-1-0-py3", "a-b-1-0")),
        ("foo.zip", ()),
        ("foo_-1.0.tar.gz", ()),
    ],
)
def test_an_old_name_may_belong_to_several_projects(name: str, projects: tuple[str, ...]) -> None:
    assert candidate_projects(parse_file_name(name)) == projects


def test_candidates_are_few() -> None:
    name = parse_file_name("a-" * 60 + "1.egg")
    assert len(candidate_projects(name)) == names.MAX_CANDIDATES
    assert len(candidate_projects(FileName("b" * 230 + "-1.0.egg"))) == 0


def test_a_project_has_one_room_and_a_room_one_project() -> None:
    alias = room_alias(parse_project("zope-interface"), SERVER)
    assert alias == "#pypi_zope-interface:org.example"
    assert project_of_alias(alias, SERVER) == "zope-interface"


@pytest.mark.parametrize(
    "alias",
    [
        "#pypi_zope:other.example",
        "#pypi_Zope.Interface:org.example",
        "#pypi:org.example",
        "#pypi_:org.example",
        "#pypi_é:org.example",
        "#pypi_" + "a" * 300 + ":org.example",
        "\ud800:org.example",
    ],
)
def test_other_aliases_have_none(alias: str) -> None:
    assert project_of_alias(alias, SERVER) is None


def test_an_alias_has_at_most_255_bytes() -> None:
    name = ProjectName("a" * 200)
    assert len(room_alias(name, "s" * 48)) == 255
    with pytest.raises(InvalidName):
        room_alias(name, "s" * 49)


@pytest.mark.parametrize("metadata", [False, True])
def test_a_path_leads_to_its_file_and_back(metadata: bool) -> None:
    name = parse_file_name("torch-2.0+cpu-cp311-cp311-linux_x86_64.whl")
    raw = file_path(ADDRESS, name) + ".metadata" * metadata
    assert parse_file_path(raw) == FilePath(ADDRESS, name, metadata)


def test_pip_writes_plus_and_exclamation_mark_as_escapes() -> None:
    assert parse_file_path(PATH + "a-1%212.0%2Bb%2bc.zip").file == "a-1!2.0+b+c.zip"


@pytest.mark.parametrize(
    "raw",
    [
        PATH + "a%2d1.zip",
        PATH + "a-1.zip%00",
        PATH + "a-1.zip/",
        PATH + "a-1.asc",
        PATH + "..%2fa-1.zip",
        PATH + "a-1.zip?x",
        PATH.upper() + "a-1.zip",
        "/x" + PATH + "a-1.zip",
        PATH + "a-1.zip.metadata.metadata",
        PATH + "a-1.zip\n",
    ],
)
def test_other_paths_lead_nowhere(raw: str) -> None:
    with pytest.raises(InvalidName):
        parse_file_path(raw)


def test_an_address_is_64_digits() -> None:
    with pytest.raises(InvalidName):
        file_path("ab", FileName("a-1.zip"))


@pytest.mark.parametrize(
    ("url", "address"),
    [
        (f"https://files.example{PATH}a-1.zip", ADDRESS),
        (f"https://files.example/mirror{PATH}a-1.zip?x=/packages/#sha256=00", ADDRESS),
        (f"../..{PATH}a-1.zip", ADDRESS),
        (f"https:/{PATH}a-1.zip", None),
        (f"https://files.example{PATH}", None),
        (f"https://files.example{PATH}a/b.zip", None),
        ("https://files.example/a-1.zip", None),
        ("", None),
    ],
)
def test_an_upstream_of_the_same_layout_gives_its_addresses(url: str, address: str | None) -> None:
    assert address_of_url(url) == address
