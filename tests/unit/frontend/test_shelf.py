"""Finished pages: each form made once a revision, large ones packed aside, all within a bound."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator

import msgspec
import pytest

from index_frontend import shelf as module
from index_frontend.pages.negotiate import GZIP, HTML, IDENTITY, JSON, TEXT, ZSTD
from index_frontend.ports import Page
from index_frontend.shelf import BrokenPage, Shelf
from matrix_pypi_bot.wire.messages import ProjectDocument
from matrix_pypi_bot.wire.names import ProjectName
from tests.support.bot_pages import file_entry, page
from tests.support.scripted_bot import until

MXA = ProjectName("mxa")


def held(project: str = "mxa", files: int = 20, revision: str = "r1", serial: int | None = None) -> Page:
    """A page as the oracle holds it."""
    meta = {"api-version": "1.4"} | ({} if serial is None else {"_last-serial": serial})
    raw = page(project, [file_entry(f"{project}-{n}.0.tar.gz") for n in range(files)], revision=revision, meta=meta)
    document = msgspec.json.decode(raw, type=ProjectDocument)
    return Page(document=document, raw=raw, stale=False, remaining_seconds=60, hit=True)


@pytest.fixture
async def shelf() -> AsyncIterator[Shelf]:
    made = Shelf(64 << 20)
    yield made
    await made.close()


async def test_a_form_is_made_once_a_revision(shelf: Shelf) -> None:
    made = await shelf.finished(MXA, held(), (JSON, GZIP))
    assert shelf.ready(MXA, "r1", (JSON, GZIP)) is made is await shelf.finished(MXA, held(), (JSON, GZIP))
    assert (shelf.ready(MXA, "r2", (JSON, GZIP)), shelf.ready(MXA, "r1", (HTML, GZIP))) == (None, None)
    assert json.loads(gzip.decompress(made.body))["name"] == "mxa"


async def test_a_form_brings_the_headers_that_go_with_it(shelf: Shelf) -> None:
    made = await shelf.finished(MXA, held(serial=17), (JSON, ZSTD))
    assert dict(made.headers) == {
        "Content-Type": JSON,
        "Content-Encoding": "zstd",
        "ETag": made.etag,
        "Vary": "Accept, Accept-Encoding",
        "X-Content-Type-Options": "nosniff",
        "X-PyPI-Last-Serial": "17",
    }


async def test_all_forms_have_different_etags_and_a_new_revision_with_the_same_text_keeps_them(shelf: Shelf) -> None:
    forms = [(media, coding) for media in (JSON, HTML, TEXT) for coding in (IDENTITY, GZIP, ZSTD)]
    tags = [(await shelf.finished(MXA, held(), form)).etag for form in forms]
    assert len(set(tags)) == len(forms)
    assert [(await shelf.finished(MXA, held(revision="r2"), form)).etag for form in forms] == tags
    assert shelf.ready(MXA, "r1", forms[0]) is None


async def test_a_page_too_small_to_gain_anything_stays_as_it_is(shelf: Shelf) -> None:
    made = await shelf.finished(MXA, held(files=0), (JSON, GZIP))
    assert "Content-Encoding" not in made.headers


async def test_a_large_page_goes_out_as_it_is_until_it_is_packed(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_AT_ONCE", 1000)
    renders: list[object] = []
    original = module.render
    monkeypatch.setattr(module, "render", lambda *args: renders.append(args) or original(*args))
    first = await asyncio.gather(*(shelf.finished(MXA, held(), (JSON, GZIP)) for _ in range(10)))
    assert {made.headers.get("Content-Encoding") for made in first} == {None}
    assert len(renders) == 1
    async with asyncio.timeout(10):
        while (packed := shelf.ready(MXA, "r1", (JSON, GZIP))) is None:
            await asyncio.sleep(0.001)
    assert gzip.decompress(packed.body) == first[0].body
    assert await shelf.finished(MXA, held(), (JSON, GZIP)) is packed


async def test_what_was_used_longest_ago_goes_first() -> None:
    one = len((await Shelf(1 << 30).finished(MXA, held(), (JSON, IDENTITY))).body)
    shelf = Shelf(int(3.5 * (one + 2_000)))
    names = [ProjectName(f"p{number}") for number in range(3)]
    for name in names:
        await shelf.finished(name, held(name), (JSON, IDENTITY))
    shelf.ready(names[0], "r1", (JSON, IDENTITY))
    await shelf.finished(MXA, held(), (JSON, IDENTITY))
    await shelf.finished(ProjectName("p9"), held("p9"), (JSON, IDENTITY))
    there = [name for name in (*names, MXA) if shelf.ready(name, "r1", (JSON, IDENTITY))]
    assert there == [names[0], MXA]
    assert shelf.bytes_held <= 3.5 * (one + 2_000)


async def test_a_page_larger_than_the_shelf_is_served_and_not_kept() -> None:
    shelf = Shelf(10)
    assert (await shelf.finished(MXA, held(), (JSON, IDENTITY))).body
    assert (shelf.ready(MXA, "r1", (JSON, IDENTITY)), shelf.bytes_held) == (None, 0)


@pytest.mark.parametrize(
    "broken", [b"[]", b"{}", b'{"name": "mxa", "files": [{}]}', b'{"name": "mxa", "meta": [], "files": []}']
)
async def test_a_document_that_cannot_be_rendered_is_the_bot_s_failure(shelf: Shelf, broken: bytes) -> None:
    good = held()
    page_ = Page(document=good.document, raw=broken, stale=False, remaining_seconds=60, hit=True)
    with pytest.raises(BrokenPage):
        await shelf.finished(MXA, page_, (HTML, IDENTITY))


async def test_closing_ends_what_is_under_way(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_AT_ONCE", 1000)
    await shelf.finished(MXA, held(), (JSON, GZIP))
    await shelf.close()
    await until(lambda: not shelf._flights._tasks)
