"""The guarded HTTP client: every request whose address came from outside goes through here.

Public https only, unless the operator's own configuration opened exactly that scheme, host and port. A name is resolved once and
the connection goes to an address that was checked, so a second answer of the resolver cannot move it; every redirect hop is checked
like the first address; environment proxies are ignored unless one is configured.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, NewType

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from matrix_pypi_bot.wire.problems import Problem, ProblemCode, clean_line

Origin = NewType("Origin", str)  # "https://index.example:443": scheme, host and port, always with the port

MAX_REDIRECTS: Final = 5
MAX_URL_CHARACTERS: Final = 8190
RESOLVE_SECONDS: Final = 10.0  # two tries at a first name server that is dead take 5 s each
KEEPALIVE_SECONDS: Final = 15.0
"""How long an idle connection is kept, but never longer than half the read timeout: aiohttp 3.14 leaves the clock of that running
on a connection whose last body was read slower than it came, and when it runs out the next request on it fails at once."""

AHEAD_BYTES: Final = 65_536
"""Twice as much of a body is read before anybody asks for it."""

_CREDENTIALS: Final = re.compile(r"(?<=//)[^/?#]*@")
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class ForbiddenAddress(Problem):
    """An address that nobody configured and that is not public https."""

    code = ProblemCode.UPSTREAM_WRONG


class Unreachable(Problem):
    """No connection, no answer in time, or the transfer broke off."""

    code = ProblemCode.UPSTREAM_AWAY


def origin_of(url: str | URL) -> Origin:
    """`scheme://host:port` of an absolute http(s) URL. Raises ForbiddenAddress for anything else, userinfo included."""
    try:
        parsed = url if isinstance(url, URL) else URL(url)
        host, port = parsed.host, parsed.port
    except ValueError as error:
        raise ForbiddenAddress(f"not a URL: {_shown(url)}") from error
    if (
        parsed.scheme not in ("http", "https")
        or not host
        or not port
        or parsed.user is not None
        or parsed.password is not None
    ):
        raise ForbiddenAddress(f"not an http(s) address without credentials: {_shown(url)}")
    return Origin(f"{parsed.scheme}://{f'[{host}]' if ':' in host else host}:{port}")


def is_public(address: str) -> bool:
    """Whether an IP address is one that the public internet routes; IPv4 inside IPv6 is judged as the IPv4 it is."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if embedded is not None:
            return embedded.is_global and not embedded.is_multicast
        if ip in ipaddress.ip_network("64:ff9b::/96"):  # NAT64 carries an IPv4 address in its last 32 bits
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip.is_site_local:  # fec0::/10, long deprecated and never routed, is "global" to Python
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


class _GuardedResolver(AbstractResolver):
    """Resolves once and hands on only addresses that may be connected to."""

    def __init__(self, *, private_allowed: bool) -> None:
        self._private_allowed = private_allowed
        self._inner = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        async with asyncio.timeout(RESOLVE_SECONDS):  # aiohttp's time limits begin after it
            found = await self._inner.resolve(host, port, family)
        allowed = found if self._private_allowed else [entry for entry in found if is_public(entry["host"])]
        if not allowed:
            raise _NotPublicError(host)
        return allowed

    async def close(self) -> None:
        await self._inner.close()


class _NotPublicError(OSError):
    """Every address of the name is private; an OSError, because aiohttp carries those through the connector."""


class Outbound:
    """One guarded client with its connection pools; close it when done.

    Public and opened origins use separate pools: a connection that was opened for a configured private host can never be reused
    for a request that may only go to public addresses.
    """

    def __init__(
        self,
        *,
        user_agent: str,
        opened: Collection[Origin] = (),
        connect_timeout_seconds: float = 3.0,
        read_timeout_seconds: float = 10.0,
        proxy: str | None = None,
    ) -> None:
        self._opened = frozenset(opened)
        self._proxy = proxy
        self._user_agent = user_agent
        self._read_timeout_seconds = read_timeout_seconds
        self._timeout = aiohttp.ClientTimeout(
            total=None, connect=None, sock_connect=connect_timeout_seconds, sock_read=read_timeout_seconds
        )
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def close(self) -> None:
        """Closes every connection; idempotent."""
        sessions, self._sessions = list(self._sessions.values()), {}
        for session in sessions:
            await session.close()

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        opened: Collection[Origin] = (),
        total_seconds: float | None = None,
        max_redirects: int = MAX_REDIRECTS,
        ahead_bytes: int = AHEAD_BYTES,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The response to `url`, redirects followed, its body undecoded (`Content-Encoding` is the caller's to undo, under a cap).

        Twice `ahead_bytes` of the body may wait in memory; then the connection is read no further until somebody takes them.

        `opened` adds origins to those of the constructor for this request. Raises ForbiddenAddress before anything is sent to an
        address that may not be asked, Unreachable for every network failure, also while the body is read inside the block.
        """
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(total_seconds):
                    response = await self._ask(
                        stack, method, url, headers or {}, frozenset(opened), max_redirects, ahead_bytes
                    )
                    yield response
            except (TimeoutError, aiohttp.ClientError) as error:
                raise Unreachable(f"{_where(url)}: {_cause(error)}") from error

    async def _ask(
        self,
        stack: AsyncExitStack,
        method: str,
        url: str,
        headers: Mapping[str, str],
        opened: frozenset[Origin],
        redirects: int,
        ahead_bytes: int,
    ) -> aiohttp.ClientResponse:
        """The response's head. OSErrors are only translated here: inside the caller's block one may be about his own disk."""
        try:
            return await self._follow(stack, method, url, headers, self._opened | opened, redirects, ahead_bytes)
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, _NotPublicError):
                raise ForbiddenAddress(f"{_where(url)} is not a public address") from error
            raise Unreachable(f"{_where(url)}: {_cause(error.os_error)}") from error
        except aiohttp.InvalidURL as error:  # a host such as `2130706433`, which some resolvers take for an address
            raise ForbiddenAddress(f"not a URL: {_shown(url)}") from error
        except OSError as error:
            raise Unreachable(f"{_where(url)}: {_cause(error)}") from error

    async def _follow(
        self,
        stack: AsyncExitStack,
        method: str,
        url: str,
        headers: Mapping[str, str],
        opened: frozenset[Origin],
        hops_left: int,
        ahead_bytes: int,
    ) -> aiohttp.ClientResponse:
        """Asks, hop by hop, each address vetted before its request is made."""
        here = _parse(url)
        while True:
            private = self._vet(here, opened)
            response = await self._session(private).request(
                method,
                here,
                headers=dict(headers),
                allow_redirects=False,
                proxy=self._proxy,
                read_bufsize=ahead_bytes,
            )
            if response.status not in _REDIRECTS or "Location" not in response.headers:
                stack.callback(response.close)
                return response
            target = response.headers["Location"]
            response.close()
            if hops_left <= 0:
                raise ForbiddenAddress(f"{_where(url)} redirects more than {MAX_REDIRECTS} times")
            hops_left -= 1
            here = _parse(target, base=here)

    @staticmethod
    def _vet(url: URL, opened: frozenset[Origin]) -> bool:
        """Whether `url` may be a private address (its origin was opened). Raises ForbiddenAddress when it may not be asked at all."""
        if origin_of(url) in opened:
            return True
        if url.scheme != "https":
            raise ForbiddenAddress(f"{_where(url)} is not https and nobody configured it")
        try:
            literal_is_public = is_public(url.host or "")
        except ValueError:
            return False  # a name: the resolver judges its addresses
        if not literal_is_public:
            raise ForbiddenAddress(f"{_where(url)} is not a public address")
        return False

    def _session(self, private: bool) -> aiohttp.ClientSession:
        session = self._sessions.get(private)
        if session is None or session.closed:
            # With a proxy it is the proxy's name that is resolved here, which the operator configured.
            resolver = _GuardedResolver(private_allowed=private or self._proxy is not None)
            connector: Any = aiohttp.TCPConnector(
                resolver=resolver,
                use_dns_cache=False,
                limit=100,
                limit_per_host=50,
                keepalive_timeout=min(KEEPALIVE_SECONDS, self._read_timeout_seconds / 2),
            )
            session = self._sessions[private] = aiohttp.ClientSession(
                connector=connector,
                timeout=self._timeout,
                auto_decompress=False,
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": self._user_agent},
                max_line_size=8190,
                max_field_size=8190,
            )
        return session


def _parse(text: str, base: URL | None = None) -> URL:
    """An absolute URL, bytes of its path untouched. Raises ForbiddenAddress for what is not one."""
    if len(text) > MAX_URL_CHARACTERS:
        raise ForbiddenAddress(f"an address of {len(text)} characters")
    try:
        url = URL(text, encoded=True)
        url = base.join(url) if base is not None else url
    except ValueError as error:
        raise ForbiddenAddress(f"not a URL: {_shown(text)}") from error
    origin_of(url)
    return url.with_fragment(None)


def _shown(url: str | URL) -> str:
    """An address for a message, without credentials and query."""
    return clean_line(_CREDENTIALS.sub("", str(url)).partition("?")[0], 120)


def _where(url: str | URL) -> str:
    """Scheme, host and port for messages: never credentials, never a query."""
    try:
        return str(origin_of(url))
    except ForbiddenAddress:
        return "an address that is not http(s)"


def _cause(error: BaseException) -> str:
    """One short clean line of an exception, its type's name when it has no text."""
    return clean_line(str(error) or type(error).__name__, 120)
