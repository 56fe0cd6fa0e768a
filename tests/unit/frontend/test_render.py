"""What installers read: JSON that keeps what it does not know, HTML that nothing can break out of."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from inspect import signature
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pypi_simple import ProjectPage

from index_frontend.pages.negotiate import HTML, JSON, TEXT
from index_frontend.pages.render import Rendered, render, root_end, root_names, root_start
from tests.support.bot_pages import file_entry, page

WHEEL = "mxa-1.0-py3-none-any.whl"
HEX = "ab" * 32


class Anchors(HTMLParser):
    """What a reader of the page sees: anchors with their attributes and text, metas."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.anchors: list[tuple[str, dict[str, str | None]]] = []
        self.metas: dict[str, str | None] = {}
        self.tags: set[str] = set()
        self._open: dict[str, str | None] | None = None
        self.feed(body.decode("ascii"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        values = dict(attrs)
        if tag == "a":
            self.anchors.append(("", values))
        if tag == "meta" and values.get("name"):
            self.metas[str(values["name"])] = values["content"]
        self._open = values if tag == "a" else None

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            text, values = self.anchors[-1]
            self.anchors[-1] = (text + data, values)

    def handle_endtag(self, tag: str) -> None:
        self._open = None


def as_json(raw: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(render(raw, JSON).body)
    return document


def as_html(raw: bytes) -> Anchors:
    return Anchors(render(raw, HTML).body)


def test_json_is_the_document_without_what_is_ours_alone() -> None:
    entry = file_entry(WHEEL, **{"requires-python": ">=3.8,<4", "upload-time": "2024-02-29T23:59:59.000001Z"})
    public = {key: value for key, value in entry.items() if not key.startswith("_")}
    assert as_json(page("mxa", [entry])) == {
        "meta": {"api-version": "1.4"},
        "name": "mxa",
        "versions": ["1.0"],
        "files": [public],
    }


def test_a_file_s_url_is_always_ours_and_relative() -> None:
    entry = file_entry(WHEEL, url="https://elsewhere.example/x")
    assert as_json(page("mxa", [entry]))["files"][0]["url"] == f"../..{entry['_path']}"


def test_values_that_nobody_knows_pass_byte_for_byte() -> None:
    raw = page("mxa", [file_entry(WHEEL)]).replace(
        b'"versions":', b'"namespaces": {"a": 1.50, "b": 123456789012345678901234567890, "c": "\\u00e9"}, "versions":'
    )
    assert b'{"a": 1.50, "b": 123456789012345678901234567890, "c": "\\u00e9"}' in render(raw, JSON).body


# Other names than those that are ours, or that have a meaning which a client would act on.
unknown_keys = st.text(max_size=12).filter(
    lambda key: (
        key not in file_entry(WHEEL)
        and key not in ("meta", "name", "versions", "files", "_view", "provenance", *signature(page).parameters)
        and not key.endswith("-metadata")
    )
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(unknown_keys, values, max_size=5), st.dictionaries(unknown_keys, values, max_size=5))
def test_unknown_keys_survive_at_both_levels(of_page: dict[str, Any], of_file: dict[str, Any]) -> None:
    document = as_json(page("mxa", [file_entry(WHEEL, **of_file)], **of_page))
    assert {key: document[key] for key in of_page} == of_page
    assert {key: document["files"][0][key] for key in of_file} == of_file


@given(
    st.lists(st.text(max_size=30), max_size=4),
    st.text(max_size=60),
    st.text(max_size=60),
    st.text(max_size=60),
    st.text(max_size=20),
)
def test_no_text_breaks_out_of_the_html(
    names: list[str], yanked: str, requires: str, reason: str, project: str
) -> None:
    entries = [
        file_entry(WHEEL, filename=name, yanked=yanked, provenance=f"https://{reason}", **{"requires-python": requires})
        for name in names
    ]
    status = {"status": reason, "reason": reason}
    read = as_html(page(project, entries, **{"project-status": status}))
    assert len(read.anchors) == len(names)
    assert read.tags <= {"html", "head", "meta", "title", "body", "h1", "a", "br"}
    for _, attributes in read.anchors:
        assert set(attributes) <= {"href", "data-requires-python", "data-yanked", "data-provenance"}
        assert _plain(attributes["data-yanked"]) == _plain(yanked)


def _plain(text: str | None) -> str:
    """`text` without the characters that HTML itself does not carry."""
    return "".join(character for character in text or "" if character.isprintable() and character.isascii())


def test_html_says_what_json_says() -> None:
    entry = file_entry(
        WHEEL,
        yanked="\"<b>&' </a>",
        provenance="https://index.example/p?a=1&b=2",
        **{"requires-python": ">=3.8,<4", "core-metadata": {"sha256": HEX}},
    )
    read = as_html(page("mxa", [entry], **{"project-status": {"status": "archived", "reason": "<done>"}}))
    assert read.anchors == [
        (
            WHEEL,
            {
                "href": f"../..{entry['_path']}#sha256={entry['hashes']['sha256']}",
                "data-requires-python": ">=3.8,<4",
                "data-yanked": "\"<b>&' </a>",
                "data-core-metadata": f"sha256={HEX}",
                "data-dist-info-metadata": f"sha256={HEX}",
                "data-provenance": "https://index.example/p?a=1&b=2",
            },
        )
    ]
    assert read.metas == {
        "pypi:repository-version": "1.4",
        "pypi:project-status": "archived",
        "pypi:project-status-reason": "<done>",
    }


@pytest.mark.parametrize(("told", "shown"), [("why", "why"), ("", ""), (True, ""), (False, None), (None, None)])
def test_yanked_is_mapped_as_pep_592_and_691_say(told: object, shown: str | None) -> None:
    ((_, attributes),) = as_html(page("mxa", [file_entry(WHEEL, yanked=told)])).anchors
    assert attributes.get("data-yanked") == shown


@pytest.mark.parametrize("key", ["core-metadata", "dist-info-metadata", "data-dist-info-metadata"])
@pytest.mark.parametrize(
    ("told", "in_json"),
    [
        ({"sha256": HEX}, {"sha256": HEX}),
        ({"sha256": HEX, "md5": "x"}, {"sha256": HEX, "md5": "x"}),
        (True, False),
        (False, False),
        (None, False),
        ({}, False),
        ({"md5": "x"}, False),
        ({"sha256": "short"}, False),
        ({"sha256": 5}, False),
        ("sha256", False),
    ],
)
def test_metadata_is_advertised_only_with_the_digest_it_is_checked_against(
    key: str, told: object, in_json: object
) -> None:
    raw = page("mxa", [file_entry(WHEEL, **{key: told})])
    assert as_json(raw)["files"][0][key] == in_json
    ((_, attributes),) = as_html(raw).anchors
    assert ("data-core-metadata" in attributes) == ("data-dist-info-metadata" in attributes) == bool(in_json)


def test_the_bot_s_own_copy_of_provenance_is_named_as_it_names_it() -> None:
    raw = page("mxa", [file_entry(WHEEL, provenance=f"../../provenance/mxa/{WHEEL}")])
    assert as_json(raw)["files"][0]["provenance"] == f"../../provenance/mxa/{WHEEL}"
    assert as_html(raw).anchors[0][1]["data-provenance"] == f"../../provenance/mxa/{WHEEL}"


@pytest.mark.parametrize("told", ["http://x.example/p", "../p", "../../log/v1/x", "javascript:alert(1)", 5, None, ""])
def test_provenance_that_is_no_https_address_is_nobody_s(told: object) -> None:
    raw = page("mxa", [file_entry(WHEEL, provenance=told)])
    assert as_json(raw)["files"][0]["provenance"] is None
    assert "data-provenance" not in as_html(raw).anchors[0][1]


@pytest.mark.parametrize(
    ("told", "claimed"),
    [
        ("1.0", "1.0"),
        ("1.1", "1.1"),
        ("1.4", "1.4"),
        ("1.5", "1.4"),
        ("1.10", "1.4"),
        ("2.0", "1.4"),
        ("1.x", "1.4"),
        ("1.99999999999", "1.4"),
        (None, "1.4"),
    ],
)
def test_no_version_is_claimed_beyond_what_is_carried(told: str | None, claimed: str) -> None:
    raw = page("mxa", meta={"api-version": told, "_last-serial": 5, "x": [1]})
    assert as_json(raw)["meta"] == {"api-version": claimed, "_last-serial": 5, "x": [1]}
    assert as_html(raw).metas["pypi:repository-version"] == claimed


def test_a_document_without_a_version_gave_no_fields_of_later_ones() -> None:
    assert as_json(page("mxa", meta={}))["meta"] == {"api-version": "1.0"}


@pytest.mark.parametrize(("told", "kept"), [(17, 17), ("17", None), (True, None), (None, None), (1.5, None)])
def test_the_serial_is_read_when_it_is_a_number(told: object, kept: int | None) -> None:
    assert render(page("mxa", meta={"_last-serial": told}), JSON).last_serial == kept


def test_text_outside_ascii_reads_the_same_under_any_charset() -> None:
    body = render(page("mxa", [file_entry(WHEEL, yanked="caffè ☕")]), TEXT).body
    assert body.isascii()
    assert Anchors(body).anchors[0][1]["data-yanked"] == "caffè ☕"


def test_both_html_types_have_the_same_body() -> None:
    raw = page("mxa", [file_entry(WHEEL)])
    assert render(raw, HTML) == render(raw, TEXT) == Rendered(render(raw, HTML).body, None)


def test_an_independent_reader_finds_the_same_in_both_forms() -> None:
    entry = file_entry(WHEEL, yanked="bad", **{"requires-python": ">=3.8", "core-metadata": {"sha256": HEX}})
    raw = page("mxa", [entry, file_entry("mxa-1.0.tar.gz")])
    in_json = ProjectPage.from_json_data(json.loads(render(raw, JSON).body), "https://i.example/simple/mxa/")
    in_html = ProjectPage.from_html("mxa", render(raw, HTML).body, "https://i.example/simple/mxa/")
    facts = [
        [(one.filename, one.url.partition("#")[0], one.digests, one.requires_python, one.yanked_reason, one.metadata_digests)
         for one in read.packages]
        for read in (in_json, in_html)
    ]  # fmt: skip
    assert facts[0] == facts[1]
    assert in_json.repository_version == in_html.repository_version == "1.4"


@given(st.lists(st.lists(st.sampled_from(["a", "mxa", "typing-extensions", "0", "z3"]), max_size=4), max_size=4))
def test_the_root_index_lists_every_name_however_they_come(runs: list[list[str]]) -> None:
    names = [name for run in runs for name in run]

    def written(media: Any) -> bytes:
        body, first = root_start(media), True
        for run in runs:
            body += root_names(run, media, first=first)
            first = first and not run
        return body + root_end(media)

    assert json.loads(written(JSON)) == {"meta": {"api-version": "1.4"}, "projects": [{"name": name} for name in names]}
    assert Anchors(written(TEXT)).anchors == [(name, {"href": f"{name}/"}) for name in names]
