"""A finished project document as installers read it: PEP 691 JSON, PEP 503 HTML as frozen at 1.4 (PEP 833), and the root index.

JSON keeps whatever upstream said, known to us or not, byte for byte; only what is ours alone is taken off and what a client would
act on wrongly is put right. In HTML every text from outside is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import Any, Final

import msgspec

from index_frontend.pages.negotiate import JSON, MediaType
from matrix_pypi_bot.wire.messages import PROVENANCE

API_VERSION: Final = "1.4"  # the newest whose fields we carry; more is passed through, but not claimed

_PRIVATE: Final = ("_decision", "_url")
_TO_ROOT: Final = "../.."  # from /simple/<project>/ to where /packages/ begins, whatever is in front of both
_OWN_PROVENANCE: Final = f"{_TO_ROOT}{PROVENANCE}/"
# `core-metadata` and its two older names; clients fall back from one to the next.
_METADATA_KEYS: Final = ("core-metadata", "dist-info-metadata", "data-dist-info-metadata")
_FALSE: Final = msgspec.Raw(b"false")
_NULL: Final = msgspec.Raw(b"null")
_HEX: Final = frozenset("0123456789abcdef")

_page = msgspec.json.Decoder(dict[str, msgspec.Raw])
_files = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_value = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Rendered:
    """A page's body, and upstream's serial when the document tells it."""

    body: bytes
    last_serial: int | None


def render(raw: bytes, media: MediaType) -> Rendered:
    """The document `raw`, as the bot sent it, in `media`. Raises msgspec.MsgspecError when it is not one."""
    page = _page.decode(raw)
    meta: dict[str, Any] = _value.decode(page.get("meta", b"{}"))
    serial = meta.get("_last-serial")
    last_serial = serial if isinstance(serial, int) and not isinstance(serial, bool) else None
    body = _json(page, meta) if media == JSON else _html(page, meta)
    return Rendered(body, last_serial)


def root_start(media: MediaType) -> bytes:
    """What comes before the first name of the root index."""
    if media == JSON:
        return b'{"meta":{"api-version":"%s"},"projects":[' % API_VERSION.encode()
    return _head("Simple index", API_VERSION, ()).encode()


def root_names(names: Iterable[str], media: MediaType, *, first: bool) -> bytes:
    """A run of the root index's names; `first` whether none came before them."""
    if media == JSON:
        entries = b",".join(_encoder.encode({"name": name}) for name in names)
        return entries if first or not entries else b"," + entries
    return _ascii("".join(f'<a href="{escape(name)}/">{escape(name)}</a><br />\n' for name in names))


def root_end(media: MediaType) -> bytes:
    """What comes after the last name of the root index."""
    return b"]}" if media == JSON else b"</body>\n</html>\n"


def _json(page: dict[str, msgspec.Raw], meta: dict[str, Any]) -> bytes:
    claimed = _claimed(meta)
    if meta.get("api-version") != claimed:
        entries = _page.decode(page.get("meta", b"{}"))
        page["meta"] = msgspec.Raw(_encoder.encode(entries | {"api-version": msgspec.Raw(_encoder.encode(claimed))}))
    page.pop("_view", None)
    entries_of_files = _files.decode(page.get("files", b"[]"))
    for entry in entries_of_files:
        _finish_entry(entry)
    page["files"] = msgspec.Raw(_encoder.encode(entries_of_files))
    return _encoder.encode(page)


def _finish_entry(entry: dict[str, msgspec.Raw]) -> None:
    """Take off what is ours, point `url` at ourselves, and advertise only what can be had."""
    for key in _PRIVATE:
        entry.pop(key, None)
    path: str = _value.decode(entry.pop("_path"))
    entry["url"] = msgspec.Raw(_encoder.encode(_TO_ROOT + path))
    for key in _METADATA_KEYS:
        if key in entry and _sha256_of(_value.decode(entry[key])) is None:
            entry[key] = _FALSE
    if "provenance" in entry and _provenance(_value.decode(entry["provenance"])) is None:
        entry["provenance"] = _NULL


def _html(page: dict[str, msgspec.Raw], meta: dict[str, Any]) -> bytes:
    name = str(_value.decode(page["name"]))
    status = _value.decode(page.get("project-status", b"null"))
    lines = [_head(f"Links for {name}", _claimed(meta), _status_metas(status)), f"<h1>Links for {escape(name)}</h1>\n"]
    lines += [_anchor(entry) for entry in _value.decode(page.get("files", b"[]"))]
    return _ascii("".join(lines)) + root_end(MediaType("text/html"))


def _head(title: str, version: str, metas: Iterable[str]) -> str:
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="pypi:repository-version" content="{version}">\n{"".join(metas)}'
        f"<title>{escape(title)}</title>\n</head>\n<body>\n"
    )


def _status_metas(status: object) -> list[str]:
    """PEP 792: the project's status and its reason."""
    if not isinstance(status, dict):
        return []
    pairs = (("pypi:project-status", status.get("status")), ("pypi:project-status-reason", status.get("reason")))
    return [
        f'<meta name="{name}" content="{escape(content)}">\n' for name, content in pairs if isinstance(content, str)
    ]


def _anchor(entry: dict[str, Any]) -> str:
    hashes = entry["hashes"]
    algorithm = "sha256" if "sha256" in hashes else next(iter(hashes), None)
    fragment = f"#{algorithm}={hashes[algorithm]}" if algorithm else ""
    attributes = {"href": f"{_TO_ROOT}{entry['_path']}{fragment}"}
    requires = entry.get("requires-python")
    if isinstance(requires, str) and requires:
        attributes["data-requires-python"] = requires
    yanked = entry.get("yanked", False)
    if isinstance(yanked, str) or yanked is True:
        attributes["data-yanked"] = yanked if isinstance(yanked, str) else ""
    metadata = next((entry[key] for key in _METADATA_KEYS if key in entry), None)
    if (digest := _sha256_of(metadata)) is not None:
        # PEP 714: the old name beside the new one, with the same value.
        attributes["data-core-metadata"] = attributes["data-dist-info-metadata"] = f"sha256={digest}"
    if (provenance := _provenance(entry.get("provenance"))) is not None:
        attributes["data-provenance"] = provenance
    written = " ".join(f'{key}="{escape(value)}"' for key, value in attributes.items())
    return f"<a {written}>{escape(entry['filename'])}</a><br />\n"


def _claimed(meta: dict[str, Any]) -> str:
    """The version to claim: the document's own, but none above ours. A bare 1.0 stays: its upstream gave no fields of later ones."""
    version = str(meta.get("api-version", "1.0"))
    major, _, minor = version.partition(".")
    known = major == "1" and minor.isascii() and minor.isdigit() and len(minor) < 4
    return version if known and int(minor) <= int(API_VERSION.partition(".")[2]) else API_VERSION


def _sha256_of(metadata: object) -> str | None:
    """The digest that a client can check the METADATA against. Advertised without one it is a trap: there is no way back for pip."""
    digest = metadata.get("sha256") if isinstance(metadata, dict) else None
    return digest if isinstance(digest, str) and len(digest) == 64 and _HEX.issuperset(digest) else None


def _provenance(value: object) -> str | None:
    """An https address, or one of the bot's own documents, which we pass on (handlers/provenance.py)."""
    return value if isinstance(value, str) and value.startswith(("https://", _OWN_PROVENANCE)) else None


def _ascii(text: str) -> bytes:
    """`text` as ASCII: whatever charset a reader assumes, it reads the same."""
    return text.encode("ascii", "xmlcharrefreplace")
