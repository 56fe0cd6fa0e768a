"""The Simple API over a real socket: negotiation, what pages say, redirects (PEP 503, 592, 691, 700, 714, 740, 792)."""

from __future__ import annotations

import pytest

from tests.support.dists import Dist, sdist, wheel
from tests.support.problems import problem
from tests.support.simple_api import Page, max_age
from tests.support.stack import Stack
from tests.support.upstream import Upstream
from tests.support.upstream_pages import HTML as H
from tests.support.upstream_pages import JSON as J

pytestmark = pytest.mark.integration

T = "text/html"
PIP = f"{J}, {H}; q=0.1, text/html; q=0.01"
UV = f"{J}, {H};q=0.2, text/html;q=0.01"
POETRY = f"{J}, */*;q=0.1"


@pytest.fixture
def listed(upstream: Upstream, name: str) -> Dist:
    """A wheel that upstream lists and nobody has asked for."""
    upstream.publish(dist := wheel(name, requires_python=">=3.8,<4"))
    return dist


# Negotiation ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (J, J),
        (H, H),
        (T, T),
        (None, T),
        ("*/*", T),
        ("", T),
        (PIP, J),
        (UV, J),
        (POETRY, J),
        (f"{J};q=0.1, {T};q=0.9", T),
        (f"{J};q=0, */*;q=0.1", T),
        ("application/*", J),
        ("application/vnd.pypi.simple.latest+json", J),
        ("application/vnd.pypi.simple.latest+html", H),
    ],
)
def test_a_page_comes_in_the_form_that_the_client_prefers(
    stack: Stack, listed: Dist, accept: str | None, content_type: str
) -> None:
    page = stack.get(f"/simple/{listed.project}/", **({} if accept is None else {"Accept": accept}))
    assert (page.status, page.content_type.partition(";")[0]) == (200, content_type)
    if content_type == J:
        assert page.content_type == J


@pytest.mark.parametrize("accept", ["application/json", "application/vnd.pypi.simple.v2+json", "image/png"])
def test_a_form_that_does_not_exist_is_a_406_with_a_reason(stack: Stack, listed: Dist, accept: str) -> None:
    refused = stack.page(listed.project, Accept=accept)
    assert refused.status == 406
    assert problem(refused)


@pytest.mark.parametrize(
    "accept",
    [
        f"text/html;charset=utf-8;q=0.5, {J};q=0.1",
        "q=abc",
        ";;;,,",
        f"{J};q=abc",
        ", ".join(f"x/{number}" for number in range(700)),
        "x/" + "y" * 8000,
    ],
)
def test_an_odd_accept_header_gets_a_page_or_a_406(stack: Stack, listed: Dist, accept: str) -> None:
    assert stack.page(listed.project, Accept=accept).status in (200, 406)


def test_an_accept_header_beyond_what_a_header_line_may_hold_is_refused(stack: Stack, listed: Dist) -> None:
    assert stack.page(listed.project, Accept="x/" + "y" * 9000).status in (400, 431)


@pytest.mark.parametrize("spelled", [J, J.replace("+", "%2B")])
def test_format_overrides_accept(stack: Stack, listed: Dist, spelled: str) -> None:
    page = stack.get(f"/simple/{listed.project}/?format={spelled}", Accept=T)
    assert (page.status, page.content_type) == (200, J)


def test_an_unknown_format_is_a_406(stack: Stack, listed: Dist) -> None:
    refused = stack.get(f"/simple/{listed.project}/?format=yaml", Accept=J)
    assert refused.status == 406
    assert problem(refused)


# Content -------------------------------------------------------------------------------------------------------------


def test_the_json_page_says_of_each_file_what_upstream_says_and_points_here(stack: Stack, listed: Dist) -> None:
    page = stack.page(listed.project).json
    assert (page["meta"]["api-version"], page["name"], page["versions"]) == ("1.4", listed.project, ["1.0"])
    (entry,) = page["files"]
    assert not {key for key in entry if key.startswith("_")}
    assert entry["url"] == f"../..{listed.path}"
    assert {key: entry[key] for key in ("filename", "hashes", "size", "requires-python", "core-metadata")} == {
        "filename": listed.filename,
        "hashes": {"sha256": listed.sha256},
        "size": listed.size,
        "requires-python": ">=3.8,<4",
        "core-metadata": {"sha256": listed.metadata_sha256},
    }


def test_the_html_page_says_the_same_and_does_not_depend_on_its_name(stack: Stack, listed: Dist) -> None:
    as_html, as_text = (stack.page(listed.project, Accept=accept) for accept in (H, T))
    assert as_html.body == as_text.body
    assert as_html.body.startswith(b"<!DOCTYPE html>")
    page = Page(as_html.body)
    assert page.meta["pypi:repository-version"] == "1.4"
    (anchor,) = page.anchors
    assert anchor == {
        "href": f"../..{listed.path}#sha256={listed.sha256}",
        "data-requires-python": ">=3.8,<4",
        "data-core-metadata": f"sha256={listed.metadata_sha256}",
        "data-dist-info-metadata": f"sha256={listed.metadata_sha256}",
    }


def test_keys_that_nobody_knows_yet_pass_through(stack: Stack, upstream: Upstream, listed: Dist) -> None:
    upstream.listing(listed.project).extra["namespaces"] = {"prefix": "mx"}
    upstream.publish(listed, extra={"x-new": [1, {"deep": True}]})
    page = stack.page(listed.project).json
    assert page["namespaces"] == {"prefix": "mx"}
    assert page["files"][0]["x-new"] == [1, {"deep": True}]
    assert page["meta"]["api-version"] == "1.4"


@pytest.mark.parametrize(
    ("told", "in_json", "in_html"),
    [
        ("\"<b>&' </a>", "\"<b>&' </a>", "\"<b>&' </a>"),
        (True, True, ""),
        ("", True, ""),
        (False, False, None),
    ],
)
def test_yanked_survives_in_both_forms(
    stack: Stack,
    upstream: Upstream,
    name: str,
    told: bool | str,
    in_json: bool | str,
    in_html: str | None,
) -> None:
    upstream.publish(wheel(name), yanked=told)
    (entry,) = stack.page(name).json["files"]
    (anchor,) = Page(stack.page(name, Accept=H).body).anchors
    assert entry.get("yanked", False) == in_json
    assert anchor.get("data-yanked") == in_html


def test_a_file_without_metadata_advertises_none(stack: Stack, upstream: Upstream, name: str) -> None:
    upstream.publish(sdist(name))
    upstream.publish(wheel(name, "2.0"), advertise_metadata=False)
    entries = stack.page(name).json["files"]
    anchors = Page(stack.page(name, Accept=H).body).anchors
    assert [entry.get("core-metadata", False) for entry in entries] == [False, False]
    assert not any("data-core-metadata" in anchor or "data-dist-info-metadata" in anchor for anchor in anchors)


def test_upload_times_keep_their_microseconds(stack: Stack, upstream: Upstream, name: str) -> None:
    upstream.publish(wheel(name), upload_time="2024-02-29T23:59:59.000001Z")
    assert stack.page(name).json["files"][0]["upload-time"] == "2024-02-29T23:59:59.000001Z"


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("https://index.example/p", "https://index.example/p"),
        ("http://index.example/p", None),
        ("../p", None),
        ("javascript:alert(1)", None),
    ],
)
def test_provenance_passes_when_it_is_an_https_address(
    stack: Stack, upstream: Upstream, name: str, told: str, kept: str | None
) -> None:
    upstream.publish(wheel(name), provenance=told)
    assert stack.page(name).json["files"][0].get("provenance") == kept


def test_a_quarantined_project_shows_its_status_and_no_files(stack: Stack, upstream: Upstream, listed: Dist) -> None:
    upstream.set_status(listed.project, "quarantined", "under <b>review</b>")
    page = stack.page(listed.project).json
    assert (page["files"], page["project-status"]) == ([], {"status": "quarantined", "reason": "under <b>review</b>"})
    html = Page(stack.page(listed.project, Accept=H).body)
    assert (html.anchors, html.meta["pypi:project-status"]) == ([], "quarantined")
    assert html.meta["pypi:project-status-reason"] == "under <b>review</b>"
    refused = stack.file(listed)
    assert refused.status == 403
    assert problem(refused)
    assert upstream.hits("GET", listed) == 0


@pytest.mark.parametrize("status", ["archived", "deprecated"])
def test_other_statuses_keep_the_files(stack: Stack, upstream: Upstream, listed: Dist, status: str) -> None:
    upstream.set_status(listed.project, status)
    page = stack.page(listed.project).json
    assert (len(page["files"]), page["project-status"]["status"]) == (1, status)


def test_a_project_without_files_has_an_empty_page(stack: Stack, upstream: Upstream, name: str) -> None:
    upstream.listing(name)
    page = stack.page(name)
    assert (page.status, page.json["files"]) == (200, [])


def test_a_page_of_six_thousand_files_is_whole_in_both_forms(stack: Stack, upstream: Upstream, name: str) -> None:
    upstream.publish(*(wheel(name, f"{number // 10}.{number % 10}") for number in range(6000)))
    assert len(stack.page(name).json["files"]) == 6000
    assert len(Page(stack.page(name, Accept=H).body).anchors) == 6000


def test_the_root_lists_the_projects_that_are_known_here(stack: Stack, listed: Dist) -> None:
    stack.page(listed.project)
    root = stack.get("/simple/", Accept=J)
    assert (root.status, root.content_type, root.json["meta"]["api-version"]) == (200, J, "1.4")
    assert {"name": listed.project} in [{"name": project["name"]} for project in root.json["projects"]]
    assert stack.get("/simple/", Accept=J, If_None_Match=root.headers["etag"]).status == 304
    as_html = stack.get("/simple/", Accept=T)
    assert f"{listed.project}/" in [anchor["href"] for anchor in Page(as_html.body).anchors]


# Redirects -----------------------------------------------------------------------------------------------------------


def test_without_its_slash_a_page_redirects_to_itself(stack: Stack, name: str) -> None:
    redirect = stack.get(f"/simple/{name}?format={J}")
    assert (redirect.status, redirect.headers["location"]) == (308, f"{name}/?format={J}")


@pytest.mark.parametrize(("spelled", "normal"), [("My_Pkg", "my-pkg"), ("MY.PKG", "my-pkg"), ("my--pkg", "my-pkg")])
def test_a_name_that_is_not_normalised_redirects_and_upstream_hears_nothing(
    stack: Stack, upstream: Upstream, spelled: str, normal: str
) -> None:
    redirect = stack.get(f"/simple/{spelled}/")
    assert (redirect.status, redirect.headers["location"]) == (308, f"../{normal}/")
    assert max_age(redirect) <= 3600
    assert (upstream.hits("GET", spelled), upstream.hits("GET", normal)) == (0, 0)
