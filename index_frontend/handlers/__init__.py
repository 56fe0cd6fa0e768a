"""Requests in: the raw path is taken apart and checked before anything is asked of anybody."""

from __future__ import annotations

from typing import Final, Protocol

from aiohttp import web

from index_frontend.handlers.index import PageHandler
from index_frontend.handlers.middleware import answering, problem_response
from index_frontend.handlers.operations import Metrics, Operations
from index_frontend.handlers.redirect import redirect
from index_frontend.handlers.root import RootHandler
from matrix_pypi_bot.wire.messages import LOG, PROVENANCE
from matrix_pypi_bot.wire.names import FilePath, ProjectName, normalise_project, parse_file_path
from matrix_pypi_bot.wire.problems import Problem, ProblemCode
from matrix_pypi_bot.wire.trust import TRUST

__all__ = ["BlockAnswers", "Dispatcher", "FileAnswers", "PublicAnswers"]

_SIMPLE: Final = "/simple/"
_PACKAGES: Final = "/packages/"
_IPFS: Final = "/ipfs/"
_LOG: Final = f"{LOG}/"
_TRUST: Final = f"{TRUST}/"
_PROVENANCE: Final = f"{PROVENANCE}/"
_OPERATIONS: Final = frozenset({"/healthz", "/readyz", "/metrics"})


class FileAnswers(Protocol):
    """Answers for files and their metadata."""

    async def handle(self, request: web.BaseRequest, path: FilePath) -> web.StreamResponse:
        """The file, a part of it, or why not. Raises Problem."""
        ...


class BlockAnswers(Protocol):
    """Answers of the trustless gateway."""

    async def handle(self, request: web.BaseRequest, rest: str, query: str) -> web.StreamResponse:
        """To `/ipfs/<rest>?<query>`. Raises Problem."""
        ...


class PublicAnswers(Protocol):
    """Answers of the bot's public pages."""

    async def handle(self, request: web.BaseRequest, page: str, query: str) -> web.StreamResponse:
        """To `/log/v1/<page>?<query>`, or what else the handler stands for. Raises Problem."""
        ...


class Dispatcher:
    """Every request, as `aiohttp.web.Server` hands it over: the router of an Application would cost as much as the page itself."""

    def __init__(
        self,
        *,
        pages: PageHandler,
        root: RootHandler,
        files: FileAnswers,
        blocks: BlockAnswers,
        public: PublicAnswers,
        trust: PublicAnswers,
        provenance: PublicAnswers,
        operations: Operations,
        metrics: Metrics,
        allowed_hosts: tuple[str, ...] = (),
    ) -> None:
        self._pages = pages
        self._root = root
        self._files = files
        self._blocks = blocks
        self._public = public
        self._trust = trust
        self._provenance = provenance
        self._operations = operations
        self._metrics = metrics
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """The answer, whatever happens. Raises ConnectionError when there is nobody left to answer."""
        ready = self._pages.ready(request)
        if ready is not None:
            self._metrics.answered("simple", ready.status, ready.cache)
            return ready
        response = await answering(self._routed, request)
        headers = response.headers
        source = headers.get("X-Matrix-PyPI-Cache") or headers.get("X-Matrix-PyPI-Source") or ""
        self._metrics.answered(_label(request.raw_path), response.status, source)
        return response

    async def _routed(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method not in ("GET", "HEAD"):
            return _read_only(request.method)
        self._check_host(request)
        path, _, query = request.raw_path.partition("?")
        if not path.startswith("/"):
            path = _origin_form(path)
        if path.startswith(_SIMPLE):
            return await self._simple(request, path.removeprefix(_SIMPLE), query)
        if path.startswith(_PACKAGES):
            return await self._files.handle(request, parse_file_path(path))
        if path.startswith(_IPFS):
            return await self._blocks.handle(request, path.removeprefix(_IPFS), query)
        if path.startswith(_LOG):
            return await self._public.handle(request, path.removeprefix(_LOG), query)
        if path.startswith(_TRUST):
            return await self._trust.handle(request, path.removeprefix(_TRUST), query)
        if path.startswith(_PROVENANCE):
            return await self._provenance.handle(request, path.removeprefix(_PROVENANCE), query)
        if path in _OPERATIONS:
            return await self._operations.handle(request, path[1:])
        if path in ("/simple", TRUST):
            return redirect(f"{path[1:]}/", query)
        raise _nothing_here()

    async def _simple(self, request: web.BaseRequest, rest: str, query: str) -> web.StreamResponse:
        """`rest` is what follows `/simple/`. A name that no project can have is never redirected to, nor asked about."""
        if not rest:
            return await self._root.handle(request, query)
        spelled = rest.removesuffix("/")
        if "/" in spelled:
            raise _nothing_here()
        project: ProjectName = normalise_project(spelled)
        if not rest.endswith("/"):
            return redirect(f"{project}/", query)
        if project != spelled:
            return redirect(f"../{project}/", query)
        return await self._pages.handle(request, project, query)

    def _check_host(self, request: web.BaseRequest) -> None:
        """Exactly one Host (RFC 9112 §3.2), and one of ours when we were told which those are: a name that an attacker
        points at this machine must not let his page in a browser read what is here.
        """
        hosts = request.headers.getall("Host", ())
        if len(hosts) != 1 and (hosts or request.version != (1, 0)):  # HTTP/0.9 has no headers, and no business here
            raise Problem("matrix-pypi: a request has exactly one Host", code=ProblemCode.BAD_REQUEST)
        if self._allowed_hosts and _without_port(hosts[0] if hosts else "") not in self._allowed_hosts:
            raise Problem("matrix-pypi: no index is served under this host name", code=ProblemCode.MISDIRECTED)


def _read_only(method: str) -> web.Response:
    told = f"matrix-pypi: this index is read-only, {method[:20]} is not for it"
    return problem_response(ProblemCode.METHOD_NOT_ALLOWED, told, headers={"Allow": "GET, HEAD"})


def _nothing_here() -> Problem:
    return Problem("matrix-pypi: nothing here, the index is at /simple/", code=ProblemCode.NOT_FOUND)


def _origin_form(target: str) -> str:
    """The path of an absolute-form request target, whose host means nothing to us (RFC 9112 §3.2.2)."""
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        raise Problem("matrix-pypi: the request target is not a path", code=ProblemCode.BAD_REQUEST)
    return "/" + rest.partition("/")[2]


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()


def _label(raw_path: str) -> str:
    """The route, for counting."""
    if raw_path.startswith(_SIMPLE):
        return "simple"
    if raw_path.startswith(_PACKAGES):
        return "packages"
    if raw_path.startswith(_IPFS):
        return "ipfs"
    if raw_path.startswith(_LOG):
        return "log"
    if raw_path.startswith(_TRUST):
        return "trust"
    if raw_path.startswith(_PROVENANCE):
        return "provenance"
    return "operations" if raw_path in _OPERATIONS else "other"
