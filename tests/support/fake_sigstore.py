"""A Sigstore of our own: an authority, a certificate log and a transparency log, as small as the real verifier lets them be.

    sigstore = FakeSigstore()
    root_file.write_bytes(sigstore.trusted_root())
    document = sigstore.provenance(GITHUB, wheel.filename, wheel.sha256)

Everything is signed with keys made here, so that documents of any publisher on any digest can be had, and wrong ones too.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

import rfc8785
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pypi_attestations import AttestationType

from matrix_pypi_bot.core.publisher import Publisher

Json = dict[str, Any]
SIGNED: Final = 1_750_000_000  # when things are signed unless a test says otherwise: 2025-06-15
PUBLISH: Final = AttestationType.PYPI_PUBLISH_V1.value
SLSA: Final = AttestationType.SLSA_PROVENANCE_V1.value
GITHUB: Final = Publisher("github", "trailofbits/mxa", "release.yml")
EVIL: Final = Publisher("github", "mallory/mxa", "release.yml")

_SCTS: Final = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_FULCIO: Final = "1.3.6.1.4.1.57264.1."
_COMMIT: Final = "0" * 40
_SHA256: Final = ec.ECDSA(hashes.SHA256())


@cache
def _key(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _log_id(key: ec.EllipticCurvePrivateKey) -> bytes:
    return hashlib.sha256(_spki(key)).digest()


def _instant(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)


def _claims(publisher: Publisher) -> dict[str, str]:
    """Fulcio's extensions, by the last number of their OID."""
    repository, workflow = publisher.repository, publisher.workflow
    match publisher.issuer:
        case "github":
            home = f"https://github.com/{repository}"
            config = f"{home}/.github/workflows/{workflow}@refs/tags/v1"
            return {
                "8": "https://token.actions.githubusercontent.com",
                "12": home,
                "13": _COMMIT,
                "14": "refs/tags/v1",
                "18": config,
            }
        case "gitlab":
            home = f"https://gitlab.com/{repository}"
            config = f"{home}//{workflow}@{_COMMIT}"
            return {"8": "https://gitlab.com", "12": home, "13": _COMMIT, "14": "refs/tags/v1", "18": config}
        case "google":
            return {"8": "https://accounts.google.com"}
        case "circleci":
            pipeline = f"https://circleci.com/api/v2/projects/{repository}/pipeline-definitions/{workflow}"
            return {"8": "https://oidc.circleci.com", "9": pipeline}
        case other:
            return {"8": f"https://{other}.example"}


def _stated(publisher: Publisher) -> Json:
    """The publisher as a document states it."""
    repository, workflow = publisher.repository, publisher.workflow
    match publisher.issuer:
        case "github":
            return {"kind": "GitHub", "repository": repository, "workflow": workflow, "environment": None}
        case "gitlab":
            return {"kind": "GitLab", "repository": repository, "workflow_filepath": workflow, "environment": None}
        case "google":
            return {"kind": "Google", "email": repository}
        case "circleci":
            return {"kind": "CircleCI", "project_id": repository, "pipeline_definition_id": workflow}
        case other:
            return {"kind": other}


@dataclass(frozen=True, slots=True)
class FakeSigstore:
    """One instance; those of different names know nothing of one another's keys."""

    name: str = "sigstore"
    _made: dict[str, x509.Certificate] = field(default_factory=dict)

    def trusted_root(self) -> bytes:
        """The file that a verifier trusts."""
        since = {"validFor": {"start": "2020-01-01T00:00:00Z"}}

        def log(kind: str) -> Json:
            key = _key(f"{self.name} {kind}")
            return {
                "baseUrl": f"https://{kind}.{self.name}.example",
                "hashAlgorithm": "SHA2_256",
                "publicKey": {"rawBytes": _b64(_spki(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", **since},
                "logId": {"keyId": _b64(_log_id(key))},
            }

        authority = self._authority.public_bytes(serialization.Encoding.DER)
        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
                "tlogs": [log("rekor")],
                "ctlogs": [log("ctfe")],
                "certificateAuthorities": [
                    {
                        "subject": {"organization": self.name, "commonName": self.name},
                        "certChain": {"certificates": [{"rawBytes": _b64(authority)}]},
                        **since,
                    }
                ],
            }
        ).encode()

    def provenance(self, publisher: Publisher, file: str, sha256: str, **options: Any) -> bytes:
        """A document with one attestation; `options` as of `attestation`."""
        return document(self.bundle(publisher, file, sha256, **options))

    def bundle(self, publisher: Publisher, file: str, sha256: str, **options: Any) -> Json:
        """A bundle with one attestation."""
        return {
            "publisher": _stated(publisher),
            "attestations": [self.attestation(publisher, file, sha256, **options)],
        }

    def attestation(
        self, publisher: Publisher, file: str, sha256: str, *, signed: int = SIGNED, kind: str = PUBLISH, **more: Any
    ) -> Json:
        """An attestation as PyPI keeps it; `more` are fields of the statement."""
        statement = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": file, "digest": {"sha256": sha256}}],
            "predicateType": kind,
            "predicate": None,
            **more,
        }
        payload = json.dumps(statement).encode()
        leaf = _key(f"{self.name} {publisher}")
        certificate = self._certificate(publisher, leaf, signed)
        payload_type = b"application/vnd.in-toto+json"
        signature = leaf.sign(b"DSSEv1 %d %b %d %b" % (len(payload_type), payload_type, len(payload), payload), _SHA256)
        return {
            "version": 1,
            "verification_material": {
                "certificate": _b64(certificate.public_bytes(serialization.Encoding.DER)),
                "transparency_entries": [self._entry(certificate, payload, signature, signed)],
            },
            "envelope": {"statement": _b64(payload), "signature": _b64(signature)},
        }

    @property
    def _authority(self) -> x509.Certificate:
        if "authority" not in self._made:
            key = _key(f"{self.name} authority")
            name = _named(self.name)
            builder = x509.CertificateBuilder(
                issuer_name=name,
                subject_name=name,
                public_key=key.public_key(),
                serial_number=1,
                not_valid_before=_instant(1_500_000_000),
                not_valid_after=_instant(2_500_000_000),
            )
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
            builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
            builder = builder.add_extension(_skid(key), critical=False)
            self._made["authority"] = builder.sign(key, hashes.SHA256())
        return self._made["authority"]

    def _certificate(self, publisher: Publisher, key: ec.EllipticCurvePrivateKey, signed: int) -> x509.Certificate:
        """The publisher's, valid for ten minutes around the signing, with the promise of the certificate log in it."""
        authority, log = _key(f"{self.name} authority"), _key(f"{self.name} ctfe")
        builder = x509.CertificateBuilder(
            issuer_name=_named(self.name),
            subject_name=x509.Name([]),
            public_key=key.public_key(),
            serial_number=2,
            not_valid_before=_instant(signed - 300),
            not_valid_after=_instant(signed + 300),
        )
        builder = builder.add_extension(_usage(), critical=True)
        code_signing = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
        builder = builder.add_extension(code_signing, critical=False)
        builder = builder.add_extension(_skid(key), critical=False)
        above = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
        builder = builder.add_extension(above, critical=False)
        subject: x509.GeneralName = x509.UniformResourceIdentifier("https://builds.example/workflow")
        if publisher.issuer == "google":
            subject = x509.RFC822Name(publisher.repository)
        builder = builder.add_extension(x509.SubjectAlternativeName([subject]), critical=True)
        for number, text in _claims(publisher).items():
            oid = x509.ObjectIdentifier(_FULCIO + number)
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, _utf8(text)), critical=False)
        before = builder.sign(authority, hashes.SHA256()).tbs_certificate_bytes
        moment = struct.pack("!Q", signed * 1000)
        entry = hashlib.sha256(_spki(authority)).digest() + len(before).to_bytes(3) + before
        promise = log.sign(b"\0\0" + moment + b"\0\1" + entry + b"\0\0", _SHA256)
        sct = b"\0" + _log_id(log) + moment + b"\0\0" + b"\4\3" + struct.pack("!H", len(promise)) + promise
        several = struct.pack("!HH", len(sct) + 2, len(sct)) + sct
        value = _tagged(4, several)
        return builder.add_extension(x509.UnrecognizedExtension(_SCTS, value), critical=False).sign(
            authority, hashes.SHA256()
        )

    def _entry(self, certificate: x509.Certificate, payload: bytes, signature: bytes, signed: int) -> Json:
        """The only leaf of a transparency log."""
        key = _key(f"{self.name} rekor")
        spec = {
            "envelopeHash": {"algorithm": "sha256", "value": "0" * 64},
            "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
            "signatures": [
                {
                    "signature": _b64(signature),
                    "verifier": _b64(certificate.public_bytes(serialization.Encoding.PEM)),
                }
            ],
        }
        body = json.dumps({"apiVersion": "0.0.1", "kind": "dsse", "spec": spec}).encode()
        root = hashlib.sha256(b"\0" + body).digest()
        note = f"rekor.{self.name}.example\n1\n{_b64(root)}\n"
        signed_note = _b64(_log_id(key)[:4] + key.sign(note.encode(), _SHA256))
        promised = rfc8785.dumps(
            {"body": _b64(body), "integratedTime": signed, "logID": _log_id(key).hex(), "logIndex": 0}
        )
        return {
            "logIndex": "0",
            "logId": {"keyId": _b64(_log_id(key))},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(signed),
            "inclusionPromise": {"signedEntryTimestamp": _b64(key.sign(promised, _SHA256))},
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": _b64(root),
                "treeSize": "1",
                "hashes": [],
                "checkpoint": {"envelope": f"{note}\n\u2014 rekor.{self.name}.example {signed_note}\n"},
            },
            "canonicalizedBody": _b64(body),
        }


def document(*bundles: Json, version: int = 1) -> bytes:
    """A provenance document of these bundles."""
    return json.dumps({"version": version, "attestation_bundles": list(bundles)}).encode()


def later(days: int) -> int:
    """A second after the usual one."""
    return SIGNED + int(timedelta(days=days).total_seconds())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _skid(key: ec.EllipticCurvePrivateKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(key.public_key())


def _usage(*, signs_certificates: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _utf8(text: str) -> bytes:
    return _tagged(12, text.encode())


def _tagged(tag: int, value: bytes) -> bytes:
    """DER: the tag, the length, the value."""
    if len(value) < 128:
        return bytes([tag, len(value)]) + value
    length = len(value).to_bytes((len(value).bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(length)]) + length + value
