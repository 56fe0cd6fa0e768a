"""What an answer of upstream makes of what is known, and the rows that keep it. Nothing here asks or waits."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from matrix_pypi_bot.core.cooldown import Sight
from matrix_pypi_bot.core.index_document import IndexPage
from matrix_pypi_bot.core.index_file import IndexFile
from matrix_pypi_bot.ports import FetchedPage, Transaction, ViewRow
from matrix_pypi_bot.services.known import Known, View
from matrix_pypi_bot.services.projects import Change
from matrix_pypi_bot.services.stored_page import empty_page, with_removed
from matrix_pypi_bot.wire.digests import sha256_of
from matrix_pypi_bot.wire.names import FileName, ProjectName


def why_wrong(page: IndexPage, known: Known) -> str | None:
    """Why a page that can be read may still not be believed; None when it may."""
    if page.dropped and not page.files and not page.conflicted:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in sorted(page.dropped.items()))
        return f"no entry of the page may be believed: {reasons}"
    floor = known.serial_floor
    if page.serial is not None and floor is not None and page.serial < floor:
        return (
            f"the page is older than one seen before: serial {page.serial} after {floor} "
            f"(is the higher one wrong, `matrix-pypi release {known.project}` forgets it)"
        )
    return None


def removed_from(known: Known, page: IndexPage, *, keep: bool) -> dict[FileName, IndexFile]:
    """Entries of files accepted here that were listed, or kept, until now and that `page` does not list."""
    if not keep or known.view is None:
        return {}
    lasting = known.lasting()
    before = {**known.view.removed, **known.view.page.files}
    listed = page.files.keys() | page.conflicted.keys()  # listed with two digests is not removed
    return {name: file for name, file in before.items() if name in lasting and name not in listed}


def is_no_news(known: Known, page: IndexPage, fetched: FetchedPage, *, keep_removed: bool) -> bool:
    """Whether this is the page that is known already; indexes without ETags send it again and again."""
    if known.view is None or known.view.state == "gone":
        return False
    if fetched.opened_origins != known.view.opened_origins:
        return False  # the same page, but upstream has moved between a private and a public address
    if page.serial is not None and page.serial != known.serial_floor:
        return False  # the same page, but from now on no older one is believed
    removed = removed_from(known, page, keep=keep_removed)
    return sha256_of(with_removed(fetched.raw, removed)) == known.view.root


def shown(page: IndexPage, fetched: FetchedPage, *, upstream: str, now_ms: int, keep_removed: bool) -> Change:
    """Upstream showed a page: it is the view, its files were seen."""

    async def change(tables: Transaction, known: Known) -> Known:
        removed = removed_from(known, page, keep=keep_removed)
        raw = with_removed(fetched.raw, removed)
        view = View(
            state="live",
            page=page,
            removed=removed,
            root=sha256_of(raw),
            etag=fetched.etag,
            fetched_ms=now_ms,
            checked_ms=now_ms,
            opened_origins=fetched.opened_origins,
        )
        seen, sights = known.first_seen, known.sights
        new = {name: file.sha256 for name, file in page.files.items() if name not in seen}
        await tables.views.put(_row_of(known.project, view, raw, upstream))
        if new:
            sight = Sight(now_ms, None if known.view is None or known.view.rebuilt else known.view.checked_ms)
            await tables.ledger.see_first(known.project, new, now_ms, sight.lacked_ms)
            seen, sights = {**seen, **new}, {**sights, **dict.fromkeys(new, sight)}
        await tables.ledger.own_view(known.project, upstream, page.serial, view.root, now_ms)
        floor = max((one for one in (known.serial_floor, page.serial) if one is not None), default=None)
        return replace(known, view=view, first_seen=seen, sights=sights, serial_floor=floor)

    return change


def gone(*, upstream: str, now_ms: int, keep_removed: bool) -> Change:
    """Upstream said, twice, that the project is no more: no page, but for files that are kept."""

    async def change(tables: Transaction, known: Known) -> Known:
        page = empty_page(known.project)
        removed = removed_from(known, page, keep=keep_removed)
        raw = with_removed(b"", removed)
        view = View(
            state="gone",
            page=page,
            removed=removed,
            root=sha256_of(raw),
            etag=None,
            fetched_ms=now_ms,
            checked_ms=now_ms,
            opened_origins=known.view.opened_origins if known.view is not None else (),
        )
        await tables.views.put(_row_of(known.project, view, raw, upstream))
        return replace(known, view=view)

    return change


def checked(state: Literal["live", "down"], *, now_ms: int | None) -> Change:
    """The page stays; how the last attempt went is new. `now_ms` None: upstream did not say that the page is right."""

    async def change(tables: Transaction, known: Known) -> Known:
        if known.view is None:
            return known
        view = replace(known.view, state=state, checked_ms=known.view.checked_ms if now_ms is None else now_ms)
        await tables.views.checked(known.project, state, view.checked_ms)
        return replace(known, view=view)

    return change


def still_so(known: Known, now_ms: int) -> Known:
    """Upstream said once more what it had said."""
    return known if known.view is None else replace(known, view=replace(known.view, checked_ms=now_ms))


def _row_of(project: ProjectName, view: View, raw: bytes, upstream: str) -> ViewRow:
    """The view as the database keeps it."""
    return ViewRow(
        project=project,
        upstream=upstream,
        state=view.state,
        etag=view.etag,
        serial=view.page.serial,
        fetched_ms=view.fetched_ms,
        checked_ms=view.checked_ms,
        raw=raw,
        opened_origins=view.opened_origins,
    )
