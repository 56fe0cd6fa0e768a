"""Distributions made in memory: real wheels and sdists that every installer accepts, the same bytes for the same arguments."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import random
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass

EPOCH = (2024, 1, 1, 0, 0, 0)
EPOCH_SECONDS = 1_704_067_200

# A build backend inside the sdist: building it needs no other package, so an offline test can.
BACKEND = """
import pathlib, zipfile

WHEEL = {wheel!r}
MEMBERS = {members!r}

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(pathlib.Path(wheel_directory, WHEEL), "w") as archive:
        for name, text in MEMBERS.items():
            archive.writestr(name, text)
    return WHEEL
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dist:
    """One file of a release. `metadata` is what `<filename>.metadata` serves; None for an sdist, which advertises none."""

    project: str
    version: str
    filename: str
    content: bytes
    metadata: bytes | None = None
    requires_python: str | None = None

    @property
    def sha256(self) -> str:
        """Hex sha256 of the content."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def metadata_sha256(self) -> str | None:
        """Hex sha256 of METADATA, None when there is none."""
        return None if self.metadata is None else hashlib.sha256(self.metadata).hexdigest()

    @property
    def path(self) -> str:
        """The path PyPI would give it: `/packages/aa/bb/<60 hex>/<filename>`, the hex being the blake2b-256 of the content."""
        digest = hashlib.blake2b(self.content, digest_size=32).hexdigest()
        return f"/packages/{digest[:2]}/{digest[2:4]}/{digest[4:]}/{self.filename}"

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.content)


def wheel(
    project: str,
    version: str = "1.0",
    *,
    requires: Iterable[str] = (),
    requires_python: str | None = None,
    tag: str = "py3-none-any",
    payload_bytes: int = 0,
    salt: str = "",
) -> Dist:
    """A wheel that installs a module of the project's name, with `payload_bytes` of incompressible data beside it.

    Another `salt` gives other bytes under the same file name: what a republished file looks like.
    """
    stem = f"{_module(project)}-{version}"
    metadata = _metadata(project, version, requires, requires_python)
    members = {
        f"{_module(project)}/__init__.py": f"__version__ = {version!r}\nSALT = {salt!r}\n".encode(),
        f"{_module(project)}/data.bin": random.Random(f"{project} {version} {tag} {salt}").randbytes(payload_bytes),
        f"{stem}.dist-info/METADATA": metadata,
        f"{stem}.dist-info/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    members[f"{stem}.dist-info/RECORD"] = _record(members, f"{stem}.dist-info/RECORD")
    return Dist(
        project=project,
        version=version,
        filename=f"{stem}-{tag}.whl",
        content=_zip(members),
        metadata=metadata,
        requires_python=requires_python,
    )


def sdist(project: str, version: str = "1.0", *, requires: Iterable[str] = (), salt: str = "") -> Dist:
    """An sdist that builds itself without any other package, so it installs from an index that has nothing else."""
    built = wheel(project, version, requires=requires, salt=salt)
    with zipfile.ZipFile(io.BytesIO(built.content)) as archive:
        members = {name: archive.read(name).decode() for name in archive.namelist()}
    stem = f"{_module(project)}-{version}"
    sources = {
        "PKG-INFO": _metadata(project, version, requires, None),
        "backend.py": BACKEND.format(wheel=built.filename, members=members).encode(),
        "pyproject.toml": b'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
    }
    content = _tar_gz({f"{stem}/{name}": data for name, data in sources.items()})
    return Dist(project=project, version=version, filename=f"{stem}.tar.gz", content=content)


def graph(prefix: str, count: int = 60) -> list[Dist]:
    """`count` wheels `<prefix>-000` … that all follow from the first: a binary tree with a cross link from each."""

    def name(index: int) -> str:
        return f"{prefix}-{index:03}"

    def children(index: int) -> list[int]:
        return [child for child in sorted({2 * index + 1, 2 * index + 2, index + 7}) if child < count]

    return [wheel(name(i), requires=[f"{name(child)}>=1.0" for child in children(i)]) for i in range(count)]


def _module(project: str) -> str:
    return project.replace("-", "_")


def _metadata(project: str, version: str, requires: Iterable[str], requires_python: str | None) -> bytes:
    lines = ["Metadata-Version: 2.1", f"Name: {project}", f"Version: {version}"]
    lines += [f"Requires-Python: {requires_python}"] if requires_python else []
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    return "".join(f"{line}\n" for line in lines).encode()


def _record(members: dict[str, bytes], own_name: str) -> bytes:
    def digest(data: bytes) -> str:
        return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()

    lines = [f"{name},sha256={digest(data)},{len(data)}\n" for name, data in members.items()]
    return "".join([*lines, f"{own_name},,\n"]).encode()


def _zip(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), data)
    return out.getvalue()


def _tar_gz(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), EPOCH_SECONDS
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()
