"""A project's view on its way into the database and back: the page as upstream sent it, and files it took away that are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import msgspec

from matrix_pypi_bot.core.index_document import IndexPage, InvalidPage, parse_page
from matrix_pypi_bot.core.index_file import BadEntry, IndexFile, parse_entry
from matrix_pypi_bot.ports import ViewRow
from matrix_pypi_bot.services.known import View
from matrix_pypi_bot.wire.digests import sha256_of
from matrix_pypi_bot.wire.names import FileName, ProjectName

_REMOVED: Final = "_removed"  # beside upstream's own keys; a page of upstream that says it is not believed

_top = msgspec.json.Decoder(dict[str, msgspec.Raw])
_entries = msgspec.json.Decoder(list[object])


def read_page(raw: bytes, project: ProjectName, *, base_url: str) -> IndexPage:
    """The page that upstream sent. Raises InvalidPage."""
    page = parse_page(raw, project, base_url=base_url)
    return replace(page, extras={key: value for key, value in page.extras.items() if key != _REMOVED})


def empty_page(project: ProjectName) -> IndexPage:
    """The page of a project that has none any more."""
    return IndexPage(
        project=project,
        files={},
        conflicted={},
        dropped={},
        status="active",
        status_reason=None,
        serial=None,
        minor=0,
        versions=None,
        extras={},
    )


def rebuilt_view(project: ProjectName) -> View:
    """The view of a project that upstream never showed here: nothing is on its page but what others attest."""
    return View(
        state="down",
        page=empty_page(project),
        removed={},
        root=sha256_of(b""),
        etag=None,
        fetched_ms=0,
        checked_ms=0,
        opened_origins=(),
        rebuilt=True,
    )


def with_removed(raw: bytes, removed: Mapping[FileName, IndexFile]) -> bytes:
    """`raw`, which may be empty, with the entries of removed files beside it."""
    if not removed:
        return raw
    document: dict[str, object] = dict(_top.decode(raw)) if raw else {}
    document[_REMOVED] = [_entry(file) for file in removed.values()]
    return msgspec.json.encode(document)


def view_of(row: ViewRow, *, base_url: str) -> View:
    """The view that a row holds. Raises InvalidPage when this version of the program no longer believes its page."""
    raw = _top.decode(row.raw) if row.raw else {}
    page = read_page(row.raw, row.project, base_url=base_url) if "files" in raw else empty_page(row.project)
    removed: dict[FileName, IndexFile] = {}
    for entry in _entries.decode(raw[_REMOVED]) if _REMOVED in raw else ():
        try:
            file = parse_entry(entry, row.project, base_url)
        except BadEntry as error:
            raise InvalidPage(f"a kept entry: {error}") from error
        removed[file.name] = file
    return View(
        state=row.state,
        page=replace(page, serial=row.serial),
        removed=removed,
        root=sha256_of(row.raw),
        etag=row.etag,
        fetched_ms=row.fetched_ms,
        checked_ms=row.checked_ms,
        opened_origins=row.opened_origins,
    )


def _entry(file: IndexFile) -> dict[str, object]:
    """The file as an index lists it, so that reading it gives the same file again."""
    entry: dict[str, object] = {
        **file.extras,
        "filename": file.name,
        "url": file.url,
        "hashes": {"sha256": file.sha256},
        "yanked": file.yanked,
    }
    if file.size is not None:
        entry["size"] = file.size
    if file.requires_python is not None:
        entry["requires-python"] = file.requires_python
    if file.upload_time is not None:
        entry["upload-time"] = file.upload_time
    if file.provenance is not None:
        entry["provenance"] = file.provenance
    if file.core_metadata is not False:
        entry["core-metadata"] = True if file.core_metadata is True else {"sha256": file.core_metadata}
    return entry
