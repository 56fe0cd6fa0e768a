"""One file of an upstream page: what may be believed of its entry, read defensively."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from typing import Final, TypeGuard
from urllib.parse import urljoin

import msgspec

from matrix_pypi_bot.core.limits import (
    MAX_FILE_BYTES,
    MAX_PAGE_EXTRA_DEPTH,
    MAX_PAGE_TEXT_CHARACTERS,
    MAX_URL_CHARACTERS,
)
from matrix_pypi_bot.wire.digests import InvalidDigest, Sha256, parse_sha256
from matrix_pypi_bot.wire.names import (
    FileName,
    InvalidName,
    ProjectName,
    address_of_url,
    file_path,
    normalise_project,
    parse_file_name,
)

_KNOWN: Final = frozenset(
    {
        *("filename", "url", "hashes", "requires-python", "size", "upload-time", "yanked", "provenance", "gpg-sig"),
        *("core-metadata", "dist-info-metadata", "data-dist-info-metadata"),
        *("_decision", "_path", "_url"),  # ours: no upstream may speak for us
    }
)
_URL: Final = re.compile(  # no userinfo, no space, no backslash
    r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/[!-\[\]-~]*", re.ASCII
)
_CLIMBING: Final = re.compile(r"/(\.|%2e){1,2}([/?#]|\Z)", re.ASCII | re.IGNORECASE)
_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})"
)


class BadEntry(ValueError):
    """An entry that is left out; its text is one of a few fixed reasons, fit to be counted by."""


class IndexFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file as upstream's page names it. `url` is absolute, without fragment; `size` None where none is told.

    `core_metadata`: the digest of the file's METADATA, True when it exists without one, False when there is none. `extras` are
    the keys nobody knows here, as they came. `place` is the end of `url` where that is a path of our own layout, else empty.
    """

    name: FileName
    sha256: Sha256
    url: str
    size: int | None
    requires_python: str | None
    yanked: bool | str
    core_metadata: bool | Sha256
    upload_time: str | None
    provenance: str | None
    extras: dict[str, object]
    place: str = ""

    @property
    def path(self) -> str:
        """Where the file is found here, `/packages/aa/bb/<60 hex>/<file>`."""
        return self.place or file_path(self.address, self.name)

    @property
    def address(self) -> str:
        """The 64 hex digits under which the file is found here: upstream's own where it has such paths, else the sha256."""
        return address_of_url(self.url) or self.sha256


def parse_entry(entry: object, project: ProjectName, base_url: str) -> IndexFile:
    """A file entry of a project's page. Raises BadEntry."""
    if not isinstance(entry, dict):
        raise BadEntry("not an object")
    name = _name(entry.get("filename"), project)
    requires = entry.get("requires-python")
    if requires is not None and not _is_text(requires):
        raise BadEntry("requires-python")
    url = _url(entry.get("url"), base_url)
    address = address_of_url(url)
    path = file_path(address, name) if address is not None else ""
    return IndexFile(
        name=name,
        sha256=_sha256(entry.get("hashes")),
        url=url,
        size=_size(entry.get("size")),
        requires_python=requires,
        yanked=_yanked(entry.get("yanked", False)),
        core_metadata=_core_metadata(entry),
        upload_time=_upload_time(entry.get("upload-time")),
        provenance=_provenance(entry.get("provenance"), base_url),
        extras={} if _KNOWN.issuperset(entry) else extras_of(entry, _KNOWN),
        place=path if url.endswith(path) else "",
    )


def extras_of(found: Mapping[str, object], known: frozenset[str]) -> dict[str, object]:
    """The unknown keys whose values any JSON writer can write again; a key that is too deep or too large a number is dropped."""
    return {key: value for key, value in found.items() if key not in known and _passes(value, MAX_PAGE_EXTRA_DEPTH)}


def belongs(name: FileName, project: ProjectName) -> bool:
    """Whether a file of this name may stand on the project's page.

    A wheel's name tells exactly. Others are ambiguous in old names (`foo-1.0-beta.tar.gz`): what stands before the last
    hyphen is the project, or the name goes on with a digit after the project and a hyphen.
    """
    if name.endswith(".whl"):
        return _names(name.partition("-")[0], project)
    if name.endswith((".tar.gz", ".zip")) and _names(name.rpartition("-")[0], project):
        return True
    pieces = name.split("-")
    return any(
        pieces[end][:1].isdigit() and _names("-".join(pieces[:end]), project)
        for end in range(1, min(len(pieces), project.count("-") + 2))
    )


@functools.lru_cache(maxsize=4_096)  # a page's files begin with the same few stems
def _names(text: str, project: ProjectName) -> bool:
    try:
        return normalise_project(text) == project
    except InvalidName:
        return False


def _name(value: object, project: ProjectName) -> FileName:
    if not isinstance(value, str):
        raise BadEntry("filename")
    try:
        name = parse_file_name(value)
    except InvalidName as error:
        raise BadEntry("filename") from error
    if not belongs(name, project):
        raise BadEntry("another project's file")
    return name


def _sha256(hashes: object) -> Sha256:
    digest = hashes.get("sha256") if isinstance(hashes, dict) else None
    if not isinstance(digest, str):
        raise BadEntry("sha256")
    try:
        return parse_sha256(digest.lower())
    except InvalidDigest as error:
        raise BadEntry("sha256") from error


def _url(value: object, base_url: str) -> str:
    if not isinstance(value, str) or len(value) > MAX_URL_CHARACTERS:
        raise BadEntry("url")
    url = value.partition("#")[0]
    if not url.startswith(("https://", "http://")):
        try:
            url = urljoin(base_url, url)
        except ValueError as error:
            raise BadEntry("url") from error
    if not _URL.fullmatch(url) or (("/." in url or "/%" in url) and _CLIMBING.search(url)):
        raise BadEntry("url")
    return url


def _size(value: object) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= MAX_FILE_BYTES:
        raise BadEntry("size")
    return value


def _yanked(value: object) -> bool | str:
    if isinstance(value, bool) or value is None:
        return value is True
    if not _is_text(value):
        raise BadEntry("yanked")
    return value or True  # HTML yanks with an empty attribute (PEP 592), so JSON's empty reason is read the same way


def _core_metadata(entry: Mapping[str, object]) -> bool | Sha256:
    told = entry.get("core-metadata")
    if told is None:  # PEP 714: the older spellings, one of them by mistake
        told = entry.get("dist-info-metadata", entry.get("data-dist-info-metadata"))
    if isinstance(told, dict):
        try:
            return _sha256(told)
        except BadEntry:
            return False  # a METADATA that nobody can check is not advertised; the file itself is well
    return told is True


def _upload_time(value: object) -> str | None:
    return value if isinstance(value, str) and _TIME.fullmatch(value) else None


def is_provenance(value: str) -> bool:
    """Whether it is passed on: only an absolute https address; the client decides whether it calls there."""
    return value.startswith("https://") and _is_address(value)


def _is_address(value: str) -> bool:
    return len(value) <= MAX_URL_CHARACTERS and value.isascii() and value.isprintable() and " " not in value


def _provenance(value: object, base_url: str) -> str | None:
    """An address that we may ask, or pass on. An index that is read by plain http may name others of plain http, for us to ask."""
    if not isinstance(value, str) or not _is_address(value):
        return None
    http = base_url.startswith("http://") and value.startswith("http://")
    return value if http or value.startswith("https://") else None


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and len(value) <= MAX_PAGE_TEXT_CHARACTERS


def _passes(value: object, depth: int) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < 2**63
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return depth > 0 and all(_passes(one, depth - 1) for one in inner)
    return True
