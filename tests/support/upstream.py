"""A synthetic package index on loopback: publishes what a test gives it, counts who asks, and misbehaves on demand.

Pages and files live on two ports, as PyPI's live on two hosts. It runs in a thread with a loop of its own, so that any test can
steer it while real servers and installers talk to it:

    upstream.publish(wheel("mxa"))
    upstream.break_files("truncated", wheel("mxa"), times=1)
    upstream.off()
    assert upstream.hits("GET", wheel("mxa")) == 1
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import socket
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from aiohttp import web

from tests.support import upstream_pages as pages
from tests.support.dists import Dist
from tests.support.upstream_faults import Answer, Fault, Hold, fault, well

T = TypeVar("T")
ALL_PAGES, ALL_FILES = "all pages", "all files"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One request as the upstream saw it; header names in lower case. `status` is the answer that was due, without any fault."""

    method: str
    path: str
    headers: dict[str, str]
    status: int


@dataclass(slots=True)
class _Broken:
    fault: Fault
    times: int | None


class Upstream:
    """The index. Use it as a context manager; `url` is what to give `--upstream`. Every method may be called from any thread.

    `like` another it is a second door to it: it lists and has the same, at addresses of its own, with faults and hits of its own, and
    is on or off by itself. So one mirror can lose the upstream that another still has.
    """

    def __init__(self, *, like: Upstream | None = None) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="upstream", daemon=True)
        self._reserved = [_reserved_port(), _reserved_port()]
        self._runner: web.AppRunner | None = None
        self._listings: dict[str, pages.Listing] = {} if like is None else like._listings
        self._files: dict[str, bytes] = {} if like is None else like._files
        self._broken: dict[str, _Broken] = {}
        self._hits: list[Hit] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._thread.start()
        self.on()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.off()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        for reserved in self._reserved:
            reserved.close()

    @property
    def origin(self) -> str:
        """Where the pages are, e.g. `http://127.0.0.1:4711`."""
        return _origin(self._reserved[0])

    @property
    def files_origin(self) -> str:
        """Where the files are: another port."""
        return _origin(self._reserved[1])

    @property
    def url(self) -> str:
        """The index URL, e.g. `http://127.0.0.1:4711/simple/`."""
        return f"{self.origin}/simple/"

    # What there is to install ------------------------------------------------------------------------------------------

    def publish(self, *dists: Dist, path: str | None = None, **told: Any) -> None:
        """Lists `dists`, in place of a file of the same name, and serves their bytes; `told` are fields of `pages.Entry`.

        `path` (for one dist) puts the file somewhere else than PyPI would.
        """
        for dist in dists:
            listing = self.listing(dist.project)
            entry = pages.Entry(dist=dist, path=path or dist.path, **told)
            self._files[entry.path] = dist.content
            if dist.metadata is not None:
                self._files[f"{entry.path}.metadata"] = dist.metadata
            listing.entries[dist.filename] = entry
            listing.serial += 1

    def prove(self, dist: Dist, document: bytes, **told: Any) -> None:
        """Lists a file with this provenance document, which lies on the file host; `told` as in `publish`."""
        path = f"/integrity/{dist.project}/{dist.filename}"
        self._files[path] = document
        self.publish(dist, provenance=path, **told)

    def listing(self, project: str) -> pages.Listing:
        """The project's listing, to change what its page says; made when there is none."""
        return self._listings.setdefault(project, pages.Listing(project=project))

    def remove(self, dist: Dist) -> None:
        """Takes a file off its page and off the file host, as PyPI does with malware."""
        listing = self._listings[dist.project]
        path = listing.entries.pop(dist.filename).path
        for name in (path, f"{path}.metadata"):
            self._files.pop(name, None)
        listing.serial += 1

    def remove_project(self, project: str) -> None:
        """The page answers 404 from now on; its files are gone as well."""
        for entry in list(self._listings[project].entries.values()):
            self.remove(entry.dist)
        del self._listings[project]

    def set_status(self, project: str, status: str, reason: str | None = None) -> None:
        """The PEP 792 status of a project."""
        listing = self.listing(project)
        listing.status, listing.status_reason = status, reason
        listing.serial += 1

    # How it misbehaves -------------------------------------------------------------------------------------------------

    def break_pages(self, how: str | Fault, project: str | None = None, *, times: int | None = None) -> None:
        """Pages (of `project`) answer with a fault of `upstream_faults`, `times` times or until `mend()`."""
        key = ALL_PAGES if project is None else f"/simple/{project}/"
        self._broken[key] = _Broken(fault(how), times)

    def break_files(self, how: str | Fault, dist: Dist | None = None, *, times: int | None = None) -> None:
        """The file host (or the one file) answers with a fault."""
        self._broken[ALL_FILES if dist is None else self.path_of(dist)] = _Broken(fault(how), times)

    def break_metadata(self, how: str | Fault, dist: Dist, *, times: int | None = None) -> None:
        """`<file>.metadata` answers with a fault."""
        self._broken[f"{self.path_of(dist)}.metadata"] = _Broken(fault(how), times)

    def corrupt(self, dist: Dist, *, times: int | None = None) -> None:
        """The file comes with a wrong first byte."""
        self.break_files("corrupt", dist, times=times)

    def hold(self, dist: Dist, *, after_bytes: int) -> Hold:
        """Transfers of the file stop after `after_bytes` until the test says `release()`."""
        held = Hold(self._loop, after_bytes)
        self.break_files(held, dist)
        return held

    def off(self) -> None:
        """Down: connections are refused, and those that stand are cut. Does nothing when it is off."""
        if self._runner is not None:
            self._run(self._runner.cleanup())
            self._runner = None

    def on(self) -> None:
        """Up again, on the same ports. Does nothing when it is on."""
        if self._runner is None:
            self._run(self._serve())

    def mend(self) -> None:
        """On, and without any fault."""
        self._broken.clear()
        self.on()

    # What it saw -------------------------------------------------------------------------------------------------------

    def hits(self, method: str, what: str | Dist) -> int:
        """How often `what` was asked for with `method`: a file, a path (`/…`), or a project's page."""
        return len([hit for hit in self.seen(what) if hit.method == method])

    def seen(self, what: str | Dist | None = None) -> list[Hit]:
        """Every request for `what` (None: every request), oldest first."""
        with self._lock:
            seen = list(self._hits)
        return seen if what is None else [hit for hit in seen if hit.path == self.path_of(what)]

    def forget(self) -> None:
        """Nobody has asked for anything."""
        with self._lock:
            self._hits.clear()

    def path_of(self, what: str | Dist) -> str:
        """The path of a file, of a project's page, or the path itself."""
        if isinstance(what, str):
            return what if what.startswith("/") else f"/simple/{what}/"
        entry = self.listing(what.project).entries.get(what.filename)
        return entry.path if entry is not None and entry.dist == what else what.path

    # The server --------------------------------------------------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        for reserved in self._reserved:
            await web.TCPSite(self._runner, *reserved.getsockname(), backlog=1024, reuse_address=True).start()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.rel_url.raw_path
        answer = self._page(request, path) if path.startswith("/simple/") else self._file(request, path)
        # Written down before it is sent: a client that has the answer finds its own request counted.
        with self._lock:
            self._hits.append(_hit(request, path, answer.status))
        return await self._fault(path)(request, answer)

    def _fault(self, path: str) -> Fault:
        everything = ALL_PAGES if path.startswith("/simple/") else ALL_FILES
        with self._lock:
            broken = self._broken.get(path) or self._broken.get(everything)
            if broken is None or broken.times == 0:
                return well
            if broken.times is not None:
                broken.times -= 1
            return broken.fault

    def _page(self, request: web.Request, path: str) -> Answer:
        project = path.removeprefix("/simple/").removesuffix("/")
        listing = self._listings.get(project)
        if project and (listing is None or not path.endswith("/")):
            return Answer(404)
        as_json = pages.JSON in request.headers.get("Accept", "") and not (listing and listing.html_only)
        if listing is None:
            body = (pages.root_json if as_json else pages.root_html)(self._listings)
        else:
            body = (pages.project_json if as_json else pages.project_html)(listing, self.files_origin)
        headers = {
            "Content-Type": pages.JSON if as_json else "text/html; charset=UTF-8",
            "ETag": _etag(body),
            "Vary": "Accept, Accept-Encoding",
            "Cache-Control": "max-age=600, public",
            **({"X-PyPI-Last-Serial": str(listing.serial)} if listing else {}),
        }
        if request.headers.get("If-None-Match") == headers["ETag"]:
            return Answer(304, headers)
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            body, headers["Content-Encoding"] = gzip.compress(body, 1, mtime=0), "gzip"
        return Answer(200, headers, body)

    def _file(self, request: web.Request, path: str) -> Answer:
        content = self._files.get(path)
        if content is None:
            return Answer(404)
        headers = {"Content-Type": "application/octet-stream", "ETag": _etag(content), "Accept-Ranges": "bytes"}
        wanted = request.http_range
        unchanged = request.headers.get("If-Range", headers["ETag"]) == headers["ETag"]
        if wanted.start is None or not unchanged:
            return Answer(200, headers, content)
        start, stop, _ = wanted.indices(len(content))
        told = f"bytes {start}-{stop - 1}/{len(content)}"
        return Answer(206, headers | {"Content-Range": told}, content[start:stop])


def _hit(request: web.Request, path: str, status: int) -> Hit:
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Hit(method=request.method, path=path, headers=headers, status=status)


def _etag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def _origin(reserved: socket.socket) -> str:
    host, port = reserved.getsockname()
    return f"http://{host}:{port}"


def _reserved_port() -> socket.socket:
    """A free loopback port, kept by a bound socket that never listens: so it can be refused for a while and be ours again."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved
