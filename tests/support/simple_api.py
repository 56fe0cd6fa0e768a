"""What a client reads out of an answer of the Simple API."""

from __future__ import annotations

import gzip
from html.parser import HTMLParser

import zstandard

from tests.support.http_client import Reply


class Page(HTMLParser):
    """The anchors and meta tags of an HTML page."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.anchors: list[dict[str, str | None]] = []
        self.meta: dict[str | None, str | None] = {}
        self.feed(body.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        if tag == "a":
            self.anchors.append(told)
        if tag == "meta":
            self.meta[told.get("name")] = told.get("content")


def unpacked(reply: Reply) -> bytes:
    """The body without its content encoding."""
    unpack = {"gzip": gzip.decompress, "zstd": zstandard.ZstdDecompressor().decompressobj().decompress}
    encoding = reply.headers.get("content-encoding")
    return reply.body if encoding is None else unpack[encoding](reply.body)


def max_age(reply: Reply) -> int:
    """The seconds for which a cache may keep the answer."""
    ages = [part.strip() for part in reply.headers["cache-control"].split(",") if "max-age=" in part]
    return int(ages[0].partition("=")[2])
