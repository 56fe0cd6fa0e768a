"""A list of files is one document, whoever writes it, and nothing else is read as one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_pypi_bot.core.index_document import parse_page
from matrix_pypi_bot.core.list_document import InvalidList, Listed, list_document, read_list
from tests.support.bot_world import BASE_URL, MXA, ONE, TWO, ScriptedIndex

LINE = (
    b'{"coreMetadata":null,"filename":"mxa-1.0.tar.gz","requiresPython":null,"sha256":"' + b"a" * 64
    + b'","size":null,"uploadTime":null,"yanked":false}'
)  # fmt: skip


def page(*order: int) -> bytes:
    index = ScriptedIndex()
    for number in order:
        index.publish((ONE, TWO)[number])
    parsed = parse_page(index.listings["mxa"].raw("mxa"), MXA, base_url=BASE_URL)
    return list_document(parsed.files.values())


def test_the_same_files_make_the_same_document_in_whatever_order_upstream_lists_them() -> None:
    assert page(0, 1) == page(1, 0) != page(0)
    assert list(read_list(page(1, 0))) == [ONE.filename, TWO.filename]
    assert read_list(page(0))[ONE.filename] == Listed(  # type: ignore[index]
        filename=ONE.filename,
        sha256=ONE.sha256,
        size=ONE.size,
        requires_python=None,
        upload_time="2024-01-02T03:04:05.678901Z",
        yanked=False,
        core_metadata=ONE.metadata_sha256,
    )


def test_a_project_without_files_has_an_empty_list() -> None:
    assert read_list(b"") == {}


@pytest.mark.parametrize(
    "body",
    [
        LINE,
        LINE + b"\n" + LINE + b"\n",
        LINE.replace(b"mxa-1.0", b"mxb-1.0") + b"\n" + LINE + b"\n",
        LINE.replace(b"mxa-1.0.tar.gz", b"../mxa-1.0.tar.gz") + b"\n",
        LINE.replace(b"a" * 64, b"A" * 64) + b"\n",
        LINE.replace(b'"size":null', b'"size":-1') + b"\n",
        LINE.replace(b'"size":null', b'"size":1.5') + b"\n",
        LINE.replace(b'"yanked":false', b'"yanked":"' + b"y" * 5_000 + b'"') + b"\n",
        LINE.replace(b'"yanked":false', b'"yanked":false,"more":1') + b"\n",
        b"[" * 20_000 + b"\n",
        b"\n",
    ],
)
def test_anything_else_is_no_list(body: bytes) -> None:
    with pytest.raises(InvalidList):
        read_list(body)


@given(st.binary(max_size=300))
def test_hostile_bytes_are_a_list_or_are_not_and_nothing_else_happens(body: bytes) -> None:
    try:
        read_list(body)
    except InvalidList:
        return
