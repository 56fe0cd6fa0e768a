"""A project's page as upstream sent it (PEP 691, 700, 714, 740, 792): a validated view that keeps what it does not know.

Damage to one entry costs that entry, which is counted; damage to the page costs the page. Of a key that occurs twice the last
one counts, and what leaves here is written anew from what was read, so nobody downstream can read it the other way.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from matrix_pypi_bot.core.index_file import BadEntry, IndexFile, extras_of, parse_entry
from matrix_pypi_bot.core.limits import MAX_INTEGER, MAX_PAGE_BYTES, MAX_PAGE_FILES, MAX_PAGE_TEXT_CHARACTERS
from matrix_pypi_bot.core.plain_entries import read_entries
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName, InvalidName, ProjectName, normalise_project

MAX_MINOR: Final = 4  # of the standard, 1.4: what this program knows how to keep a promise about

Status = Literal["active", "archived", "deprecated", "quarantined"]

_STATUSES: Final[dict[str, Status]] = {
    "active": "active",
    "archived": "archived",
    "deprecated": "deprecated",
    "quarantined": "quarantined",
}
_top = msgspec.json.Decoder(dict[str, msgspec.Raw])
_value = msgspec.json.Decoder()
_KNOWN: Final = frozenset({"meta", "name", "files", "versions", "project-status", "_view"})
_SERIAL: Final = re.compile(r"[0-9]{1,16}", re.ASCII)
_API_VERSION: Final = re.compile(r"1\.([0-9]{1,4})", re.ASCII)


class InvalidPage(ValueError):
    """A page that may not be believed as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexPage:
    """What upstream said of a project.

    `files` in upstream's order. `conflicted` are names that stood there with more than one digest: they are in no list and refused.
    `dropped` counts entries left out, by reason. `serial` is upstream's own counter. `minor`: the version of the standard that
    upstream claims is 1.`minor`.
    """

    project: ProjectName
    files: Mapping[FileName, IndexFile]
    conflicted: Mapping[FileName, frozenset[Sha256]]
    dropped: Mapping[str, int]
    status: Status
    status_reason: str | None
    serial: int | None
    minor: int
    versions: tuple[str, ...] | None
    extras: Mapping[str, object]

    @property
    def api_version(self) -> str:
        """What may be claimed of a page made from this one: sizes are mandatory from 1.1 on."""
        complete = all(file.size is not None for file in self.files.values())
        return f"1.{min(self.minor, MAX_MINOR)}" if complete else "1.0"


def parse_page(raw: bytes, project: ProjectName, *, base_url: str) -> IndexPage:
    """The page of `project` in PEP 691 JSON. `base_url` is the page's own address, for entries with relative ones.

    Raises InvalidPage: not JSON, not an object, too large or too deep, another project's, another major version, no list of
    files or one of more than 100,000, a status that cannot be read.
    """
    document, entries = _parts(raw, project)
    minor, serial = _meta(document.get("meta"))
    _check_name(document.get("name"), project)
    if len(entries) > MAX_PAGE_FILES:
        raise InvalidPage(f"files is no list of at most {MAX_PAGE_FILES}")
    files, conflicted, dropped = _files(entries, project, base_url)
    status, reason = _status(document.get("project-status"))
    return IndexPage(
        project=project,
        files=files,
        conflicted=conflicted,
        dropped=dropped,
        status=status,
        status_reason=reason,
        serial=serial,
        minor=minor,
        versions=_versions(document.get("versions")),
        extras=extras_of(document, _KNOWN),
    )


def parse_page_json(raw: bytes) -> dict[str, object]:
    """The JSON object in a page's body. Raises InvalidPage for everything else: NaN, bad UTF-8, thousands of brackets."""
    if len(raw) > MAX_PAGE_BYTES:
        raise InvalidPage(f"the page is larger than {MAX_PAGE_BYTES} bytes")
    with _as_invalid():
        return msgspec.json.decode(raw, type=dict[str, object])


def _parts(raw: bytes, project: ProjectName) -> tuple[dict[str, object], list[IndexFile | object]]:
    """The page without its files, and its files: read already, or as any JSON. Raises InvalidPage."""
    if len(raw) > MAX_PAGE_BYTES:
        raise InvalidPage(f"the page is larger than {MAX_PAGE_BYTES} bytes")
    with _as_invalid():
        parts = _top.decode(raw)
        files = parts.pop("files", None)
        document = {key: _value.decode(value) for key, value in parts.items()}
    if files is None:
        raise InvalidPage(f"files is no list of at most {MAX_PAGE_FILES}")
    with _as_invalid():
        return document, list(read_entries(files, project))


@contextlib.contextmanager
def _as_invalid() -> Iterator[None]:
    """What msgspec raises for a page that is none, as InvalidPage."""
    try:
        yield
    except RecursionError as error:
        raise InvalidPage("the page nests too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidPage(f"the page is no JSON object with a list of files: {error}") from error


def _meta(meta: object) -> tuple[int, int | None]:
    told = meta.get("api-version") if isinstance(meta, dict) else None
    match = _API_VERSION.fullmatch(told) if isinstance(told, str) else None
    if match is None or not isinstance(meta, dict):
        raise InvalidPage("the page is not of version 1 of the Simple API")
    serial = meta.get("_last-serial")
    if isinstance(serial, str) and _SERIAL.fullmatch(serial):  # some mirrors send it as text, like the header
        serial = int(serial)
    return int(match[1]), serial if type(serial) is int and 0 <= serial <= MAX_INTEGER else None


def _check_name(name: object, project: ProjectName) -> None:
    try:
        if isinstance(name, str) and normalise_project(name) == project:
            return
    except InvalidName as error:
        raise InvalidPage(error.detail) from error
    raise InvalidPage("the page is another project's")


def _files(
    entries: list[IndexFile | object], project: ProjectName, base_url: str
) -> tuple[dict[FileName, IndexFile], dict[FileName, frozenset[Sha256]], Counter[str]]:
    files: dict[FileName, IndexFile] = {}
    conflicted: dict[FileName, frozenset[Sha256]] = {}
    dropped: Counter[str] = Counter()
    for entry in entries:
        try:
            file = entry if isinstance(entry, IndexFile) else parse_entry(entry, project, base_url)
        except BadEntry as error:
            dropped[str(error)] += 1
            continue
        first = files.setdefault(file.name, file)
        if first.sha256 != file.sha256:
            conflicted[file.name] = conflicted.get(file.name, frozenset()) | {first.sha256, file.sha256}
    for name in conflicted:
        del files[name]
    return files, conflicted, dropped


def _status(value: object) -> tuple[Status, str | None]:
    """PEP 792. A status nobody knows reads as active, as the standard says; one that cannot be read costs the page."""
    if value is None:
        return "active", None
    told = value.get("status", "active") if isinstance(value, dict) else None
    reason = value.get("reason") if isinstance(value, dict) else None
    if not isinstance(told, str) or not (reason is None or isinstance(reason, str)):
        raise InvalidPage("the project's status cannot be read")
    return _STATUSES.get(told, "active"), reason[:MAX_PAGE_TEXT_CHARACTERS] if reason else None


def _versions(value: object) -> tuple[str, ...] | None:
    return tuple(value) if isinstance(value, list) and all(isinstance(one, str) for one in value) else None
