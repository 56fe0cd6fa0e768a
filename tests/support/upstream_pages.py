"""What the synthetic upstream's index says: a project's listing, and its PEP 691 and PEP 503 pages."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

from tests.support.dists import Dist

JSON = "application/vnd.pypi.simple.v1+json"
HTML = "application/vnd.pypi.simple.v1+html"
UPLOAD_TIME = "2024-01-02T03:04:05.678901Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file as the page lists it. `path` is where the file host has it, `extra` any further keys of the JSON entry."""

    dist: Dist
    path: str
    upload_time: str | None = UPLOAD_TIME
    yanked: bool | str = False
    provenance: str | None = None
    advertise_metadata: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Listing:
    """A project as the index knows it; `html_only` makes its page speak nothing but PEP 503, like an old index."""

    project: str
    serial: int = 1
    entries: dict[str, Entry] = field(default_factory=dict)
    status: str | None = None
    status_reason: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    html_only: bool = False
    api_version: str = "1.4"

    def files(self) -> list[Entry]:
        """The entries as they stand now; the server's thread reads them while a test changes them."""
        return list(self.entries.values())


def project_json(listing: Listing, files_url: str) -> bytes:
    """The PEP 691 document, with the keys that PyPI gives (PEP 592, 700, 714, 740, 792)."""
    document: dict[str, Any] = {
        "meta": {"api-version": listing.api_version, "_last-serial": listing.serial},
        "name": listing.project,
        "versions": sorted({entry.dist.version for entry in listing.files()}),
        "files": [_file_json(entry, files_url) for entry in listing.files()],
        **listing.extra,
    }
    if listing.status is not None:
        reason = {} if listing.status_reason is None else {"reason": listing.status_reason}
        document["project-status"] = {"status": listing.status, **reason}
    return json.dumps(document).encode()


def project_html(listing: Listing, files_url: str) -> bytes:
    """The PEP 503 page of the same."""
    meta = {"pypi:repository-version": listing.api_version}
    if listing.status is not None:
        meta["pypi:project-status"] = listing.status
    if listing.status_reason is not None:
        meta["pypi:project-status-reason"] = listing.status_reason
    head = "".join(f'<meta name="{name}" content="{html.escape(text)}">' for name, text in meta.items())
    anchors = "\n".join(_anchor(entry, files_url) for entry in listing.files())
    return f"<!DOCTYPE html>\n<html><head>{head}</head>\n<body>\n{anchors}\n</body></html>\n".encode()


def root_json(projects: Iterable[str]) -> bytes:
    """The PEP 691 list of projects."""
    names = [{"name": name} for name in projects]
    return json.dumps({"meta": {"api-version": "1.4"}, "projects": names}).encode()


def root_html(projects: Iterable[str]) -> bytes:
    """The PEP 503 list of projects."""
    anchors = "\n".join(f'<a href="/simple/{name}/">{name}</a>' for name in projects)
    return f"<!DOCTYPE html>\n<html><body>\n{anchors}\n</body></html>\n".encode()


def _file_json(entry: Entry, files_url: str) -> dict[str, Any]:
    dist = entry.dist
    core = {"sha256": dist.metadata_sha256} if _advertises_metadata(entry) else False
    told: dict[str, Any] = {
        "filename": dist.filename,
        "url": files_url + entry.path,
        "hashes": {"sha256": dist.sha256},
        "size": dist.size,
        "requires-python": dist.requires_python,
        "yanked": entry.yanked,
        "core-metadata": core,
        "data-dist-info-metadata": core,
        "provenance": None if entry.provenance is None else urljoin(files_url, entry.provenance),
    }
    if entry.upload_time is not None:
        told["upload-time"] = entry.upload_time
    return told | dict(entry.extra)


def _anchor(entry: Entry, files_url: str) -> str:
    dist = entry.dist
    attributes = {"href": f"{files_url}{entry.path}#sha256={dist.sha256}"}
    if dist.requires_python is not None:
        attributes["data-requires-python"] = dist.requires_python
    if _advertises_metadata(entry):
        attributes["data-core-metadata"] = attributes["data-dist-info-metadata"] = f"sha256={dist.metadata_sha256}"
    if entry.yanked is not False:
        attributes["data-yanked"] = "" if entry.yanked is True else entry.yanked
    if entry.provenance is not None:
        attributes["data-provenance"] = urljoin(files_url, entry.provenance)
    spelled = " ".join(f'{name}="{html.escape(text)}"' for name, text in attributes.items())
    return f"<a {spelled}>{html.escape(dist.filename)}</a><br>"


def _advertises_metadata(entry: Entry) -> bool:
    return entry.advertise_metadata and entry.dist.metadata is not None
