"""Caching headers, revalidation and encodings of pages, and HEAD, over a real socket."""

from __future__ import annotations

import pytest

from tests.support.dists import Dist, wheel
from tests.support.http_client import Reply, at_once
from tests.support.simple_api import max_age, unpacked
from tests.support.stack import Stack
from tests.support.upstream import Upstream
from tests.support.upstream_pages import HTML as H
from tests.support.upstream_pages import JSON as J
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def listed(upstream: Upstream, name: str) -> Dist:
    """A wheel that upstream lists, among enough others to make packing the page worth while; nobody has asked for it."""
    upstream.publish(*(wheel(name, f"0.{number}") for number in range(20)))
    upstream.publish(dist := wheel(name, "1.0"))
    return dist


@pytest.mark.parametrize("form", [J, H])
def test_an_unchanged_page_is_a_304_without_a_body(stack: Stack, listed: Dist, form: str) -> None:
    page = stack.page(listed.project, Accept=form)
    again = stack.page(listed.project, Accept=form, If_None_Match=page.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    assert {name: again.headers[name] for name in ("etag", "vary")} == {
        name: page.headers[name] for name in ("etag", "vary")
    }
    assert max_age(again) <= 600


@pytest.mark.parametrize("spelled", ["W/{}", "*", '"other", {}', '{}, W/"other"'])
def test_if_none_match_is_read_in_every_form(stack: Stack, listed: Dist, spelled: str) -> None:
    etag = stack.page(listed.project).headers["etag"]
    assert stack.page(listed.project, If_None_Match=spelled.format(etag)).status == 304
    assert stack.page(listed.project, If_None_Match='"other"').status == 200


def test_each_form_and_encoding_has_an_etag_of_its_own(stack: Stack, listed: Dist) -> None:
    pages = [
        stack.page(listed.project, Accept=form, Accept_Encoding=encoding)
        for form in (J, H)
        for encoding in ("identity", "gzip", "zstd")
    ]
    etags = {page.headers["etag"] for page in pages}
    assert len(etags) == len(pages)
    assert not any(etag.startswith("W/") for etag in etags)


def test_a_page_keeps_its_etag_until_upstream_changes_it(stack: Stack, upstream: Upstream, listed: Dist) -> None:
    etag = stack.page(listed.project).headers["etag"]
    stack.page_once(listed.project, lambda _: upstream.hits("GET", listed.project) > 1, "was looked at again")
    assert [hit.status for hit in upstream.seen(listed.project)][-1] == 304
    assert stack.page(listed.project).headers["etag"] == etag
    upstream.publish(wheel(listed.project, "2.0"))
    # The other process of the frontend hears of it a moment later.
    changed = stack.page_once(listed.project, lambda page: len(page.json["files"]) == 22, "lists the new file")
    assert changed.headers["etag"] != etag


def test_a_page_says_for_how_long_it_is_fresh_and_when_it_is_stale(
    stack: Stack, upstream: Upstream, listed: Dist
) -> None:
    first, second = stack.page(listed.project), stack.page(listed.project)
    assert [page.headers["x-matrix-pypi-cache"] for page in (first, second)] == ["MISS", "HIT"]
    assert all(0 < max_age(page) <= 600 for page in (first, second))
    assert stack.file(listed).status == 200
    upstream.off()
    stale = stack.stale_page(listed.project)
    assert (stale.status, max_age(stale), stale.headers.get("warning")) == (200, 0, None)


def test_fifty_clients_that_want_no_cache_make_one_conditional_request(
    stack: Stack, upstream: Upstream, listed: Dist
) -> None:
    stack.page(listed.project)

    def fifty_ask() -> bool:
        pages = at_once(50, lambda: stack.page(listed.project, Cache_Control="no-cache"))
        assert {page.status for page in pages} == {200}
        return upstream.hits("GET", listed.project) > 1

    # Just after the first look none of them is granted another; the first fifty that come late enough share one.
    wait_until(fifty_ask, "upstream is asked again")
    first, second = upstream.seen(listed.project)
    assert ("if-none-match" in first.headers, "if-none-match" in second.headers, second.status) == (False, True, 304)


def test_max_age_0_means_nothing_since_pip_always_says_it(stack: Stack, upstream: Upstream, listed: Dist) -> None:
    pages = [stack.page(listed.project, Cache_Control="max-age=0") for _ in range(3)]
    assert [page.headers["x-matrix-pypi-cache"] for page in pages] == ["MISS", "HIT", "HIT"]
    assert upstream.hits("GET", listed.project) == 1


@pytest.mark.parametrize("form", [J, H])
@pytest.mark.parametrize(("wanted", "got"), [("gzip", "gzip"), ("zstd", "zstd"), ("gzip;q=0", None), ("br", None)])
def test_a_page_is_packed_as_the_client_can_unpack_it(
    stack: Stack, listed: Dist, form: str, wanted: str, got: str | None
) -> None:
    plain = stack.page(listed.project, Accept=form)
    packed = stack.page(listed.project, Accept=form, Accept_Encoding=wanted)
    assert (packed.headers.get("content-encoding"), unpacked(packed)) == (got, plain.body)
    assert {part.strip().lower() for part in packed.headers["vary"].split(",")} == {"accept", "accept-encoding"}


def test_a_client_that_can_unpack_nothing_gets_the_page_or_a_406(stack: Stack, listed: Dist) -> None:
    assert stack.page(listed.project, Accept_Encoding="identity;q=0, *;q=0").status in (200, 406)


def test_a_head_request_answers_as_a_get_does(stack: Stack, upstream: Upstream, listed: Dist) -> None:
    stack.file(listed)
    page = f"/simple/{listed.project}/"
    for path in (page, "/simple/", listed.path, f"{listed.path}.metadata", "/healthz", "/readyz"):
        whole, head = (stack.get(path, method, Accept=J) for method in ("GET", "HEAD"))
        assert (head.status, head.body) == (whole.status, b""), path
        assert _stable(head) == _stable(whole), path
    assert (upstream.hits("GET", listed), upstream.hits("HEAD", listed)) == (1, 0)


def _stable(reply: Reply) -> dict[str, str]:
    changing = {"date", "cache-control", "x-matrix-pypi-cache", "x-matrix-pypi-source"}
    return {name: value for name, value in reply.headers.items() if name not in changing}
