"""Finished pages, ready to be sent: each representation and coding made once a revision, kept within a bound."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import msgspec
from multidict import CIMultiDict

from index_frontend.oracle.flights import Flights
from index_frontend.pages.encode import compress, etag, fingerprint
from index_frontend.pages.negotiate import IDENTITY, Coding, MediaType
from index_frontend.pages.render import render
from index_frontend.ports import Page
from matrix_pypi_bot.wire.names import ProjectName
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

SMALLEST_TO_COMPRESS: Final = 200  # bytes; below, the coding's own frame eats the gain
# Up to here rendering and compressing cost a few milliseconds and are done on the spot; above, in a thread, and until a large page is
# compressed its clients get it as it is rather than wait.
LARGEST_AT_ONCE: Final = 256 << 10
_OVERHEAD: Final = 2_000  # headers and bookkeeping of one form

Form: TypeAlias = tuple[MediaType, Coding]


class BrokenPage(Problem):
    """A document of the bot that cannot be rendered."""

    code = ProblemCode.UPSTREAM_WRONG


@dataclass(frozen=True, slots=True)
class Finished:
    """A body, and the headers that go with it whoever asks. `fingerprint` is that of the uncompressed body."""

    body: bytes
    etag: str
    fingerprint: str
    headers: CIMultiDict[str]


@dataclass(slots=True)
class _Project:
    """What is on the shelf of one revision of a project."""

    revision: str
    forms: dict[Form, Finished] = field(default_factory=dict)
    cost: int = 0


class Shelf:
    """Bodies by project, revision, representation and coding; the projects used longest ago go first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.bytes_held = 0
        self._projects: OrderedDict[ProjectName, _Project] = OrderedDict()
        self._flights = Flights()

    async def close(self) -> None:
        """End what is under way."""
        await self._flights.close()

    def ready(self, project: ProjectName, revision: str, form: Form) -> Finished | None:
        """The form, when it is there already."""
        shelved = self._projects.get(project)
        if shelved is None or shelved.revision != revision:
            return None
        self._projects.move_to_end(project)
        return shelved.forms.get(form)

    async def finished(self, project: ProjectName, page: Page, form: Form) -> Finished:
        """The form of `page`; uncompressed while the compressing of a large one goes on. Raises BrokenPage."""
        revision, (media, coding) = page.document.view.revision, form
        if (ready := self.ready(project, revision, form)) is not None:
            return ready
        plain = self.ready(project, revision, (media, IDENTITY)) or await self._rendered(project, page, media)
        if coding == IDENTITY or len(plain.body) < SMALLEST_TO_COMPRESS:
            return plain
        if len(plain.body) > LARGEST_AT_ONCE:
            self._flights.join((project, revision, form), lambda: self._compress_aside(project, revision, plain, form))
            return plain
        return self._put(project, revision, form, _compressed(plain, form))

    async def _rendered(self, project: ProjectName, page: Page, media: MediaType) -> Finished:
        if len(page.raw) <= LARGEST_AT_ONCE:
            return self._put(project, page.document.view.revision, (media, IDENTITY), _render(page.raw, media))
        key = (project, page.document.view.revision, (media, IDENTITY))
        return await asyncio.shield(self._flights.join(key, lambda: self._render_aside(project, page, media)))

    async def _render_aside(self, project: ProjectName, page: Page, media: MediaType) -> Finished:
        plain = await asyncio.to_thread(_render, page.raw, media)
        return self._put(project, page.document.view.revision, (media, IDENTITY), plain)

    async def _compress_aside(self, project: ProjectName, revision: str, plain: Finished, form: Form) -> Finished:
        return self._put(project, revision, form, await asyncio.to_thread(_compressed, plain, form))

    def _put(self, project: ProjectName, revision: str, form: Form, finished: Finished) -> Finished:
        """Shelve it, in the place of any other revision."""
        shelved = self._projects.get(project)
        if shelved is None or shelved.revision != revision:
            self._drop(project)
            shelved = self._projects[project] = _Project(revision)
        shelved.forms[form] = finished
        cost = len(finished.body) + _OVERHEAD
        shelved.cost += cost
        self.bytes_held += cost
        while self.bytes_held > self._max_bytes and self._projects:
            self._drop(next(iter(self._projects)))
        return finished

    def _drop(self, project: ProjectName) -> None:
        shelved = self._projects.pop(project, None)
        if shelved is not None:
            self.bytes_held -= shelved.cost


def _render(raw: bytes, media: MediaType) -> Finished:
    try:
        rendered = render(raw, media)
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BrokenPage(f"the bot's page cannot be rendered: {type(error).__name__} {error}") from error
    mark = fingerprint(rendered.body)
    headers = _headers(etag(mark, media, IDENTITY), media, IDENTITY)
    if rendered.last_serial is not None:
        headers["X-PyPI-Last-Serial"] = str(rendered.last_serial)
    return Finished(rendered.body, headers["ETag"], mark, headers)


def _compressed(plain: Finished, form: Form) -> Finished:
    """`plain` in another coding, or as it is when that gains nothing."""
    media, coding = form
    body = compress(plain.body, coding)
    if len(body) >= len(plain.body):
        return plain
    headers = plain.headers.copy()
    headers.update(_headers(etag(plain.fingerprint, media, coding), media, coding))
    return Finished(body, headers["ETag"], plain.fingerprint, headers)


def _headers(tag: str, media: MediaType, coding: Coding) -> CIMultiDict[str]:
    headers = CIMultiDict(
        {
            "Content-Type": str(media),
            "ETag": tag,
            "Vary": "Accept, Accept-Encoding",
            "X-Content-Type-Options": "nosniff",
        }
    )
    if coding != IDENTITY:
        headers["Content-Encoding"] = coding
    return headers
