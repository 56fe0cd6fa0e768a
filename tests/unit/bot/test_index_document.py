"""Upstream's page: damage to an entry costs the entry, damage to the page the page, and what nobody knows passes through."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_pypi_bot.core import index_document, limits
from matrix_pypi_bot.core.index_document import IndexPage, InvalidPage, parse_page, parse_page_json
from matrix_pypi_bot.core.index_file import IndexFile, belongs
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName, ProjectName

PROJECT = ProjectName("my-pkg")
BASE = "https://index.example/simple/my-pkg/"
A, B = "a" * 64, "b" * 64
WHEEL = "My_Pkg-1.0-py3-none-any.whl"
UPLOADED = "2024-03-01T12:34:56.123456Z"


def entry(**changes: Any) -> dict[str, Any]:
    """A good entry; `changes` by JSON key with underscores for hyphens; `...` takes the key away."""
    good: dict[str, Any] = {
        "filename": WHEEL,
        "url": f"https://files.example/{WHEEL}",
        "hashes": {"sha256": A},
        "size": 5,
    }
    for key, value in changes.items():
        good[key.replace("_", "-") if not key.startswith("_") else key] = value
    return {key: value for key, value in good.items() if value is not ...}


def page(*entries: Any, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"meta": {"api-version": "1.4"}, "name": "my-pkg", "files": list(entries)} | changes
    return {key: value for key, value in found.items() if value is not ...}


def parsed(document: object) -> IndexPage:
    return parse_page(json.dumps(document).encode(), PROJECT, base_url=BASE)


def one(**changes: Any) -> IndexFile:
    [file] = parsed(page(entry(**changes))).files.values()
    return file


def test_a_page_is_read_whole() -> None:
    told = {
        "requires-python": ">=3.8,<4",
        "yanked": '<b>&"',
        "upload-time": UPLOADED,
        "core-metadata": {"sha256": B.upper(), "md5": "x"},
        "data-dist-info-metadata": {"sha256": B},
        "provenance": "https://index.example/integrity/x",
        "gpg-sig": False,
        "_x": [1, {"y": 2.5}],
    }
    document = page(
        entry() | told,
        **{
            "meta": {"api-version": "1.9", "_last-serial": 77, "tracks": []},
            "name": "My.Pkg",
            "versions": ["1.0"],
            "project-status": {"status": "archived", "reason": "done"},
            "namespaces": {"a": None},
            "_view": "not upstream's to say",
        },
    )
    file = IndexFile(
        name=FileName(WHEEL),
        sha256=Sha256(A),
        url=f"https://files.example/{WHEEL}",
        size=5,
        requires_python=">=3.8,<4",
        yanked='<b>&"',
        core_metadata=Sha256(B),
        upload_time=UPLOADED,
        provenance="https://index.example/integrity/x",
        extras={"_x": [1, {"y": 2.5}]},
    )
    found = parsed(document)
    assert found == IndexPage(
        project=PROJECT,
        files={file.name: file},
        conflicted={},
        dropped={},
        status="archived",
        status_reason="done",
        serial=77,
        minor=9,
        versions=("1.0",),
        extras={"namespaces": {"a": None}},
    )
    assert (found.api_version, file.address) == ("1.4", A)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"filename": ...}, "filename"),
        ({"filename": 5}, "filename"),
        *(
            ({"filename": name}, "filename")
            for name in (
                "a/b-1.zip",
                "a\\b.zip",
                "my_pkg-1\0.zip",
                "my_pkg-1.zip\n",
                "my_pkg%2f1.zip",
                "\u202emy_pkg-1.zip",
            )
        ),
        ({"filename": "my_pkg-" + "1" * 300 + ".zip"}, "filename"),
        ({"filename": "my_pkg-1.asc"}, "filename"),
        ({"filename": "other-1.0-py3-none-any.whl"}, "another project's file"),
        ({"filename": "my_pkg_more-1.0.tar.gz"}, "another project's file"),
        ({"hashes": ...}, "sha256"),
        ({"hashes": []}, "sha256"),
        ({"hashes": {"md5": "x"}}, "sha256"),
        ({"hashes": {"sha256": A[:-1]}}, "sha256"),
        ({"hashes": {"sha256": "g" * 64}}, "sha256"),
        ({"hashes": {"sha256": None}}, "sha256"),
        ({"url": ...}, "url"),
        ({"url": 5}, "url"),
        *(
            ({"url": url}, "url")
            for url in (
                "ftp://files.example/a",
                "javascript:alert(1)",
                "file:///etc/passwd",
                "https://user@files.example/a",
                "https://user:pw@files.example/a",
                "https://files.example/a/../b",
                "https://files.example/a/%2E%2e/b",
                "https://files.example/..",
                "https://files.example/./a",
                "https://files.example/a b",
                "https://files.example/é",
                "https://files.example/a\\b",
                "https://files.example\n/a",
                "https://files.example",
                "https:///a",
                "http://[::1/a",
                "//[",
                "https://files.example/" + "a" * 3_000,
            )
        ),
        ({"size": -1}, "size"),
        ({"size": "x"}, "size"),
        ({"size": True}, "size"),
        ({"size": 5.0}, "size"),
        ({"size": 5 * 2**30 + 1}, "size"),
        ({"requires_python": 5}, "requires-python"),
        ({"requires_python": ">" * 5_000}, "requires-python"),
        ({"yanked": 5}, "yanked"),
        ({"yanked": "x" * 5_000}, "yanked"),
    ],
)
def test_a_bad_entry_is_left_out_and_counted(changes: dict[str, Any], reason: str) -> None:
    found = parsed(page(entry(**changes), entry(filename="my_pkg-2.zip")))
    assert (list(found.files), found.dropped) == (["my_pkg-2.zip"], {reason: 1})


def test_an_entry_that_is_no_object_is_left_out() -> None:
    assert parsed(page(None, [], "x")).dropped == {"not an object": 3}


def test_upper_case_digests_are_the_same_digests() -> None:
    assert one(hashes={"sha256": A.upper(), "md5": "x"}).sha256 == A


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("../../packages/my-pkg.zip#sha256=00", "https://index.example/packages/my-pkg.zip"),
        ("/x/a.zip", "https://index.example/x/a.zip"),
        ("//files.example/a.zip", "https://files.example/a.zip"),
        ("http://127.0.0.1:8080/a.zip?x=1", "http://127.0.0.1:8080/a.zip?x=1"),
        ("https://[::1]:8/a..b.zip", "https://[::1]:8/a..b.zip"),
        ("https://files.example/.hidden/a.zip", "https://files.example/.hidden/a.zip"),
    ],
)
def test_an_address_is_made_absolute(url: str, found: str) -> None:
    assert one(url=url).url == found


def test_an_upstream_of_the_same_layout_keeps_its_addresses() -> None:
    path = f"https://files.example/packages/{B[:2]}/{B[2:4]}/{B[4:]}/{WHEEL}"
    assert one(url=path).address == B


@pytest.mark.parametrize(
    ("told", "found"),
    [(False, False), (True, True), (None, False), ("", True), ("broken", "broken"), (..., False)],
)
def test_a_yank_is_passed_on(told: object, found: object) -> None:
    assert one(yanked=told).yanked == found


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ({"core_metadata": True}, True),
        ({"core_metadata": False}, False),
        ({"core_metadata": "x"}, False),
        ({"core_metadata": {"sha256": "x"}}, False),
        ({"core_metadata": {}}, False),
        ({"dist_info_metadata": {"sha256": B}}, B),
        ({"data_dist_info_metadata": True}, True),
        ({"core_metadata": False, "dist_info_metadata": True}, False),
        ({}, False),
    ],
)
def test_metadata_that_can_be_checked_is_advertised_under_all_its_names(told: dict[str, Any], found: object) -> None:
    assert one(**told).core_metadata == found


@pytest.mark.parametrize(
    ("key", "told", "found"),
    [
        ("provenance", "http://index.example/x", None),
        ("provenance", "javascript:alert(1)", None),
        ("provenance", "/relative", None),
        ("provenance", "https://index.example/a b", None),
        ("provenance", "https://index.example/é", None),
        ("provenance", 5, None),
        ("upload_time", "yesterday", None),
        ("upload_time", 5, None),
        ("upload_time", "2024-03-01T12:34:56+00:00", "2024-03-01T12:34:56+00:00"),
        ("size", None, None),
        ("requires_python", None, None),
    ],
)
def test_a_claim_that_cannot_be_read_is_dropped_without_its_file(key: str, told: object, found: object) -> None:
    assert getattr(one(**{key: told}), key) == found


def test_two_digests_under_one_name_are_both_refused_and_a_repetition_is_none() -> None:
    again, other, third = (entry(hashes={"sha256": digest}) for digest in (A, B, "c" * 64))
    fine = entry(filename="my_pkg-2.zip")
    found = parsed(page(entry(), fine, again, other, third, again))
    assert (list(found.files), found.conflicted) == (["my_pkg-2.zip"], {WHEEL: {A, B, "c" * 64}})
    assert parsed(page(entry(), again)).conflicted == {}


@pytest.mark.parametrize(
    ("name", "mine"),
    [
        ("my_pkg-1.0-py3-none-any.whl", True),
        ("MY.PKG-1.0-py3-none-any.whl", True),
        ("mypkg-1.0-py3-none-any.whl", False),
        ("my-1.0-py3-none-any.whl", False),
        ("my-pkg-1.0.tar.gz", True),
        ("my-pkg-1.0-beta.tar.gz", True),
        ("my-pkg-dev.zip", True),
        ("my_pkg-1.0-py2.7.egg", True),
        ("my-pkg-1.0.win32.exe", True),
        ("my-pkg-more-1.0.tar.gz", False),
        ("my-1.0.tar.gz", False),
        ("my.pkg.zip", False),
        ("_-1.0.zip", False),
    ],
)
def test_a_file_stands_on_its_own_projects_page(name: str, mine: bool) -> None:
    assert belongs(FileName(name), PROJECT) is mine


# ---- the page ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'"x"',
        b"<html>login</html>",
        b'{"meta":{"api-version":"1.0"},"name":"my-pkg","files":[],"x":NaN}',
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
        b'{"\xff":1}',
    ],
)
def test_what_is_no_json_object_is_no_page(raw: bytes) -> None:
    with pytest.raises(InvalidPage):
        parse_page_json(raw)


@pytest.mark.parametrize(
    "changes",
    [
        {"meta": ...},
        {"meta": []},
        {"meta": {}},
        {"meta": {"api-version": 1.0}},
        {"meta": {"api-version": "2.0"}},
        {"meta": {"api-version": "1"}},
        {"meta": {"api-version": "1.0\n"}},
        {"name": ...},
        {"name": "other"},
        {"name": "é"},
        {"name": 5},
        {"files": ...},
        {"files": {}},
        {"project-status": "active"},
        {"project-status": {"status": 5}},
        {"project-status": {"status": "archived", "reason": 5}},
    ],
)
def test_a_page_that_may_not_be_believed_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidPage):
        parsed(page(entry(), **changes))


def test_a_page_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_document, "MAX_PAGE_FILES", 1)
    with pytest.raises(InvalidPage):
        parsed(page(entry(), entry()))
    monkeypatch.setattr(index_document, "MAX_PAGE_BYTES", 10)
    with pytest.raises(InvalidPage):
        parsed(page())
    assert limits.MAX_PAGE_BYTES == 64 * 2**20


def test_a_million_files_are_refused_in_bounded_time() -> None:
    raw = b'{"meta":{"api-version":"1.0"},"name":"my-pkg","files":[' + b"{}," * 999_999 + b"{}]}"
    started = time.process_time()
    with pytest.raises(InvalidPage):
        parse_page(raw, PROJECT, base_url=BASE)
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("status", "found"),
    [
        (None, ("active", None)),
        ({}, ("active", None)),
        ({"status": "quarantined", "reason": ""}, ("quarantined", None)),
        ({"status": "deprecated", "reason": "x" * 9_000}, ("deprecated", "x" * 4_096)),
        ({"status": "on fire"}, ("active", None)),
    ],
)
def test_a_status_reads_as_the_standard_says(status: object, found: tuple[str, str | None]) -> None:
    told = parsed(page(**{"project-status": status}))
    assert (told.status, told.status_reason) == found


@pytest.mark.parametrize("serial", [None, -1, True, 1.5, "7.0", "-7", "9" * 17, 2**53])
def test_a_serial_that_is_none_is_none(serial: object) -> None:
    assert parsed(page(meta={"api-version": "1.4", "_last-serial": serial})).serial is None


def test_a_serial_may_come_as_text() -> None:
    assert parsed(page(meta={"api-version": "1.4", "_last-serial": "7"})).serial == 7


def test_versions_are_text_or_left_out() -> None:
    assert parsed(page(versions=["1.0", 5])).versions is None
    assert parsed(page(versions=[])).versions == ()


@pytest.mark.parametrize(
    ("minor", "size", "claimed"), [(0, 5, "1.0"), (1, 5, "1.1"), (4, 5, "1.4"), (99, 5, "1.4"), (4, None, "1.0")]
)
def test_sizes_are_promised_only_where_every_file_has_one(minor: int, size: int | None, claimed: str) -> None:
    assert parsed(page(entry(size=size), meta={"api-version": f"1.{minor}"})).api_version == claimed


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", [nested(17), 2**63, [2**200], {"a": nested(16)}])
def test_an_unknown_value_that_could_not_be_written_again_is_dropped(value: object) -> None:
    found = parsed(page(entry(_x=value), _y=value))
    [file] = found.files.values()
    assert (found.extras, file.extras) == ({}, {})


@pytest.mark.parametrize("value", [nested(16), 2**62, 1.5, None, True, "é", {"a": [{}]}])
def test_an_unknown_value_passes(value: object) -> None:
    found = parsed(page(entry(_x=value), _y=value))
    [file] = found.files.values()
    assert (found.extras, file.extras) == ({"_y": value}, {"_x": value})


def test_of_a_key_that_occurs_twice_the_last_one_counts() -> None:
    raw = json.dumps(page(entry())).replace('"size"', f'"hashes": {{"sha256": "{B}"}}, "size"').encode()
    [file] = parse_page(raw, PROJECT, base_url=BASE).files.values()
    assert file.sha256 == B


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
ENTRY_KEYS = st.sampled_from(
    [
        "filename",
        "url",
        "hashes",
        "size",
        "yanked",
        "core-metadata",
        "upload-time",
        "provenance",
        "requires-python",
        "x",
    ]
)
PAGE_KEYS = st.sampled_from(["meta", "name", "files", "versions", "project-status", "y"])


@given(st.dictionaries(ENTRY_KEYS, VALUES), st.dictionaries(PAGE_KEYS, VALUES))
def test_any_page_is_read_or_refused_and_what_is_read_can_be_written(
    damage: dict[str, Any], more: dict[str, Any]
) -> None:
    try:
        found = parsed(page(entry() | damage, entry(filename="my_pkg-2.zip"), **more))
    except InvalidPage:
        return
    msgspec.json.encode([dict(found.extras), [file.extras for file in found.files.values()]])
