"""Addresses as origins: `scheme://host:port`, always with the port. Where a page says that its files are; where a gateway is."""

from __future__ import annotations

import logging
from typing import Final

from matrix_pypi_bot.core.index_document import IndexPage

log = logging.getLogger(__name__)

MAX_ORIGINS: Final = 16  # indexes name one or two hosts for files
_PORTS: Final = {"http": 80, "https": 443}
_MAX_PORT: Final = 65_535
_SHORTEST_HEAD: Final = len("http://x")


def origins_of_files(page: IndexPage) -> set[str]:
    """The origins of the page's files, at most 16 of them."""
    heads = {file.url[: file.url.index("/", _SHORTEST_HEAD)] for file in page.files.values()}
    found = {head: _origin(head) for head in sorted(heads)[:MAX_ORIGINS]}
    for head in [head for head, origin in found.items() if origin is None]:
        log.warning("page names a file at an odd address", extra={"project": page.project, "address": head})
    return {origin for origin in found.values() if origin is not None}


def origin_of_url(url: str) -> str | None:
    """The origin of an http(s) address without user, query and fragment; None for anything else."""
    if not (url.isascii() and url.isprintable()) or not {" ", "@", "?", "#", "\\"}.isdisjoint(url):
        return None
    scheme, _, rest = url.partition("://")
    return _origin(f"{scheme}://{rest.partition('/')[0]}") if scheme.lower() in _PORTS else None


def _origin(head: str) -> str | None:
    """The origin of `scheme://host` or `scheme://host:port`; None for an odd one."""
    scheme, _, rest = head.lower().partition("://")
    host, port = rest, str(_PORTS[scheme])
    if ":" in rest and not rest.endswith("]"):
        host, _, port = rest.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not host or (not bracketed and not {":", "[", "]"}.isdisjoint(host)):
        return None
    if not (port.isdigit() and len(port) <= len(str(_MAX_PORT)) and 0 < int(port) <= _MAX_PORT):
        return None
    return f"{scheme}://{host}:{int(port)}"
