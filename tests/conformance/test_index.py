"""The upstream index over real HTTP: every way in which it answers becomes one of five answers, never an exception."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest

from matrix_pypi_bot.adapters import index
from matrix_pypi_bot.adapters.index import UpstreamIndex
from matrix_pypi_bot.ports import Absent, Away, FetchedPage, NotModified, Wrong
from matrix_pypi_bot.process.outbound import Outbound, origin_of
from matrix_pypi_bot.wire.names import ProjectName
from tests.support import upstream_faults as faults
from tests.support.dists import sdist, wheel
from tests.support.upstream import Upstream

MXA = ProjectName("mxa")
WHEEL = wheel("mxa", requires_python=">=3.8,<4")
TIMEOUT_SECONDS = 1.0
MAX_BYTES = 1 << 20


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """An index with one project."""
    with Upstream() as running:
        running.publish(WHEEL, yanked='bad "build" <b>')
        yield running


@pytest.fixture
async def fetch(upstream: Upstream) -> AsyncIterator[Any]:
    """`fetch(project, etag=…, no_cache=…)` as the bot asks."""
    outbound = Outbound(user_agent="tests")
    adapter = UpstreamIndex(
        outbound, endpoint=upstream.url, page_timeout_seconds=TIMEOUT_SECONDS, max_page_bytes=MAX_BYTES
    )

    async def ask(project: str = "mxa", etag: str | None = None, no_cache: bool = False) -> index.Answer:
        return await adapter.fetch(ProjectName(project), etag=etag, no_cache=no_cache)

    yield ask
    await outbound.close()


async def test_a_page_comes_with_its_etag_and_serial_and_opens_the_hosts_of_a_private_upstream(
    upstream: Upstream, fetch: Any
) -> None:
    page = await fetch()
    assert isinstance(page, FetchedPage)
    assert [file["filename"] for file in msgspec.json.decode(page.raw)["files"]] == [WHEEL.filename]
    assert page.serial == upstream.listing("mxa").serial
    assert (page.opened_origins, page.opens_files) == ((upstream.origin,), True)
    assert await fetch(etag=page.etag) == NotModified()


async def test_it_asks_for_json_first_and_passes_on_what_the_caller_wants(upstream: Upstream, fetch: Any) -> None:
    await fetch(etag='"x"', no_cache=True)
    [hit] = upstream.seen("mxa")
    assert hit.headers["accept"].startswith("application/vnd.pypi.simple.v1+json,")
    assert (hit.headers["if-none-match"], hit.headers["cache-control"]) == ('"x"', "no-cache")


async def test_html_becomes_json_that_claims_no_more_than_html_tells(upstream: Upstream, fetch: Any) -> None:
    upstream.listing("mxa").html_only = True
    upstream.set_status("mxa", "archived", "done")
    page = await fetch()
    assert isinstance(page, FetchedPage)
    assert msgspec.json.decode(page.raw) == {
        "meta": {"api-version": "1.0"},
        "name": "mxa",
        "project-status": {"status": "archived", "reason": "done"},
        "files": [
            {
                "filename": WHEEL.filename,
                "url": f"{upstream.files_origin}{WHEEL.path}",
                "hashes": {"sha256": WHEEL.sha256},
                "requires-python": ">=3.8,<4",
                "yanked": 'bad "build" <b>',
                "core-metadata": {"sha256": WHEEL.metadata_sha256},
            }
        ],
    }
    assert (page.opened_origins, page.opens_files) == ((upstream.origin,), True)
    assert await fetch(etag=page.etag) == NotModified()


@pytest.mark.parametrize("status", [404, 410])
async def test_absent_is_not_away(upstream: Upstream, fetch: Any, status: int) -> None:
    assert await fetch("nothing") == Absent()
    upstream.break_pages(str(status))
    assert await fetch() == Absent()


@pytest.mark.parametrize("how", ["500", "502", "503", "429", "408", "reset", "truncated", "hang"])
async def test_what_may_be_better_later_is_away(upstream: Upstream, fetch: Any, how: str) -> None:
    upstream.break_pages(how)
    assert isinstance(await fetch(), Away)


async def test_an_upstream_that_is_off_is_away(upstream: Upstream, fetch: Any) -> None:
    upstream.off()
    assert isinstance(await fetch(), Away)


@pytest.mark.parametrize(
    "how",
    [
        "401",
        "403",
        "418",
        "204",
        "304",
        "redirect loop",
        faults.redirect("file:///etc/passwd"),
        faults.redirect("http://169.254.169.254/latest/meta-data/"),
        faults.redirect("https://127.0.0.1:1/"),
        faults.redirect("http://index.example/"),
        faults.retyped("text/plain"),
        faults.retyped("application/vnd.pypi.simple.v2+json"),
        faults.retyped(""),
        faults.body(b"<form>log in</form>", "text/html"),
        faults.body(b"<a href=/login>log in</a>" * 9, "text/html"),
        faults.body(b"<" * 400_000, "text/html"),
        faults.body(b"plain", "application/json", Content_Encoding="gzip"),
        faults.body(b"plain", "application/json", Content_Encoding="br"),
        faults.body(b" " * (MAX_BYTES + 1), "application/json"),
    ],
    ids=str,
)
async def test_what_is_no_page_is_wrong(upstream: Upstream, fetch: Any, how: Any) -> None:
    upstream.break_pages(how)
    assert isinstance(await fetch(), Wrong)


async def test_a_gzip_bomb_costs_no_more_than_a_page(upstream: Upstream, fetch: Any) -> None:
    faults._bomb()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    upstream.break_pages("gzip bomb")
    assert isinstance(await fetch(), Wrong)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


@pytest.mark.parametrize("how", ["drip", "endless"])
async def test_a_page_that_never_ends_is_cut_by_the_deadline_or_the_cap(
    upstream: Upstream, fetch: Any, how: str
) -> None:
    upstream.break_pages(how)
    started = time.monotonic()
    assert isinstance(await fetch(), Away | Wrong)
    assert time.monotonic() - started < TIMEOUT_SECONDS + 1


@pytest.mark.parametrize("raw", [b"[]", b"{", b"", b'{"meta": []}', b"\xff"])
async def test_a_damaged_page_is_left_to_its_reader(upstream: Upstream, fetch: Any, raw: bytes) -> None:
    upstream.break_pages(faults.body(raw, "application/json"))
    page = await fetch()
    assert isinstance(page, FetchedPage)
    assert (page.raw, page.opened_origins) == (raw, (upstream.origin,))


@pytest.mark.parametrize(("told", "serial"), [("12", 12), ("-1", None), ("9" * 17, None), ("1.5", None), ("x", None)])
async def test_a_serial_is_a_number_beside_the_page(
    upstream: Upstream, fetch: Any, told: str, serial: int | None
) -> None:
    upstream.break_pages(faults.body(b"{}", "application/json", X_PyPI_Last_Serial=told))
    page = await fetch()
    assert isinstance(page, FetchedPage)
    assert page.serial == serial


async def test_many_projects_at_once_are_all_answered(upstream: Upstream, fetch: Any) -> None:
    upstream.publish(sdist("mxb"))
    upstream.listing("mxb").html_only = True
    answers = await asyncio.gather(*(fetch("mxb") for _ in range(20)), *(fetch("nothing") for _ in range(20)))
    assert {type(answer) for answer in answers[:20]} == {FetchedPage}
    assert set(answers[20:]) == {Absent()}


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("http://index.example/", True),
        ("https://127.0.0.1/", True),
        ("https://[::1]:8443/", True),
        ("https://10.0.0.1/", True),
        ("https://1.1.1.1/", False),
    ],
)
async def test_http_or_an_address_that_is_not_public_makes_an_upstream_private(address: str, private: bool) -> None:
    assert await index._private(origin_of(address)) is private
