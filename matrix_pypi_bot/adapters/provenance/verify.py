"""Provenance documents verified by Sigstore's rules, offline, under the trusted root in the operator's file.

`Attestation.verify(offline=True)` of pypi-attestations is not used: it takes its root from a cache that anybody with the user's
rights may write. What this root or this version cannot know (a new log, another format) is no proof of forgery, and told apart from it.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from cryptography.x509 import Certificate, ExtensionNotFound, PrecertificateSignedCertificateTimestamps
from packaging.utils import parse_sdist_filename, parse_wheel_filename
from pypi_attestations import Attestation, AttestationBundle, AttestationType
from pypi_attestations import __version__ as attestations_version
from sigstore import __version__ as sigstore_version
from sigstore.errors import VerificationError
from sigstore.models import TrustedRoot
from sigstore.verify import Verifier

from matrix_pypi_bot.adapters.provenance.identity import NoPublisher, UnknownIssuer, publisher_of, stated
from matrix_pypi_bot.core.provenance import MAX_DOCUMENT_BYTES, Finding
from matrix_pypi_bot.core.publisher import Publisher
from matrix_pypi_bot.ports import NotProvenance
from matrix_pypi_bot.wire.digests import InvalidDigest, Sha256, parse_sha256, sha256_of
from matrix_pypi_bot.wire.names import FileName, parse_file_name, project_and_version
from matrix_pypi_bot.wire.problems import Problem, ProblemCode, clean_line

MAX_ATTESTATIONS: Final = 16  # of one document; two are usual
_KINDS: Final = frozenset({"GitHub", "GitLab", "Google", "CircleCI"})
_KNOWN_TYPES: Final = frozenset(kind.value for kind in AttestationType)
_HINT: Final = "see docs/operating.md, Provenance"
_MAX_REASON_CHARACTERS: Final = 200

T = TypeVar("T")


class _Invalid(Exception):
    """Something is wrong with an attestation."""


class _Unknown(Exception):
    """Nobody here can tell whether anything is wrong with it."""


@dataclass(frozen=True, slots=True)
class _Proof:
    """What one attestation proves of the file."""

    sha256: Sha256
    publisher: Publisher
    signed: int


class _Stated(msgspec.Struct, frozen=True):
    kind: str


class _Bundle(msgspec.Struct, frozen=True):
    """An attestation bundle as far as it is looked at before the libraries are."""

    publisher: _Stated
    attestations: list[dict[str, object]]


class _Document(msgspec.Struct, frozen=True):
    version: int
    attestation_bundles: list[dict[str, object]]


class _LogId(msgspec.Struct, frozen=True, rename={"key_id": "keyId"}):
    key_id: bytes


class _TransparencyLog(msgspec.Struct, frozen=True, rename={"log_id": "logId"}):
    log_id: _LogId


class _Logs(msgspec.Struct, frozen=True):
    """The ids of the logs in a trusted root file."""

    tlogs: list[_TransparencyLog]
    ctlogs: list[_TransparencyLog]


class SigstoreVerifier:
    """`ports.Verifier`. Documents are verified in a worker thread, one after the other: a document takes some milliseconds."""

    def __init__(self, root_file: Path) -> None:
        """Raises Problem (CONFIGURATION) for a file that cannot be read or is no trusted root."""
        try:
            raw = root_file.read_bytes()
            logs = msgspec.json.decode(raw, type=_Logs)
            trusted = TrustedRoot.from_file(str(root_file))
            self._verifier = Verifier(trusted_root=trusted)
            self._issuers = frozenset(certificate.subject for certificate in trusted.get_fulcio_certs())
        except Exception as error:  # the libraries raise what they like
            cause = clean_line(str(error) or type(error).__name__, _MAX_REASON_CHARACTERS)
            raise Problem(
                f"{root_file} is no trusted root of Sigstore: {cause}", hint=_HINT, code=ProblemCode.CONFIGURATION
            ) from error
        self._logs = frozenset(log.log_id.key_id for log in logs.tlogs)
        self._certificate_logs = frozenset(log.log_id.key_id for log in logs.ctlogs)
        self.root = f"{sha256_of(raw)} sigstore {sigstore_version} pypi-attestations {attestations_version}"
        self._turn = asyncio.Lock()

    async def document(self, file: FileName, raw: bytes) -> Finding:
        """See `ports.Verifier.document`."""
        return await self._in_thread(lambda: self._document(file, raw))

    async def bundle(self, file: FileName, bundle: Mapping[str, object]) -> Finding:
        """See `ports.Verifier.bundle`."""
        return await self._in_thread(lambda: self._told(file, [_bundle(bundle)]))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        async with self._turn:
            return await asyncio.to_thread(work)

    def _document(self, file: FileName, raw: bytes) -> Finding:
        if len(raw) > MAX_DOCUMENT_BYTES:
            raise NotProvenance(f"a document of {len(raw)} bytes")
        try:
            document = msgspec.json.decode(raw, type=_Document)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise NotProvenance(f"no document of PEP 740: {error}") from error
        if document.version != 1:
            return Finding(unknown=f"version {document.version} of the format is not known here")
        return self._told(file, [_bundle(bundle) for bundle in document.attestation_bundles])

    def _told(self, file: FileName, bundles: Sequence[tuple[_Bundle, Mapping[str, object]]]) -> Finding:
        try:
            proofs = list(self._proofs(file, bundles))
        except _Invalid as error:
            return Finding(fault=clean_line(str(error), _MAX_REASON_CHARACTERS) or "it fails")
        except _Unknown as error:
            return Finding(unknown=clean_line(str(error), _MAX_REASON_CHARACTERS) or "it is not known here")
        if not proofs:
            return Finding(unknown="it holds no attestation of a kind known here")
        digests = {proof.sha256 for proof in proofs}
        if len(digests) > 1:
            return Finding(fault="its attestations name different digests")
        return Finding(
            sha256=proofs[0].sha256,
            publishers=tuple(dict.fromkeys(proof.publisher for proof in proofs)),
            signed=max(proof.signed for proof in proofs),
        )

    def _proofs(self, file: FileName, bundles: Sequence[tuple[_Bundle, Mapping[str, object]]]) -> Iterator[_Proof]:
        """Of every attestation whose type is known. Raises _Invalid for the first that fails, _Unknown."""
        if sum(len(head.attestations) for head, _ in bundles) > MAX_ATTESTATIONS:
            raise _Unknown(f"it holds more than {MAX_ATTESTATIONS} attestations")
        for head, bundle in bundles:
            if head.publisher.kind not in _KINDS:
                raise _Unknown(f"publishers of kind {head.publisher.kind[:40]} are not known here")
            try:
                parsed = AttestationBundle.model_validate_json(json.dumps(bundle))
                told = stated(parsed.publisher)
            except Exception as error:
                raise _Invalid(f"a bundle that cannot be read: {error}") from error
            for attestation in parsed.attestations:
                proof = self._checked(file, attestation)
                if proof is None:
                    continue
                if not told.covers(proof.publisher):
                    raise _Invalid(f"it states {told} and was signed by {proof.publisher}")
                yield proof

    def _checked(self, file: FileName, attestation: Attestation) -> _Proof | None:
        """What one attestation proves; None for a type that is not known. Raises _Invalid, _Unknown."""
        try:
            entry = attestation.verification_material.transparency_entries[0]
            self._check_log(entry)
            bundle = attestation.to_bundle()
            self._check_authority(bundle.signing_certificate)
            identity = _Identity(attestation)
            _, payload = self._verifier.verify_dsse(bundle, identity)  # its type is what `to_bundle` says
            return _proof(file, payload, identity.publisher, int(entry["integratedTime"]))
        except (_Invalid, _Unknown):
            raise
        except UnknownIssuer as error:
            raise _Unknown(str(error)) from error
        except Exception as error:  # whatever libraries make of hostile input, it is no proof
            raise _Invalid(str(error) or type(error).__name__) from error

    def _check_log(self, entry: Mapping[str, object]) -> None:
        """Raises _Unknown for a transparency log that this root does not list, and for one that signs no time."""
        log_id = entry.get("logId")
        key_id = log_id.get("keyId") if isinstance(log_id, dict) else None
        if not isinstance(key_id, str) or base64.b64decode(key_id, validate=True) not in self._logs:
            raise _Unknown("the trusted root does not list its transparency log: is the file old?")
        if not entry.get("inclusionPromise") or not entry.get("integratedTime"):
            raise _Unknown("its log signs no time, and this version reads no other")

    def _check_authority(self, certificate: Certificate) -> None:
        """Raises _Unknown for an authority or a certificate log that this root does not list."""
        if certificate.issuer not in self._issuers:
            raise _Unknown("the trusted root does not list the authority of its certificate: is the file old?")
        try:
            timestamps = certificate.extensions.get_extension_for_class(PrecertificateSignedCertificateTimestamps).value
        except ExtensionNotFound as error:
            raise _Invalid("the certificate was never logged") from error
        if not {timestamp.log_id for timestamp in timestamps} <= self._certificate_logs:
            raise _Unknown("the trusted root does not list the log of its certificate: is the file old?")


class _Identity:
    """A policy of Sigstore's: the certificate names a publisher, which is then known."""

    def __init__(self, attestation: Attestation) -> None:
        self._attestation = attestation
        self._found: Publisher | None = None

    @property
    def publisher(self) -> Publisher:
        """Who signed."""
        assert self._found is not None, "asked after it was verified"
        return self._found

    def verify(self, cert: Certificate) -> None:
        """Raises VerificationError when it names none."""
        try:
            self._found = publisher_of(cert, self._attestation.certificate_claims)
        except NoPublisher as error:
            raise VerificationError(str(error)) from error


class _Digests(msgspec.Struct, frozen=True):
    sha256: str


class _Subject(msgspec.Struct, frozen=True):
    name: str
    digest: _Digests


class _Statement(msgspec.Struct, frozen=True, rename={"type": "_type", "predicate_type": "predicateType"}):
    type: str
    predicate_type: str
    subject: list[_Subject]


def _proof(file: FileName, payload: bytes, publisher: Publisher, signed: int) -> _Proof | None:
    statement = msgspec.json.decode(payload, type=_Statement)
    if statement.type != "https://in-toto.io/Statement/v1":
        raise _Invalid("it is no in-toto statement")
    if statement.predicate_type not in _KNOWN_TYPES:
        return None
    if len(statement.subject) != 1:
        raise _Invalid("it is not about one file")
    [subject] = statement.subject
    if not _is_same(subject.name, file):
        raise _Invalid(f"it is about {subject.name}")
    try:
        return _Proof(parse_sha256(subject.digest.sha256), publisher, signed)
    except InvalidDigest as error:
        raise _Invalid("it names no sha256") from error


def _is_same(name: str, file: FileName) -> bool:
    """Whether two names are one distribution's, however they are spelled (as pypi-attestations compares them)."""
    if name == file:
        return True
    if project_and_version(parse_file_name(name)) != project_and_version(file):  # looks at the number of tags, too
        return False
    if name.endswith(".whl") and file.endswith(".whl"):
        return parse_wheel_filename(name) == parse_wheel_filename(file)
    return (
        not name.endswith(".whl")
        and name[-4:] == file[-4:]
        and parse_sdist_filename(name) == parse_sdist_filename(file)
    )


def _bundle(value: Mapping[str, object]) -> tuple[_Bundle, Mapping[str, object]]:
    try:
        return msgspec.convert(value, _Bundle), value
    except msgspec.ValidationError as error:
        raise NotProvenance(f"no attestation bundle: {error}") from error
