"""File entries in the form that nearly all of them have, read in a few microseconds each: pages list up to thousands.

Whatever is unusual in an entry, or in the list, is left to `parse_entry`: this is a quicker way to the same answer, and a test
compares the two.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, UnsetType

from matrix_pypi_bot.core.index_file import IndexFile, belongs, is_provenance
from matrix_pypi_bot.core.limits import MAX_FILE_BYTES, MAX_PAGE_TEXT_CHARACTERS, MAX_URL_CHARACTERS
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName, ProjectName

_MAX_NAME_CHARACTERS: Final = 200
_NAME_CHARACTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._+!-"
_EXTENSIONS: Final = (".whl", ".tar.gz", ".zip")
_NOT_FIRST: Final = frozenset("._+!-")
_SHA256_CHARACTERS: Final = 64
_HEX: Final = b"0123456789abcdef"
_ORIGIN: Final = re.compile(r"https?://[A-Za-z0-9.-]+(?::[0-9]+)?", re.ASCII)
_HEX_AS_ZEROS: Final = bytes.maketrans(_HEX, b"0" * 16)
_DIGITS_AS_ZEROS: Final = bytes.maketrans(b"0123456789", b"0" * 10)
_PACKAGES: Final = "/packages/"
_PLACE_SHAPE: Final = f"{_PACKAGES}00/00/{'0' * 60}/".encode().translate(_HEX_AS_ZEROS)
_PLACE_CHARACTERS: Final = len(_PLACE_SHAPE)
_TIME: Final = re.compile(rb"0000-00-00T00:00:00(?:\.0{1,9})?Z")


class _Hashes(msgspec.Struct, frozen=True):
    sha256: str = ""


_Text = Annotated[str, msgspec.Meta(max_length=MAX_PAGE_TEXT_CHARACTERS)]
_Metadata = bool | _Hashes | UnsetType | None


class _Plain(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """An entry in which every key is known and has the type that it should have."""

    filename: str
    url: Annotated[str, msgspec.Meta(max_length=MAX_URL_CHARACTERS)]
    hashes: _Hashes
    requires_python: _Text | None = None
    size: Annotated[int, msgspec.Meta(ge=0, le=MAX_FILE_BYTES)] | None = None
    upload_time: str | None = None
    yanked: bool | _Text | None = False
    core_metadata: _Metadata = UNSET
    dist_info_metadata: _Metadata = UNSET
    data_dist_info_metadata: _Metadata = UNSET
    provenance: str | None = None
    gpg_sig: bool | None = None


_plain = msgspec.json.Decoder(list[_Plain])
_any = msgspec.json.Decoder(list[object])


def read_entries(files: msgspec.Raw, project: ProjectName) -> list[IndexFile | object]:
    """The entries of a page's `files`: each read, or, where something about it is unusual, as any JSON for `parse_entry`.

    Raises msgspec.DecodeError when it is no list, RecursionError.
    """
    try:
        entries = _plain.decode(files)
    except msgspec.ValidationError:
        return _any.decode(files)
    reader = _Reader(project)
    found = [reader.read(entry) or msgspec.to_builtins(entry) for entry in entries]
    return found if reader.all_plain() else _any.decode(files)


class _Reader:
    """Reads entries and gathers their parts, so that each kind of part is checked all together: that is what makes it quick."""

    def __init__(self, project: ProjectName) -> None:
        self._project = project
        self._stems: dict[str, bool] = {}  # whose a beginning of a name is
        self._names: list[str] = []
        self._origins: set[str] = set()
        self._places: list[str] = []
        self._digests: list[str] = []
        self._times: list[str] = []

    def read(self, entry: _Plain) -> IndexFile | None:
        """The file, true if `all_plain` says so in the end; None when the entry is unusual."""
        name, url, told, yanked, provenance = (
            entry.filename, entry.url, entry.core_metadata, entry.yanked, entry.provenance,
        )  # fmt: skip
        stem = name.partition("-")[0] if name.endswith(".whl") else name.rpartition("-")[0]
        mine = self._stems.get(stem)
        if mine is None:
            mine = self._stems[stem] = belongs(FileName(name), self._project)
        metadata = told.sha256 if type(told) is _Hashes else _other_metadata(entry)
        if (
            not mine
            or not name.endswith(_EXTENSIONS)
            or not url.endswith(name)
            or metadata is None
            or yanked == ""
            or (provenance is not None and not is_provenance(provenance))
        ):
            return None
        end = -len(name)
        start = end - _PLACE_CHARACTERS
        self._names.append(name)
        self._origins.add(url[:start])
        self._places.append(url[start:end])
        self._digests.append(entry.hashes.sha256)
        if not isinstance(metadata, bool):
            self._digests.append(metadata)
        if entry.upload_time is not None:
            self._times.append(entry.upload_time)
        return IndexFile(
            name=FileName(name),
            sha256=Sha256(entry.hashes.sha256),
            url=url,
            size=entry.size,
            requires_python=entry.requires_python,
            yanked=yanked or False,
            core_metadata=metadata if isinstance(metadata, bool) else Sha256(metadata),
            upload_time=entry.upload_time,
            provenance=provenance,
            extras={},
            place=url[start:],
        )

    def all_plain(self) -> bool:
        """Whether every name, digest, address and time that was read is as it should be."""
        return (
            self._are_names()
            and set(map(len, self._digests)) <= {_SHA256_CHARACTERS}
            and _consists_of("".join(self._digests), _HEX)
            and _shapes(self._places, _HEX_AS_ZEROS) <= {_PLACE_SHAPE}
            and {place[: len(_PACKAGES)] for place in self._places} <= {_PACKAGES}
            and all(map(_ORIGIN.fullmatch, self._origins))
            and all(map(_TIME.fullmatch, _shapes(self._times, _DIGITS_AS_ZEROS)))
        )

    def _are_names(self) -> bool:
        text = "\n".join(self._names)
        return (
            text.count("\n") == max(0, len(self._names) - 1)
            and ".." not in text
            and max(map(len, self._names), default=0) <= _MAX_NAME_CHARACTERS
            and _consists_of(text, _NAME_CHARACTERS + b"\n")
            and {name[:1] for name in self._names}.isdisjoint(_NOT_FIRST)
        )


def _consists_of(text: str, characters: bytes) -> bool:
    return not text.encode(errors="replace").translate(None, characters)


def _shapes(texts: list[str], zeros: bytes) -> set[bytes]:
    """The texts with digits as zeros: very few, when all are alike. Just the empty one when some text holds a NUL."""
    joined = "\0".join(texts)
    if joined.count("\0") > max(0, len(texts) - 1):
        return {b""}
    return set(joined.encode(errors="replace").translate(zeros).split(b"\0")) if texts else set()


def _other_metadata(entry: _Plain) -> bool | str | None:
    """What is told of the METADATA under the older keys (PEP 714), or without a digest."""
    told = entry.core_metadata
    if told is UNSET or told is None:
        told = entry.dist_info_metadata
        if told is UNSET:
            told = entry.data_dist_info_metadata
    return told.sha256 if isinstance(told, _Hashes) else told is True
