"""Names of projects, files, paths and rooms: what may enter, in which form, and how they follow from one another.

Every parser runs an ASCII gate before anything else: `packaging` alone accepts U+017F, Arabic digits, `../` and NUL
in file names. Whoever holds a `ProjectName`, a `FileName` or a `RoomAlias` need not check it again.
"""

from __future__ import annotations

import contextlib
import functools
import re
from dataclasses import dataclass
from typing import Final, NewType

from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version

from matrix_pypi_bot.wire.problems import Problem, ProblemCode

ProjectName = NewType("ProjectName", str)
"""A project name, normalised by PEP 503, e.g. `typing-extensions`. Minted by `parse_project` and `normalise_project`."""

FileName = NewType("FileName", str)
"""A distribution's file name that is safe to list, to store and to put into a header. Minted by `parse_file_name`."""

RoomAlias = NewType("RoomAlias", str)
"""The alias of a project's room, e.g. `#pypi_flask:org.example`. Minted by `room_alias` and `probe_alias`."""

MAX_PROJECT_CHARACTERS: Final = 214
MAX_FILE_CHARACTERS: Final = 255
MAX_ATTESTABLE_CHARACTERS: Final = 238  # 16 hex digits, a slash and the name fill a state key of 255 bytes
MAX_ALIAS_BYTES: Final = 255
MAX_CANDIDATES: Final = 8
MAX_TAGS: Final = (
    4_096  # `packaging` builds the product of a wheel's compressed tag sets; 255 characters can ask for 43,000
)

DISTRIBUTION_EXTENSIONS: Final = (
    ".whl", ".tar.gz", ".zip", ".egg", ".tar.bz2", ".tgz", ".exe", ".msi", ".rpm", ".tar.xz", ".tar.z", ".dmg", ".deb",
)  # fmt: skip
"""Lower-cased endings of the files that indexes have ever listed."""

_ATTESTABLE_EXTENSIONS: Final = (".whl", ".tar.gz", ".zip")
_METADATA_SUFFIX: Final = ".metadata"
_ALIAS_PREFIX: Final = "#pypi_"
_PROBE_PREFIX: Final = "#pypi-room_"

_PROJECT: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)
_NORMALISED: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*", re.ASCII)
_SEPARATORS: Final = re.compile(r"[-_.]+", re.ASCII)
_FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*", re.ASCII)
_PATH: Final = re.compile(r"/packages/([0-9a-f]{2})/([0-9a-f]{2})/([0-9a-f]{60})/([^/]+)", re.ASCII)
_ADDRESS: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_ESCAPES: Final = re.compile(r"%(2[Bb]|21)", re.ASCII)


class InvalidName(Problem, ValueError):
    """A text that is not the name it should be. The detail quotes at most 80 characters of it, in ASCII."""

    code = ProblemCode.INVALID_NAME


@dataclass(frozen=True, slots=True)
class FilePath:
    """`/packages/aa/bb/<60 hex>/<file>`, taken apart: `address` is the 64 hex digits, `metadata` whether `.metadata` followed.

    The address says where a file is found, never what it holds.
    """

    address: str
    file: FileName
    metadata: bool


def parse_project(text: str) -> ProjectName:
    """`text` as a project name; it must be normalised already. Raises InvalidName."""
    if len(text) > MAX_PROJECT_CHARACTERS or not _NORMALISED.fullmatch(text):
        raise InvalidName(f"{_quoted(text)} is not a normalised project name")
    return ProjectName(text)


def normalise_project(text: str) -> ProjectName:
    """`text` normalised as PEP 503 says, e.g. `My_Pkg` -> `my-pkg`. Raises InvalidName for what no project can be called."""
    if len(text) > MAX_PROJECT_CHARACTERS or not _PROJECT.fullmatch(text):
        raise InvalidName(f"{_quoted(text)} is not a project name")
    return ProjectName(_SEPARATORS.sub("-", text).lower())


def parse_file_name(text: str) -> FileName:
    """`text` as the name of a distribution file that is safe to list and to serve. Raises InvalidName."""
    if len(text) > MAX_FILE_CHARACTERS or not _FILE.fullmatch(text) or ".." in text:
        raise InvalidName(f"{_quoted(text)} is not a safe file name")
    if not text.lower().endswith(DISTRIBUTION_EXTENSIONS):
        raise InvalidName(f"{_quoted(text)} does not end like a distribution (.whl, .tar.gz, .zip, ...)")
    return FileName(text)


def is_attestable(name: str) -> bool:
    """Whether statements may be made about a file of this name; others pass through, never attested, never served offline."""
    return (
        len(name) <= MAX_ATTESTABLE_CHARACTERS
        and name.endswith(_ATTESTABLE_EXTENSIONS)
        and _FILE.fullmatch(name) is not None
        and ".." not in name
    )


@functools.lru_cache(maxsize=16_384)
def project_and_version(file: FileName) -> tuple[ProjectName, str]:
    """The project and `str(Version)` that a wheel's, `.tar.gz`'s or `.zip`'s name tells. Raises InvalidName for all others."""
    try:
        project, version = _parsed(file)
    except (InvalidWheelFilename, InvalidSdistFilename) as error:
        raise InvalidName(f"{_quoted(file)} does not tell a project and a version") from error
    return parse_project(project), str(version)


def candidate_projects(file: FileName) -> tuple[ProjectName, ...]:
    """The projects that a file of this name may belong to, best guess first, at most 8, perhaps none.

    Old names are ambiguous (`a-b-1.0-py2.7.egg`): every part that ends before a hyphen is a candidate, first of all
    what `packaging` says, then what stands before the first hyphen that a digit follows, then the longer ones first.
    """
    pieces = file.split("-")
    prefixes = ["-".join(pieces[:end]) for end in range(len(pieces) - 1, 0, -1)]
    before_digit = [prefix for prefix in reversed(prefixes) if file[len(prefix) + 1 : len(prefix) + 2].isdigit()]
    guesses: dict[ProjectName, None] = {}
    with contextlib.suppress(InvalidName):
        guesses[project_and_version(file)[0]] = None
    for prefix in (*before_digit[:1], *prefixes):
        if len(prefix) <= MAX_PROJECT_CHARACTERS and _PROJECT.fullmatch(prefix):
            guesses[normalise_project(prefix)] = None
    return tuple(guesses)[:MAX_CANDIDATES]


def room_alias(project: ProjectName, server: str) -> RoomAlias:
    """`#pypi_<project>:<server>`. Raises InvalidName when it is longer than Matrix allows (255 bytes)."""
    alias = f"{_ALIAS_PREFIX}{project}:{server}"
    if len(alias.encode()) > MAX_ALIAS_BYTES:
        raise InvalidName(f"the room alias of {project} would be longer than {MAX_ALIAS_BYTES} bytes")
    return RoomAlias(alias)


def probe_alias(project: ProjectName, server: str) -> RoomAlias:
    """`#pypi-room_<project>:<server>`: leads to the project's room if there is one, and never makes one. Raises InvalidName."""
    alias = f"{_PROBE_PREFIX}{project}:{server}"
    if len(alias.encode()) > MAX_ALIAS_BYTES:
        raise InvalidName(f"the alias to look for the room of {project} would be longer than {MAX_ALIAS_BYTES} bytes")
    return RoomAlias(alias)


def project_of_alias(alias: str, server: str) -> ProjectName | None:
    """The project whose room has this alias on `server`; None for every other alias, also for `#pypi_My.Pkg:...`."""
    return _project_between(_ALIAS_PREFIX, alias, server)


def project_of_probe(alias: str, server: str) -> ProjectName | None:
    """The project whose room is looked for by this alias on `server`; None for every other alias."""
    return _project_between(_PROBE_PREFIX, alias, server)


def _project_between(prefix: str, alias: str, server: str) -> ProjectName | None:
    ending = f":{server}"
    if not (
        alias.startswith(prefix) and alias.endswith(ending) and len(alias.encode(errors="replace")) <= MAX_ALIAS_BYTES
    ):
        return None
    try:
        return parse_project(alias[len(prefix) : -len(ending)])
    except InvalidName:
        return None


def parse_file_path(raw_path: str) -> FilePath:
    """The raw, undecoded path of a request for a file or its metadata, taken apart. Raises InvalidName.

    No percent escape is accepted but those of `+` and `!` in the file name: pip writes a local version's `+` as `%2B`.
    """
    match = _PATH.fullmatch(raw_path)
    if match is None:
        raise InvalidName(f"{_quoted(raw_path)} is not the path of a file")
    name = _unescaped(match[4])
    metadata = name.endswith(_METADATA_SUFFIX)
    return FilePath(match[1] + match[2] + match[3], parse_file_name(name.removesuffix(_METADATA_SUFFIX)), metadata)


def parse_escaped_file(text: str) -> FileName:
    """The file name at the end of a raw, undecoded path, in which `+` and `!` may be escaped. Raises InvalidName."""
    return parse_file_name(_unescaped(text))


def file_path(address: str, file: FileName) -> str:
    """`/packages/aa/bb/<60 hex>/<file>` for an address of 64 lower-case hex digits. Raises InvalidName for another address."""
    if not _ADDRESS.fullmatch(address):
        raise InvalidName(f"{_quoted(address)} is not an address of 64 hex digits")
    return f"/packages/{address[:2]}/{address[2:4]}/{address[4:]}/{file}"


def address_of_url(url: str) -> str | None:
    """The 64 hex digits of an upstream URL whose path ends in `packages/aa/bb/<60 hex>/<file>`, else None.

    None means that the caller takes the file's sha256 as its address.
    """
    path = url.partition("#")[0].partition("?")[0]
    start = path.rfind("/packages/")
    if start < 0 or path[start - 1 : start] == "/":  # `https://packages/...`: a host of that name
        return None
    match = _PATH.fullmatch(path, start)
    return None if match is None else match[1] + match[2] + match[3]


def _parsed(file: FileName) -> tuple[str, Version]:
    if not is_attestable(file):
        raise InvalidSdistFilename(file)
    if not file.endswith(".whl"):
        return parse_sdist_filename(file)
    tags = file.removesuffix(".whl").rsplit("-", 3)[1:]
    if functools.reduce(lambda product, part: product * (part.count(".") + 1), tags, 1) > MAX_TAGS:
        raise InvalidWheelFilename(file)
    return parse_wheel_filename(file)[:2]


def _unescaped(text: str) -> str:
    return _ESCAPES.sub(lambda escape: "+" if escape[1][1] in "Bb" else "!", text)


def _quoted(text: str) -> str:
    return ascii(text if len(text) <= 80 else text[:77] + "...")
