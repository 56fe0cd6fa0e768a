"""PEP 503 HTML pages turned into the PEP 691 JSON that everything else reads. pypi-simple parses; no I/O happens here."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from matrix_pypi_bot.wire.names import InvalidName, ProjectName, parse_file_name

MAX_HTML_BYTES: Final = 16 << 20  # 12,000 files with every attribute take 6 MB; parsing costs 150 ms a megabyte
MAX_HTML_TAGS: Final = 300_000  # what the parser's time and memory grow with

_HASHES: Final = frozenset({"sha256", "sha512", "sha384", "sha224", "sha1", "md5"})


class NotAPage(ValueError):
    """HTML that is no project's page: too large, a login form, a version of the standard that nobody knows here."""


def page_from_html(project: ProjectName, html: bytes, *, page_url: str, charset: str | None) -> bytes:
    """The page as PEP 691 JSON with absolute file URLs. It claims version 1.0: HTML tells no sizes, so 1.1 would be a lie.

    `upload-time` is passed on where upstream gives it (`data-upload-time`). Raises NotAPage. Takes seconds for huge pages:
    run it in a thread.
    """
    if len(html) > MAX_HTML_BYTES or html.count(b"<") > MAX_HTML_TAGS:
        raise NotAPage("an HTML page too large to parse")
    from pypi_simple import RepositoryPage  # half a second's worth of libraries

    try:
        page = RepositoryPage.from_html(html, base_url=page_url, from_encoding=charset)
        files = [entry for link in page.links if (entry := _entry(link.text, link.url, link.attrs)) is not None]
        status = page.status.value if page.status is not None else None
    except Exception as error:  # the parser of other people's HTML: whatever it trips over is the page's fault
        raise NotAPage(f"HTML that cannot be read: {type(error).__name__}") from error
    if not files and page.repository_version is None:
        raise NotAPage("HTML that lists no files and does not say that it is an index page")
    document: dict[str, Any] = {"meta": {"api-version": "1.0"}, "name": project, "files": files}
    if status is not None:
        reason = {"reason": page.status_reason} if page.status_reason else {}
        document["project-status"] = {"status": status, **reason}
    return msgspec.json.encode(document)


def _entry(text: str, url: str, attributes: dict[str, Any]) -> dict[str, Any] | None:
    """One anchor as a file entry, None when its text is no file's name."""
    try:
        filename = parse_file_name(text)
    except InvalidName:
        return None
    address, _, fragment = url.partition("#")
    entry: dict[str, Any] = {"filename": filename, "url": address, "hashes": _hash(fragment)}
    if (requires := attributes.get("data-requires-python")) is not None:
        entry["requires-python"] = requires
    if (yanked := attributes.get("data-yanked")) is not None:
        entry["yanked"] = yanked or True
    if (uploaded := attributes.get("data-upload-time")) is not None:
        entry["upload-time"] = uploaded
    if (provenance := attributes.get("data-provenance")) is not None:
        entry["provenance"] = provenance
    metadata = attributes.get("data-core-metadata", attributes.get("data-dist-info-metadata"))
    if metadata is not None:
        entry["core-metadata"] = _hash(str(metadata)) or str(metadata).lower() == "true"
    return entry


def _hash(text: str) -> dict[str, str]:
    """`sha256=<hex>` as a PEP 691 hash object; empty for anything else."""
    name, _, digest = text.partition("=")
    return {name: digest} if name in _HASHES and digest else {}
