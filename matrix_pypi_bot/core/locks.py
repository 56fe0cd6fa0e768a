"""Lock files as lists of what they let an installer take: requirements with hashes, `pylock.toml` (PEP 751), `uv.lock`.

What cannot be checked is listed too, with the reason: a line that was skipped in silence would look like one that was verified.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from packaging.pylock import Package, PackageArchive, PackageSdist, PackageWheel, Pylock, PylockValidationError
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from matrix_pypi_bot.wire.digests import InvalidDigest, Sha256, parse_sha256
from matrix_pypi_bot.wire.names import FileName, InvalidName, ProjectName, normalise_project, parse_file_name
from matrix_pypi_bot.wire.problems import Problem, ProblemCode, clean_line

MAX_LOCK_BYTES: Final = 64 << 20
MAX_WANTED: Final = 100_000

_LINE: Final = re.compile(r"(?<!\S)#.*")
_CONTINUED: Final = re.compile(r"\\(?:\n|\Z)")
_OPTION: Final = re.compile(r"\s(?=-)")
_INCLUDES: Final = frozenset({"-r", "--requirement"})
_FLAGS: Final = frozenset({"--no-index", "--prefer-binary", "--pre", "--require-hashes"})
_PLACES: Final = frozenset({"-i", "--index-url", "--extra-index-url", "-f", "--find-links", "-c", "--constraint"})
_SKIPPED: Final = _FLAGS | _PLACES | {"--no-binary", "--only-binary", "--trusted-host", "--use-feature"}
"""Options that change nothing where there are hashes. All others are refused, also because pip takes abbreviations of them."""
_OF_REQUIREMENTS: Final = frozenset({"--hash", "--config-settings", "--global-option"})
_URL_FILE: Final = re.compile(r"/([^/?#]+)(?:[?#].*)?\Z")

Toml: TypeAlias = Mapping[str, object]


class UnreadableLock(Problem):
    """A text that is none of the lock files that are understood."""

    code = ProblemCode.BAD_REQUEST


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One thing that the lock names. `hashes` are the digests that it accepts, one of them when it names the `file`.

    Without hashes it only names a version. `unchecked` says why it cannot be checked at all.
    """

    project: ProjectName
    version: str | None
    file: FileName | None = None
    hashes: frozenset[Sha256] = field(default_factory=frozenset)
    unchecked: str = ""


def read_lock(name: str, data: bytes) -> list[Wanted]:
    """What the lock file `name` holds, by its name: `uv.lock`, `*.toml` (a pylock), anything else as requirements.

    Raises UnreadableLock.
    """
    if len(data) > MAX_LOCK_BYTES:
        raise UnreadableLock(f"{clean_line(name)} is larger than {MAX_LOCK_BYTES} bytes")
    try:
        text = data.decode()
        found = list(_read(name, text))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, PylockValidationError, RecursionError) as error:
        raise UnreadableLock(f"{clean_line(name)} cannot be read: {clean_line(str(error))}") from error
    if len(found) > MAX_WANTED:
        raise UnreadableLock(f"{clean_line(name)} names more than {MAX_WANTED} files")
    return found


def pinned_version(text: str) -> Wanted | None:
    """What `NAME==VERSION` asks for; None when it is not that."""
    name, separator, version = text.partition("==")
    if not separator:
        return None
    try:
        return Wanted(project=normalise_project(name.strip()), version=str(Version(version.strip())))
    except (InvalidName, InvalidVersion):
        return None


def _read(name: str, text: str) -> Iterator[Wanted]:
    if name == "uv.lock":
        return _uv(tomllib.loads(text))
    if name.endswith(".toml"):
        return _pylock(tomllib.loads(text))
    return _requirements(text)


# ---- requirements ---------------------------------------------------------------------------------------------------


def _requirements(text: str) -> Iterator[Wanted]:
    """Lines end where pip lets them end, which is not only at a line feed: what a comment seems to hide may be a line of its own."""
    lines = _CONTINUED.sub(" ", _LINE.sub("", "\n".join(text.splitlines()))).split("\n")
    lines = [line for told in lines if (line := told.strip())]
    options = {name for line in lines if line.startswith("-") for name, _ in _options(line, _SKIPPED)}
    for line in lines:
        if line.startswith("-"):
            continue
        found = _requirement(line)
        if options & _PLACES and not found.hashes and not found.unchecked:
            found = replace(found, unchecked="has no hash, and the file names where to take it from")
        yield found


def _options(line: str, known: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Every option on the line and its value, as pip's parser finds them. Raises UnreadableLock for one that is not `known`."""
    try:
        words = iter(shlex.split(line))
    except ValueError as error:
        raise _unchecked(line) from error
    for word in words:
        name, is_joined, value = word.partition("=")
        if not word.startswith("--"):
            name, value = word[:2], word[2:]
        if name in _INCLUDES:
            raise UnreadableLock("a requirements file that includes another one", hint="name both: verify a.txt b.txt")
        if name not in known:
            raise _unchecked(line)
        if name not in _FLAGS and not is_joined and not value:
            value = next(words, "")
        yield name, value


def _unchecked(line: str) -> UnreadableLock:
    return UnreadableLock(f"this line cannot be checked: {clean_line(line, 100)}")


def _requirement(line: str) -> Wanted:
    text, *rest = _OPTION.split(line, maxsplit=1)
    try:
        told = Requirement(text.strip())
        project = normalise_project(told.name)
    except (InvalidRequirement, InvalidName) as error:
        raise UnreadableLock(f"not a requirement: {clean_line(line, 100)}") from error
    options = list(_options(" ".join(rest), _OF_REQUIREMENTS))
    if told.url is not None:
        return Wanted(project=project, version=None, unchecked="comes from an address of its own, not from the index")
    versions = [one.version for one in told.specifier if one.operator in ("==", "===") and "*" not in one.version]
    version = _version(versions[0]) if len(versions) == 1 else None
    hashes = frozenset(_digest(value) for name, value in options if name == "--hash")
    if version is None:
        return Wanted(project=project, version=None, hashes=hashes, unchecked="is not pinned to one version")
    return Wanted(project=project, version=version, hashes=hashes)


def _digest(text: str) -> Sha256:
    algorithm, _, digest = text.partition(":")
    try:
        if algorithm == "sha256":
            return parse_sha256(digest.lower())
    except InvalidDigest:
        pass
    raise UnreadableLock(f"only sha256 can be checked, found {clean_line(text, 80)}")


def _version(text: str) -> str | None:
    try:
        return str(Version(text))
    except InvalidVersion:
        return None


# ---- pylock.toml ----------------------------------------------------------------------------------------------------


def _pylock(document: Toml) -> Iterator[Wanted]:
    for package in Pylock.from_dict(document).packages:
        yield from _package(package)


def _package(package: Package) -> Iterator[Wanted]:
    project = ProjectName(package.name)
    version = str(package.version) if package.version is not None else None
    files: list[PackageWheel | PackageSdist] = [*(package.wheels or ())]
    if package.sdist is not None:
        files.append(package.sdist)
    if not files:
        kind = "an archive" if isinstance(package.archive, PackageArchive) else "a directory or a repository"
        yield Wanted(project=project, version=version, unchecked=f"comes from {kind}, not from the index")
    for file in files:
        yield _file(project, version, file.filename, file.hashes.get("sha256"))


# ---- uv.lock --------------------------------------------------------------------------------------------------------


def _uv(document: Toml) -> Iterator[Wanted]:
    for package in _tables(document.get("package")):
        name, version = package.get("name"), package.get("version")
        if not isinstance(name, str):
            raise UnreadableLock("uv.lock: a package without a name")
        project = normalise_project(canonicalize_name(name))
        told = _version(version) if isinstance(version, str) else None
        files = [*_tables(package.get("wheels")), *_tables([package["sdist"]] if "sdist" in package else [])]
        source = package.get("source")
        if not files or not (isinstance(source, dict) and "registry" in source):
            if isinstance(source, dict) and source.keys() & {"editable", "virtual"}:
                continue  # the project that is locked, and its own parts
            yield Wanted(project=project, version=told, unchecked="does not come from an index")
            continue
        for file in files:
            yield _file(project, told, _uv_name(file), _uv_hash(file))


def _uv_name(file: Toml) -> str:
    for key in ("filename", "url", "path"):
        if isinstance(value := file.get(key), str):
            found = _URL_FILE.search(f"/{value}")
            return found[1].replace("%2B", "+").replace("%21", "!") if found else value
    return ""


def _uv_hash(file: Toml) -> str | None:
    told = file.get("hash")
    return told.removeprefix("sha256:") if isinstance(told, str) and told.startswith("sha256:") else None


def _tables(value: object) -> list[Toml]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise UnreadableLock("uv.lock: a table was expected")
    return value


def _file(project: ProjectName, version: str | None, name: str, sha256: str | None) -> Wanted:
    try:
        file = parse_file_name(name)
    except InvalidName as error:
        return Wanted(project=project, version=version, unchecked=error.detail)
    if sha256 is None:
        return Wanted(project=project, version=version, file=file, unchecked="has no sha256 in the lock")
    try:
        return Wanted(project=project, version=version, file=file, hashes=frozenset({parse_sha256(sha256.lower())}))
    except InvalidDigest as error:
        raise UnreadableLock(f"{file}: {error.detail}") from error
