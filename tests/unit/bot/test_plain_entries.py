"""The quick way to read entries gives what the careful one gives, whatever the entries are."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_pypi_bot.core.index_file import BadEntry, IndexFile, parse_entry
from matrix_pypi_bot.core.plain_entries import read_entries
from matrix_pypi_bot.wire.names import ProjectName

PROJECT = ProjectName("my-pkg")
BASE = "https://index.example/simple/my-pkg/"
NAME = "my_pkg-1.0-py3-none-any.whl"
A, B = "a" * 64, "0123456789abcdef" * 4
PLACE = f"/packages/aa/0f/{'1b' * 30}/"


def entry(name: str = NAME, **changes: Any) -> dict[str, Any]:
    """An entry as the largest index writes them; None removes a key."""
    whole = {
        "core-metadata": {"sha256": A},
        "data-dist-info-metadata": {"sha256": A},
        "filename": name,
        "hashes": {"sha256": B},
        "provenance": None,
        "requires-python": ">=3.8",
        "size": 5,
        "upload-time": "2024-01-02T03:04:05.678901Z",
        "url": f"https://files.example{PLACE}{name}",
        "yanked": False,
    }
    return {key: value for key, value in (whole | changes).items() if value is not ...}


def careful(entries: list[Any]) -> list[IndexFile | str]:
    """Each entry read by itself, or why it is left out."""
    found: list[IndexFile | str] = []
    for one in entries:
        try:
            found.append(parse_entry(one, PROJECT, BASE))
        except BadEntry as error:
            found.append(str(error))
    return found


def quick(entries: list[Any]) -> list[IndexFile | str]:
    """The same by the quick way."""
    read = read_entries(msgspec.Raw(json.dumps(entries).encode()), PROJECT)
    return [one if isinstance(one, IndexFile) else careful([one])[0] for one in read]


def test_a_plain_page_needs_no_careful_look() -> None:
    entries = [entry(), entry("my_pkg-1.0.tar.gz", provenance="https://index.example/p", yanked="old"), entry(size=...)]
    read = read_entries(msgspec.Raw(json.dumps(entries).encode()), PROJECT)
    assert read == careful(entries)
    assert [one.path for one in read if isinstance(one, IndexFile)] == [f"{PLACE}{one['filename']}" for one in entries]


ODD: dict[str, list[Any]] = {
    "filename": [
        "other-1.0.zip",
        "my_pkg-1.0.egg",
        "my_pkg-1..0.zip",
        "-my_pkg-1.0.zip",
        "my_pkg-1.0\n.zip",
        "my_pkg-1.0\0.zip",
        "é.whl",
        "x" * 300,
        5,
        ...,
    ],
    "hashes": [
        {"sha256": A.upper()},
        {"sha256": A[:-1]},
        {"sha256": A[:-1] + "\n"},
        {"md5": "x"},
        {"sha256": B, "md5": 5},
        {},
        [],
        None,
        ...,
    ],
    "url": [
        "relative",
        f"../..{PLACE}{NAME}",
        f"http://files.example:81{PLACE}{NAME}",
        f"https://u:p@files.example{PLACE}{NAME}",
        f"https://files.example{PLACE.upper()}{NAME}",
        f"https://files.example/x{PLACE}{NAME}",
        f"https://files.example{PLACE}{NAME}#sha256=x",
        f"https://files.example/pbckages{PLACE[9:]}{NAME}",
        f"https://files.example{PLACE}other.whl",
        f"ftp://files.example{PLACE}{NAME}",
        f"https://fi\nles.example{PLACE}{NAME}",
        "https://files.example/" + "x" * 3000,
        5,
        None,
        ...,
    ],
    "size": [0, -1, 2**60, "5", 1.5, True, None, ...],
    "requires-python": ["", "x" * 5000, 5, None, ...],
    "upload-time": [
        "2024-01-02T03:04:05Z",
        "2024-01-02T03:04:05+00:00",
        "yesterday",
        "2024-01-02T03:04:05Z\0 2024-01-02T03:04:05Z",
        "2024-01-02T03:04:05Z\n",
        5,
        None,
        ...,
    ],
    "yanked": [True, "", "why", "x" * 5000, 5, None, ...],
    "core-metadata": [True, False, None, {"sha256": A.upper()}, {"sha256": "x"}, {}, "yes", ...],
    "data-dist-info-metadata": [True, None, {"sha256": B}, {}, ...],
    "dist-info-metadata": [True, None, {"sha256": B}],
    "provenance": ["https://index.example/p", "http://index.example/p", "https://index.example/ p", "x", 5, ...],
    "gpg-sig": [True, None, "x"],
    "extra": [1, {"a": []}],
    "_path": ["/etc/passwd"],
}
CASES = [(key, value) for key, values in ODD.items() for value in values]


@pytest.mark.parametrize(("key", "value"), CASES, ids=lambda part: repr(part)[:40])
def test_whatever_is_odd_about_an_entry_is_read_the_same(key: str, value: Any) -> None:
    entries = [entry(), entry(**{key: value}), entry("my_pkg-2.0-py3-none-any.whl")]
    assert quick(entries) == careful(entries)


@given(st.lists(st.one_of(st.sampled_from(CASES), st.none()), max_size=6), st.booleans())
def test_whatever_entries_are_together_they_are_read_the_same(
    cases: list[tuple[str, Any] | None], with_junk: bool
) -> None:
    entries: list[Any] = [
        entry(f"my_pkg-{number}.0-py3-none-any.whl") if case is None else entry(**{case[0]: case[1]})
        for number, case in enumerate(cases)
    ]
    entries += [5, None, "x"] if with_junk else []
    assert quick(entries) == careful(entries)


@pytest.mark.parametrize("raw", [b"5", b"{}", b'"x"', b"null"])
def test_what_is_no_list_is_said_to_be_none(raw: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        read_entries(msgspec.Raw(raw), PROJECT)
