"""The synthetic upstream keeps its promises, read by clients that know nothing of it: every test on top of it rests on that."""

from __future__ import annotations

import hashlib
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from http.client import HTTPException, HTTPResponse, IncompleteRead

import pytest
from pypi_simple import ACCEPT_HTML_ONLY, ACCEPT_JSON_ONLY, PyPISimple
from pypi_simple.enums import ProjectStatus

from tests.support.dists import Dist, graph, sdist, wheel
from tests.support.upstream import Upstream
from tests.support.upstream_faults import redirect, slow, status

A = wheel("mx-a", requires=["mx-b>=1"], requires_python=">=3.8")
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


def get(url: str, method: str = "GET", **headers: str) -> HTTPResponse:
    spelled = {name.replace("_", "-"): value for name, value in headers.items()}
    answer: HTTPResponse = DIRECT.open(urllib.request.Request(url, method=method, headers=spelled), timeout=20)
    return answer


def fetch(upstream: Upstream, dist: Dist) -> bytes:
    with get(upstream.files_origin + dist.path) as answer:
        return answer.read()


@pytest.mark.parametrize("accept", [ACCEPT_JSON_ONLY, ACCEPT_HTML_ONLY])
def test_a_page_says_in_json_and_html_what_was_published(upstream: Upstream, accept: str) -> None:
    upstream.publish(A, yanked='bad "<b>&', provenance="https://index.example/provenance")
    upstream.set_status("mx-a", "archived", "no time")
    with PyPISimple(upstream.url, accept=accept) as index:
        page = index.get_project_page("mx-a")
    (package,) = page.packages
    assert (package.filename, package.url) == (A.filename, upstream.files_origin + A.path)
    assert package.digests == {"sha256": A.sha256}
    assert package.metadata_digests == {"sha256": A.metadata_sha256}
    assert (package.requires_python, package.yanked_reason) == (">=3.8", 'bad "<b>&')
    assert package.provenance_url == "https://index.example/provenance"
    assert (page.status, page.status_reason, page.repository_version) == (ProjectStatus.ARCHIVED, "no time", "1.4")


def test_the_json_page_has_sizes_times_and_a_serial_that_grows(upstream: Upstream) -> None:
    upstream.publish(A)
    with PyPISimple(upstream.url, accept=ACCEPT_JSON_ONLY) as index:
        before = index.get_project_page("mx-a")
        upstream.publish(wheel("mx-a", "2.0"))
        after = index.get_project_page("mx-a")
    assert before.packages[0].size == A.size
    assert before.packages[0].upload_time == datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    assert int(before.last_serial or 0) < int(after.last_serial or 0)
    assert after.versions == ["1.0", "2.0"]


def test_a_page_that_speaks_only_html_does_so(upstream: Upstream) -> None:
    upstream.publish(A)
    upstream.listing("mx-a").html_only = True
    with get(f"{upstream.url}mx-a/", Accept="application/vnd.pypi.simple.v1+json") as answer:
        assert answer.headers["Content-Type"].startswith("text/html")


def test_files_lie_where_the_content_says_and_come_with_their_metadata(upstream: Upstream) -> None:
    upstream.publish(A)
    blake = hashlib.blake2b(A.content, digest_size=32).hexdigest()
    assert A.path == f"/packages/{blake[:2]}/{blake[2:4]}/{blake[4:]}/{A.filename}"
    assert fetch(upstream, A) == A.content
    with get(f"{upstream.files_origin}{A.path}.metadata") as answer:
        assert answer.read() == A.metadata


def test_an_unchanged_page_is_not_sent_twice(upstream: Upstream) -> None:
    upstream.publish(A)
    with get(f"{upstream.url}mx-a/") as answer:
        etag = answer.headers["ETag"]
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(f"{upstream.url}mx-a/", If_None_Match=etag)
    with caught.value as unchanged:
        assert (unchanged.code, unchanged.read()) == (304, b"")
    assert [hit.status for hit in upstream.seen("mx-a")] == [200, 304]


def test_a_range_is_answered_while_the_file_is_the_same(upstream: Upstream) -> None:
    upstream.publish(A)
    url = upstream.files_origin + A.path
    with get(url, "HEAD") as head:
        etag, length = head.headers["ETag"], head.headers["Content-Length"]
    assert (int(length), upstream.hits("HEAD", A), upstream.hits("GET", A)) == (A.size, 1, 0)
    with get(url, Range="bytes=10-", If_Range=etag) as rest:
        assert (rest.status, rest.headers["Content-Range"]) == (206, f"bytes 10-{A.size - 1}/{A.size}")
        assert rest.read() == A.content[10:]
    with get(url, Range="bytes=10-", If_Range='"another"') as whole:
        assert (whole.status, whole.read()) == (200, A.content)


def test_a_republished_file_has_other_bytes_under_the_same_name(upstream: Upstream) -> None:
    other = wheel("mx-a", requires=["mx-b>=1"], requires_python=">=3.8", salt="other")
    assert (other.filename, other.version) == (A.filename, A.version)
    upstream.publish(A)
    upstream.publish(other)
    with PyPISimple(upstream.url) as index:
        assert [p.digests["sha256"] for p in index.get_project_page("mx-a").packages] == [other.sha256]


def test_what_was_removed_is_gone(upstream: Upstream) -> None:
    upstream.publish(A, wheel("mx-a", "2.0"))
    upstream.remove(A)
    assert _status(upstream.files_origin + A.path) == 404
    assert _status(f"{upstream.url}mx-a/") == 200
    upstream.remove_project("mx-a")
    assert _status(f"{upstream.url}mx-a/") == 404


def test_while_it_is_off_connections_are_refused_and_later_it_is_back_on_the_same_port(upstream: Upstream) -> None:
    upstream.publish(A)
    for _ in range(2):
        upstream.off()
        with pytest.raises(urllib.error.URLError, match="refused"):
            fetch(upstream, A)
        upstream.on()
        assert fetch(upstream, A) == A.content


def test_going_off_cuts_a_transfer_that_stands(upstream: Upstream) -> None:
    upstream.publish(big := wheel("mx-big", payload_bytes=1 << 20))
    hold = upstream.hold(big, after_bytes=1000)
    with get(upstream.files_origin + big.path) as answer:
        hold.wait_until_reached()
        upstream.off()
        with pytest.raises((IncompleteRead, ConnectionError)):
            answer.read()


def test_a_held_transfer_goes_on_when_the_test_says_so(upstream: Upstream) -> None:
    upstream.publish(big := wheel("mx-big", payload_bytes=1 << 20))
    hold = upstream.hold(big, after_bytes=1000)
    with get(upstream.files_origin + big.path) as answer:
        assert answer.read(1000) == big.content[:1000]
        hold.release()
        assert answer.read() == big.content[1000:]


@pytest.mark.parametrize(("how", "code"), [("503", 503), ("404", 404), (status(429, Retry_After="3600"), 429)])
def test_a_broken_file_answers_with_that_status_and_others_do_not(upstream: Upstream, how: str, code: int) -> None:
    upstream.publish(A, b := wheel("mx-b"))
    upstream.break_files(how, A, times=1)
    assert (_status(upstream.files_origin + A.path), _status(upstream.files_origin + b.path)) == (code, 200)
    assert _status(upstream.files_origin + A.path) == 200


def test_bodies_are_truncated_corrupted_and_prolonged(upstream: Upstream) -> None:
    upstream.publish(A)
    upstream.break_files("truncated", A)
    with pytest.raises(IncompleteRead) as caught:
        fetch(upstream, A)
    assert caught.value.partial == A.content[: A.size // 2]
    upstream.corrupt(A)
    wrong = fetch(upstream, A)
    assert (len(wrong), wrong[1:], wrong[0] != A.content[0]) == (A.size, A.content[1:], True)
    upstream.break_files("too long", A)
    assert fetch(upstream, A)[: A.size] == A.content
    upstream.break_files("endless", A)
    with get(upstream.files_origin + A.path) as answer:
        assert len(answer.read(A.size + 1_000_000)) == A.size + 1_000_000
    upstream.mend()
    assert fetch(upstream, A) == A.content


def test_pages_break_apart_from_files(upstream: Upstream) -> None:
    upstream.publish(A)
    upstream.break_pages("503")
    assert (_status(f"{upstream.url}mx-a/"), _status(upstream.files_origin + A.path)) == (503, 200)
    upstream.break_pages("login page", "mx-a")
    with PyPISimple(upstream.url) as index:
        assert index.get_project_page("mx-a").packages == []


def test_redirects_lead_where_the_test_wants(upstream: Upstream) -> None:
    upstream.publish(A, b := wheel("mx-b"))
    upstream.break_files(redirect(upstream.files_origin + b.path), A)
    assert fetch(upstream, A) == b.content
    upstream.break_files("redirect loop", A)
    with pytest.raises(urllib.error.HTTPError, match="redirect"):
        fetch(upstream, A)


def test_a_hanging_upstream_says_nothing_and_a_slow_one_takes_its_time(upstream: Upstream) -> None:
    upstream.publish(A)
    upstream.break_files("hang", A)
    with pytest.raises(TimeoutError), DIRECT.open(upstream.files_origin + A.path, timeout=0.2) as answer:
        answer.read()
    upstream.break_files("reset", A)
    with pytest.raises((HTTPException, OSError)):
        fetch(upstream, A)
    upstream.break_files(slow(latency_ms=10, bytes_per_s=100_000), A)
    assert fetch(upstream, A) == A.content


def test_a_small_page_inflates_to_200_mib(upstream: Upstream) -> None:
    upstream.publish(A)
    upstream.break_pages("gzip bomb")
    with get(f"{upstream.url}mx-a/", Accept_Encoding="gzip") as answer:
        assert (answer.headers["Content-Encoding"], len(answer.read()) < 1 << 20) == ("gzip", True)


def test_leaving_the_upstream_frees_its_ports_and_thread() -> None:
    with Upstream() as upstream:
        port = int(upstream.origin.rpartition(":")[2])
    assert "upstream" not in [thread.name for thread in threading.enumerate()]
    with socket.socket() as mine:
        mine.bind(("127.0.0.1", port))


def test_distributions_are_the_same_bytes_every_time() -> None:
    assert graph("mx-g") == graph("mx-g")
    assert sdist("mx-s") == sdist("mx-s")
    assert len({dist.sha256 for dist in graph("mx-g")}) == 60


def _status(url: str) -> int:
    try:
        with get(url) as answer:
            return answer.status
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code
