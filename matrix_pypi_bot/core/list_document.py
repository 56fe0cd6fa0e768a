"""The list that an index statement stands for: a project's files as one organisation saw them at upstream, a line each.

Its sha256 is the statement's root, so a list that is fetched from anybody is the one that was signed, or is thrown away.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from matrix_pypi_bot.core.index_file import IndexFile
from matrix_pypi_bot.core.limits import MAX_FILE_BYTES, MAX_PAGE_FILES, MAX_PAGE_TEXT_CHARACTERS
from matrix_pypi_bot.core.strict_json import canonical
from matrix_pypi_bot.wire.digests import InvalidDigest, parse_sha256
from matrix_pypi_bot.wire.names import FileName, InvalidName, parse_file_name

MAX_LIST_BYTES: Final = 6 << 20  # some 20,000 files; the largest project known lists about 12,000
_MAX_LINE_BYTES: Final = 16_384


class InvalidList(ValueError):
    """Bytes that are no list of files."""


class Listed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """One line. `core_metadata` is the digest of METADATA; what upstream did not tell is null."""

    filename: str
    sha256: str
    size: int | None
    requires_python: str | None
    upload_time: str | None
    yanked: bool | str
    core_metadata: str | None


def list_document(files: Iterable[IndexFile]) -> bytes:
    """The list of these files: canonical JSON objects, one a line, sorted by the bytes of the file name."""
    lines = {file.name: canonical(msgspec.to_builtins(_line(file))) for file in files}
    return b"".join(lines[name] + b"\n" for name in sorted(lines))


def read_list(body: bytes) -> dict[FileName, Listed]:
    """The files of a list. Raises InvalidList for anything that `list_document` would not write."""
    if len(body) > MAX_LIST_BYTES or (body and not body.endswith(b"\n")):
        raise InvalidList("too large, or cut")
    lines = body.split(b"\n")[:-1]
    if len(lines) > MAX_PAGE_FILES:
        raise InvalidList(f"more than {MAX_PAGE_FILES} files")
    found = dict(_read(line) for line in lines)
    if list(found) != sorted(found) or len(found) < len(lines):
        raise InvalidList("not sorted, or a file twice")
    return found


def _line(file: IndexFile) -> Listed:
    metadata = file.core_metadata
    return Listed(
        filename=file.name,
        sha256=file.sha256,
        size=file.size,
        requires_python=file.requires_python,
        upload_time=file.upload_time,
        yanked=file.yanked,
        core_metadata=None if isinstance(metadata, bool) else metadata,
    )


def _read(line: bytes) -> tuple[FileName, Listed]:
    if len(line) > _MAX_LINE_BYTES:
        raise InvalidList("a line that is too long")
    try:
        listed = msgspec.json.decode(line, type=Listed)
        name = parse_file_name(listed.filename)
        for digest in (listed.sha256, listed.core_metadata):
            if digest is not None:
                parse_sha256(digest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidName, InvalidDigest) as error:
        raise InvalidList(f"a line that is no file: {error}") from error
    texts = (listed.requires_python, listed.upload_time, listed.yanked)
    if any(isinstance(text, str) and len(text) > MAX_PAGE_TEXT_CHARACTERS for text in texts):
        raise InvalidList("a text that is too long")
    if listed.size is not None and not 0 <= listed.size <= MAX_FILE_BYTES:
        raise InvalidList("a size that cannot be")
    return name, listed
