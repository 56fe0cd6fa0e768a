"""A mirror as a client sees it that believes nothing it says: trust pages, index pages and files, in bounded size and time."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final, TypeVar
from urllib.parse import quote, urljoin, urlsplit

import msgspec

from matrix_pypi_bot.core.limits import MAX_FILE_BYTES, MAX_PAGE_BYTES
from matrix_pypi_bot.core.provenance import MAX_DOCUMENT_BYTES
from matrix_pypi_bot.process.command_line import NeededIsMissing
from matrix_pypi_bot.wire.digests import Sha256, parse_sha256
from matrix_pypi_bot.wire.messages import PROVENANCE, PROVENANCE_TYPE
from matrix_pypi_bot.wire.names import FileName, ProjectName, parse_file_name
from matrix_pypi_bot.wire.problems import clean_line
from matrix_pypi_bot.wire.trust import JSON_TYPE, TRUST, TrustFile, TrustProject

TIMEOUT_SECONDS: Final = 60.0  # without a byte
PAGE_SECONDS: Final = 120.0  # from the question to the last byte, however many come in between
FILE_SECONDS: Final = 3_600.0
MAX_TRUST_BYTES: Final = 16 << 20
_SIMPLE_JSON: Final = "application/vnd.pypi.simple.v1+json"
_CHUNK_BYTES: Final = 1 << 20
T = TypeVar("T")


class MirrorAway(NeededIsMissing):
    """A mirror that cannot be reached, or does not answer this now."""


class MirrorLies(Exception):
    """An answer that no honest mirror gives."""


class _ListedFile(msgspec.Struct):
    filename: str
    url: str
    hashes: dict[str, str]


class _Listing(msgspec.Struct):
    files: list[_ListedFile]


@dataclass(frozen=True, slots=True)
class Listed:
    """A file of the mirror's index page: its digest there, and where the page says that it is."""

    sha256: Sha256
    url: str


@dataclass(frozen=True, slots=True)
class Mirror:
    """The mirror at `address`, e.g. `https://mirror.example`, without a slash at the end."""

    address: str

    def project(self, project: ProjectName) -> TrustProject | None:
        """What it tells of the project; None when it knows none of this name. Raises MirrorAway, MirrorLies."""
        told = self._json(f"{TRUST}/{project}/", JSON_TYPE, MAX_TRUST_BYTES, TrustProject)
        if told is not None and told.project != project:
            raise MirrorLies(f"its trust page of {project} is that of another project")
        return told

    def file(self, project: ProjectName, file: FileName) -> TrustFile | None:
        """What it tells of the file, as `project` does."""
        told = self._json(f"{TRUST}/{project}/{quote(file)}", JSON_TYPE, MAX_TRUST_BYTES, TrustFile)
        if told is not None and (told.project, told.file) != (project, file):
            raise MirrorLies("its trust page is that of another file")
        return told

    def provenance(self, project: ProjectName, file: FileName) -> bytes | None:
        """The provenance document (PEP 740) that it shows of the file, as `project` does; not looked at."""
        with self._answer(f"{PROVENANCE}/{project}/{quote(file)}", PROVENANCE_TYPE) as answer:
            data = _read(answer, MAX_DOCUMENT_BYTES)
            if answer.status == http.client.NOT_FOUND:
                return None
            if answer.status != http.client.OK:
                raise MirrorAway(f"{self.address}: {_told(answer, data)}")
        if len(data) > MAX_DOCUMENT_BYTES:
            raise MirrorLies("its provenance document is too large")
        return data

    def listing(self, project: ProjectName) -> dict[FileName, Listed]:
        """The files on its index page; empty when it has none now. Raises MirrorAway, MirrorLies."""
        path = f"/simple/{project}/"
        told = self._json(path, _SIMPLE_JSON, MAX_PAGE_BYTES, _Listing)
        found: dict[FileName, Listed] = {}
        for one in told.files if told is not None else ():
            try:
                name, sha256 = parse_file_name(one.filename), parse_sha256(one.hashes.get("sha256", ""))
                found[name] = Listed(sha256, urljoin(self.address + path, one.url))
            except ValueError:  # a name, a digest or an address that is none
                continue
        return found

    def digest_of(self, listed: Listed) -> Sha256:
        """The sha256 of what it sends for a file. Raises MirrorAway when it does not send it, MirrorLies when it is somebody else's."""
        if not listed.url.startswith(f"{self.address}/"):
            raise MirrorLies("its page names a file elsewhere")
        digest, count = hashlib.sha256(), 0
        with self._answer(listed.url.removeprefix(self.address), "*/*", FILE_SECONDS) as answer:
            if answer.status != http.client.OK:
                raise MirrorAway(
                    f"{self.address} does not send the file: {clean_line(f'{answer.status} {answer.reason}')}"
                )
            for chunk in _chunks(answer):
                digest.update(chunk)
                count += len(chunk)
                if count > MAX_FILE_BYTES:
                    raise MirrorLies("it sends a file without an end")
        return Sha256(digest.hexdigest())

    def _json(self, path: str, accept: str, limit: int, kind: type[T]) -> T | None:
        with self._answer(path, accept) as answer:
            data = _read(answer, limit)
            if answer.status == http.client.NOT_FOUND:
                return None
            if answer.status != http.client.OK:
                raise MirrorAway(f"{self.address}: {_told(answer, data)}")
        if len(data) > limit:
            raise MirrorLies(f"its answer is larger than {limit} bytes")
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            raise MirrorLies(f"its answer makes no sense: {clean_line(str(error), 120)}") from error

    @contextmanager
    def _answer(self, path: str, accept: str, seconds: float | None = None) -> Iterator[http.client.HTTPResponse]:
        """Raises MirrorAway for whatever goes wrong on the way, also while the body is read, and when it takes too long in all."""
        split = urlsplit(self.address)
        kind = http.client.HTTPSConnection if split.scheme == "https" else http.client.HTTPConnection
        try:
            connection = kind(split.hostname or "", split.port, timeout=TIMEOUT_SECONDS)
            is_cut = threading.Event()
            timer = threading.Timer(seconds or PAGE_SECONDS, _cut, [connection, is_cut])
            timer.daemon = True
            timer.start()
            try:
                connection.request(
                    "GET", f"{split.path}{path}", headers={"Accept": accept, "User-Agent": "matrix-pypi"}
                )
                yield connection.getresponse()
                if is_cut.is_set():  # half a head, and a body whose length nobody told, look whole
                    raise http.client.HTTPException("it takes too long")
            finally:
                timer.cancel()
                connection.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            told = clean_line(str(error), 120) or type(error).__name__
            raise MirrorAway(f"{self.address} does not answer: {told}", hint="is the mirror running?") from error


def _chunks(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body. Raises HTTPException when it breaks off: what is cut short is no lie."""
    while chunk := answer.read(_CHUNK_BYTES):
        yield chunk
    if answer.length:
        raise http.client.HTTPException("the answer breaks off")


def _read(answer: http.client.HTTPResponse, limit: int) -> bytes:
    """The body; of one that is larger than `limit` bytes enough to tell."""
    data = bytearray()
    for chunk in _chunks(answer):
        data += chunk
        if len(data) > limit:
            break
    return bytes(data)


def _cut(connection: http.client.HTTPConnection, is_cut: threading.Event) -> None:
    """Whoever waits for the connection waits no longer."""
    is_cut.set()
    with suppress(OSError):
        if connection.sock is not None:
            connection.sock.shutdown(socket.SHUT_RDWR)


def _told(answer: http.client.HTTPResponse, data: bytes) -> str:
    """What a refusal says: its RFC 9457 body, or the status line."""
    try:
        return clean_line(str(json.loads(data[:100_000])["detail"]))
    except (ValueError, LookupError, TypeError, RecursionError):
        return clean_line(f"{answer.status} {answer.reason}")
